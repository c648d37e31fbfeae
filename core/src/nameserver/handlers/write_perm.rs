//! Taking a broker out of service for producers, and back.

use apogee_net::request::{
    AddWritePermOfBrokerReply, AddWritePermOfBrokerRequest, WipeWritePermOfBrokerReply,
    WipeWritePermOfBrokerRequest,
};

use crate::nameserver::refusal::Refusal;
use crate::nameserver::server::NameServer;
use crate::service::{Reply, Request};

use super::typed_header;

/// WIPE_WRITE_PERM_OF_BROKER (205): no more sends to this broker, until it registers another version of its
/// configuration.
pub(super) fn wipe(server: &mut NameServer, request: &Request<'_>, _: i64) -> Result<Reply, Refusal> {
    let header: WipeWritePermOfBrokerRequest<'_> = typed_header(request)?;
    let topics = count(server.routes.wipe_write_perm(header.broker_name));
    Ok(Reply::success().with_ext(WipeWritePermOfBrokerReply { topics }))
}

/// ADD_WRITE_PERM_OF_BROKER (327): all topics of this broker may be read and written.
pub(super) fn add(server: &mut NameServer, request: &Request<'_>, _: i64) -> Result<Reply, Refusal> {
    let header: AddWritePermOfBrokerRequest<'_> = typed_header(request)?;
    let topics = count(server.routes.add_write_perm(header.broker_name));
    Ok(Reply::success().with_ext(AddWritePermOfBrokerReply { topics }))
}

fn count(topics: usize) -> i32 {
    i32::try_from(topics).expect("fewer topics than TOPICS_MAX")
}
