//! Keeps one shard registered with one NameServer, as `node/registrar.rs` does.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use apogee_net::body::{GetBrokerMemberGroupResponseBody, parse, to_fastjson};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::request::{
    GetBrokerMemberGroupRequest, GetRouteInfoRequest, QueryDataVersionRequest, RegisterBrokerRequest,
    UnregisterBrokerRequest,
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
const SUCCESSOR_WAIT: Us = 10 * SECOND;
const SUCCESSOR_ASKED_EVERY: Us = 100 * MS;
const RETRY_FIRST: Us = 100 * MS;
const RETRY_MAX: Us = 5 * SECOND;

pub(super) struct Registrar {
    sim: Sim,
    namesrv: SocketAddr,
    cluster: String,
    broker_name: String,
    address: SocketAddr,
    in_group: bool,
    client: Rc<Remoting>,
    told: Cell<Option<Told>>,
    is_registered: Cell<bool>,
    /// Since when the shard waits for its successor as master.
    stepped_down: Cell<Option<Us>>,
    changed: Signal,
}

type SharedShard = RefCell<Shard<AlignedBuffer>>;

enum Event {
    Changed,
    Heartbeat,
    Closed,
}

impl Registrar {
    #[expect(clippy::too_many_arguments, reason = "all that a NameServer is told of a broker")]
    pub(super) fn new(
        sim: &Sim,
        network: &Rc<Network>,
        host: HostId,
        namesrv: SocketAddr,
        cluster: String,
        broker_name: String,
        address: SocketAddr,
        in_group: bool,
    ) -> Rc<Registrar> {
        Rc::new(Registrar {
            sim: sim.clone(),
            namesrv,
            cluster,
            broker_name,
            address,
            in_group,
            stepped_down: Cell::default(),
            client: Remoting::new(sim, network, host),
            told: Cell::default(),
            is_registered: Cell::default(),
            changed: Signal::default(),
        })
    }

    pub(super) fn on_changed(&self) {
        self.changed.raise();
    }

    pub(super) async fn register_now(&self, shard: &SharedShard) {
        if !self.is_registered.get() {
            return self.on_changed();
        }
        if self.register(shard).await.is_none() {
            self.client.close();
        }
    }

    pub(super) async fn run(&self, shard: &SharedShard) {
        let mut retry = RETRY_FIRST;
        loop {
            self.told.set(None);
            self.stepped_down.set(None);
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
            let waits = self.stepped_down.get().is_some();
            let heartbeat = async {
                self.sim.sleep(if waits { SUCCESSOR_ASKED_EVERY } else { HEARTBEAT }).await;
                if waits { Event::Changed } else { Event::Heartbeat }
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
        if self.waits_for_successor(shard).await? {
            return Some(());
        }
        if shard.borrow().is_removed() {
            if self.told.take().is_some() {
                self.take_out(shard).await;
            }
            return Some(());
        }
        loop {
            let Registration { body, told, is_last } = shard.borrow().registration(self.told.get());
            let header = RegisterBrokerRequest {
                broker_name: &self.broker_name,
                broker_addr: &self.address.to_string(),
                cluster_name: &self.cluster,
                ha_server_addr: &SocketAddr::new(self.address.ip(), self.address.port() + 1).to_string(),
                broker_id: told.rank().broker_id,
                heartbeat_timeout_ms: None,
                enable_acting_master: self.in_group.then_some(false),
                compressed: false,
                body_crc32: 0,
                zone_name: None,
            };
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

    /// Whether the NameServer has this shard as master, though it no longer is, and knows of no other yet.
    async fn waits_for_successor(&self, shard: &SharedShard) -> Option<bool> {
        let has_place = self.told.get().is_some_and(|told| told.rank().is_master());
        if !has_place || shard.borrow().rank().is_master() {
            self.stepped_down.set(None);
            return Some(false);
        }
        let since = self.stepped_down.get().unwrap_or(self.sim.now());
        self.stepped_down.set(Some(since));
        let waits =
            self.sim.now() - since < SUCCESSOR_WAIT && self.master().await? == Some(self.address.to_string());
        if !waits || shard.borrow().rank().is_master() {
            self.stepped_down.set(None);
            return Some(false);
        }
        Some(true)
    }

    async fn master(&self) -> Option<Option<String>> {
        let header =
            GetBrokerMemberGroupRequest { cluster_name: &self.cluster, broker_name: &self.broker_name };
        let code = RequestCode::GET_BROKER_MEMBER_GROUP;
        let answer = self.client.call(self.namesrv, code, &header, b"", CALL_WAIT).await.ok()?;
        let group = parse::<GetBrokerMemberGroupResponseBody>(&answer.body).ok();
        let group = group.and_then(|body| body.broker_member_group);
        Some(group.and_then(|mut group| group.broker_addrs.remove(&0)))
    }

    async fn refresh(&self, shard: &SharedShard) -> Option<()> {
        let (version, rank) = {
            let shard = shard.borrow();
            (shard.topics_version(), shard.rank())
        };
        if self.told.get().is_none() {
            return self.register(shard).await;
        }
        let header = QueryDataVersionRequest {
            broker_name: &self.broker_name,
            broker_addr: &self.address.to_string(),
            cluster_name: &self.cluster,
            broker_id: rank.broker_id,
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

    pub(super) async fn unregister(&self, shard: &SharedShard) {
        if self.is_registered.get() {
            self.take_out(shard).await;
        }
    }

    async fn take_out(&self, shard: &SharedShard) {
        let broker_id = shard.borrow().rank().broker_id;
        let header = UnregisterBrokerRequest {
            broker_name: &self.broker_name,
            broker_addr: &self.address.to_string(),
            cluster_name: &self.cluster,
            broker_id,
        };
        let code = RequestCode::UNREGISTER_BROKER;
        let _ = self.client.call(self.namesrv, code, &header, b"", SECOND).await;
    }
}
