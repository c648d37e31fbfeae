//! Lists of topics for tools.

use apogee_net::body::TopicList;
use apogee_net::request::GetTopicsByClusterRequest;

use crate::nameserver::refusal::Refusal;
use crate::nameserver::server::NameServer;
use crate::service::{Reply, Request};

use super::{reply_with_json, typed_header};

/// GET_ALL_TOPIC_LIST_FROM_NAMESERVER (206).
pub(super) fn all(server: &mut NameServer, _: &Request<'_>, _: i64) -> Result<Reply, Refusal> {
    if !server.config.enable_all_topic_list {
        return Err(Refusal::Disabled);
    }
    Ok(reply_with_json(&server.routes.all_topics()))
}

/// GET_TOPICS_BY_CLUSTER (224).
pub(super) fn of_cluster(server: &mut NameServer, request: &Request<'_>, _: i64) -> Result<Reply, Refusal> {
    let header: GetTopicsByClusterRequest<'_> = typed_header(request)?;
    list(server, |server| server.routes.topics_of_cluster(header.cluster))
}

/// GET_SYSTEM_TOPIC_LIST_FROM_NS (304).
pub(super) fn system(server: &mut NameServer, _: &Request<'_>, _: i64) -> Result<Reply, Refusal> {
    Ok(reply_with_json(&server.routes.system_topics()))
}

/// GET_UNIT_TOPIC_LIST (311).
pub(super) fn unit(server: &mut NameServer, _: &Request<'_>, _: i64) -> Result<Reply, Refusal> {
    list(server, |server| server.routes.unit_topics())
}

/// GET_HAS_UNIT_SUB_TOPIC_LIST (312).
pub(super) fn unit_sub(server: &mut NameServer, _: &Request<'_>, _: i64) -> Result<Reply, Refusal> {
    list(server, |server| server.routes.unit_sub_topics())
}

/// GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST (313).
pub(super) fn unit_sub_without_unit(
    server: &mut NameServer,
    _: &Request<'_>,
    _: i64,
) -> Result<Reply, Refusal> {
    list(server, |server| server.routes.unit_sub_topics_without_unit())
}

fn list(server: &NameServer, topics: impl FnOnce(&NameServer) -> TopicList) -> Result<Reply, Refusal> {
    if !server.config.enable_topic_list {
        return Err(Refusal::Disabled);
    }
    Ok(reply_with_json(&topics(server)))
}
