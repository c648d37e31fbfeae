//! UPDATE_COLD_DATA_FLOW_CTR_CONFIG (2001), REMOVE_COLD_DATA_FLOW_CTR_CONFIG (2002), GET_COLD_DATA_FLOW_CTR_INFO (2003),
//! SET_COMMITLOG_READ_MODE (2004): RocketMQ's means to keep reads of old messages from hurting others.
//!
//! Here such reads always have a share of their own, and files are not mapped: limits are taken and do nothing.

use apogee_net::code::ResponseCode;
use apogee_net::request::{SetCommitLogReadModeRequest, TypedHeader};
use apogee_storage::Buffer;

use super::Handled;
use crate::properties;
use crate::service::{Reply, Request};
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;

/// What tools read: no group is limited, and none has read too much.
const NO_LIMITS: &str = r#"{"configTable":{},"globalAcc":0,"runtimeTable":{}}"#;

pub(super) fn update<B: Buffer + 'static>(_: &mut Shard<B>, request: &Request<'_>, _: i64) -> Handled {
    properties::parse(request.body).map_err(|error| {
        Refusal::new(ResponseCode::SYSTEM_ERROR, format!("string2Properties error: {error}"))
    })?;
    Ok(Reply::success().into())
}

pub(super) fn remove<B: Buffer + 'static>(_: &mut Shard<B>, _: &Request<'_>, _: i64) -> Handled {
    Ok(Reply::success().into())
}

pub(super) fn info<B: Buffer + 'static>(_: &mut Shard<B>, _: &Request<'_>, _: i64) -> Handled {
    Ok(Reply::success().with_body(NO_LIMITS).into())
}

pub(super) fn set_read_mode<B: Buffer + 'static>(_: &mut Shard<B>, request: &Request<'_>, _: i64) -> Handled {
    match SetCommitLogReadModeRequest::decode(&request.header.ext)?.read_ahead_mode {
        mode @ (0 | 1) => {
            let remark = format!("set commitlog readahead mode success, mode: {mode}");
            Ok(Reply::success().with_remark(remark).into())
        }
        _ => {
            let remark = "set commitlog readahead mode param value error";
            Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark).into())
        }
    }
}
