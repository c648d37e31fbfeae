//! fastjson text: what RocketMQ calls JSON. Every deviation from RFC 8259 is in this file and nowhere else.
//!
//! Java servers and clients write (fastjson 1.2, `RemotingSerializable#encode`):
//!
//! - numeric map keys without quotes: `{0:"127.0.0.1:10911"}`;
//! - objects as map keys: `{{"brokerName":"a","queueId":0,"topic":"T"}:5}`;
//! - members in alphabetical order, no blanks, members that are null left out.
//!
//! They read more than they write, and Go and C++ clients depend on it: quoted numbers and booleans, enums as
//! names or ordinals, an unknown enum name as null, null and absent members as the class's default, unknown
//! members, names in another case, map keys quoted or not, an object key wrapped in a string.
//!
//! [`Reader`] is a pull parser over the whole body: nothing is built that is not asked for, and what the sender
//! controls is bounded ([`DEPTH_MAX`], [`ELEMENTS_MAX`]). [`Writer`] is its counterpart. A body is declared once
//! with the macro `body!`, which derives both directions from one list of members.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;

/// Nesting beyond which a body is refused. RocketMQ's deepest body, `ConsumeStatsList`, needs seven levels.
pub const DEPTH_MAX: u32 = 64;

/// List elements and map entries that one body may hold altogether. A frame of 16 MiB has room for some 100,000
/// topic configurations with attributes; without the limit, `[{},{},…]` would grow a hundredfold in memory.
pub const ELEMENTS_MAX: u32 = 1 << 19;

