use apogee_net::body::{TopicRouteData, parse};
use apogee_net::request::RegisterTopicInNamesrvRequest;

use crate::nameserver::refusal::Refusal;
use crate::nameserver::server::NameServer;
use crate::service::{Reply, Request};

use super::typed_header;

/// REGISTER_TOPIC_IN_NAMESRV (217): one topic of brokers that are registered. RocketMQ says nothing when a broker is
/// not; here it is refused.
pub(super) fn handle(server: &mut NameServer, request: &Request<'_>, _: i64) -> Result<Reply, Refusal> {
    let header: RegisterTopicInNamesrvRequest<'_> = typed_header(request)?;
    if !request.body.is_empty() {
        let route: TopicRouteData = parse(request.body)?;
        server.routes.register_topic(header.topic, &route.queue_datas)?;
    }
    Ok(Reply::success())
}
