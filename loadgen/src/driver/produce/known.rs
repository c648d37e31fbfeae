//! Producers that tell brokers who they are, as stock ones do, so that a broker can ask them.

use std::rc::Rc;
use std::time::{Duration, Instant};

use apogee_net::body::{self, HeartbeatData, ProducerData};
use apogee_net::client::RemotingClient;
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::header::NoExt;
use apogee_net::io::Chunk;

use crate::driver::link::Link;
use crate::driver::setup::{ADMIN_TIMEOUT, SetupError};

/// As stock clients; brokers forget who was silent for two minutes.
const EVERY: Duration = Duration::from_secs(30);

/// How soon a connection that was made anew says who it is.
const LOOK_UP: Duration = Duration::from_secs(1);

/// Who a connection says it is.
pub(in crate::driver) struct Identity {
    pub(in crate::driver) client_id: String,
    pub(in crate::driver) group: Rc<str>,
}

impl Identity {
    pub(in crate::driver) async fn introduce(
        &self,
        client: &RemotingClient,
        broker: &str,
    ) -> Result<(), SetupError> {
        let reply = client.call(RequestCode::HEART_BEAT, &NoExt, self.heartbeat(), ADMIN_TIMEOUT).await;
        let reply = reply.map_err(|error| {
            let (name, address) = (broker.to_owned(), client.peer().to_string());
            SetupError::BrokerUnreachable { name, address, reason: error.to_string() }
        })?;
        if reply.code() == ResponseCode::SUCCESS {
            return Ok(());
        }
        let remark = reply.header().remark.map(String::from).unwrap_or_default();
        let what = "to know a producer";
        Err(SetupError::Refused { broker: broker.to_owned(), what, code: reply.code(), remark })
    }

    /// Says it again and again, and at once over a new connection.
    pub(in crate::driver) async fn keep(self, link: Rc<Link>) {
        let mut said = link.client().map(|client| (client, Instant::now()));
        loop {
            glommio::timer::sleep(LOOK_UP).await;
            let Some(client) = link.client() else { continue };
            let is_known =
                said.as_ref().is_some_and(|(to, at)| Rc::ptr_eq(to, &client) && at.elapsed() < EVERY);
            if is_known {
                continue;
            }
            // What became of it shows when the broker does not ask; the next one follows anyway.
            let _ = client.call(RequestCode::HEART_BEAT, &NoExt, self.heartbeat(), ADMIN_TIMEOUT).await;
            said = Some((client, Instant::now()));
        }
    }

    fn heartbeat(&self) -> [Chunk; 1] {
        let producer = ProducerData { group_name: self.group.to_string() };
        let data = HeartbeatData {
            client_id: self.client_id.clone(),
            producer_data_set: vec![producer],
            ..HeartbeatData::default()
        };
        [body::to_fastjson(&data).into()]
    }
}
