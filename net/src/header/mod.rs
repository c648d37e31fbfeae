//! A frame's header: who asks what, and the extra fields that each request or reply declares for itself.
//!
//! Two encodings, JSON and RocketMQ's binary form, decode into one [`Header`]. Writing goes through
//! [`crate::command`]; extra fields are written one by one through [`ExtWriter`], never collected in a map.

mod binary;
mod decoded;
mod ext;
mod ext_writer;
mod json;
mod language;
mod plain_json;
#[cfg(test)]
mod tests;

pub use decoded::{Header, HeaderError};
pub use ext::{EXT_FIELDS_MAX, ExtFields};
pub use ext_writer::{ExtWriter, NoExt, WriteExt};
pub use language::Language;

pub(crate) use decoded::{FLAG_ONEWAY, FLAG_REPLY};
pub(crate) use ext_writer::{ExtList, HeaderWriter};
