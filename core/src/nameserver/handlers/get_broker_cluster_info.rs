use crate::nameserver::refusal::Refusal;
use crate::nameserver::server::NameServer;
use crate::service::{Reply, Request};

use super::reply_with_json;

/// GET_BROKER_CLUSTER_INFO (106): all brokers. Numeric keys are bare for every client, unlike in routes.
pub(super) fn handle(server: &mut NameServer, _: &Request<'_>, _: i64) -> Result<Reply, Refusal> {
    Ok(reply_with_json(&server.routes.cluster_info()))
}
