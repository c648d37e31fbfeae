use apogee_net::request::DeleteTopicInNamesrvRequest;

use crate::nameserver::refusal::Refusal;
use crate::nameserver::server::NameServer;
use crate::service::{Reply, Request};

use super::typed_header;

/// DELETE_TOPIC_IN_NAMESRV (216): the NameServer's half of deleting a topic; the brokers' is 215.
pub(super) fn handle(server: &mut NameServer, request: &Request<'_>, _: i64) -> Result<Reply, Refusal> {
    let header: DeleteTopicInNamesrvRequest<'_> = typed_header(request)?;
    let cluster = header.cluster_name.filter(|cluster| !cluster.is_empty());
    server.routes.delete_topic(header.topic, cluster);
    Ok(Reply::success())
}
