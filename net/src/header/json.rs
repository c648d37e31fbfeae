//! The JSON header: an object of known members, read by tokens and written by hand.
//!
//! ```json
//! {"code":105,"extFields":{"topic":"T"},"flag":0,"language":"JAVA","opaque":7,"serializeTypeCurrentRPC":"JSON","version":479}
//! ```
//!
//! As tolerant as Java's reader (fastjson): any order, absent and unknown members, numbers where texts belong and the
//! reverse. Written in Java's order (`RemotingSerializable#encode` sorts names), every extra field as a JSON string,
//! because Go refuses and C++ drops anything else.

use std::borrow::Cow;
use std::fmt;

use bytes::BytesMut;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::ext::Text;
use super::ext_writer::{HeaderWriter, VERSION};
use super::{ExtFields, Header, HeaderError, Language, plain_json};

pub(super) fn decode(bytes: &[u8]) -> Result<Header<'_>, HeaderError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => decode_text(text),
        // C++ clients send whatever their users' strings hold. Repaired as Java does (`new String(bytes, UTF_8)`).
        Err(_) => Ok(decode_text(&String::from_utf8_lossy(bytes))?.detached()),
    }
}

fn decode_text(text: &str) -> Result<Header<'_>, HeaderError> {
    let mut header = Header::empty();
    match plain_json::decode_into(text, &mut header) {
        Some(()) => Ok(header),
        None => decode_tolerantly(text),
    }
}

pub(super) fn decode_tolerantly(text: &str) -> Result<Header<'_>, HeaderError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let header = deserializer.deserialize_map(HeaderVisitor)?;
    deserializer.end()?;
    Ok(header)
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a header object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Header<'de>, A::Error> {
        let mut header = Header::empty();
        while let Some(name) = members.next_key_seed(Name(&mut header.ext))? {
            match header.ext.text(&name) {
                "code" => header.code = members.next_value_seed(Int)?,
                "language" => header.language = members.next_value_seed(LanguageValue)?,
                "version" => header.version = members.next_value_seed(Int)?,
                "opaque" => header.opaque = members.next_value_seed(Int)?,
                "flag" => header.flag = members.next_value_seed(Int)?,
                "remark" => header.remark = scalar(members.next_value()?).map(Scalar::into_cow),
                "extFields" => members.next_value_seed(ExtVisitor(&mut header.ext))?,
                _ => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(header)
    }
}

/// Name of a member or field; escaped only if someone is being difficult.
struct Name<'e, 'a>(&'e mut ExtFields<'a>);

impl<'de> DeserializeSeed<'de> for Name<'_, 'de> {
    type Value = Text<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Text<'de>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name<'_, 'de> {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: de::Error>(self, name: &'de str) -> Result<Text<'de>, E> {
        Ok(Text::Frame(name))
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Text<'de>, E> {
        Ok(self.0.unescaped(|push| push(name)))
    }
}

struct ExtVisitor<'e, 'a>(&'e mut ExtFields<'a>);

impl<'de> DeserializeSeed<'de> for ExtVisitor<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ExtVisitor<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of extra fields")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(name) = fields.next_key_seed(Name(self.0))? {
            let value = match scalar(fields.next_value()?) {
                None => continue,
                Some(Scalar::Plain(text)) => Text::Frame(text),
                Some(Scalar::Escaped(text)) => self.0.unescaped(|push| unescape(text, push)),
            };
            self.0.push(name, value).map_err(de::Error::custom)?;
        }
        Ok(())
    }
}

/// A value read as a text, as it stands in the frame.
pub(super) enum Scalar<'a> {
    Plain(&'a str),
    /// Between the quotes, escapes still in place.
    Escaped(&'a str),
}

/// Java coerces what is not a string by writing it down again; here it never stopped being written. Null is absence.
fn scalar(raw: &RawValue) -> Option<Scalar<'_>> {
    let text = raw.get();
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(inner) if inner.contains('\\') => Some(Scalar::Escaped(inner)),
        Some(inner) => Some(Scalar::Plain(inner)),
        None if text == "null" => None,
        None => Some(Scalar::Plain(text)),
    }
}

impl<'a> Scalar<'a> {
    pub(super) fn into_cow(self) -> Cow<'a, str> {
        match self {
            Self::Plain(text) => Cow::Borrowed(text),
            Self::Escaped(text) => {
                let mut unescaped = String::with_capacity(text.len());
                unescape(text, &mut |piece| unescaped.push_str(piece));
                Cow::Owned(unescaped)
            }
        }
    }
}

