//! Names with values that outlive the NameServer.

use std::borrow::Cow;

use apogee_net::request::{
    DeleteKvConfigRequest, GetKvConfigReply, GetKvConfigRequest, GetKvListByNamespaceRequest,
    PutKvConfigRequest,
};

use crate::nameserver::refusal::Refusal;
use crate::nameserver::server::NameServer;
use crate::service::{Reply, Request};

use super::{reply_with_json, typed_header};

/// PUT_KV_CONFIG (100).
pub(super) fn put(server: &mut NameServer, request: &Request<'_>, _: i64) -> Result<Reply, Refusal> {
    let header: PutKvConfigRequest<'_> = typed_header(request)?;
    server.kv.put(header.namespace, header.key, header.value)?;
    Ok(Reply::success())
}

/// GET_KV_CONFIG (101).
pub(super) fn get(server: &mut NameServer, request: &Request<'_>, _: i64) -> Result<Reply, Refusal> {
    let header: GetKvConfigRequest<'_> = typed_header(request)?;
    let value = server.kv.get(header.namespace, header.key)?.to_owned();
    Ok(Reply::success().with_ext(GetKvConfigReply { value: Some(Cow::Owned(value)) }))
}

/// DELETE_KV_CONFIG (102): also succeeds if there is nothing to delete.
pub(super) fn delete(server: &mut NameServer, request: &Request<'_>, _: i64) -> Result<Reply, Refusal> {
    let header: DeleteKvConfigRequest<'_> = typed_header(request)?;
    server.kv.delete(header.namespace, header.key);
    Ok(Reply::success())
}

/// GET_KVLIST_BY_NAMESPACE (219).
pub(super) fn list(server: &mut NameServer, request: &Request<'_>, _: i64) -> Result<Reply, Refusal> {
    let header: GetKvListByNamespaceRequest<'_> = typed_header(request)?;
    Ok(reply_with_json(&server.kv.namespace(header.namespace)?))
}
