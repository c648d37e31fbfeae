use apogee_net::body::{to_fastjson, to_standard_json};
use apogee_net::request::GetRouteInfoRequest;

use crate::nameserver::kv::ORDER_TOPIC_CONFIG;
use crate::nameserver::refusal::Refusal;
use crate::nameserver::routes::RouteFilter;
use crate::nameserver::server::NameServer;
use crate::service::{Reply, Request};

use super::typed_header;

/// First client version that reads JSON proper (4.9.4); for others numeric keys are bare (`ClientRequestProcessor`).
const VERSION_WITH_STANDARD_JSON: i32 = 401;

/// GET_ROUTEINFO_BY_TOPIC (105): where a topic's queues are. A success always has a body: clients throw without.
pub(super) fn handle(server: &mut NameServer, request: &Request<'_>, now_ms: i64) -> Result<Reply, Refusal> {
    let header: GetRouteInfoRequest<'_> = typed_header(request)?;
    if !is_ready(server, now_ms) {
        return Err(Refusal::NotReady);
    }
    let filter = RouteFilter {
        acting_master: server.config.support_acting_master,
        zone: header.zone_name.filter(|zone| header.zone_mode && !zone.is_empty()),
    };
    let mut route =
        server.routes.route(header.topic, filter).ok_or_else(|| Refusal::NoRoute(header.topic.to_owned()))?;
    if server.config.order_message_enable {
        route.order_topic_conf = server.kv.get(ORDER_TOPIC_CONFIG, header.topic).ok().map(str::to_owned);
    }
    let standard = header.accept_standard_json_only || request.header.version >= VERSION_WITH_STANDARD_JSON;
    let body = if standard { to_standard_json(&route) } else { to_fastjson(&route) };
    Ok(Reply::success().with_body(body))
}

fn is_ready(server: &NameServer, now_ms: i64) -> bool {
    let wait_ms = i64::from(server.config.wait_seconds_for_service) * 1000;
    !server.config.need_wait_for_service || now_ms - server.started_ms >= wait_ms
}
