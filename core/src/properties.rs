//! Java's properties text, in which tools send configuration (`MixAll#string2Properties`).

/// Properties of one text. A name given twice counts as it stands last, as in Java.
pub(crate) const PROPERTIES_MAX: usize = 4096;

/// Why a text is no properties.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PropertiesError {
    #[error("the properties are not UTF-8")]
    NotUtf8,
    #[error("malformed \\uXXXX in {line:?}")]
    Escape { line: String },
    #[error("more than {PROPERTIES_MAX} properties")]
    TooMany,
}

/// Names and values, in the order of the text.
///
/// Lines that begin with `#` or `!` are comments. The name ends at the first `=`, `:` or blank that is not escaped;
/// blanks around it are left out, and so are those in front of the value. A line that ends in a backslash goes on in
/// the next (`java.util.Properties#load`). Of the value's end, unlike Java, blanks are left out too: no property of
/// RocketMQ means them.
pub(crate) fn parse(text: &[u8]) -> Result<Vec<(String, String)>, PropertiesError> {
    let text = std::str::from_utf8(text).map_err(|_| PropertiesError::NotUtf8)?;
    let mut properties = Vec::new();
    let mut lines = text.split(['\n', '\r']);
    while let Some(line) = lines.next() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut whole = line.to_owned();
        while ends_in_escape(&whole) {
            whole.pop();
            whole.push_str(lines.next().unwrap_or_default().trim_start());
        }
        if properties.len() == PROPERTIES_MAX {
            return Err(PropertiesError::TooMany);
        }
        let (name, value) = split(whole.trim_end());
        let read = |escaped: &str| unescape(escaped).ok_or_else(|| malformed(&whole));
        properties.push((read(name)?, read(value)?));
    }
    Ok(properties)
}

/// An odd number of backslashes: the last one escapes the line's end.
fn ends_in_escape(line: &str) -> bool {
    line.bytes().rev().take_while(|&byte| byte == b'\\').count() % 2 == 1
}

fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|letter: char| {
        let ends = !escaped && (matches!(letter, '=' | ':') || letter.is_ascii_whitespace());
        escaped = letter == '\\' && !escaped;
        ends
    });
    let Some(end) = end else { return (line, "") };
    let (name, rest) = line.split_at(end);
    let rest = rest.trim_start();
    (name, rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start())
}

fn unescape(text: &str) -> Option<String> {
    let mut units = Vec::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        let letter = match letter {
            '\\' => match letters.next() {
                Some('u') => {
                    let digits = letters.as_str().get(..4)?;
                    units.push(u16::from_str_radix(digits, 16).ok()?);
                    letters = letters.as_str()[4..].chars();
                    continue;
                }
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some(other) => other,
                None => break,
            },
            letter => letter,
        };
        units.extend_from_slice(letter.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16(&units).ok()
}

fn malformed(line: &str) -> PropertiesError {
    PropertiesError::Escape { line: line.chars().take(100).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(String, String)> {
        parse(text.as_bytes()).unwrap()
    }

    fn one(name: &str, value: &str) -> Vec<(String, String)> {
        vec![(name.into(), value.into())]
    }

    #[test]
    fn names_and_values_are_split_as_java_does() {
        for text in ["a=1", " a = 1 ", "a:1", "a 1", "a\t=\t1", "#x\n\n!y\r\na=1\n"] {
            assert_eq!(parsed(text), one("a", "1"), "{text:?}");
        }
        assert_eq!(parsed("a"), one("a", ""));
        assert_eq!(parsed("a=b=c"), one("a", "b=c"));
        assert_eq!(parsed(r"a\=b=c\:d"), one("a=b", "c:d"));
        assert_eq!(parsed("delay=1s 5s 10s"), one("delay", "1s 5s 10s"));
        assert_eq!(parsed("a=1\nb=2"), [("a".into(), "1".into()), ("b".into(), "2".into())]);
    }

    #[test]
    fn escapes_and_continued_lines_are_read() {
        assert_eq!(parsed("a=one\\\n   two"), one("a", "onetwo"));
        assert_eq!(parsed("a=x\\\\\nb=2").len(), 2, "an escaped backslash ends no escape");
        assert_eq!(parsed(r"path=C\:\\data\tx"), one("path", "C:\\data\tx"));
        assert_eq!(parsed(r"a=\u00e9\u20AC\ud83c\udf75"), one("a", "é€🍵"));
        assert_eq!(parsed("a=é"), one("a", "é"));
    }

    #[test]
    fn what_is_no_text_is_refused() {
        assert_eq!(parse(b"a=\xff"), Err(PropertiesError::NotUtf8));
        for text in [r"a=\u12", r"a=\uzzzz", r"a=\ud83c"] {
            assert!(matches!(parse(text.as_bytes()), Err(PropertiesError::Escape { .. })), "{text}");
        }
        let many = "a=1\n".repeat(PROPERTIES_MAX + 1);
        assert_eq!(parse(many.as_bytes()), Err(PropertiesError::TooMany));
    }
}
