//! An expression's text, cut into tokens.

use std::borrow::Cow;

use super::{DEPTH_MAX, EXPRESSION_BYTES_MAX, PROPERTIES_MAX};

/// Why an expression is none; answered with SUBSCRIPTION_PARSE_FAILED (23). It begins as RocketMQ's remark does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid MessageSelector. {reason}")]
pub struct SqlError {
    reason: Cow<'static, str>,
}

impl SqlError {
    pub(super) fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into() }
    }

    pub(super) fn too_deep() -> Self {
        Self::new(format!("the expression is nested more than {DEPTH_MAX} deep"))
    }

    pub(super) fn too_many_properties() -> Self {
        Self::new(format!("the expression names more than {PROPERTIES_MAX} properties"))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Keyword(Keyword),
    Property(&'a str),
    /// Digits, without the `L` that may follow them.
    Integer(&'a str),
    Float(&'a str),
    /// Without its quotes; doubled ones in it are single.
    Text(Cow<'a, str>),
    /// One of `( ) , + - = <> < <= > >=`.
    Symbol(&'static str),
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Not,
    And,
    Or,
    Between,
    In,
    True,
    False,
    Null,
    Is,
    Contains,
    StartsWith,
    EndsWith,
}

const KEYWORDS: [(&str, Keyword); 12] = [
    ("NOT", Keyword::Not),
    ("AND", Keyword::And),
    ("OR", Keyword::Or),
    ("BETWEEN", Keyword::Between),
    ("IN", Keyword::In),
    ("TRUE", Keyword::True),
    ("FALSE", Keyword::False),
    ("NULL", Keyword::Null),
    ("IS", Keyword::Is),
    ("CONTAINS", Keyword::Contains),
    ("STARTSWITH", Keyword::StartsWith),
    ("ENDSWITH", Keyword::EndsWith),
];

/// Those of two characters first.
const SYMBOLS: [&str; 11] = ["<>", "<=", ">=", "<", ">", "=", "(", ")", ",", "+", "-"];

pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, SqlError> {
        if text.len() > EXPRESSION_BYTES_MAX {
            let found = text.len();
            return Err(SqlError::new(format!(
                "the expression has {found} bytes, expected at most {EXPRESSION_BYTES_MAX}"
            )));
        }
        Ok(Self { text, at: 0 })
    }

    pub(super) fn next(&mut self) -> Result<Token<'a>, SqlError> {
        self.skip_blanks();
        let rest = &self.text[self.at..];
        let Some(first) = rest.chars().next() else { return Ok(Token::End) };
        let (len, token) = match first {
            '\'' => text_token(rest).ok_or_else(|| self.error("a text without its closing quote begins"))?,
            '0'..='9' | '.' => number_token(rest).ok_or_else(|| self.error("a number was expected"))?,
            'a'..='z' | 'A'..='Z' | '_' | '$' => word_token(rest),
            _ => symbol_token(rest).ok_or_else(|| self.error(&format!("{first:?} has no meaning")))?,
        };
        self.at += len;
        Ok(token)
    }

    /// An error at the place reached.
    pub(super) fn error(&self, what: &str) -> SqlError {
        SqlError::new(format!("{what} at character {}", self.text[..self.at].chars().count() + 1))
    }

    /// Blanks and comments. A comment that does not end is none, but two signs or an unknown character.
    fn skip_blanks(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
            let comment = match trimmed.get(..2) {
                Some("--") => trimmed.find(['\n', '\r']).map_or(0, |end| end + 1),
                Some("/*") => trimmed[2..].find("*/").map_or(0, |end| 2 + end + 2),
                _ => 0,
            };
            let skipped = rest.len() - trimmed.len() + comment;
            if skipped == 0 {
                return;
            }
            self.at += skipped;
        }
    }
}

fn text_token(rest: &str) -> Option<(usize, Token<'_>)> {
    let bytes = rest.as_bytes();
    let mut end = 1;
    let mut has_quotes = false;
    loop {
        end += bytes[end..].iter().position(|byte| *byte == b'\'')?;
        if bytes.get(end + 1) != Some(&b'\'') {
            break;
        }
        has_quotes = true;
        end += 2;
    }
    let inner = &rest[1..end];
    let text = if has_quotes { inner.replace("''", "'").into() } else { inner.into() };
    Some((end + 1, Token::Text(text)))
}

/// The longest of: `0`, an integer without leading zero and perhaps with `L`, a float.
fn number_token(rest: &str) -> Option<(usize, Token<'_>)> {
    let bytes = rest.as_bytes();
    let digits_from = |at: usize| at + bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits_from(0);
    let mut end = whole;
    let mut is_float = false;
    if bytes.get(end) == Some(&b'.') {
        let fraction = digits_from(end + 1);
        if whole > 0 || fraction > end + 1 {
            (end, is_float) = (fraction, true);
        }
    }
    if end > 0 && matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits_from(end + 1 + sign);
        if exponent > end + 1 + sign {
            (end, is_float) = (exponent, true);
        }
    }
    if is_float {
        return Some((end, Token::Float(&rest[..end])));
    }
    if bytes[0] == b'0' {
        return Some((1, Token::Integer("0")));
    }
    let is_long = matches!(bytes.get(whole), Some(b'l' | b'L'));
    (whole > 0).then(|| (whole + usize::from(is_long), Token::Integer(&rest[..whole])))
}

fn word_token(rest: &str) -> (usize, Token<'_>) {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$');
    let len = rest.bytes().take_while(is_part).count();
    let word = &rest[..len];
    let keyword = KEYWORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    (len, keyword.map_or(Token::Property(word), |(_, keyword)| Token::Keyword(*keyword)))
}

fn symbol_token(rest: &str) -> Option<(usize, Token<'static>)> {
    SYMBOLS
        .iter()
        .find(|symbol| rest.starts_with(**symbol))
        .map(|symbol| (symbol.len(), Token::Symbol(symbol)))
}
