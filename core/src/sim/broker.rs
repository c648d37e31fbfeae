//! Drives a shard on a simulated disk, as `node/shard.rs` does.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use apogee_net::code::ResponseCode;
use apogee_net::io::{Chunk, ConnectionId};
use apogee_storage::sim::{Lie, SimDisk};
use apogee_storage::{
    AlignedBuffer, BatchIndex, Completion, DiskOp, GroupState, LogConfig, LogOffset, Marks, Member, NodeId,
    read_group_state, recover, recover_group, save_group_state,
};
use bytes::Bytes;

use super::audit::Audit;
use super::executor::{MS, SECOND, Scope, Signal, Sim, Us};
use super::host::Clock;
use super::mutant::{self, LOST_PERCENT, Mutant};
use super::network::{HostId, Network};
use super::peers::{PeerEvents, Peers};
use super::registrar::Registrar;
use super::remoting::Remoting;
use super::server::{Connections, Serve, serve};
use super::wire;
use crate::config::{member_address, parse_member_address};
use crate::replication::{GroupStatus, MemberChange, PeerHello, PeerMessage, ReplicaConfig};
use crate::service::{Reply, ReplyTo, Request};
use crate::shard::assignment::FoundRoute;
use crate::shard::seen::{Progress, progress_told};
use crate::shard::topics::TopicPolicy;
use crate::shard::{
    Action, ColdPages, Fetch, ForwardAnswer, ForwardExt, ForwardFailed, ForwardId, ForwardRequest,
    GroupStart, LoadId, Moment, Need, Push, Replay, SearchError, Shard, ShardConfig,
};

/// As in `node/shard.rs`.
const TICK_MS: i64 = 100;
const TICK_MIN: Us = 5 * MS;
const SPACE_PERIOD: Us = SECOND;
const REGISTER_WAIT: Us = 3 * SECOND;
const INDEX_LOADS_PER_REQUEST_MAX: u32 = 32;

/// A disk and what is set on its speed. It outlives the processes that use it.
#[derive(Clone)]
pub(super) struct Drive {
    pub(super) disk: SimDisk,
    /// So long takes one operation.
    pub(super) latency: Rc<Cell<(Us, Us)>>,
}

pub(super) const DISK_LATENCY: (Us, Us) = (40, 300);

impl Drive {
    pub(super) fn new(seed: u64) -> Drive {
        Drive { disk: SimDisk::new(seed), latency: Rc::new(Cell::new(DISK_LATENCY)) }
    }
}

pub(super) struct Broker {
    sim: Sim,
    name: String,
    life: u64,
    host: HostId,
    mutant: Option<Mutant>,
    audit: Rc<Audit>,
    shard: RefCell<Shard<AlignedBuffer>>,
    drive: Drive,
    connections: Connections,
    clock: Clock,
    registrars: Vec<Rc<Registrar>>,
    /// None without a group.
    peers: RefCell<Option<Rc<Peers>>>,
    forwarder: Rc<Remoting>,
    planned_wake_ms: Cell<i64>,
    wake_earlier: Signal,
    scope: Rc<Scope>,
    stopping: Cell<bool>,
    /// While the process stands still: how many operations the disk has finished since.
    finished: Cell<Option<u64>>,
    this: Weak<Broker>,
}

/// What a shard is started with.
#[derive(Clone)]
pub(super) struct BrokerSetup {
    pub(super) host: HostId,
    pub(super) config: ShardConfig,
    pub(super) policy: TopicPolicy,
    pub(super) log: LogConfig,
    pub(super) namesrvs: Vec<SocketAddr>,
    pub(super) group: Option<GroupSetup>,
    pub(super) mutant: Option<Mutant>,
}

/// A shard's place in its group.
#[derive(Clone)]
pub(super) struct GroupSetup {
    pub(super) shard: u32,
    /// The voters the group begins with, and where their shards meet.
    pub(super) nodes: BTreeMap<NodeId, SocketAddr>,
    /// Where this one meets the others.
    pub(super) address: SocketAddr,
    /// Comes to a group that is there, and waits to be added.
    pub(super) joins: bool,
}

