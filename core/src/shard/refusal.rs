//! Every typed error a handler can meet, and the one place that says with which code a client hears of it.

use std::borrow::Cow;

use apogee_net::body::BodyError;
use apogee_net::code::ResponseCode;
use apogee_net::message::{BatchError, ReceiptHandleError, RecordError};
use apogee_net::request::{FieldError, PullForbiddenReply};
use apogee_storage::{AppendRefused, IndexFault};

use super::assignment::RequestModeError;
use super::attributes::AttributeError;
use super::clients::ClientError;
use super::filter::FilterError;
use super::forbidden::ForbiddenError;
use super::groups::GroupError;
use super::offsets::OffsetError;
use super::parked::ParkRefusal;
use super::resets::ResetError;
use super::topics::TopicError;
use crate::service::Reply;

/// A request that is answered with an error.
#[derive(Debug)]
pub struct Refusal {
    pub code: ResponseCode,
    pub remark: Cow<'static, str>,
    /// What forbids a pull, for its answer.
    pub forbidden_by: Option<ForbiddenBy>,
    /// Only the leader of the group can say more; a replica that is not it sends the request there.
    pub is_for_leader: bool,
}

/// What forbids a pull (`ForbiddenType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForbiddenBy {
    Broker = 1,
    Group = 2,
    Topic = 3,
    /// The group broadcasts, and may not.
    Broadcasting = 4,
    /// The topic is forbidden for the group.
    Subscription = 5,
}

impl Refusal {
    pub fn new(code: ResponseCode, remark: impl Into<Cow<'static, str>>) -> Self {
        Refusal { code, remark: remark.into(), forbidden_by: None, is_for_leader: false }
    }

    /// Of what this replica does not know, and the leader may. A broker without a group knows all there is.
    #[must_use]
    pub fn for_leader(self) -> Self {
        Refusal { is_for_leader: true, ..self }
    }

    /// Of a pull that may not be.
    pub fn forbidden(by: ForbiddenBy, remark: String) -> Self {
        Refusal { forbidden_by: Some(by), ..Self::new(ResponseCode::NO_PERMISSION, remark) }
    }

    pub fn topic_unknown(topic: &str) -> Self {
        Self::new(ResponseCode::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist, apply first please!"))
    }

    /// The index is made anew meanwhile: the client comes back after a pause.
    pub fn index_damaged(fault: &IndexFault) -> Self {
        Self::new(ResponseCode::SYSTEM_BUSY, format!("an index is being made anew: {fault}"))
    }

    /// The log has failed to keep what the request changed.
    pub fn not_durable(reason: &str) -> Self {
        Self::new(ResponseCode::SERVICE_NOT_AVAILABLE, format!("service not available now: {reason}"))
    }

    pub fn group_unknown(group: &str) -> Self {
        Self::new(
            ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST,
            format!("subscription group [{group}] does not exist"),
        )
    }

    /// What was staged did not get into the log, or nobody knows.
    pub fn not_stored(reason: &str) -> Self {
        Self::new(ResponseCode::SERVICE_NOT_AVAILABLE, format!("service not available now: {reason}"))
    }

    /// In RocketMQ's words. Also for a transaction that has ended: what became of it is not kept.
    pub fn half_not_found() -> Self {
        Self::new(ResponseCode::SYSTEM_ERROR, "Find prepared transaction message failed")
    }

    /// In RocketMQ's words, whatever the reason.
    pub fn not_resumed() -> Self {
        Self::new(
            ResponseCode::SYSTEM_ERROR,
            "Exception was thrown when putting message back to RMQ_SYS_TRANS_HALF_TOPIC.",
        )
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        let reply = Reply::error(refusal.code, refusal.remark);
        match refusal.forbidden_by {
            Some(by) => reply.with_ext(PullForbiddenReply { forbidden_type: by as i32 }),
            None => reply,
        }
    }
}

/// Java fails while it decodes such a header and answers its exception (`NettyRemotingAbstract`).
impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        Refusal::new(ResponseCode::SYSTEM_ERROR, error.to_string())
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        Refusal::new(ResponseCode::SYSTEM_ERROR, format!("unreadable body: {error}"))
    }
}

