use bytes::BytesMut;

use crate::frame::HeaderEncoding;

use super::{binary, json};

/// What we announce: 5.3.3, as real brokers of that line do. Clients turn features on by it, never off.
pub(super) const VERSION: i16 = 479;

/// Longest remark that is written; the rest is for the log. Keeps a request from growing into a larger answer.
const REMARK_BYTES_MAX: usize = 4096;

/// Something that has extra fields to write: a typed request or reply header.
pub trait WriteExt {
    fn write_ext(&self, fields: &mut ExtWriter<'_>);
}

/// A request or reply without a header of its own.
#[derive(Clone, Copy, Debug)]
pub struct NoExt;

impl WriteExt for NoExt {
    fn write_ext(&self, _: &mut ExtWriter<'_>) {}
}

/// Fields that no typed header declares, by name and value.
impl WriteExt for [(&str, &str)] {
    fn write_ext(&self, fields: &mut ExtWriter<'_>) {
        for (name, value) in self {
            fields.str(name, value);
        }
    }
}

impl<const N: usize> WriteExt for [(&str, &str); N] {
    fn write_ext(&self, fields: &mut ExtWriter<'_>) {
        self.as_slice().write_ext(fields);
    }
}

/// Two sets of fields, one after the other.
impl<A: WriteExt, B: WriteExt> WriteExt for (A, B) {
    fn write_ext(&self, fields: &mut ExtWriter<'_>) {
        self.0.write_ext(fields);
        self.1.write_ext(fields);
    }
}

impl<E: WriteExt + ?Sized> WriteExt for &E {
    fn write_ext(&self, fields: &mut ExtWriter<'_>) {
        (**self).write_ext(fields);
    }
}

/// Writes extra fields one by one into a frame that is being built, without allocating.
pub struct ExtWriter<'w> {
    out: &'w mut BytesMut,
    encoding: HeaderEncoding,
    /// JSON: a comma goes before the next field.
    any_written: bool,
}

impl ExtWriter<'_> {
    pub fn str(&mut self, name: &str, value: &str) {
        match self.encoding {
            HeaderEncoding::Json => {
                if self.any_written {
                    self.out.extend_from_slice(b",");
                }
                json::write_string(self.out, name);
                self.out.extend_from_slice(b":");
                json::write_string(self.out, value);
            }
            HeaderEncoding::RocketMq => binary::write_field(self.out, name, value),
        }
        self.any_written = true;
    }

    pub fn int(&mut self, name: &str, value: impl Into<i64>) {
        self.str(name, itoa::Buffer::new().format(value.into()));
    }

    pub fn bool(&mut self, name: &str, value: bool) {
        self.str(name, if value { "true" } else { "false" });
    }
}

/// All that a header says, ready to be written in either encoding.
pub(crate) struct HeaderWriter<'a> {
    pub(crate) encoding: HeaderEncoding,
    pub(crate) code: i32,
    pub(crate) flag: i32,
    pub(crate) opaque: i32,
    pub(crate) remark: Option<&'a str>,
    pub(crate) ext: &'a dyn WriteExt,
}

impl HeaderWriter<'_> {
    pub(crate) fn write(&self, out: &mut BytesMut) {
        match self.encoding {
            HeaderEncoding::Json => json::write(out, self),
            HeaderEncoding::RocketMq => binary::write(out, self),
        }
    }

    pub(super) fn remark(&self) -> Option<&str> {
        self.remark.map(|remark| &remark[..remark.floor_char_boundary(REMARK_BYTES_MAX)])
    }

    pub(super) fn write_ext(&self, out: &mut BytesMut) {
        self.ext.write_ext(&mut ExtWriter { out, encoding: self.encoding, any_written: false });
    }
}
