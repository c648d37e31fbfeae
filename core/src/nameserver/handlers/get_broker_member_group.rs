use apogee_net::body::{BrokerMemberGroup, GetBrokerMemberGroupResponseBody};
use apogee_net::request::GetBrokerMemberGroupRequest;

use crate::nameserver::refusal::Refusal;
use crate::nameserver::server::NameServer;
use crate::service::{Reply, Request};

use super::{reply_with_json, typed_header};

/// GET_BROKER_MEMBER_GROUP (901): the addresses of one broker name; none if it is unknown.
pub(super) fn handle(server: &mut NameServer, request: &Request<'_>, _: i64) -> Result<Reply, Refusal> {
    let header: GetBrokerMemberGroupRequest<'_> = typed_header(request)?;
    let group = BrokerMemberGroup {
        broker_addrs: server
            .routes
            .broker(header.broker_name)
            .map(|broker| broker.broker_addrs)
            .unwrap_or_default(),
        broker_name: header.broker_name.to_owned(),
        cluster: header.cluster_name.to_owned(),
    };
    Ok(reply_with_json(&GetBrokerMemberGroupResponseBody { broker_member_group: Some(group) }))
}
