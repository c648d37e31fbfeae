//! Keeps one shard registered with one NameServer.
//!
//! A long connection: the NameServer forgets the broker when it closes. Everything is told on connecting, changes
//! at once, and every 30 s a short question refreshes the entry and finds out whether the NameServer still knows
//! what it was told. Each NameServer has a registrar of its own, so one that cannot be reached delays nobody.
//!
//! In a group, a shard registers as master (0) while its node leads and as slave under the node's id otherwise. Who stops
//! leading keeps the master's place until the NameServer has heard of the successor: without a master in its route, a
//! stock client leaves the broker out for half a minute, while an old master forwards what it gets.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use apogee_net::body::{GetBrokerMemberGroupResponseBody, parse, to_fastjson};
use apogee_net::client::{CallError, ConnectError, ConnectOptions, RemotingClient, ReplyFrame};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::io::{Chunk, Signal};
use apogee_net::request::{
    GetBrokerMemberGroupRequest, GetRouteInfoRequest, QueryDataVersionReply, QueryDataVersionRequest,
    RegisterBrokerRequest, TypedHeader, UnregisterBrokerRequest,
};
use apogee_storage::Buffer;
use futures_lite::future;

use crate::shard::assignment::FoundRoute;
use crate::shard::{Rank, Registration, Shard, Told};

/// How often the entry is refreshed (`registerNameServerPeriod`); NameServers forget after 120 s.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Time limits of a connect, of a short call and of a registration (`registerBrokerTimeoutMills` is 24 s).
const CONNECT_WAIT: Duration = Duration::from_secs(3);
const CALL_WAIT: Duration = Duration::from_secs(5);
const REGISTER_WAIT: Duration = Duration::from_secs(24);

/// Longest wait for a NameServer at an orderly stop.
const UNREGISTER_WAIT: Duration = Duration::from_secs(1);

/// Longest wait for a route: clients that ask for their queues give up after 3 s.
const ROUTE_WAIT: Duration = Duration::from_secs(1);

/// How long to stay away from a NameServer that cannot be reached; doubles up to the second. Short, so that one that
/// comes back is complete soon.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// How long an old leader waits at most for its successor to register, and how often it looks. Longer than an election
/// takes: by then the group has no majority, and clients do well to leave it out.
const SUCCESSOR_WAIT: Duration = Duration::from_secs(10);
const SUCCESSOR_ASKED_EVERY: Duration = Duration::from_millis(100);

/// The same at an orderly stop: its successor leads already, and has only to register.
const SUCCESSOR_WAIT_AT_STOP: Duration = Duration::from_secs(1);
const SUCCESSOR_ASKED_AT_STOP: Duration = Duration::from_millis(10);

/// The id of a master.
const MASTER_ID: i64 = 0;

/// What a NameServer is told besides the topics.
#[derive(Debug, Clone)]
pub(super) struct BrokerIdentity {
    pub(super) cluster: String,
    pub(super) broker_name: String,
    pub(super) address: SocketAddr,
    /// Whether the broker has other replicas.
    pub(super) in_group: bool,
}

/// A NameServer as one shard sees it.
#[derive(Debug)]
pub(super) struct Registrar {
    namesrv: SocketAddr,
    broker: BrokerIdentity,
    client: RefCell<Option<Rc<RemotingClient>>>,
    /// What this NameServer was told, over the present connection.
    told: Cell<Option<Told>>,
    was_registered: Cell<bool>,
    /// Since when the shard waits for its successor as master.
    stepped_down: Cell<Option<Instant>>,
    changed: Signal,
}

#[derive(Debug, thiserror::Error)]
enum RegisterError {
    #[error("cannot connect: {0}")]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Call(#[from] CallError),
    #[error("refused with {code}: {remark}")]
    Refused { code: ResponseCode, remark: String },
}

