//! Patterns of LIKE: `%` stands for any characters, `_` for one, everything else for itself.
//!
//! RocketMQ took LIKE out of the grammar it inherited; it is back here with that grammar's meaning (ActiveMQ's
//! `LikeExpression`): of a property that is not there the answer is unknown, and an escape character makes the next
//! character stand for itself.

use memchr::memmem::Finder;

use super::lexer::SqlError;

/// Longest pattern. A pattern with `_` is tried at every place of a property of up to 32 KiB.
pub(super) const PATTERN_BYTES_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct LikePattern {
    /// What stands between the `%`; one piece if there is none.
    pieces: Box<[Piece]>,
}

#[derive(Debug)]
enum Piece {
    Text(Box<Finder<'static>>),
    /// With a `_` in it.
    Mixed(Box<[Part]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Byte(u8),
    /// One character, of one to four bytes.
    AnyChar,
}

impl LikePattern {
    pub(super) fn parse(pattern: &str, escape: Option<char>) -> Result<Self, SqlError> {
        if pattern.len() > PATTERN_BYTES_MAX {
            let found = pattern.len();
            return Err(SqlError::new(format!(
                "a LIKE pattern has {found} bytes, expected at most {PATTERN_BYTES_MAX}"
            )));
        }
        let mut pieces = Vec::new();
        let mut parts = Vec::new();
        let mut chars = pattern.chars();
        while let Some(char) = chars.next() {
            match char {
                _ if Some(char) == escape => {
                    let escaped = chars
                        .next()
                        .ok_or_else(|| SqlError::new("a LIKE pattern ends with its escape character"))?;
                    push_char(&mut parts, escaped);
                }
                '%' => pieces.push(Piece::of(&std::mem::take(&mut parts))),
                '_' => parts.push(Part::AnyChar),
                _ => push_char(&mut parts, char),
            }
        }
        pieces.push(Piece::of(&parts));
        Ok(LikePattern { pieces: pieces.into() })
    }

    /// What it takes more than a plain search, at each place of a text.
    pub(super) fn steps(&self) -> u32 {
        let steps = |piece: &Piece| match piece {
            Piece::Text(_) => 0,
            Piece::Mixed(parts) => parts.len() as u32,
        };
        self.pieces.iter().map(steps).sum()
    }

    /// The first piece stands at the beginning, the last at the end, each other as early as it can behind the one
    /// before: should that fail, nothing else would match.
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        let [first, between @ ..] = &*self.pieces else { unreachable!("a pattern has a piece at least") };
        let Some(mut at) = first.prefix(text) else { return false };
        let Some((last, between)) = between.split_last() else { return at == text.len() };
        for piece in between {
            match piece.find(&text[at..]) {
                Some(end) => at += end,
                None => return false,
            }
        }
        last.is_suffix(&text[at..])
    }
}

fn push_char(parts: &mut Vec<Part>, char: char) {
    parts.extend(char.encode_utf8(&mut [0; 4]).bytes().map(Part::Byte));
}

impl Piece {
    fn of(parts: &[Part]) -> Self {
        let bytes: Option<Vec<u8>> = parts
            .iter()
            .map(|part| match part {
                Part::Byte(byte) => Some(*byte),
                Part::AnyChar => None,
            })
            .collect();
        match bytes {
            Some(bytes) => Piece::Text(Box::new(Finder::new(&bytes).into_owned())),
            None => Piece::Mixed(parts.into()),
        }
    }

    /// How long the piece is where it stands at the beginning of `text`.
    fn prefix(&self, text: &[u8]) -> Option<usize> {
        match self {
            Piece::Text(finder) => text.starts_with(finder.needle()).then_some(finder.needle().len()),
            Piece::Mixed(parts) => {
                let mut at = 0;
                for part in parts {
                    at += match part {
                        Part::Byte(byte) => (text.get(at) == Some(byte)).then_some(1)?,
                        Part::AnyChar => char_len(text.get(at..)?)?,
                    };
                }
                Some(at)
            }
        }
    }

    /// Where the first place ends at which the piece stands in `text`.
    fn find(&self, text: &[u8]) -> Option<usize> {
        match self {
            Piece::Text(finder) => finder.find(text).map(|begin| begin + finder.needle().len()),
            Piece::Mixed(_) => char_begins(text).find_map(|at| Some(at + self.prefix(&text[at..])?)),
        }
    }

    fn is_suffix(&self, text: &[u8]) -> bool {
        match self {
            Piece::Text(finder) => text.ends_with(finder.needle()),
            Piece::Mixed(_) => char_begins(text).any(|at| self.prefix(&text[at..]) == Some(text.len() - at)),
        }
    }
}

/// Bytes of the first character; of what is not UTF-8, one.
fn char_len(text: &[u8]) -> Option<usize> {
    let continuation = |byte: &&u8| is_continuation(**byte);
    let (_, rest) = text.split_first()?;
    Some(1 + rest.iter().take(3).take_while(continuation).count())
}

fn char_begins(text: &[u8]) -> impl Iterator<Item = usize> {
    (0..text.len()).filter(|&at| !is_continuation(text[at]))
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn like(text: &str, pattern: &str) -> bool {
        LikePattern::parse(pattern, None).unwrap().matches(text.as_bytes())
    }

    /// The definition, by trying everything.
    fn is_like(text: &[char], pattern: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['%', rest @ ..] => (0..=text.len()).any(|skipped| is_like(&text[skipped..], rest)),
            ['_', rest @ ..] => !text.is_empty() && is_like(&text[1..], rest),
            [char, rest @ ..] => text.first() == Some(char) && is_like(&text[1..], rest),
        }
    }

    #[test]
    fn wildcards() {
        assert!(like("tea", "tea") && !like("tea", "te") && !like("tea", "ea"));
        assert!(like("green tea", "%tea") && like("green tea", "green%") && like("green tea", "%en t%"));
        assert!(like("tea", "t_a") && !like("tea", "t_") && like("tée", "t_e"));
        assert!(like("", "%") && like("", "") && !like("", "_") && !like("x", ""));
        assert!(!like("aba", "ab%ba"), "pieces do not overlap");
    }

    #[test]
    fn an_escaped_character_stands_for_itself() {
        let pattern = LikePattern::parse(r"100\%%", Some('\\')).unwrap();
        assert!(pattern.matches(b"100% tea") && !pattern.matches(b"1000 tea"));
        assert!(LikePattern::parse(r"100\", Some('\\')).is_err());
    }

    #[test]
    fn a_long_pattern_is_refused() {
        assert!(LikePattern::parse(&"a".repeat(PATTERN_BYTES_MAX), None).is_ok());
        let error = LikePattern::parse(&"a".repeat(PATTERN_BYTES_MAX + 1), None).unwrap_err();
        assert!(error.to_string().contains("257 bytes"), "{error}");
    }

    proptest! {
        #[test]
        fn matches_what_the_definition_does(text in "[abé]{0,8}", pattern in "[abé%_]{0,6}") {
            let (chars, wanted): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
            prop_assert_eq!(like(&text, &pattern), is_like(&chars, &wanted), "{} LIKE {}", text, pattern);
        }
    }
}