/// Gives the inside of a JSON string piece by piece. Its escapes were checked when its token was read.
///
/// Half a surrogate pair becomes `?`, which is what Java makes of it when it stores the text (`String#getBytes`).
pub(super) fn unescape(mut rest: &str, push: &mut dyn FnMut(&str)) {
    while let Some(at) = rest.find('\\') {
        push(&rest[..at]);
        let mut chars = rest[at + 1..].chars();
        let char = match chars.next() {
            Some('u') => match take_utf16_unit(&mut chars) {
                Some(high @ 0xD800..0xDC00) => take_low_surrogate(&mut chars)
                    .and_then(|low| char::decode_utf16([high, low]).next()?.ok())
                    .unwrap_or('?'),
                Some(unit) => char::from_u32(unit.into()).unwrap_or('?'),
                None => '?',
            },
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some(itself) => itself,
            None => break,
        };
        push(char.encode_utf8(&mut [0; 4]));
        rest = chars.as_str();
    }
    push(rest);
}

fn take_utf16_unit(chars: &mut std::str::Chars<'_>) -> Option<u16> {
    let rest = chars.as_str();
    let unit = u16::from_str_radix(rest.get(..4)?, 16).ok()?;
    *chars = rest[4..].chars();
    Some(unit)
}

/// The second half of a pair, if it follows; otherwise nothing is taken.
fn take_low_surrogate(chars: &mut std::str::Chars<'_>) -> Option<u16> {
    let mut ahead = chars.as_str().strip_prefix("\\u")?.chars();
    let low = take_utf16_unit(&mut ahead).filter(|unit| (0xDC00..0xE000).contains(unit))?;
    *chars = ahead;
    Some(low)
}

/// A number, perhaps written as a string; null is zero.
struct Int;

impl<'de> DeserializeSeed<'de> for Int {
    type Value = i32;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<i32, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Int {
    type Value = i32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a 32-bit integer")
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<i32, E> {
        i32::try_from(value).map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<i32, E> {
        i32::try_from(value).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<i32, E> {
        text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_unit<E: de::Error>(self) -> Result<i32, E> {
        Ok(0)
    }
}

/// A language's name, or its ordinal, or anything else.
struct LanguageValue;

impl<'de> DeserializeSeed<'de> for LanguageValue {
    type Value = Language;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Language, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for LanguageValue {
    type Value = Language;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a language")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Language, E> {
        Ok(Language::from_name(name))
    }

    fn visit_u64<E: de::Error>(self, ordinal: u64) -> Result<Language, E> {
        Ok(u8::try_from(ordinal).map_or(Language::Unknown, Language::from_byte))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Language, E> {
        Ok(Language::Unknown)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Language, E> {
        Ok(Language::Unknown)
    }
}

/// Members in Java's order; `extFields` even when empty, because the Java client reads the map of every reply unasked
/// (`MQClientAPIImpl#processSendResponse`).
pub(super) fn write(out: &mut BytesMut, header: &HeaderWriter<'_>) {
    let mut int = itoa::Buffer::new();
    out.extend_from_slice(b"{\"code\":");
    out.extend_from_slice(int.format(header.code).as_bytes());
    out.extend_from_slice(b",\"extFields\":{");
    header.write_ext(out);
    out.extend_from_slice(b"},\"flag\":");
    out.extend_from_slice(int.format(header.flag).as_bytes());
    out.extend_from_slice(b",\"language\":\"JAVA\",\"opaque\":");
    out.extend_from_slice(int.format(header.opaque).as_bytes());
    if let Some(remark) = header.remark() {
        out.extend_from_slice(b",\"remark\":");
        write_string(out, remark);
    }
    out.extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
    out.extend_from_slice(int.format(VERSION).as_bytes());
    out.extend_from_slice(b"}");
}

pub(super) fn write_string(out: &mut BytesMut, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\"");
    let mut plain_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&text.as_bytes()[plain_from..at]);
        plain_from = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            _ => {
                let hex = [HEX[(byte >> 4) as usize], HEX[(byte & 15) as usize]];
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex[0], hex[1]]);
            }
        }
    }
    out.extend_from_slice(&text.as_bytes()[plain_from..]);
    out.extend_from_slice(b"\"");
}
