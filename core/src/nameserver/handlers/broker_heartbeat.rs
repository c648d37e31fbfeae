use apogee_net::request::BrokerHeartbeatRequest;

use crate::nameserver::refusal::Refusal;
use crate::nameserver::server::NameServer;
use crate::service::{Reply, Request};

use super::typed_header;

/// BROKER_HEARTBEAT (904): a sign of life. From a broker that is not registered it changes nothing.
pub(super) fn handle(server: &mut NameServer, request: &Request<'_>, now_ms: i64) -> Result<Reply, Refusal> {
    let header: BrokerHeartbeatRequest<'_> = typed_header(request)?;
    server.routes.heard_of(header.cluster_name, header.broker_name, header.broker_addr, now_ms);
    Ok(Reply::success())
}