impl Broker {
    /// Opens the shard by the real recovery and serves it; the reason if the log cannot be opened.
    pub(super) fn start(
        sim: &Sim,
        network: &Rc<Network>,
        setup: &BrokerSetup,
        drive: &Drive,
        clock: Clock,
        audit: &Rc<Audit>,
    ) -> Result<Rc<Broker>, String> {
        drive.disk.set_new_state(Replay::new_state(setup.policy.clone(), true));
        let now_ms = clock.ms(sim);
        let shard = match &setup.group {
            None => open_alone(setup, drive, now_ms)?,
            Some(group) => open_in_group(sim, setup, group, drive, now_ms)?,
        };
        let registrars = setup.namesrvs.iter().map(|&namesrv| {
            let (name, address) = (setup.config.broker_name.clone(), setup.config.address);
            let in_group = setup.group.is_some();
            Registrar::new(
                sim,
                network,
                setup.host,
                namesrv,
                setup.config.cluster.to_string(),
                name,
                address,
                in_group,
            )
        });
        let broker = Rc::new_cyclic(|this| Broker {
            sim: sim.clone(),
            name: setup.config.broker_name.clone(),
            life: sim.now(),
            mutant: setup.mutant,
            audit: audit.clone(),
            host: setup.host,
            shard: RefCell::new(shard),
            drive: drive.clone(),
            connections: Connections::default(),
            clock,
            registrars: registrars.collect(),
            peers: RefCell::default(),
            forwarder: Remoting::new(sim, network, setup.host),
            planned_wake_ms: Cell::default(),
            wake_earlier: Signal::default(),
            scope: Scope::new(sim),
            stopping: Cell::new(false),
            finished: Cell::default(),
            this: this.clone(),
        });
        serve(network, setup.host, setup.config.address, &broker);
        if let Some(group) = &setup.group {
            let events: Weak<dyn PeerEvents> = Rc::<Broker>::downgrade(&broker);
            let node = setup.log.node;
            let peers = Peers::start(
                sim,
                network,
                setup.host,
                node,
                group.address,
                &drive.disk,
                events,
                &broker.scope,
            );
            peers.set_members(&group.nodes);
            *broker.peers.borrow_mut() = Some(peers);
        }
        broker.spawn(|this| async move { this.tick().await });
        broker.spawn(|this| async move { this.watch_space().await });
        for registrar in &broker.registrars {
            let registrar = registrar.clone();
            broker.spawn(|this| async move { registrar.run(&this.shard).await });
        }
        broker.pump();
        Ok(broker)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Which of the lives of its node this is.
    pub(super) fn life(&self) -> u64 {
        self.life
    }

    pub(super) fn marks(&self) -> Marks {
        self.shard.borrow().marks()
    }

    pub(super) fn is_master(&self) -> bool {
        self.shard.borrow().rank().is_master()
    }

    pub(super) fn group_status(&self) -> Option<GroupStatus> {
        self.shard.borrow().group_status(self.now_ms())
    }

    /// Has another node lead; false if that cannot be now.
    pub(super) fn transfer_to(&self, node: NodeId) -> bool {
        let begun = self.shard.borrow_mut().transfer_to(node, self.now_ms()).is_ok();
        self.pump();
        begun
    }

    /// Begins to change who belongs to the group; false if that cannot be now.
    pub(super) fn change_members(&self, change: MemberChange) -> bool {
        let begun = self.shard.borrow_mut().change_members(change, self.now_ms()).is_ok();
        self.pump();
        begun
    }

    pub(super) fn progress_of(&self, group: &str, topics: &[&str]) -> Vec<(Progress, u64)> {
        self.shard.borrow().progress_of(group, topics)
    }

    /// Its log did not take yet what its tables have, or it stands still and logs nothing.
    pub(super) fn has_unlogged(&self) -> bool {
        self.finished.get().is_some() || self.shard.borrow().has_unlogged()
    }

    /// Where a batch stands, if it is here.
    pub(super) fn base_of(&self, index: BatchIndex) -> Option<LogOffset> {
        self.shard.borrow().base_of(index)
    }

    /// The first offset of a queue here, and the one behind the last.
    pub(super) fn bounds_of(&self, topic: &str, queue_id: i32) -> Option<(u64, u64)> {
        self.shard.borrow().bounds_of(topic, queue_id)
    }

    /// A task that lives as long as the process.
    fn spawn<F: Future<Output = ()> + 'static>(&self, task: impl FnOnce(Rc<Broker>) -> F) {
        if let Some(this) = self.this.upgrade() {
            self.scope.spawn(task(this));
        }
    }

