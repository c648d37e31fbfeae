use std::borrow::Cow;

use apogee_net::body::{RegisterBrokerBody, to_fastjson};
use apogee_net::request::{RegisterBrokerReply, RegisterBrokerRequest};

use crate::nameserver::kv::ORDER_TOPIC_CONFIG;
use crate::nameserver::refusal::Refusal;
use crate::nameserver::routes::{MasterAddrs, Registered, Registration};
use crate::nameserver::server::NameServer;
use crate::service::{Reply, Request};

use super::typed_header;

/// How long a broker may be silent if it does not say (`RouteInfoManager.DEFAULT_BROKER_CHANNEL_EXPIRED_TIME`).
const TIMEOUT_MS_DEFAULT: i64 = 120_000;

/// REGISTER_BROKER (103): a broker is there, and these are its topics.
pub(super) fn handle(server: &mut NameServer, request: &Request<'_>, now_ms: i64) -> Result<Reply, Refusal> {
    let header: RegisterBrokerRequest<'_> = typed_header(request)?;
    let body = request.body;
    // Zero is how brokers say that they have not computed it.
    if header.body_crc32 != 0 && header.body_crc32 != RegisterBrokerBody::crc32(body) {
        return Err(Refusal::Crc32);
    }
    let registered = if body.is_empty() {
        RegisterBrokerBody::default()
    } else {
        RegisterBrokerBody::decode(body, header.compressed, request.header.version)?
    };
    let registration = Registration {
        connection: request.connection,
        cluster: header.cluster_name,
        broker_name: header.broker_name,
        broker_id: header.broker_id,
        addr: header.broker_addr,
        ha_server_addr: header.ha_server_addr,
        timeout_ms: header.heartbeat_timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT),
        enable_acting_master: header.enable_acting_master,
        zone_name: header.zone_name,
        topics: registered.topic_config_serialize_wrapper,
    };
    let mut reply = Reply::success();
    match server.routes.register(registration, now_ms)? {
        Registered::Accepted { master, is_new, left_out } => {
            if is_new {
                log(request, &header, "broker registered");
            }
            if let Some(left_out) = left_out {
                tracing::warn!(broker = header.broker_name, "{left_out}");
                reply = reply.with_remark(left_out.to_string());
            }
            reply = reply.with_ext(reply_header(master));
        }
        Registered::Fenced => {
            log(request, &header, "registration ignored: there has been a later election");
        }
    }
    if server.config.return_order_topic_config_to_broker
        && let Ok(order) = server.kv.namespace(ORDER_TOPIC_CONFIG)
    {
        return Ok(reply.with_body(to_fastjson(&order)));
    }
    Ok(reply)
}

/// A slave finds its master by the reply to its registration.
fn reply_header(master: Option<MasterAddrs>) -> RegisterBrokerReply<'static> {
    let (master_addr, ha_server_addr) = master.map(|master| (master.addr, master.ha_server_addr)).unzip();
    RegisterBrokerReply {
        ha_server_addr: ha_server_addr.map(Cow::Owned),
        master_addr: master_addr.map(Cow::Owned),
    }
}

fn log(request: &Request<'_>, header: &RegisterBrokerRequest<'_>, what: &str) {
    tracing::info!(
        broker = header.broker_name, id = header.broker_id, addr = header.broker_addr,
        connection = %request.connection, "{what}"
    );
}
