//! RocketMQ's binary header (`RocketMQSerializable`); every integer is big-endian.
//!
//! ```text
//!     +------+------+---------+--------+------+-----------+--------+-------+----------+
//!     | code | lang | version | opaque | flag | remark    | remark | ext   | ext      |
//!     |      |      |         |        |      | length    |        | length| fields   |
//!     | i16  | i8   | i16     | i32    | i32  | i32       | ...    | i32   | ...      |
//!     +------+------+---------+--------+------+-----------+--------+-------+----------+
//!     ext fields = { name length i16, name, value length i32, value } until ext length bytes are used up
//! ```

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use super::decoded::FLAG_REPLY;
use super::ext::Text;
use super::ext_writer::{HeaderWriter, VERSION};
use super::{ExtFields, Header, HeaderError, Language};

pub(super) fn decode(bytes: &[u8]) -> Result<Header<'_>, HeaderError> {
    let mut reader = Reader(bytes);
    let mut header = Header::empty();
    header.code = i16::from_be_bytes(reader.array("code")?).into();
    let [language] = reader.array("language")?;
    header.language = Language::from_byte(language);
    header.version = i16::from_be_bytes(reader.array("version")?).into();
    header.opaque = i32::from_be_bytes(reader.array("opaque")?);
    header.flag = i32::from_be_bytes(reader.array("flag")?);
    if header.flag & FLAG_REPLY == 0 {
        header.code = widen_request_code(header.code);
    }
    let remark_len = reader.len_i32("remark")?;
    header.remark = match reader.take("remark", remark_len)? {
        [] => None,
        remark => Some(String::from_utf8_lossy(remark)),
    };
    let ext_len = reader.len_i32("extFields")?;
    let mut fields = Reader(reader.take("extFields", ext_len)?);
    while !fields.0.is_empty() {
        let name_len = i16::from_be_bytes(fields.array("field name length")?);
        let name_len = non_negative("field name", name_len.into())?;
        let name = text(&mut header.ext, fields.take("field name", name_len)?);
        let value_len = fields.len_i32("field value")?;
        let value = text(&mut header.ext, fields.take("field value", value_len)?);
        header.ext.push(name, value)?;
    }
    Ok(header)
}

/// Java writes the code as 16 bits, which cuts the pop codes (200050 arrives as 3442). Nothing else lives there.
fn widen_request_code(code: i32) -> i32 {
    const CUT: i32 = 200_050 - 3442;
    match code {
        3442..=3448 | 3543 => code + CUT,
        whole => whole,
    }
}

/// What is not UTF-8 is replaced as Java does (`new String(bytes, UTF_8)`).
fn text<'a>(ext: &mut ExtFields<'a>, bytes: &'a [u8]) -> Text<'a> {
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) => Text::Frame(text),
        Cow::Owned(repaired) => ext.unescaped(|push| push(&repaired)),
    }
}

/// Bytes not yet read; each step checks what it takes against what is left.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], HeaderError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(HeaderError::Truncated {
            field,
            found: len,
            room: self.0.len(),
        })?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], HeaderError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(HeaderError::Truncated {
            field,
            found: N,
            room: self.0.len(),
        })?;
        self.0 = rest;
        Ok(*taken)
    }

    fn len_i32(&mut self, field: &'static str) -> Result<usize, HeaderError> {
        non_negative(field, i32::from_be_bytes(self.array(field)?))
    }
}

fn non_negative(field: &'static str, found: i32) -> Result<usize, HeaderError> {
    usize::try_from(found).map_err(|_| HeaderError::NegativeLength { field, found })
}

pub(super) fn write(out: &mut BytesMut, header: &HeaderWriter<'_>) {
    // As Java: 16 bits, also for the pop codes.
    out.put_i16(header.code as i16);
    out.put_i8(JAVA);
    out.put_i16(VERSION);
    out.put_i32(header.opaque);
    out.put_i32(header.flag);
    let remark = header.remark().unwrap_or("");
    out.put_i32(remark.len() as i32);
    out.extend_from_slice(remark.as_bytes());
    let ext_len_at = out.len();
    out.put_i32(0);
    header.write_ext(out);
    let ext_len = (out.len() - ext_len_at - size_of::<i32>()) as i32;
    out[ext_len_at..][..size_of::<i32>()].copy_from_slice(&ext_len.to_be_bytes());
}

/// `LanguageCode.JAVA`.
const JAVA: i8 = 0;

pub(super) fn write_field(out: &mut BytesMut, name: &str, value: &str) {
    out.put_i16(name.len() as i16);
    out.extend_from_slice(name.as_bytes());
    out.put_i32(value.len() as i32);
    out.extend_from_slice(value.as_bytes());
}