/// Codes of the log's refusals are those after which 4.x and 5.x producers try another broker; SYSTEM_BUSY is
/// that only since 5.3, so what lasts longer than a moment is SERVICE_NOT_AVAILABLE.
impl From<AppendRefused> for Refusal {
    fn from(error: AppendRefused) -> Self {
        let code = match error {
            AppendRefused::Busy { .. } => {
                // Tools and tests look for RocketMQ's words.
                let remark = format!("[OVERLOAD]system busy, start flow control for a while: {error}");
                return Refusal::new(ResponseCode::SYSTEM_BUSY, remark);
            }
            AppendRefused::TooLarge { .. } | AppendRefused::TooManyKeys { .. } => {
                ResponseCode::MESSAGE_ILLEGAL
            }
            AppendRefused::IndexFull { .. }
            | AppendRefused::QueuesFull { .. }
            | AppendRefused::NoSpace(_)
            | AppendRefused::NotLeader
            | AppendRefused::Poisoned(_) => ResponseCode::SERVICE_NOT_AVAILABLE,
        };
        Refusal::new(code, format!("service not available now: {error}"))
    }
}

impl From<RecordError> for Refusal {
    fn from(error: RecordError) -> Self {
        Refusal::new(
            ResponseCode::MESSAGE_ILLEGAL,
            format!("the message is illegal, maybe msg body or properties length not matched: {error}"),
        )
    }
}

impl From<BatchError> for Refusal {
    fn from(error: BatchError) -> Self {
        Refusal::new(ResponseCode::MESSAGE_ILLEGAL, format!("the batch is illegal: {error}"))
    }
}

impl From<TopicError> for Refusal {
    fn from(error: TopicError) -> Self {
        let code = match error {
            TopicError::NoTemplate { ref topic, .. } => return Refusal::topic_unknown(topic),
            TopicError::Name { .. }
            | TopicError::System(_)
            | TopicError::Queues(_)
            | TopicError::Permission(_)
            | TopicError::Attribute(AttributeError::MixedType) => ResponseCode::INVALID_PARAMETER,
            TopicError::Attribute(_) | TopicError::TableFull | TopicError::NumbersUsedUp => {
                ResponseCode::SYSTEM_ERROR
            }
        };
        Refusal::new(code, error.to_string())
    }
}

impl From<GroupError> for Refusal {
    fn from(error: GroupError) -> Self {
        let code = match error {
            GroupError::Unknown(_) => ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST,
            GroupError::Name { .. } | GroupError::RetryQueues(_) => ResponseCode::INVALID_PARAMETER,
            GroupError::TooMuchJson(_)
            | GroupError::TooMuchJsonInAll
            | GroupError::Attribute(_)
            | GroupError::TableFull => ResponseCode::SYSTEM_ERROR,
        };
        Refusal::new(code, error.to_string())
    }
}

impl From<FilterError> for Refusal {
    fn from(error: FilterError) -> Self {
        let code = match error {
            FilterError::Tags(_) | FilterError::Sql(_) | FilterError::UnknownType { .. } => {
                ResponseCode::SUBSCRIPTION_PARSE_FAILED
            }
            FilterError::Disabled => ResponseCode::SYSTEM_ERROR,
            FilterError::OfSubscription { .. } => ResponseCode::FILTER_DATA_NOT_EXIST,
        };
        Refusal::new(code, error.to_string())
    }
}

impl From<AttributeError> for Refusal {
    fn from(error: AttributeError) -> Self {
        Refusal::new(ResponseCode::SYSTEM_ERROR, error.to_string())
    }
}

impl From<ClientError> for Refusal {
    fn from(error: ClientError) -> Self {
        Refusal::new(ResponseCode::SYSTEM_ERROR, error.to_string())
    }
}

impl From<OffsetError> for Refusal {
    fn from(error: OffsetError) -> Self {
        Refusal::new(ResponseCode::SYSTEM_ERROR, error.to_string())
    }
}

impl From<RequestModeError> for Refusal {
    fn from(error: RequestModeError) -> Self {
        Refusal::new(ResponseCode::SYSTEM_ERROR, error.to_string())
    }
}

impl From<ReceiptHandleError> for Refusal {
    fn from(error: ReceiptHandleError) -> Self {
        Refusal::new(ResponseCode::SYSTEM_ERROR, error.to_string())
    }
}

impl From<ResetError> for Refusal {
    fn from(error: ResetError) -> Self {
        Refusal::new(ResponseCode::SYSTEM_ERROR, error.to_string())
    }
}

impl From<ForbiddenError> for Refusal {
    fn from(error: ForbiddenError) -> Self {
        let code = match error {
            ForbiddenError::NameTooLong { .. } => ResponseCode::INVALID_PARAMETER,
            ForbiddenError::TableFull => ResponseCode::SYSTEM_ERROR,
        };
        Refusal::new(code, error.to_string())
    }
}

/// Clients pull again after a pause on any code they do not know better.
impl From<ParkRefusal> for Refusal {
    fn from(error: ParkRefusal) -> Self {
        Refusal::new(ResponseCode::SYSTEM_BUSY, error.to_string())
    }
}