    fn now_ms(&self) -> i64 {
        self.clock.ms(&self.sim)
    }

    async fn tick(self: Rc<Self>) {
        loop {
            self.sleep_until_due().await;
            self.shard.borrow_mut().on_tick(self.now_ms());
            self.pump();
            while self.shard.borrow_mut().take_log_event().is_some() {}
        }
    }

    async fn sleep_until_due(&self) {
        let begun = self.now_ms();
        self.sim.sleep(TICK_MIN).await;
        loop {
            let tick_at_ms = begun + TICK_MS;
            let wake_at_ms = self.shard.borrow().wake_at_ms().map_or(tick_at_ms, |due| due.min(tick_at_ms));
            self.planned_wake_ms.set(wake_at_ms);
            let Ok(wait_ms @ 1..) = u64::try_from(wake_at_ms - self.now_ms()) else { return };
            self.sim.within(wait_ms * MS, self.wake_earlier.wait()).await;
        }
    }

    async fn watch_space(self: Rc<Self>) {
        loop {
            let space = self.drive.disk.space();
            self.shard.borrow_mut().on_space(space);
            self.pump();
            self.sim.sleep(SPACE_PERIOD).await;
        }
    }

    /// Hands over what the shard wants done until it wants nothing more.
    fn pump(&self) {
        loop {
            while let Some(action) = self.take_action() {
                self.carry_out(action);
            }
            self.read_clock();
            let op = self.shard.borrow_mut().poll_op(self.now_ms(), SimDisk::alloc);
            match op {
                Some(DiskOp::SaveGroupState { id, .. }) if self.mutant == Some(Mutant::LostVotes) => {
                    let saved = Completion::GroupStateSaved { id, result: Ok(()) };
                    self.spawn(|this| async move {
                        this.shard.borrow_mut().on_completion(saved, this.now_ms());
                        this.pump();
                    });
                }
                Some(op) => {
                    self.drive.disk.submit(op);
                    self.finish_one_later();
                }
                None => match self.take_action() {
                    Some(action) => self.carry_out(action),
                    None => break,
                },
            }
        }
        if self.shard.borrow().wake_at_ms().is_some_and(|due| due < self.planned_wake_ms.get()) {
            self.wake_earlier.raise();
        }
    }

    /// The disk carries out as many operations as it was given, but in an order of its own.
    fn finish_one_later(&self) {
        let (min, max) = self.drive.latency.get();
        let this = self.this.clone();
        self.sim.after(self.sim.between(min, max), move || {
            let Some(this) = this.upgrade() else { return };
            match this.finished.get() {
                Some(finished) => this.finished.set(Some(finished + 1)),
                None => this.finish_one(),
            }
        });
    }

    fn finish_one(&self) {
        if self.mutant == Some(Mutant::LostWrites) && self.sim.chance(LOST_PERCENT) {
            self.drive.disk.lie_about_next_write(Lie::Lost);
        }
        if let Some(completion) = self.drive.disk.step() {
            self.sim.note(0xd15c);
            self.read_clock();
            self.shard.borrow_mut().on_completion(completion, self.now_ms());
            self.pump();
        }
    }

    /// The process does nothing until it goes on.
    pub(super) fn stand_still(&self) {
        self.scope.stand_still();
        self.finished.set(Some(0));
    }

    /// What the network held for it has been handed in.
    pub(super) fn go_on(&self) {
        let finished = self.finished.take().unwrap_or(0);
        (0..finished).for_each(|_| self.finish_one());
        self.scope.go_on();
    }

    fn read_clock(&self) {
        let moment = Moment { ns: self.clock.ns(&self.sim), catch_up_reads: Default::default() };
        self.shard.borrow_mut().at(moment);
    }

    fn take_action(&self) -> Option<Action<AlignedBuffer>> {
        self.shard.borrow_mut().take_action()
    }

    /// How long a read from the disk takes.
    fn read_time(&self) -> Us {
        let (min, max) = self.drive.latency.get();
        self.sim.between(min, max)
    }

