use apogee_net::body::{BodyError, RegisterBodyError};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::frame::FRAME_BYTES_MAX;
use apogee_net::request::FieldError;

use crate::service::Reply;

use super::config::UpdateConfigError;
use super::kv::KvError;
use super::routes::{RegisterError, RegisterTopicError};

/// Why a request was not done. The text becomes the reply's remark; tools match on some of RocketMQ's.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(" request type {} not supported", .0.0)]
    NotSupported(RequestCode),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    RegisterBody(#[from] RegisterBodyError),
    #[error("crc32 not match")]
    Crc32,
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error(transparent)]
    RegisterTopic(#[from] RegisterTopicError),
    #[error("name server not ready")]
    NotReady,
    #[error("No topic route info in name server for the topic: {0}")]
    NoRoute(String),
    #[error("disable")]
    Disabled,
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error(transparent)]
    Config(#[from] UpdateConfigError),
    #[error("the reply's body of {body_bytes} bytes does not fit a frame of {FRAME_BYTES_MAX} bytes")]
    ReplyTooLarge { body_bytes: usize },
}

impl Refusal {
    pub(super) fn into_reply(self) -> Reply {
        Reply::error(self.code(), self.to_string())
    }

    fn code(&self) -> ResponseCode {
        match self {
            Refusal::NotSupported(_) => ResponseCode::REQUEST_CODE_NOT_SUPPORTED,
            Refusal::NoRoute(_) => ResponseCode::TOPIC_NOT_EXIST,
            // mqadmin relies on it.
            Refusal::Kv(KvError::NoEntry { .. } | KvError::NoNamespace { .. }) => {
                ResponseCode::QUERY_NOT_FOUND
            }
            Refusal::Config(UpdateConfigError::BlackList { .. }) => ResponseCode::NO_PERMISSION,
            Refusal::Field(_)
            | Refusal::Body(_)
            | Refusal::RegisterBody(_)
            | Refusal::Crc32
            | Refusal::Register(_)
            | Refusal::RegisterTopic(_)
            | Refusal::NotReady
            | Refusal::Disabled
            | Refusal::Kv(KvError::TooManyEntries | KvError::TooManyBytes)
            | Refusal::Config(
                UpdateConfigError::NotUtf8
                | UpdateConfigError::NoValue { .. }
                | UpdateConfigError::UnknownKey { .. }
                | UpdateConfigError::Invalid { .. },
            )
            | Refusal::ReplyTooLarge { .. } => ResponseCode::SYSTEM_ERROR,
        }
    }
}
