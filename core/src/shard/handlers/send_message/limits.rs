//! What a message may be, beyond what its topic and queue allow: RocketMQ's limits, all answered with 13.

use apogee_net::code::ResponseCode;
use apogee_net::flags::MessageSysFlag;
use apogee_net::message::PROPERTIES_BYTES_MAX;
use apogee_net::request::SendMessageRequest;

use super::Target;
use super::delivery::Asked;
use crate::shard::refusal::Refusal;

/// `HookUtils#checkBeforePutMessage`, `#checkInnerBatch`, `SendMessageProcessor#sendMessage`, `MessageExtEncoder`.
/// The properties are measured once more when the broker has added its own.
pub(super) fn check(
    send: &SendMessageRequest<'_>,
    asked: &Asked<'_>,
    body_len: usize,
    target: &Target,
    body_bytes_max: usize,
) -> Result<(), Refusal> {
    if body_len == 0 {
        return Err(illegal("the message has no body"));
    }
    let properties_len = send.properties.len();
    if body_len > body_bytes_max || properties_len > PROPERTIES_BYTES_MAX {
        // The first sentence is RocketMQ's own.
        return Err(illegal(format!(
            "the message is illegal, maybe msg body or properties length not matched. msg body length limit \
             {body_bytes_max}B, msg properties length limit 32KB. Found {body_len} and {properties_len} bytes."
        )));
    }
    // Only a broker wraps a batch into a message; clients would unwrap what never was one.
    let wrapped = MessageSysFlag::INNER_BATCH.0 | MessageSysFlag::NEEDS_UNWRAP.0;
    if send.sys_flag.0 & wrapped != 0 || asked.is_inner_batch {
        return Err(illegal("the message has a flag or a property of inner batches, which only brokers set"));
    }
    if target.needs_keys && !send.batch && !asked.has_keys {
        return Err(illegal("Required message key is missing"));
    }
    Ok(())
}

fn illegal(remark: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(ResponseCode::MESSAGE_ILLEGAL, remark)
}
