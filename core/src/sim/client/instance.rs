//! What all parts of one client process share: routes, the addresses of brokers, heartbeats.
//!
//! Source: `MQClientInstance`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;

use apogee_net::body::{
    BrokerAddrs, ConsumerData, HeartbeatData, ProducerData, TopicRouteData, parse, perm, to_fastjson,
};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::header::NoExt;
use apogee_net::request::GetRouteInfoRequest;

use super::super::executor::{SECOND, Scope, Signal, Sim, Us};
use super::super::host::Clock;
use super::super::network::{HostId, Network};
use super::super::remoting::{CallError, Channel, Remoting};
use super::super::wire::{Answer, Asked};

/// `pollNameServerInterval`, `heartbeatBrokerInterval`, `mqClientApiTimeout`.
const POLL_ROUTES_EVERY: Us = 30 * SECOND;
const HEARTBEAT_EVERY: Us = 30 * SECOND;
const NAMESRV_WAIT: Us = 3 * SECOND;
const HEARTBEAT_WAIT: Us = 3 * SECOND;

pub(in crate::sim) const MASTER: i64 = 0;

/// Is told of a half message that a broker asks about.
type OnCheck = Rc<dyn Fn(SocketAddr, Asked)>;

pub(in crate::sim) struct Instance {
    pub(in crate::sim) sim: Sim,
    pub(in crate::sim) client_id: String,
    pub(in crate::sim) remoting: Rc<Remoting>,
    pub(in crate::sim) scope: Rc<Scope>,
    pub(in crate::sim) clock: Clock,
    namesrvs: Vec<SocketAddr>,
    chosen: Cell<usize>,
    routes: RefCell<BTreeMap<String, TopicRouteData>>,
    topics: RefCell<BTreeSet<String>>,
    brokers: RefCell<BTreeMap<String, BrokerAddrs>>,
    producers: RefCell<BTreeSet<String>>,
    consumers: RefCell<BTreeMap<String, ConsumerData>>,
    /// The members of a group changed, or its subscription.
    pub(in crate::sim) rebalance: Signal,
    on_check: RefCell<Option<OnCheck>>,
}

impl Instance {
    pub(in crate::sim) fn start(
        sim: &Sim,
        network: &Rc<Network>,
        host: HostId,
        client_id: String,
        namesrvs: &[SocketAddr],
    ) -> Rc<Instance> {
        let instance = Rc::new(Instance {
            sim: sim.clone(),
            client_id,
            remoting: Remoting::new(sim, network, host),
            scope: Scope::new(sim),
            clock: Clock::wrong(sim),
            namesrvs: namesrvs.to_vec(),
            chosen: Cell::new(sim.below(namesrvs.len() as u64) as usize),
            routes: RefCell::default(),
            topics: RefCell::default(),
            brokers: RefCell::default(),
            producers: RefCell::default(),
            consumers: RefCell::default(),
            rebalance: Signal::default(),
            on_check: RefCell::default(),
        });
        let weak = Rc::downgrade(&instance);
        instance.remoting.on_asked(move |from, channel, asked| {
            if let Some(this) = weak.upgrade() {
                this.asked(from, channel, asked);
            }
        });
        instance.spawn(|this| async move {
            loop {
                this.sim.sleep(POLL_ROUTES_EVERY).await;
                this.update_routes().await;
            }
        });
        instance.spawn(|this| async move {
            this.sim.sleep(SECOND).await;
            loop {
                this.forget_brokers_without_route();
                this.heartbeat().await;
                this.sim.sleep(HEARTBEAT_EVERY).await;
            }
        });
        instance
    }