    fn carry_out(&self, action: Action<AlignedBuffer>) {
        match action {
            Action::Reply { to, reply } => self.send(to, &reply),
            Action::Push { to, push } => self.push(to, &push),
            Action::Read { to, reply, runs } => {
                let mut reply = reply;
                // At once: whoever reads a file has it open, and retention cannot take it away from him.
                for run in runs {
                    reply.body.push(match run {
                        Fetch::Here(chunk) => chunk,
                        Fetch::File(run) => Chunk::Bytes(self.drive.disk.read(run).into()),
                    });
                }
                self.spawn(|this| async move {
                    this.sim.sleep(this.read_time()).await;
                    this.send(to, &reply);
                });
            }
            Action::Load { id, need } => self.load(id, need),
            Action::FindKey { id, search } => {
                self.spawn(|this| async move {
                    this.sim.sleep(this.read_time()).await;
                    let found = search.run(|index, range| index.load(range).map_err(SearchError::Fault));
                    this.shard.borrow_mut().on_keys_found(id, found, this.now_ms());
                    this.pump();
                });
            }
            Action::Close { connection, .. } => {
                if self.connections.close(connection) {
                    self.spawn(|this| async move { this.on_closed(connection) });
                }
            }
            Action::FindRoute { topic } => {
                self.spawn(|this| async move {
                    let mut found = FoundRoute::Unreachable;
                    for registrar in &this.registrars {
                        found = registrar.find_route(&topic).await;
                        if !matches!(found, FoundRoute::Unreachable) {
                            break;
                        }
                    }
                    this.shard.borrow_mut().on_route(&topic, found, this.now_ms());
                    this.pump();
                });
            }
            Action::Peer { to, message } => {
                if let Some(peers) = &*self.peers.borrow() {
                    peers.send(to, &message);
                }
                if self.mutant == Some(Mutant::EarlyAnswers)
                    && let Some(answer) = mutant::early_answer(&message)
                {
                    self.spawn(|this| async move {
                        this.on_message(to, answer);
                    });
                }
            }
            Action::Forward { id, to, request } => self.forward(id, to, request),
            Action::RoleChanged(rank) => {
                self.sim.say(|| format!("{} of {:?} is {rank:?}", self.name, self.host));
                self.registrars.iter().for_each(|registrar| registrar.on_changed());
            }
            Action::MembersChanged(members) => self.meet(&members),
            Action::Alarm(text) => self.sim.say(|| format!("{} of {:?}: {text}", self.name, self.host)),
            Action::Register { then: None } => {
                self.registrars.iter().for_each(|registrar| registrar.on_changed());
            }
            Action::Register { then: Some((to, reply)) } => {
                self.spawn(|this| async move {
                    this.register_everywhere().await;
                    this.send(to, &reply);
                });
            }
        }
    }

    fn meet(&self, members: &[Member]) {
        let peers = self.peers.borrow().clone();
        if let Some(peers) = peers {
            let address = |member: &Member| parse_member_address(&member.address).expect("an address");
            let members: BTreeMap<_, _> =
                members.iter().map(|member| (member.node, address(member))).collect();
            if !members.is_empty() {
                peers.set_members(&members);
            }
        }
    }

    /// Asks the leader at its port for clients.
    fn forward(&self, id: Option<ForwardId>, to: NodeId, request: ForwardRequest) {
        let address = self.peers.borrow().as_ref().and_then(|peers| peers.client_address(to));
        self.spawn(|this| async move {
            let ForwardRequest { code, ext, body, timeout_ms } = request;
            let answer = match (address, id) {
                (None, _) => Err(ForwardFailed),
                (Some(address), None) => {
                    let _ = this.forwarder.oneway(address, code, &ext, &body).await;
                    return;
                }
                (Some(address), Some(_)) => {
                    let timeout = timeout_ms.max(0) as Us * MS;
                    let call = this.forwarder.call_async(address, code, &ext, &body, timeout);
                    call.await.map_err(|_| ForwardFailed).map(|answer| {
                        let header =
                            apogee_net::header::Header::decode(answer.frame.encoding, &answer.frame.header)
                                .expect("it was decoded before");
                        ForwardAnswer {
                            code: answer.code,
                            remark: header.remark.as_deref().map(str::to_owned),
                            ext: ForwardExt::of(&header),
                            body: answer.body.clone(),
                        }
                    })
                }
            };
            if let Some(id) = id {
                this.shard.borrow_mut().on_forwarded(id, answer, this.now_ms());
                this.pump();
            }
        });
    }