/// Why a body was refused, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("body {}at byte {at}: {problem}", member_text(.member))]
pub struct BodyError {
    /// Innermost declared member that was being read.
    pub member: Option<&'static str>,
    /// Offset in the body, or in the string for an object key wrapped in one.
    pub at: usize,
    pub problem: BodyProblem,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyProblem {
    #[error("expected {0}")]
    Expected(&'static str),
    #[error("nested deeper than {DEPTH_MAX}")]
    TooDeep,
    #[error("more than {ELEMENTS_MAX} elements")]
    TooManyElements,
    #[error("not UTF-8")]
    NotUtf8,
}

fn member_text(member: &Option<&'static str>) -> String {
    member.map(|name| format!("member {name:?} ")).unwrap_or_default()
}

/// Parses a whole body. A body that is `null` or holds anything after its value is refused.
pub fn parse<T: FromFastjson>(body: &[u8]) -> Result<T, BodyError> {
    let text = std::str::from_utf8(body).map_err(|error| BodyError {
        member: None,
        at: error.valid_up_to(),
        problem: BodyProblem::NotUtf8,
    })?;
    parse_text(text)
}

/// Writes a body the way fastjson does: numeric map keys without quotes. Right for everything but routes.
pub fn to_fastjson<T: ToFastjson + ?Sized>(body: &T) -> Bytes {
    write_body(body, NumericKeys::Bare)
}

/// Writes a body with numeric map keys in quotes, which is JSON proper. Routes for clients from 4.9.4 on
/// (`GetRouteInfoRequestHeader.acceptStandardJsonOnly`).
pub fn to_standard_json<T: ToFastjson + ?Sized>(body: &T) -> Bytes {
    write_body(body, NumericKeys::Quoted)
}

fn write_body<T: ToFastjson + ?Sized>(body: &T, numeric_keys: NumericKeys) -> Bytes {
    let mut writer = Writer { text: String::with_capacity(256), numeric_keys };
    body.write(&mut writer);
    Bytes::from(writer.text)
}

fn parse_text<T: FromFastjson>(text: &str) -> Result<T, BodyError> {
    let mut reader = Reader { text, at: 0, depth: 0, elements: 0 };
    reader.whole_value()
}

/// Something that can be read from fastjson text.
pub trait FromFastjson: Sized {
    /// Reads one value. `None` stands for null and for what fastjson turns into null: an unknown enum name, an
    /// empty string where a number belongs. The caller then keeps its default.
    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, BodyError>;
}

/// Something that can be written as fastjson text.
pub trait ToFastjson {
    fn write(&self, writer: &mut Writer);

    /// Members that are null are left out altogether.
    fn is_null(&self) -> bool {
        false
    }
}

/// A type that is the key of a map: a string, a number, or an object such as a message queue.
pub trait MapKey: Ord + Sized {
    fn read_key(reader: &mut Reader<'_>) -> Result<Self, BodyError>;
    fn write_key(&self, writer: &mut Writer);
}

/// Declares a body once: its Rust fields, their names on the wire in alphabetical order, and the defaults of the
/// Java class where they are not zero, empty or null. Derives `Default`, [`FromFastjson`] and [`ToFastjson`].
///
/// A member may have a second name that is understood but never written. `finished by` names a method that puts a
/// body in order after it has been read.
macro_rules! body {
    (
        $(#[$attribute:meta])*
        pub struct $body:ident {
            $(
                $(#[$member_attribute:meta])*
                $name:literal $(| $alias:literal)? => $field:ident: $type:ty $(= $default:expr)?
            ),* $(,)?
        }
        $(finished by $finish:path)?
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $body {
            $( $(#[$member_attribute])* pub $field: $type, )*
        }

        impl Default for $body {
            fn default() -> Self {
                Self { $( $field: $crate::body::fastjson::default_of!($type $(, $default)?), )* }
            }
        }

        impl $crate::body::fastjson::FromFastjson for $body {
            fn read(
                reader: &mut $crate::body::fastjson::Reader<'_>,
            ) -> Result<Option<Self>, $crate::body::fastjson::BodyError> {
                let mut body = Self::default();
                let present = reader.object(|reader, name| {
                    $(
                        if name.eq_ignore_ascii_case($name) $(|| name.eq_ignore_ascii_case($alias))? {
                            return reader.member($name, &mut body.$field);
                        }
                    )*
                    reader.skip()
                })?;
                $( $finish(&mut body); )?
                Ok(present.then_some(body))
            }
        }

        impl $crate::body::fastjson::ToFastjson for $body {
            fn write(&self, writer: &mut $crate::body::fastjson::Writer) {
                const { $crate::body::fastjson::assert_alphabetical(&[$($name),*]) };
                let mut object = writer.object();
                $( object.member($name, &self.$field); )*
                object.end();
            }
        }
    };
}
pub(crate) use body;

macro_rules! default_of {
    ($type:ty) => {
        <$type>::default()
    };
    ($type:ty, $default:expr) => {
        $default
    };
}
pub(crate) use default_of;

/// Declares an enum that Java writes as its name and accepts as its name or its ordinal. The variants stand in the
/// order of the Java class, so that the ordinal is the position in the list; the first is the default.
macro_rules! body_enum {
    (
        $(#[$attribute:meta])*
        pub enum $body:ident {
            $( $(#[$variant_attribute:meta])* $variant:ident = $name:literal ),* $(,)?
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum $body {
            #[default]
            $( $(#[$variant_attribute])* $variant, )*
        }

        impl $body {
            /// In the order of the Java class.
            pub const ALL: &[$body] = &[$( $body::$variant ),*];

            /// The Java constant.
            pub const fn name(self) -> &'static str {
                match self { $( $body::$variant => $name, )* }
            }

            /// The variant of a Java constant's name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $( $name => Some($body::$variant), )*
                    _ => None,
                }
            }
        }

        impl $crate::body::fastjson::FromFastjson for $body {
            fn read(
                reader: &mut $crate::body::fastjson::Reader<'_>,
            ) -> Result<Option<Self>, $crate::body::fastjson::BodyError> {
                use $crate::body::fastjson::Scalar;
                Ok(match reader.scalar("an enum's name or ordinal")? {
                    Scalar::Text(name) => Self::from_name(&name),
                    Scalar::Number(ordinal) => {
                        ordinal.parse::<usize>().ok().and_then(|ordinal| Self::ALL.get(ordinal).copied())
                    }
                    Scalar::Boolean(_) | Scalar::Null => None,
                })
            }
        }

        impl $crate::body::fastjson::ToFastjson for $body {
            fn write(&self, writer: &mut $crate::body::fastjson::Writer) {
                writer.string(self.name());
            }
        }
    };
}
pub(crate) use body_enum;

/// Compile-time check behind [`body!`]: Java writes members in the order of their names.
pub(crate) const fn assert_alphabetical(names: &[&str]) {
    let mut i = 1;
    while i < names.len() {
        assert!(
            ascending(names[i - 1].as_bytes(), names[i].as_bytes()),
            "members must be in alphabetical order"
        );
        i += 1;
    }
}

const fn ascending(left: &[u8], right: &[u8]) -> bool {
    let mut i = 0;
    while i < left.len() && i < right.len() {
        if left[i] != right[i] {
            return left[i] < right[i];
        }
        i += 1;
    }
    left.len() < right.len()
}

/// A value that is neither object nor list.
#[derive(Debug)]
pub enum Scalar<'a> {
    Text(Cow<'a, str>),
    /// As written; whoever wants a number decides which.
    Number(&'a str),
    Boolean(bool),
    Null,
}

/// Pull parser over one body.
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
    elements: u32,
}

impl<'a> Reader<'a> {
    /// Reads an object, calling `member` with each name; `member` must read or [`skip`](Self::skip) the value.
    /// False for null.
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &str) -> Result<(), BodyError>,
    ) -> Result<bool, BodyError> {
        self.entries(|reader| match reader.peek() {
            // An object as the key of what should have fixed members: unknown, hence ignored.
            Some(b'{' | b'[') => {
                reader.skip()?;
                reader.expect(b':', "':'")?;
                reader.skip()
            }
            _ => {
                let name = reader.key_text()?;
                reader.expect(b':', "':'")?;
                member(reader, &name)
            }
        })
    }

    /// Reads the value of a member into its place; null leaves what is there.
    pub fn member<T: FromFastjson>(&mut self, name: &'static str, place: &mut T) -> Result<(), BodyError> {
        let value = T::read(self).map_err(|mut error| {
            error.member.get_or_insert(name);
            error
        })?;
        if let Some(value) = value {
            *place = value;
        }
        Ok(())
    }

    /// Reads a list, calling `element` before each of its values. False for null.
    pub fn list(
        &mut self,
        element: impl FnMut(&mut Self) -> Result<(), BodyError>,
    ) -> Result<bool, BodyError> {
        if self.take_null() {
            return Ok(false);
        }
        self.sequence((b'[', "'['"), (b']', "',' or ']'"), element)?;
        Ok(true)
    }

    /// Reads a string, number, boolean or null; `expected` names what the caller hoped for.
    pub fn scalar(&mut self, expected: &'static str) -> Result<Scalar<'a>, BodyError> {
        match self.peek() {
            Some(b'"' | b'\'') => Ok(Scalar::Text(self.string()?)),
            Some(b'-' | b'+' | b'.' | b'0'..=b'9') => {
                let number =
                    self.take_while(|byte| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'));
                Ok(Scalar::Number(number))
            }
            Some(b'a'..=b'z') => {
                let start = self.at;
                match self.take_while(|byte| byte.is_ascii_alphanumeric()) {
                    "true" => Ok(Scalar::Boolean(true)),
                    "false" => Ok(Scalar::Boolean(false)),
                    "null" => Ok(Scalar::Null),
                    _ => Err(expected_at(start, expected)),
                }
            }
            _ => Err(expected_at(self.at, expected)),
        }
    }

    /// Passes over a value of any kind, which keeps unknown members harmless.
    pub fn skip(&mut self) -> Result<(), BodyError> {
        match self.peek() {
            Some(b'{') => self.sequence((b'{', "'{'"), (b'}', "',' or '}'"), |reader| {
                match reader.peek() {
                    Some(b'{' | b'[') => reader.skip()?,
                    _ => drop(reader.key_text()?),
                }
                reader.expect(b':', "':'")?;
                reader.skip()
            }),
            Some(b'[') => self.sequence((b'[', "'['"), (b']', "',' or ']'"), Self::skip),
            _ => self.scalar("a value").map(drop),
        }
    }

    /// Passes over a value and returns its text.
    pub fn raw(&mut self) -> Result<&'a str, BodyError> {
        self.blanks();
        let start = self.at;
        self.skip()?;
        Ok(&self.text[start..self.at])
    }

    /// Counts one element that will be kept.
    fn count_element(&mut self) -> Result<(), BodyError> {
        self.elements += 1;
        if self.elements > ELEMENTS_MAX {
            return Err(BodyError { member: None, at: self.at, problem: BodyProblem::TooManyElements });
        }
        Ok(())
    }

    fn whole_value<T: FromFastjson>(&mut self) -> Result<T, BodyError> {
        let Some(value) = T::read(self)? else { return Err(expected_at(0, "a value other than null")) };
        self.blanks();
        if self.at < self.text.len() {
            return Err(expected_at(self.at, "the end of the body"));
        }
        Ok(value)
    }

    fn entries(&mut self, entry: impl FnMut(&mut Self) -> Result<(), BodyError>) -> Result<bool, BodyError> {
        if self.take_null() {
            return Ok(false);
        }
        self.sequence((b'{', "'{'"), (b'}', "',' or '}'"), entry)?;
        Ok(true)
    }

    fn sequence(
        &mut self,
        (open, open_name): (u8, &'static str),
        (close, close_name): (u8, &'static str),
        mut element: impl FnMut(&mut Self) -> Result<(), BodyError>,
    ) -> Result<(), BodyError> {
        self.expect(open, open_name)?;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(BodyError { member: None, at: self.at, problem: BodyProblem::TooDeep });
        }
        if self.peek() == Some(close) {
            self.at += 1;
        } else {
            loop {
                element(self)?;
                if self.peek() == Some(b',') {
                    self.at += 1;
                } else {
                    self.expect(close, close_name)?;
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// A key that is a string, a bare number or a bare word.
    fn key_text(&mut self) -> Result<Cow<'a, str>, BodyError> {
        match self.peek() {
            Some(b'"' | b'\'') => self.string(),
            _ => {
                let start = self.at;
                let key = self.take_while(|byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'$' | b'.')
                });
                if key.is_empty() { Err(expected_at(start, "a key")) } else { Ok(Cow::Borrowed(key)) }
            }
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, BodyError> {
        let text = self.text;
        let quote = text.as_bytes()[self.at];
        let start = self.at + 1;
        let mut clean_from = start;
        let mut unescaped = String::new();
        self.at = start;
        loop {
            match text.as_bytes().get(self.at) {
                None => return Err(expected_at(self.at, "the end of a string")),
                Some(b'\\') => {
                    unescaped.push_str(&text[clean_from..self.at]);
                    self.at += 1;
                    unescaped.push(self.escape()?);
                    clean_from = self.at;
                }
                Some(byte) if *byte == quote => break,
                Some(_) => self.at += 1,
            }
        }
        let rest = &text[clean_from..self.at];
        self.at += 1;
        if clean_from == start {
            return Ok(Cow::Borrowed(rest));
        }
        unescaped.push_str(rest);
        Ok(Cow::Owned(unescaped))
    }

    /// The character behind a backslash that has been passed.
    fn escape(&mut self) -> Result<char, BodyError> {
        let start = self.at;
        let escaped = self.text.as_bytes().get(self.at).copied();
        self.at += 1;
        Ok(match escaped {
            Some(quoted @ (b'"' | b'\'' | b'\\' | b'/')) => char::from(quoted),
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'u') => {
                let high = self.utf16_unit()?;
                let followed = self.text.as_bytes().get(self.at..self.at + 2) == Some(b"\\u");
                if !(0xD800..0xDC00).contains(&high) || !followed {
                    return Ok(char::from_u32(u32::from(high)).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                let before_low = self.at;
                self.at += 2;
                let low = self.utf16_unit()?;
                match char::decode_utf16([high, low]).next() {
                    Some(Ok(character)) => character,
                    _ => {
                        self.at = before_low;
                        char::REPLACEMENT_CHARACTER
                    }
                }
            }
            _ => return Err(expected_at(start, "an escape character")),
        })
    }

    fn utf16_unit(&mut self) -> Result<u16, BodyError> {
        let unit = self
            .text
            .as_bytes()
            .get(self.at..self.at + 4)
            .and_then(|digits| {
                digits.iter().try_fold(0u32, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
            })
            .ok_or_else(|| expected_at(self.at, "four hexadecimal digits"))?;
        self.at += 4;
        Ok(unit as u16)
    }

    fn take_null(&mut self) -> bool {
        self.blanks();
        let null = self.text[self.at..].starts_with("null");
        if null {
            self.at += "null".len();
        }
        null
    }

    fn take_while(&mut self, wanted: impl Fn(&u8) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let len = rest.bytes().take_while(|byte| byte.is_ascii() && wanted(byte)).count();
        self.at += len;
        &rest[..len]
    }

    /// The next byte that is not blank, not consumed.
    fn peek(&mut self) -> Option<u8> {
        self.blanks();
        self.text.as_bytes().get(self.at).copied()
    }

    fn expect(&mut self, byte: u8, name: &'static str) -> Result<(), BodyError> {
        if self.peek() != Some(byte) {
            return Err(expected_at(self.at, name));
        }
        self.at += 1;
        Ok(())
    }

    fn blanks(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
    }
}

fn expected_at(at: usize, expected: &'static str) -> BodyError {
    BodyError { member: None, at, problem: BodyProblem::Expected(expected) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NumericKeys {
    Bare,
    Quoted,
}

/// Builds one body.
pub struct Writer {
    text: String,
    numeric_keys: NumericKeys,
}

impl Writer {
    pub(super) fn new() -> Self {
        Writer { text: String::with_capacity(256), numeric_keys: NumericKeys::Bare }
    }

    /// Writes text that is JSON already.
    pub(super) fn raw(&mut self, text: &str) {
        self.text.push_str(text);
    }

    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// What was written since the last time.
    pub(super) fn take(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.text))
    }

    /// Opens an object with named members.
    pub fn object(&mut self) -> ObjectWriter<'_> {
        self.text.push('{');
        ObjectWriter { writer: self, first: true }
    }

    /// Writes a string in quotes, escaped.
    pub fn string(&mut self, string: &str) {
        self.text.push('"');
        let mut clean_from = 0;
        for (at, byte) in string.bytes().enumerate() {
            let escape = match byte {
                b'"' => "\\\"",
                b'\\' => "\\\\",
                b'\n' => "\\n",
                b'\r' => "\\r",
                b'\t' => "\\t",
                0x08 => "\\b",
                0x0c => "\\f",
                0..=0x1f => "",
                _ => continue,
            };
            self.text.push_str(&string[clean_from..at]);
            if escape.is_empty() {
                self.display(format_args!("\\u{byte:04x}"));
            } else {
                self.text.push_str(escape);
            }
            clean_from = at + 1;
        }
        self.text.push_str(&string[clean_from..]);
        self.text.push('"');
    }

    fn display(&mut self, value: impl std::fmt::Display) {
        write!(self.text, "{value}").expect("writing to a string cannot fail");
    }
}

/// An object being written.
pub struct ObjectWriter<'a> {
    writer: &'a mut Writer,
    first: bool,
}

impl ObjectWriter<'_> {
    /// Writes one member, or nothing if it is null.
    pub fn member<T: ToFastjson + ?Sized>(&mut self, name: &str, value: &T) {
        if value.is_null() {
            return;
        }
        self.comma();
        self.writer.string(name);
        self.writer.text.push(':');
        value.write(self.writer);
    }

    fn entry<K: MapKey, V: ToFastjson>(&mut self, key: &K, value: &V) {
        self.comma();
        key.write_key(self.writer);
        self.writer.text.push(':');
        value.write(self.writer);
    }

    fn comma(&mut self) {
        if !std::mem::take(&mut self.first) {
            self.writer.text.push(',');
        }
    }

    /// Closes the object.
    pub fn end(self) {
        self.writer.text.push('}');
    }
}

/// A value that is passed on as it came. It must be one that a [`Reader`] has passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawValue(Box<str>);

impl RawValue {
    /// The text of exactly one value.
    pub fn parse(text: &str) -> Result<Self, BodyError> {
        parse_text(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromFastjson for RawValue {
    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, BodyError> {
        if reader.take_null() {
            return Ok(None);
        }
        Ok(Some(RawValue(reader.raw()?.into())))
    }
}

impl ToFastjson for RawValue {
    fn write(&self, writer: &mut Writer) {
        writer.text.push_str(&self.0);
    }
}

impl FromFastjson for String {
    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, BodyError> {
        Ok(match reader.scalar("a string")? {
            Scalar::Text(text) => Some(text.into_owned()),
            Scalar::Number(number) => Some(number.to_owned()),
            Scalar::Boolean(boolean) => Some(boolean.to_string()),
            Scalar::Null => None,
        })
    }
}

impl ToFastjson for String {
    fn write(&self, writer: &mut Writer) {
        writer.string(self);
    }
}

impl MapKey for String {
    fn read_key(reader: &mut Reader<'_>) -> Result<Self, BodyError> {
        reader.key_text().map(Cow::into_owned)
    }

    fn write_key(&self, writer: &mut Writer) {
        writer.string(self);
    }
}

/// fastjson `TypeUtils#castToBoolean`.
impl FromFastjson for bool {
    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, BodyError> {
        let start = reader.at;
        Ok(match reader.scalar("a boolean")? {
            Scalar::Boolean(boolean) => Some(boolean),
            Scalar::Number(number) => Some(number == "1"),
            Scalar::Text(text) if text.eq_ignore_ascii_case("true") || text == "1" => Some(true),
            Scalar::Text(text) if text.eq_ignore_ascii_case("false") || text == "0" => Some(false),
            Scalar::Text(text) if text.is_empty() || text.eq_ignore_ascii_case("null") => None,
            Scalar::Text(_) => return Err(expected_at(start, "a boolean")),
            Scalar::Null => None,
        })
    }
}

impl ToFastjson for bool {
    fn write(&self, writer: &mut Writer) {
        writer.text.push_str(if *self { "true" } else { "false" });
    }
}

macro_rules! integers {
    ($($integer:ident: $expected:literal),*) => {$(
        impl FromFastjson for $integer {
            fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, BodyError> {
                let start = reader.at;
                let parsed = match reader.scalar($expected)? {
                    Scalar::Number(number) => parse_integer(number),
                    Scalar::Text(text) if is_null_text(&text) => return Ok(None),
                    Scalar::Text(text) => parse_integer(text.trim()),
                    Scalar::Boolean(_) => None,
                    Scalar::Null => return Ok(None),
                };
                let narrowed = parsed.and_then(|integer| $integer::try_from(integer).ok());
                narrowed.map(Some).ok_or_else(|| expected_at(start, $expected))
            }
        }

        impl ToFastjson for $integer {
            fn write(&self, writer: &mut Writer) {
                writer.display(self);
            }
        }

        impl MapKey for $integer {
            fn read_key(reader: &mut Reader<'_>) -> Result<Self, BodyError> {
                let start = reader.at;
                reader.key_text()?.parse().map_err(|_| expected_at(start, $expected))
            }

            fn write_key(&self, writer: &mut Writer) {
                match writer.numeric_keys {
                    NumericKeys::Bare => writer.display(self),
                    NumericKeys::Quoted => writer.display(format_args!("\"{self}\"")),
                }
            }
        }
    )*};
}

integers!(i32: "a 32-bit integer", i64: "a 64-bit integer");

/// A whole number, also when it is written as `3.0` or `3e2` as C++ JSON libraries may.
fn parse_integer(number: &str) -> Option<i64> {
    /// From here on a double no longer holds every integer.
    const EXACT_MAX: f64 = (1u64 << 53) as f64;
    number.parse().ok().or_else(|| {
        let double: f64 = number.parse().ok()?;
        (double.fract() == 0.0 && double.abs() <= EXACT_MAX).then_some(double as i64)
    })
}

fn is_null_text(text: &str) -> bool {
    text.is_empty() || text.eq_ignore_ascii_case("null")
}

impl FromFastjson for f64 {
    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, BodyError> {
        let start = reader.at;
        let parsed: Option<f64> = match reader.scalar("a number")? {
            Scalar::Number(number) => number.parse().ok(),
            Scalar::Text(text) if is_null_text(&text) => return Ok(None),
            Scalar::Text(text) => text.trim().parse().ok(),
            Scalar::Boolean(_) => None,
            Scalar::Null => return Ok(None),
        };
        parsed
            .filter(|number| number.is_finite())
            .map(Some)
            .ok_or_else(|| expected_at(start, "a finite number"))
    }
}

/// Java's form for the usual magnitudes: `0.0`, `12.5`. What is not finite becomes null, as with fastjson.
impl ToFastjson for f64 {
    fn write(&self, writer: &mut Writer) {
        if self.is_finite() {
            writer.display(format_args!("{self:?}"));
        } else {
            writer.text.push_str("null");
        }
    }
}

impl<T: FromFastjson> FromFastjson for Option<T> {
    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, BodyError> {
        Ok(T::read(reader)?.map(Some))
    }
}

impl<T: ToFastjson> ToFastjson for Option<T> {
    fn write(&self, writer: &mut Writer) {
        match self {
            Some(value) => value.write(writer),
            None => writer.text.push_str("null"),
        }
    }

    fn is_null(&self) -> bool {
        self.is_none()
    }
}

/// Null elements are dropped: Java would keep them and fail later.
impl<T: FromFastjson> FromFastjson for Vec<T> {
    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, BodyError> {
        let mut list = Vec::new();
        let present = reader.list(|reader| {
            reader.count_element()?;
            list.extend(T::read(reader)?);
            Ok(())
        })?;
        Ok(present.then_some(list))
    }
}

impl<T: ToFastjson> ToFastjson for Vec<T> {
    fn write(&self, writer: &mut Writer) {
        writer.text.push('[');
        for (index, element) in self.iter().enumerate() {
            if index > 0 {
                writer.text.push(',');
            }
            element.write(writer);
        }
        writer.text.push(']');
    }
}

/// Entries whose value is null are dropped; of two with the same key the later counts.
impl<K: MapKey, V: FromFastjson> FromFastjson for BTreeMap<K, V> {
    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, BodyError> {
        let mut map = BTreeMap::new();
        let present = reader.entries(|reader| {
            reader.count_element()?;
            let key = K::read_key(reader)?;
            reader.expect(b':', "':'")?;
            if let Some(value) = V::read(reader)? {
                map.insert(key, value);
            }
            Ok(())
        })?;
        Ok(present.then_some(map))
    }
}

impl<K: MapKey, V: ToFastjson> ToFastjson for BTreeMap<K, V> {
    fn write(&self, writer: &mut Writer) {
        let mut object = writer.object();
        for (key, value) in self {
            object.entry(key, value);
        }
        object.end();
    }
}

/// Reads a map key that is an object, plain or wrapped in a string; fastjson reads both.
pub(crate) fn read_object_key<T: FromFastjson>(reader: &mut Reader<'_>) -> Result<T, BodyError> {
    let start = reader.at;
    match reader.peek() {
        Some(b'"' | b'\'') => parse_text(&reader.string()?),
        _ => T::read(reader)?.ok_or_else(|| expected_at(start, "an object as key")),
    }
}
