use bytes::BytesMut;
use smallvec::SmallVec;

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

/// Takes extra fields one by one: into a frame that is being built, without allocating, or into a list.
pub struct ExtWriter<'w>(Sink<'w>);

enum Sink<'w> {
    /// A comma goes before the next field if any was written.
    Json {
        out: &'w mut BytesMut,
        any_written: bool,
    },
    RocketMq(&'w mut BytesMut),
    List(&'w mut ExtList),
}

impl<'w> ExtWriter<'w> {
    fn new(out: &'w mut BytesMut, encoding: HeaderEncoding) -> Self {
        ExtWriter(match encoding {
            HeaderEncoding::Json => Sink::Json { out, any_written: false },
            HeaderEncoding::RocketMq => Sink::RocketMq(out),
        })
    }

    pub fn str(&mut self, name: &str, value: &str) {
        match &mut self.0 {
            Sink::Json { out, any_written } => {
                if std::mem::replace(any_written, true) {
                    out.extend_from_slice(b",");
                }
                json::write_string(out, name);
                out.extend_from_slice(b":");
                json::write_string(out, value);
            }
            Sink::RocketMq(out) => binary::write_field(out, name, value),
            Sink::List(list) => list.push(name, value),
        }
    }

    pub fn int(&mut self, name: &str, value: impl Into<i64>) {
        self.str(name, itoa::Buffer::new().format(value.into()));
    }

    pub fn bool(&mut self, name: &str, value: bool) {
        self.str(name, if value { "true" } else { "false" });
    }
}

/// Extra fields as they would be written, for whoever has to see them all before.
#[derive(Default)]
pub(crate) struct ExtList {
    /// Names and values, one after the other.
    text: String,
    /// Where each name and then its value ends in `text`.
    ends: SmallVec<[(u32, u32); FIELDS_INLINE]>,
}

/// A signed send of a stock client has 22.
const FIELDS_INLINE: usize = 24;

impl ExtList {
    pub(crate) fn of(ext: &dyn WriteExt) -> ExtList {
        let mut list = ExtList::default();
        ext.write_ext(&mut ExtWriter(Sink::List(&mut list)));
        list
    }

    fn push(&mut self, name: &str, value: &str) {
        // A frame has far fewer than 2^32 bytes.
        self.text.push_str(name);
        let name_end = self.text.len() as u32;
        self.text.push_str(value);
        self.ends.push((name_end, self.text.len() as u32));
    }

    /// Names and values in the order written.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.ends.iter().map(move |&(name_end, value_end)| {
            let (name_end, value_end) = (name_end as usize, value_end as usize);
            let field = (&self.text[start..name_end], &self.text[name_end..value_end]);
            start = value_end;
            field
        })
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
        self.ext.write_ext(&mut ExtWriter::new(out, self.encoding));
    }
}