    fn load(&self, id: LoadId, need: Need) {
        let loaded = match need {
            Need::Pages(pages) => {
                // Damage is met by whoever looks into the pages.
                let _ = pages.index.load(pages.range);
                Vec::new()
            }
            Need::Runs(runs) => runs.into_iter().map(|run| self.drive.disk.read(run).into()).collect(),
        };
        self.spawn(|this| async move {
            this.sim.sleep(this.read_time()).await;
            this.shard.borrow_mut().on_loaded(id, Ok(loaded), this.now_ms());
            this.pump();
        });
    }

    /// Tells all NameServers at once; waits for those that can be reached.
    async fn register_everywhere(self: &Rc<Self>) {
        let began = self.sim.now();
        for registrar in &self.registrars {
            let left = REGISTER_WAIT.saturating_sub(self.sim.now() - began);
            self.sim.within(left, registrar.register_now(&self.shard)).await;
        }
    }

    fn send(&self, to: ReplyTo, reply: &Reply) {
        self.connections.send(to.connection, wire::reply(to, reply));
    }

    fn push(&self, to: ConnectionId, push: &Push) {
        let body: Vec<u8> = push.body.iter().flat_map(wire::in_memory).copied().collect();
        let (opaque, oneway) = (push.answered_as.unwrap_or(0), push.answered_as.is_none());
        self.connections.send(to, wire::request(push.code, opaque, oneway, &*push.ext, &body));
    }

    /// A request that needs pages of an index file waits for them.
    fn ask_again(&self, connection: ConnectionId, peer: SocketAddr, frame: Bytes, mut pages: ColdPages) {
        self.spawn(|this| async move {
            let frame = wire::frame(&frame);
            let request = Request::decode_again(connection, peer, &frame);
            for _ in 0..INDEX_LOADS_PER_REQUEST_MAX {
                this.sim.sleep(this.read_time()).await;
                let _ = pages.index.load(pages.range);
                if this.stopping.get() || !this.connections.is_open(connection) {
                    return;
                }
                let asked = this.shard.borrow_mut().on_request(&request, this.now_ms());
                match asked {
                    Ok(()) => return this.pump(),
                    Err(next) => pages = next,
                }
            }
            if let Some(to) = request.reply_to() {
                this.send(to, &Reply::error(ResponseCode::SYSTEM_BUSY, "index files do not stay in memory"));
            }
        });
    }

    /// The process is gone, with all that it was about to do. What becomes of its disk is up to the caller.
    pub(super) fn kill(&self) {
        self.scope.end();
        self.stopping.set(true);
    }

    /// Says good-bye to the NameServers, and waits until everything taken is durable.
    pub(super) async fn stop(&self) {
        const IDLE_WAIT: Us = 5 * SECOND;
        const LEAVE_WAIT: Us = 3 * SECOND;
        let began = self.sim.now();
        while self.peers.borrow().is_some() && self.sim.now() - began < LEAVE_WAIT {
            self.shard.borrow_mut().prepare_stop(self.now_ms());
            self.pump();
            if self.shard.borrow().has_left() {
                break;
            }
            self.sim.sleep(2 * MS).await;
        }
        for registrar in &self.registrars {
            registrar.unregister(&self.shard).await;
        }
        self.stopping.set(true);
        let peers = self.peers.borrow().clone();
        if let Some(peers) = peers {
            peers.stop();
        }
        let began = self.sim.now();
        loop {
            self.shard.borrow_mut().prepare_stop(self.now_ms());
            self.pump();
            if self.shard.borrow().is_idle() || self.sim.now() - began > IDLE_WAIT {
                break;
            }
            self.sim.sleep(2 * MS).await;
        }
        self.sim.sleep(20 * MS).await;
        self.scope.end();
    }
}

fn open_alone(setup: &BrokerSetup, drive: &Drive, now_ms: i64) -> Result<Shard<AlignedBuffer>, String> {
    let mut replay = Replay::new(setup.policy.clone(), true);
    let recovered = recover(&drive.disk, &setup.log, &mut replay).map_err(|error| error.to_string())?;
    Shard::open(setup.config.clone(), setup.log.clone(), recovered, replay, now_ms)
        .map_err(|error| error.to_string())
}

