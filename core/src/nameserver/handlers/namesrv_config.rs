//! The NameServer's own configuration, as Java properties.

use crate::nameserver::refusal::Refusal;
use crate::nameserver::server::NameServer;
use crate::service::{Reply, Request};

/// UPDATE_NAMESRV_CONFIG (318). Unlike RocketMQ's, it refuses names that have no meaning here.
pub(super) fn update(server: &mut NameServer, request: &Request<'_>, _: i64) -> Result<Reply, Refusal> {
    server.config.update(request.body)?;
    Ok(Reply::success())
}

/// GET_NAMESRV_CONFIG (319).
pub(super) fn get(server: &mut NameServer, _: &Request<'_>, _: i64) -> Result<Reply, Refusal> {
    Ok(Reply::success().with_body(server.config.to_properties()))
}
