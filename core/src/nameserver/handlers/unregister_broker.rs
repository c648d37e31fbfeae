use apogee_net::request::UnregisterBrokerRequest;

use crate::nameserver::refusal::Refusal;
use crate::nameserver::server::NameServer;
use crate::service::{Reply, Request};

use super::typed_header;

/// UNREGISTER_BROKER (104): a broker signs off. Also succeeds if it is not registered.
pub(super) fn handle(server: &mut NameServer, request: &Request<'_>, _: i64) -> Result<Reply, Refusal> {
    let header: UnregisterBrokerRequest<'_> = typed_header(request)?;
    let removed = server.routes.unregister(header.cluster_name, header.broker_name, header.broker_addr);
    if let Some(removed) = removed {
        tracing::info!(
            broker = %removed.broker_name, id = removed.broker_id, addr = %removed.addr,
            connection = %request.connection, "broker unregistered"
        );
    }
    Ok(Reply::success())
}