/// As `node/open.rs` does.
fn open_in_group(
    sim: &Sim,
    setup: &BrokerSetup,
    group: &GroupSetup,
    drive: &Drive,
    now_ms: i64,
) -> Result<Shard<AlignedBuffer>, String> {
    let mut replay = Replay::new(setup.policy.clone(), true);
    let (disk, log) = (&drive.disk, &setup.log);
    let state = match read_group_state(disk, log.group, log.node).map_err(|error| error.to_string())? {
        Some(state) => state,
        None => {
            let state = first_state(sim, setup, group);
            save_group_state(disk, &state).map_err(|error| error.to_string())?;
            state
        }
    };
    let recovered = recover_group(disk, log, state, &mut replay).map_err(|error| error.to_string())?;
    let config = ReplicaConfig {
        seed: recovered.state.incarnation,
        window_bytes: 256 << 10,
        uncommitted_bytes_max: 1 << 20,
        ..ReplicaConfig::new(log.node, group.shard)
    };
    let start = GroupStart { config, recovered };
    Shard::open_in_group(setup.config.clone(), log.clone(), start, replay, now_ms, SimDisk::alloc)
        .map_err(|error| error.to_string())
}

fn first_state(sim: &Sim, setup: &BrokerSetup, group: &GroupSetup) -> GroupState {
    let mut state = GroupState::new(setup.log.group, setup.log.node);
    state.incarnation = sim.below(u64::MAX) | 1;
    state.segment_bytes = setup.log.segment_bytes;
    state.write_window_bytes = setup.log.write_window_bytes;
    if !group.joins {
        state.conf.voters = group.nodes.keys().copied().collect();
        let member = |(node, address): (&NodeId, &SocketAddr)| Member {
            node: *node,
            address: member_address(*address),
        };
        state.members = group.nodes.iter().map(member).collect();
    }
    state
}

impl PeerEvents for Broker {
    fn hello(&self) -> PeerHello {
        self.shard.borrow().peer_hello().expect("only shards of a group have peers")
    }

    fn on_up(&self, hello: PeerHello) {
        self.shard.borrow_mut().on_peer_up(hello, self.now_ms());
        self.pump();
    }

    fn on_down(&self, node: NodeId) {
        self.shard.borrow_mut().on_peer_down(node, self.now_ms());
        self.pump();
    }

    fn on_message(&self, from: NodeId, mut message: PeerMessage<AlignedBuffer>) -> bool {
        if self.stopping.get() {
            return true;
        }
        if self.mutant == Some(Mutant::UncommittedReads) {
            mutant::call_committed(&mut message);
        }
        self.read_clock();
        let heard = self.shard.borrow_mut().on_peer_message(from, message, self.now_ms());
        self.pump();
        heard.is_ok()
    }
}

impl Serve for Broker {
    fn on_frame(&self, connection: ConnectionId, peer: SocketAddr, bytes: Bytes) {
        if self.stopping.get() {
            return;
        }
        let frame = wire::frame(&bytes);
        let request =
            Request::decode(connection, peer, &frame).expect("clients write headers that can be read");
        self.read_clock();
        if request.is_answer() {
            self.shard.borrow_mut().on_answer(&request, self.now_ms());
        } else {
            if let Some((progress, offset)) = progress_told(&request) {
                self.audit.told(&self.name, &progress, offset);
            }
            if self.mutant == Some(Mutant::MovedOffsets)
                && let (Some(moved), Some(to)) =
                    (mutant::moved(&self.shard.borrow(), &request), request.reply_to())
            {
                return self.send(to, &moved);
            }
            let asked = self.shard.borrow_mut().on_request(&request, self.now_ms());
            if let Err(pages) = asked {
                self.ask_again(connection, peer, bytes, pages);
            }
        }
        self.pump();
    }

    fn on_closed(&self, connection: ConnectionId) {
        self.shard.borrow_mut().on_connection_closed(connection, self.now_ms());
        self.pump();
    }

    fn connections(&self) -> &Connections {
        &self.connections
    }
}