impl Registrar {
    pub(super) fn new(namesrv: SocketAddr, broker: BrokerIdentity) -> Self {
        Registrar {
            namesrv,
            broker,
            client: RefCell::default(),
            told: Cell::default(),
            was_registered: Cell::default(),
            stepped_down: Cell::default(),
            changed: Signal::default(),
        }
    }

    /// Whether this NameServer ever took the registration.
    pub(super) fn was_registered(&self) -> bool {
        self.was_registered.get()
    }

    /// Topics or the shard's role have changed: has the NameServer told soon.
    pub(super) fn on_changed(&self) {
        self.changed.raise();
    }

    /// Tells the NameServer what changed, now; one that is just connecting, as soon as it is connected.
    pub(super) async fn register_now<B: Buffer + 'static>(&self, shard: &RefCell<Shard<B>>) {
        let client = self.client.borrow().clone();
        let Some(client) = client else { return self.on_changed() };
        if let Err(error) = self.register(&client, shard).await {
            self.give_up(&client, &error);
        }
    }

    /// Runs for ever; `on_registered` is called the first time that a registration was taken.
    pub(super) async fn run<B: Buffer + 'static>(&self, shard: &RefCell<Shard<B>>, on_registered: impl Fn()) {
        let mut retry = RETRY_FIRST;
        loop {
            match self.connect_and_register(shard).await {
                Ok(client) => {
                    retry = RETRY_FIRST;
                    if self.told.get().is_some() {
                        tracing::info!(namesrv = %self.namesrv, broker = self.broker.broker_name, "registered");
                    }
                    if !self.was_registered.replace(true) {
                        on_registered();
                    }
                    self.stay_registered(&client, shard).await;
                    self.client.take();
                    tracing::warn!(namesrv = %self.namesrv, "the connection to the NameServer was lost");
                }
                Err(error) => {
                    if retry == RETRY_FIRST || retry == RETRY_MAX {
                        tracing::warn!(namesrv = %self.namesrv, %error, "cannot register; trying again");
                    }
                }
            }
            glommio::timer::sleep(retry).await;
            retry = (retry * 2).min(RETRY_MAX);
        }
    }

    async fn connect_and_register<B: Buffer + 'static>(
        &self,
        shard: &RefCell<Shard<B>>,
    ) -> Result<Rc<RemotingClient>, RegisterError> {
        let client = RemotingClient::connect(self.namesrv, &ConnectOptions::within(CONNECT_WAIT)).await?;
        self.told.set(None);
        self.stepped_down.set(None);
        self.register(&client, shard).await?;
        *self.client.borrow_mut() = Some(client.clone());
        Ok(client)
    }

    /// Until the connection is lost.
    async fn stay_registered<B: Buffer + 'static>(
        &self,
        client: &Rc<RemotingClient>,
        shard: &RefCell<Shard<B>>,
    ) {
        enum Event {
            Changed,
            Heartbeat,
            Closed,
        }
        loop {
            let changed = async {
                self.changed.wait().await;
                Event::Changed
            };
            let waits = self.stepped_down.get().is_some();
            let pause = if waits { SUCCESSOR_ASKED_EVERY } else { HEARTBEAT };
            let heartbeat = async {
                glommio::timer::sleep(pause).await;
                if waits { Event::Changed } else { Event::Heartbeat }
            };
            let closed = async {
                client.closed().await;
                Event::Closed
            };
            let done = match future::or(closed, future::or(changed, heartbeat)).await {
                Event::Changed => self.register(client, shard).await,
                Event::Heartbeat => self.refresh(client, shard).await,
                Event::Closed => return,
            };
            if let Err(error) = done {
                self.give_up(client, &error);
                return;
            }
        }
    }

    fn give_up(&self, client: &RemotingClient, error: &RegisterError) {
        tracing::warn!(namesrv = %self.namesrv, %error, "the NameServer does not take the registration");
        client.close();
    }

    async fn register<B: Buffer + 'static>(
        &self,
        client: &RemotingClient,
        shard: &RefCell<Shard<B>>,
    ) -> Result<(), RegisterError> {
        if self.waits_for_successor(client, shard).await? {
            return Ok(());
        }
        if shard.borrow().is_removed() {
            return self.withdraw(client, shard).await;
        }
        let BrokerIdentity { cluster, broker_name, address, in_group } = &self.broker;
        loop {
            let Registration { body, told, is_last } = shard.borrow().registration(self.told.get());
            let header = RegisterBrokerRequest {
                broker_name,
                broker_addr: &address.to_string(),
                cluster_name: cluster,
                // Where a slave would replicate from. Nobody does; the field is required.
                ha_server_addr: &SocketAddr::new(address.ip(), address.port() + 1).to_string(),
                broker_id: told.rank().broker_id,
                heartbeat_timeout_ms: None,
                // Nobody stands in for a master. Said, since a NameServer takes topics from slaves only if they say it: one
                // that starts while nobody leads then knows them all the same.
                enable_acting_master: in_group.then_some(false),
                compressed: false,
                // Unchecked: TCP has its own checksum.
                body_crc32: 0,
                zone_name: None,
            };
            let body = [Chunk::from(to_fastjson(&body))];
            let reply = client.call(RequestCode::REGISTER_BROKER, &header, body, REGISTER_WAIT).await?;
            accepted(&reply)?;
            let before = self.told.replace(Some(told)).map(|before| before.rank());
            if *in_group && before != Some(told.rank()) {
                let Rank { broker_id, term } = told.rank();
                tracing::info!(namesrv = %self.namesrv, broker = broker_name, broker_id, term, "registered in a new role");
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// A node that was removed is nobody's slave: whoever asks for the route from now on does not come here.
    async fn withdraw<B: Buffer + 'static>(
        &self,
        client: &RemotingClient,
        shard: &RefCell<Shard<B>>,
    ) -> Result<(), RegisterError> {
        if self.told.get().is_none() {
            return Ok(());
        }
        accepted(&self.take_out(client, shard, CALL_WAIT).await?)?;
        self.told.set(None);
        tracing::info!(namesrv = %self.namesrv, broker = self.broker.broker_name, "unregistered");
        Ok(())
    }

    /// Whether the NameServer has this shard as master, though it no longer is, and knows of no other yet.
    async fn waits_for_successor<B: Buffer + 'static>(
        &self,
        client: &RemotingClient,
        shard: &RefCell<Shard<B>>,
    ) -> Result<bool, RegisterError> {
        let has_place = self.told.get().is_some_and(|told| told.rank().is_master());
        if !has_place || shard.borrow().rank().is_master() {
            self.stepped_down.set(None);
            return Ok(false);
        }
        let since = self.stepped_down.get().unwrap_or_else(Instant::now);
        self.stepped_down.set(Some(since));
        let waits = since.elapsed() < SUCCESSOR_WAIT
            && self.master(client).await? == Some(self.broker.address.to_string());
        // The shard may have become master again meanwhile.
        if !waits || shard.borrow().rank().is_master() {
            self.stepped_down.set(None);
            return Ok(false);
        }
        Ok(true)
    }

    /// Address of the master of this broker name. `None` as well if the NameServer does not understand the question.
    async fn master(&self, client: &RemotingClient) -> Result<Option<String>, RegisterError> {
        let BrokerIdentity { cluster, broker_name, .. } = &self.broker;
        let header = GetBrokerMemberGroupRequest { cluster_name: cluster, broker_name };
        let reply = client.call(RequestCode::GET_BROKER_MEMBER_GROUP, &header, [], CALL_WAIT).await?;
        let group = parse::<GetBrokerMemberGroupResponseBody>(reply.body()).ok();
        let group = group.and_then(|body| body.broker_member_group);
        Ok(group.and_then(|mut group| group.broker_addrs.remove(&MASTER_ID)))
    }

    /// Tells that we live, and registers anew if the NameServer has forgotten or missed something.
    async fn refresh<B: Buffer + 'static>(
        &self,
        client: &RemotingClient,
        shard: &RefCell<Shard<B>>,
    ) -> Result<(), RegisterError> {
        let (version, rank) = {
            let shard = shard.borrow();
            (shard.topics_version(), shard.rank())
        };
        // Without any, there is nothing to be refreshed; with a later term, which the NameServer cannot know, no reason to
        // tell all topics again.
        if self.told.get().is_none_or(|told| told.rank() != rank) {
            return self.register(client, shard).await;
        }
        let BrokerIdentity { cluster, broker_name, address, .. } = &self.broker;
        let header = QueryDataVersionRequest {
            broker_name,
            broker_addr: &address.to_string(),
            cluster_name: cluster,
            broker_id: rank.broker_id,
        };
        let body = [Chunk::from(to_fastjson(&version))];
        let reply = client.call(RequestCode::QUERY_DATA_VERSION, &header, body, CALL_WAIT).await?;
        accepted(&reply)?;
        let header = reply.header();
        let is_changed = QueryDataVersionReply::decode(&header.ext).map_or(true, |reply| reply.changed);
        if is_changed {
            self.told.set(None);
            self.register(client, shard).await?;
        }
        Ok(())
    }

    /// Where the queues of a topic are, on all brokers.
    pub(super) async fn find_route(&self, topic: &str) -> FoundRoute {
        let Some(client) = self.client.borrow().clone() else { return FoundRoute::Unreachable };
        let header =
            GetRouteInfoRequest { topic, accept_standard_json_only: true, zone_name: None, zone_mode: false };
        let asked = client.call(RequestCode::GET_ROUTEINFO_BY_TOPIC, &header, [], ROUTE_WAIT).await;
        let Ok(reply) = asked else { return FoundRoute::Unreachable };
        match reply.code() {
            ResponseCode::SUCCESS => match parse(reply.body()) {
                Ok(route) => FoundRoute::Found(Box::new(route)),
                Err(error) => {
                    tracing::warn!(namesrv = %self.namesrv, topic, %error, "the NameServer's route cannot be read");
                    FoundRoute::Unreachable
                }
            },
            ResponseCode::TOPIC_NOT_EXIST => FoundRoute::Unknown,
            _ => FoundRoute::Unreachable,
        }
    }

    /// Takes the broker out of the routes, for an orderly stop; once its successor as master is there, if one comes soon.
    pub(super) async fn unregister<B: Buffer + 'static>(&self, shard: &RefCell<Shard<B>>) {
        let Some(client) = self.client.borrow().clone() else { return };
        let begun = Instant::now();
        while begun.elapsed() < SUCCESSOR_WAIT_AT_STOP
            && matches!(self.waits_for_successor(&client, shard).await, Ok(true))
        {
            glommio::timer::sleep(SUCCESSOR_ASKED_AT_STOP).await;
        }
        // A NameServer that does not answer forgets us by itself when the connection closes.
        let _ = self.take_out(&client, shard, UNREGISTER_WAIT).await;
    }

    async fn take_out<B: Buffer + 'static>(
        &self,
        client: &RemotingClient,
        shard: &RefCell<Shard<B>>,
        wait: Duration,
    ) -> Result<ReplyFrame, CallError> {
        let BrokerIdentity { cluster, broker_name, address, .. } = &self.broker;
        // Not what was told last: NameServers of 4.x remove whoever has the id, which may be the successor.
        let broker_id = shard.borrow().rank().broker_id;
        let header = UnregisterBrokerRequest {
            broker_name,
            broker_addr: &address.to_string(),
            cluster_name: cluster,
            broker_id,
        };
        client.call(RequestCode::UNREGISTER_BROKER, &header, [], wait).await
    }
}

fn accepted(reply: &ReplyFrame) -> Result<(), RegisterError> {
    match reply.code() {
        ResponseCode::SUCCESS => Ok(()),
        code => {
            let remark = reply.header().remark.as_deref().unwrap_or_default().to_owned();
            Err(RegisterError::Refused { code, remark })
        }
    }
}