    pub(in crate::sim) fn spawn<F: Future<Output = ()> + 'static>(
        self: &Rc<Self>,
        task: impl FnOnce(Rc<Instance>) -> F,
    ) {
        self.scope.spawn(task(self.clone()));
    }

    pub(in crate::sim) fn now_ms(&self) -> i64 {
        self.clock.ms(&self.sim)
    }

    pub(in crate::sim) fn add_producer(&self, group: &str) {
        self.producers.borrow_mut().insert(group.to_owned());
    }

    pub(in crate::sim) fn set_consumer(&self, data: ConsumerData) {
        self.consumers.borrow_mut().insert(data.group_name.clone(), data);
    }

    pub(in crate::sim) fn on_check(&self, on_check: impl Fn(SocketAddr, Asked) + 'static) {
        *self.on_check.borrow_mut() = Some(Rc::new(on_check));
    }

    fn asked(&self, from: SocketAddr, channel: &Rc<Channel>, asked: Asked) {
        match asked.code {
            RequestCode::NOTIFY_CONSUMER_IDS_CHANGED => self.rebalance.raise(),
            RequestCode::CHECK_TRANSACTION_STATE => {
                let on_check = self.on_check.borrow().clone();
                if let Some(on_check) = on_check {
                    on_check(from, asked);
                }
            }
            _ if !asked.is_oneway => {
                channel.answer(asked.opaque, ResponseCode::REQUEST_CODE_NOT_SUPPORTED, b"");
            }
            _ => {}
        }
    }

    /// Asks the NameServer that was chosen last, or the first after it that can be reached.
    async fn ask_namesrv(
        &self,
        code: RequestCode,
        header: &GetRouteInfoRequest<'_>,
    ) -> Result<Answer, CallError> {
        for _ in 0..self.namesrvs.len() {
            let to = self.namesrvs[self.chosen.get()];
            let answer = self.remoting.call(to, code, header, b"", NAMESRV_WAIT).await;
            match answer {
                Err(CallError::Connect(_) | CallError::Closed) => {}
                Err(CallError::Timeout) => {
                    self.chosen.set((self.chosen.get() + 1) % self.namesrvs.len());
                    return answer;
                }
                Ok(_) => return answer,
            }
            self.chosen.set((self.chosen.get() + 1) % self.namesrvs.len());
        }
        Err(CallError::Timeout)
    }

    async fn fetch_route(&self, topic: &str) -> Option<TopicRouteData> {
        let header =
            GetRouteInfoRequest { topic, accept_standard_json_only: true, zone_name: None, zone_mode: false };
        let answer = self.ask_namesrv(RequestCode::GET_ROUTEINFO_BY_TOPIC, &header).await.ok()?;
        answer.is_success().then(|| parse(&answer.body).expect("our NameServer's route"))
    }

    /// `updateTopicRouteInfoFromNameServer`; a producer falls back to the template of new topics.
    pub(in crate::sim) async fn update_route(&self, topic: &str, or_template: bool) -> bool {
        self.topics.borrow_mut().insert(topic.to_owned());
        let mut route = self.fetch_route(topic).await;
        if route.is_none() && or_template {
            route = self.fetch_route("TBW102").await.map(|mut route| {
                for queue in &mut route.queue_datas {
                    let queues = queue.read_queue_nums.min(4);
                    (queue.read_queue_nums, queue.write_queue_nums) = (queues, queues);
                }
                route
            });
        }
        let Some(route) = route else { return false };
        let mut brokers = self.brokers.borrow_mut();
        for broker in &route.broker_datas {
            brokers.insert(broker.broker_name.clone(), broker.broker_addrs.clone());
        }
        self.routes.borrow_mut().insert(topic.to_owned(), route);
        true
    }

    async fn update_routes(&self) {
        let topics = self.topics.borrow().clone();
        for topic in topics {
            self.update_route(&topic, false).await;
        }
    }

    fn forget_brokers_without_route(&self) {
        let routes = self.routes.borrow();
        let mut brokers = self.brokers.borrow_mut();
        for addrs in brokers.values_mut() {
            addrs.retain(|_, addr| {
                routes
                    .values()
                    .flat_map(|route| &route.broker_datas)
                    .any(|broker| broker.broker_addrs.values().any(|routed| routed == addr))
            });
        }
        brokers.retain(|_, addrs| !addrs.is_empty());
    }

    /// Queues that may be sent to: of brokers with a master (`topicRouteData2TopicPublishInfo`).
    pub(in crate::sim) fn write_queues(&self, topic: &str) -> Vec<(String, i32)> {
        let routes = self.routes.borrow();
        let Some(route) = routes.get(topic) else { return Vec::new() };
        let mut queues = Vec::new();
        for queue in route.queue_datas.iter().filter(|queue| queue.perm & perm::WRITE != 0) {
            let broker = route.broker_datas.iter().find(|broker| broker.broker_name == queue.broker_name);
            if broker.is_some_and(|broker| broker.broker_addrs.contains_key(&MASTER)) {
                let ids = 0..queue.write_queue_nums;
                queues.extend(ids.map(|id| (queue.broker_name.clone(), id)));
            }
        }
        queues
    }

    /// Queues to be consumed, of all brokers (`topicRouteData2TopicSubscribeInfo`), in the order that all clients agree on.
    pub(in crate::sim) fn read_queues(&self, topic: &str) -> Vec<(String, i32)> {
        let routes = self.routes.borrow();
        let Some(route) = routes.get(topic) else { return Vec::new() };
        let readable = route.queue_datas.iter().filter(|queue| queue.perm & perm::READ != 0);
        let mut queues: Vec<_> = readable
            .flat_map(|queue| (0..queue.read_queue_nums).map(|id| (queue.broker_name.clone(), id)))
            .collect();
        queues.sort();
        queues
    }

    /// `findBrokerAddressInPublish`
    pub(in crate::sim) fn master(&self, broker: &str) -> Option<SocketAddr> {
        let brokers = self.brokers.borrow();
        brokers.get(broker)?.get(&MASTER).map(|addr| addr.parse().expect("an address"))
    }

    /// `findBrokerAddressInSubscribe`: the address, and whether it is a slave's.
    pub(in crate::sim) fn address(
        &self,
        broker: &str,
        id: i64,
        only_this: bool,
    ) -> Option<(SocketAddr, bool)> {
        let brokers = self.brokers.borrow();
        let addrs = brokers.get(broker)?;
        let mut found = addrs.get(&id).map(|addr| (id, addr));
        if found.is_none() && id != MASTER {
            found = addrs.get(&(id + 1)).map(|addr| (id + 1, addr));
        }
        if found.is_none() && !only_this {
            found = addrs.iter().next().map(|(id, addr)| (*id, addr));
        }
        found.map(|(id, addr)| (addr.parse().expect("an address"), id != MASTER))
    }

    /// Some broker that has a topic (`findBrokerAddrByTopic`).
    pub(in crate::sim) fn some_broker_of(&self, topic: &str) -> Option<SocketAddr> {
        let routes = self.routes.borrow();
        let brokers = &routes.get(topic)?.broker_datas;
        if brokers.is_empty() {
            return None;
        }
        let addrs = &self.sim.pick(brokers).broker_addrs;
        let addr = match addrs.get(&MASTER) {
            Some(addr) => addr,
            None => {
                let all: Vec<_> = addrs.values().collect();
                *self.sim.pick(&all)
            }
        };
        Some(addr.parse().expect("an address"))
    }

    /// To every master, and to slaves if this process consumes (`sendHeartbeatToAllBroker`).
    pub(in crate::sim) async fn heartbeat(&self) {
        let data = HeartbeatData {
            client_id: self.client_id.clone(),
            producer_data_set: self
                .producers
                .borrow()
                .iter()
                .map(|group| ProducerData { group_name: group.clone() })
                .collect(),
            consumer_data_set: self.consumers.borrow().values().cloned().collect(),
            ..HeartbeatData::default()
        };
        if data.producer_data_set.is_empty() && data.consumer_data_set.is_empty() {
            return;
        }
        let body = to_fastjson(&data);
        let brokers = self.brokers.borrow().clone();
        for (id, addr) in brokers.values().flatten() {
            if *id == MASTER || !data.consumer_data_set.is_empty() {
                let to = addr.parse().expect("an address");
                let _ = self.remoting.call(to, RequestCode::HEART_BEAT, &NoExt, &body, HEARTBEAT_WAIT).await;
            }
        }
    }

    /// The process ends, without a word.
    pub(in crate::sim) fn kill(&self) {
        self.scope.end();
        self.remoting.close();
    }
}
