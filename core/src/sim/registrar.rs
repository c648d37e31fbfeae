//! Keeps one shard registered with one NameServer, as `node/registrar.rs` does.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use apogee_net::body::{parse, to_fastjson};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::request::{
    GetRouteInfoRequest, QueryDataVersionRequest, RegisterBrokerRequest, UnregisterBrokerRequest,
};
use apogee_storage::AlignedBuffer;
use futures_lite::future;

use super::executor::{MS, SECOND, Signal, Sim, Us};
use super::network::{HostId, Network};
use super::remoting::Remoting;
use crate::shard::assignment::FoundRoute;
use crate::shard::{Registration, Shard, Told};

const HEARTBEAT: Us = 30 * SECOND;
const CALL_WAIT: Us = 5 * SECOND;
const REGISTER_WAIT: Us = 24 * SECOND;
const ROUTE_WAIT: Us = SECOND;
const RETRY_FIRST: Us = 100 * MS;
const RETRY_MAX: Us = 5 * SECOND;

pub(super) struct Registrar {
    sim: Sim,
    namesrv: SocketAddr,
    cluster: String,
    broker_name: String,
    address: SocketAddr,
    client: Rc<Remoting>,
    told: Cell<Option<Told>>,
    is_registered: Cell<bool>,
    changed: Signal,
}

type SharedShard = RefCell<Shard<AlignedBuffer>>;

enum Event {
    Changed,
    Heartbeat,
    Closed,
}

impl Registrar {
    pub(super) fn new(
        sim: &Sim,
        network: &Rc<Network>,
        host: HostId,
        namesrv: SocketAddr,
        cluster: String,
        broker_name: String,
        address: SocketAddr,
    ) -> Rc<Registrar> {
        Rc::new(Registrar {
            sim: sim.clone(),
            namesrv,
            cluster,
            broker_name,
            address,
            client: Remoting::new(sim, network, host),
            told: Cell::default(),
            is_registered: Cell::default(),
            changed: Signal::default(),
        })
    }

    pub(super) fn on_topics_changed(&self) {
        self.changed.raise();
    }

    pub(super) async fn register_now(&self, shard: &SharedShard) {
        if !self.is_registered.get() {
            return self.on_topics_changed();
        }
        if self.register(shard).await.is_none() {
            self.client.close();
        }
    }

    pub(super) async fn run(&self, shard: &SharedShard) {
        let mut retry = RETRY_FIRST;
        loop {
            self.told.set(None);
            if self.client.connect(self.namesrv).await.is_ok() {
                if self.register(shard).await.is_some() {
                    retry = RETRY_FIRST;
                    self.is_registered.set(true);
                    self.stay_registered(shard).await;
                    self.is_registered.set(false);
                }
                self.client.close();
            }
            self.sim.sleep(retry).await;
            retry = (retry * 2).min(RETRY_MAX);
        }
    }

    async fn stay_registered(&self, shard: &SharedShard) {
        loop {
            let changed = async {
                self.changed.wait().await;
                Event::Changed
            };
            let heartbeat = async {
                self.sim.sleep(HEARTBEAT).await;
                Event::Heartbeat
            };
            let closed = async {
                self.client.closed(self.namesrv).await;
                Event::Closed
            };
            let done = match future::or(closed, future::or(changed, heartbeat)).await {
                Event::Changed => self.register(shard).await,
                Event::Heartbeat => self.refresh(shard).await,
                Event::Closed => return,
            };
            if done.is_none() {
                return;
            }
        }
    }

    async fn register(&self, shard: &SharedShard) -> Option<()> {
        let header = RegisterBrokerRequest {
            broker_name: &self.broker_name,
            broker_addr: &self.address.to_string(),
            cluster_name: &self.cluster,
            ha_server_addr: &SocketAddr::new(self.address.ip(), self.address.port() + 1).to_string(),
            broker_id: 0,
            heartbeat_timeout_ms: None,
            enable_acting_master: None,
            compressed: false,
            body_crc32: 0,
            zone_name: None,
        };
        loop {
            let Registration { body, told, is_last } = shard.borrow().registration(self.told.get());
            let body = to_fastjson(&body);
            let call =
                self.client.call(self.namesrv, RequestCode::REGISTER_BROKER, &header, &body, REGISTER_WAIT);
            call.await.ok().filter(|answer| answer.is_success())?;
            self.told.set(Some(told));
            if is_last {
                return Some(());
            }
        }
    }

    async fn refresh(&self, shard: &SharedShard) -> Option<()> {
        let version = shard.borrow().topics_version();
        let header = QueryDataVersionRequest {
            broker_name: &self.broker_name,
            broker_addr: &self.address.to_string(),
            cluster_name: &self.cluster,
            broker_id: 0,
        };
        let body = to_fastjson(&version);
        let call = self.client.call(self.namesrv, RequestCode::QUERY_DATA_VERSION, &header, &body, CALL_WAIT);
        let answer = call.await.ok().filter(|answer| answer.is_success())?;
        if answer.ext.get("changed").is_none_or(|changed| changed == "true") {
            self.told.set(None);
            self.register(shard).await?;
        }
        Some(())
    }

    pub(super) async fn find_route(&self, topic: &str) -> FoundRoute {
        let header =
            GetRouteInfoRequest { topic, accept_standard_json_only: true, zone_name: None, zone_mode: false };
        let code = RequestCode::GET_ROUTEINFO_BY_TOPIC;
        if !self.is_registered.get() {
            return FoundRoute::Unreachable;
        }
        let Ok(answer) = self.client.call_async(self.namesrv, code, &header, b"", ROUTE_WAIT).await else {
            return FoundRoute::Unreachable;
        };
        match answer.code {
            ResponseCode::SUCCESS => {
                FoundRoute::Found(Box::new(parse(&answer.body).expect("our NameServer's route")))
            }
            ResponseCode::TOPIC_NOT_EXIST => FoundRoute::Unknown,
            _ => FoundRoute::Unreachable,
        }
    }

    pub(super) async fn unregister(&self) {
        let header = UnregisterBrokerRequest {
            broker_name: &self.broker_name,
            broker_addr: &self.address.to_string(),
            cluster_name: &self.cluster,
            broker_id: 0,
        };
        if self.is_registered.get() {
            let code = RequestCode::UNREGISTER_BROKER;
            let _ = self.client.call(self.namesrv, code, &header, b"", SECOND).await;
        }
    }
}
