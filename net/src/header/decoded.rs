use std::borrow::Cow;

use crate::frame::HeaderEncoding;

use super::{ExtFields, Language, binary, json};

/// Flag bit 0: a reply, otherwise a request (`RemotingCommand#isResponseType`).
pub(crate) const FLAG_REPLY: i32 = 1;
/// Flag bit 1: the sender expects no answer (`RemotingCommand#isOnewayRPC`).
pub(crate) const FLAG_ONEWAY: i32 = 2;

/// A decoded header. Texts are borrowed from the frame, or unescaped into space inside [`ExtFields`].
#[derive(Clone, Debug)]
pub struct Header<'a> {
    /// A [`RequestCode`](crate::code::RequestCode) or, in a reply, a [`ResponseCode`](crate::code::ResponseCode).
    pub code: i32,
    pub language: Language,
    /// Ordinal of the sender's release (`MQVersion.Version`), e.g. 479 for 5.3.3.
    pub version: i32,
    /// Request id: chosen by whoever asks, repeated in the reply. The two sides' numbers are independent.
    pub opaque: i32,
    pub flag: i32,
    pub remark: Option<Cow<'a, str>>,
    pub ext: ExtFields<'a>,
}

impl<'a> Header<'a> {
    /// Decodes the header part of a frame. Absent members take Java's defaults: zero, or none.
    ///
    /// Allocates only if unescaped texts outgrow their inline space, for an escaped remark, and to repair texts that
    /// are not UTF-8.
    pub fn decode(encoding: HeaderEncoding, bytes: &'a [u8]) -> Result<Self, HeaderError> {
        match encoding {
            HeaderEncoding::Json => json::decode(bytes),
            HeaderEncoding::RocketMq => binary::decode(bytes),
        }
    }

    pub fn is_reply(&self) -> bool {
        self.flag & FLAG_REPLY != 0
    }

    /// A oneway request is never answered, not even with an error.
    pub fn is_oneway(&self) -> bool {
        self.flag & FLAG_ONEWAY != 0
    }

    /// The same header, borrowing nothing.
    pub(super) fn detached<'b>(self) -> Header<'b> {
        let Self { code, language, version, opaque, flag, remark, ext } = self;
        let remark = remark.map(|remark| Cow::Owned(remark.into_owned()));
        Header { code, language, version, opaque, flag, remark, ext: ext.detached() }
    }

    pub(super) fn empty() -> Self {
        Self {
            code: 0,
            language: Language::Unknown,
            version: 0,
            opaque: 0,
            flag: 0,
            remark: None,
            ext: ExtFields::default(),
        }
    }
}

/// Why a header cannot be read. Nothing in the frame can be believed then, so there is nobody to answer.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    #[error("JSON header: {0}")]
    Json(#[from] serde_json::Error),
    #[error("binary header: {field} of {found} bytes, expected at most the {room} that are left")]
    Truncated { field: &'static str, found: usize, room: usize },
    #[error("binary header: length of {field} is {found}, expected zero or more")]
    NegativeLength { field: &'static str, found: i32 },
    #[error("more than {max} extra fields")]
    TooManyFields { max: usize },
}
