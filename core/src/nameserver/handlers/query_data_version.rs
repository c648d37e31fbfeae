use apogee_net::body::{DataVersion, parse};
use apogee_net::request::{QueryDataVersionReply, QueryDataVersionRequest};

use crate::nameserver::refusal::Refusal;
use crate::nameserver::server::NameServer;
use crate::service::{Reply, Request};

use super::{reply_with_json, typed_header};

/// QUERY_DATA_VERSION (322): must the broker register again? Also a sign of life.
pub(super) fn handle(server: &mut NameServer, request: &Request<'_>, now_ms: i64) -> Result<Reply, Refusal> {
    let header: QueryDataVersionRequest<'_> = typed_header(request)?;
    let asked: Option<DataVersion> = if request.body.is_empty() { None } else { Some(parse(request.body)?) };
    let known = server.routes.heard_of(header.cluster_name, header.broker_name, header.broker_addr, now_ms);
    let reply = known.map_or_else(Reply::success, |known| reply_with_json(&known));
    Ok(reply.with_ext(QueryDataVersionReply { changed: known.is_none() || known != asked }))
}
