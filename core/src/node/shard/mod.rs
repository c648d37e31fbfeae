//! Drives the shards of one executor: sockets and disk to [`Shard`], its actions to sockets and disk.

mod forward;
mod group;
mod index_pages;
mod nameservers;
mod reads;
mod stop;
mod ticks;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::mpsc::Sender;
use std::time::Duration;

use anyhow::Context;
use apogee_net::code::ResponseCode;
use apogee_net::command::{RequestHead, encode_request};
use apogee_net::frame::{HeaderEncoding, RawFrame};
use apogee_net::io::{
    Chunk, Connection, ConnectionId, Driver, DriverConfig, Listener, Server, ServerLimits, Service, Signal,
};
use apogee_storage::driver::{Disk, DmaBuffer, ShardDirectory};
use apogee_storage::{DiskOp, NodeId};
use glommio::sync::Semaphore;
use glommio::{Latency, Shares, TaskQueueHandle};

use super::NodeEvent;
use super::clock::{Now, now, now_ms};
use super::log_events::EventWriter;
use super::open::OpenShard;
use super::peers::Peers;
use super::registrar::{BrokerIdentity, Registrar};
use super::stop::StopSignal;
use crate::config::BrokerConfig;
use crate::service::{Reply, ReplyTo, Request};
use crate::shard::{Action, DriftGauge, Moment, Push, Shard, ShardConfig};

/// Scheduling groups of a shard's executor. Client I/O, appends and timers run in glommio's default queue, which has a
/// thousand shares; what can wait a little runs here.
#[derive(Debug, Clone, Copy)]
struct Groups {
    /// What peers send and are sent. As many shares as clients have: a half of a busy core is always left for it, for a node
    /// that is only slow must not look dead, or be held for a leader that is. Never more than clients' when both are busy:
    /// a follower that catches up must not stall those that read from it.
    replication: TaskQueueHandle,
    /// Reads from disk for consumers that lag: they must not delay producers.
    catch_up: TaskQueueHandle,
    /// Preparing and sealing segments, snapshots, retention.
    background: TaskQueueHandle,
}

/// The shards that an executor runs.
#[derive(Debug)]
pub(super) struct Hosted {
    pub(super) numbers: Vec<u16>,
    /// How many shards the node has.
    pub(super) of: u16,
}

/// Runs the shards until the order to stop. Reports each that is ready, and the first failure.
pub(super) async fn run_all(
    config: BrokerConfig,
    shards: Hosted,
    drift: DriftGauge,
    stop: StopSignal,
    events: Sender<NodeEvent>,
) {
    Driver::start(DriverConfig { spin: Duration::from_micros(config.spin_us) });
    let groups = Groups {
        replication: glommio::executor().create_task_queue(
            Shares::Static(1000),
            Latency::NotImportant,
            "replication",
        ),
        catch_up: glommio::executor().create_task_queue(
            Shares::Static(100),
            Latency::NotImportant,
            "catch-up",
        ),
        background: glommio::executor().create_task_queue(
            Shares::Static(100),
            Latency::NotImportant,
            "background",
        ),
    };
    let running = match start_all(&config, shards, groups, &events).await {
        Ok(running) => running,
        Err(error) => {
            // Nobody listens only when the process is ending already.
            let _ = events.send(NodeEvent::Failed(error));
            return;
        }
    };
    for driver in &running {
        driver.shard.borrow_mut().show_drift(drift.clone());
    }
    stop.given().await;
    let stopping: Vec<_> = running.into_iter().map(|driver| glommio::spawn_local(driver.stop())).collect();
    for stopped in stopping {
        stopped.await;
    }
}

/// Opens all shards, then serves them: recovery blocks the thread, and no client may wait for another shard's.
async fn start_all(
    config: &BrokerConfig,
    shards: Hosted,
    groups: Groups,
    events: &Sender<NodeEvent>,
) -> anyhow::Result<Vec<Rc<ShardDriver>>> {
    let mut opened = Vec::new();
    for number in shards.numbers {
        let shard = OpenShard::open(config, number, shards.of)
            .await
            .with_context(|| format!("shard {number} cannot start"))?;
        opened.push((number, shard));
    }
    opened
        .into_iter()
        .map(|(number, shard)| {
            ShardDriver::serve(config, number, shard, groups, events)
                .with_context(|| format!("shard {number} cannot start"))
        })
        .collect()
}

/// One shard, its connections, its disk and its NameServers.
struct ShardDriver {
    number: u16,
    shard: RefCell<Shard<DmaBuffer>>,
    server: Rc<Server>,
    disk: Rc<Disk>,
    registrars: Vec<Rc<Registrar>>,
    /// Connections to the other nodes; none without a group.
    peers: Option<Rc<Peers>>,
    /// Where the other nodes are as the configuration says.
    configured_peers: BTreeMap<NodeId, SocketAddr>,
    waiting_for_files: group::Waiting,
    forwarder: forward::Forwarder,
    reads: Semaphore,
    reads_waiting: Cell<usize>,
    index_waiters: Cell<usize>,
    /// When the next tick is, and the means to have it earlier.
    planned_wake_ms: Cell<i64>,
    wake_earlier: Signal,
    /// When the turn began that requests are being taken in.
    turn: Cell<Option<Now>>,
    groups: Groups,
    tasks: RefCell<Vec<glommio::Task<()>>>,
    /// Requests are not taken any more; clients go elsewhere or come back.
    stopping: Cell<bool>,
    /// How long it serves on after it has handed over.
    linger: Duration,
    events: RefCell<EventWriter>,
    this: Weak<ShardDriver>,
    /// Keeps the directory locked.
    _directory: ShardDirectory,
}

impl ShardDriver {
    fn serve(
        config: &BrokerConfig,
        number: u16,
        OpenShard { shard, disk, directory }: OpenShard,
        groups: Groups,
        events: &Sender<NodeEvent>,
    ) -> anyhow::Result<Rc<Self>> {
        let port = config.port(number)?;
        let listener = bind(config.listen, port)?;
        let vip = bind_vip(config.listen, port);

        let server = Server::new(ServerLimits::default());
        let ShardConfig { address, ref broker_name, .. } = *shard.config();
        let registrars: Vec<_> = config
            .namesrv
            .iter()
            .map(|&namesrv| {
                Rc::new(Registrar::new(
                    namesrv,
                    BrokerIdentity {
                        cluster: config.cluster.clone(),
                        broker_name: broker_name.clone(),
                        address,
                        in_group: config.replication.is_some(),
                    },
                ))
            })
            .collect();
        let peer_listener =
            config.replication.is_some().then(|| bind(config.listen, config.peer_port(number)?));
        let peer_listener = peer_listener.transpose()?;
        let configured_peers = group::configured_peers(config, number)?;
        let driver = Rc::new_cyclic(|this: &Weak<ShardDriver>| ShardDriver {
            peers: group::peers(config, number, this, groups),
            configured_peers,
            waiting_for_files: group::Waiting::default(),
            forwarder: forward::Forwarder::default(),
            number,
            shard: RefCell::new(shard),
            server,
            disk: Rc::new(disk),
            registrars,
            reads: Semaphore::new(reads::READS_IN_FLIGHT_MAX),
            reads_waiting: Cell::default(),
            index_waiters: Cell::default(),
            planned_wake_ms: Cell::default(),
            wake_earlier: Signal::default(),
            turn: Cell::default(),
            groups,
            tasks: RefCell::default(),
            stopping: Cell::default(),
            linger: Duration::from_millis(
                config.replication.as_ref().map_or(0, |replication| replication.stop_linger_ms).into(),
            ),
            events: RefCell::new(EventWriter::new(number)),
            this: this.clone(),
            _directory: directory,
        });
        driver.own(driver.server.clone().accept(listener, driver.clone()));
        if let Some(vip) = vip {
            driver.own(driver.server.clone().accept(vip, driver.clone()));
        }
        driver.own(driver.server.clone().close_idle());
        driver.meet_peers(peer_listener);
        driver.own(driver.clone().tick());
        driver.own(driver.clone().watch_space());
        for registrar in &driver.registrars {
            driver.own(driver.clone().keep_registered(registrar.clone(), events.clone()));
        }
        driver.pump();
        Ok(driver)
    }

    /// Spawns a task that lives as long as the driver.
    fn own(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.borrow_mut().push(glommio::spawn_local(task));
    }

    /// What the log did by itself, for people.
    fn write_events(&self) {
        loop {
            let Some(event) = self.shard.borrow_mut().take_log_event() else { return };
            self.events.borrow_mut().write(event);
        }
    }

    /// Hands over what the shard wants done until it wants nothing more.
    fn pump(&self) {
        loop {
            while let Some(action) = self.take_action() {
                self.carry_out(action);
            }
            let now = self.read_clock();
            if let Some(began) = self.turn.take() {
                self.shard.borrow_mut().on_turn_end(began.ns);
            }
            let op = self.shard.borrow_mut().poll_op(now.ms, |len| self.disk.alloc(len));
            match op {
                Some(op) => self.start_op(op),
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

    /// Reads the clock, for all that follows until it is read again.
    fn read_clock(&self) -> Now {
        let now = now();
        let catch_up_reads = self.disk.catch_up_reads();
        self.shard.borrow_mut().at(Moment { ns: now.ns, catch_up_reads });
        now
    }

    /// One time for all frames of a turn: the clock would be read for each message.
    fn turn_began(&self) -> Now {
        self.turn.get().unwrap_or_else(|| {
            let now = self.read_clock();
            self.turn.set(Some(now));
            now
        })
    }

    fn take_action(&self) -> Option<Action<DmaBuffer>> {
        self.shard.borrow_mut().take_action()
    }

    fn start_op(&self, op: DiskOp<DmaBuffer>) {
        let Some(this) = self.this.upgrade() else { return };
        let is_background = match op {
            DiskOp::Write { .. }
            | DiskOp::Erase { .. }
            | DiskOp::Sync { .. }
            | DiskOp::SaveGroupState { .. } => false,
            DiskOp::Prepare { .. }
            | DiskOp::Seal(_)
            | DiskOp::Snapshot(_)
            | DiskOp::ReadEnds(_)
            | DiskOp::Remove { .. }
            | DiskOp::Reset(_)
            | DiskOp::TakeCheckpoint(_)
            | DiskOp::Rebuild(_) => true,
        };
        let work = async move {
            let completion = this.disk.execute(op).await;
            let now = this.read_clock();
            this.shard.borrow_mut().on_completion(completion, now.ms);
            this.pump();
        };
        if is_background {
            self.spawn_into(work, self.groups.background);
        } else {
            // Not where this was called from, which may be a queue that others go before.
            self.spawn_into(work, TaskQueueHandle::default());
        }
    }

    fn spawn_into(&self, work: impl Future<Output = ()> + 'static, group: TaskQueueHandle) {
        glommio::spawn_local_into(work, group).expect("the group was made on this executor").detach();
    }

    fn carry_out(&self, action: Action<DmaBuffer>) {
        match action {
            Action::Reply { to, reply } => self.send(to, reply),
            Action::Push { to, push } => self.push(to, push),
            Action::Read { to, reply, runs } => self.start_read(to, reply, runs),
            Action::Load { id, need } => self.start_load(id, need),
            Action::FindKey { id, search } => self.start_search(id, search),
            Action::Close { connection, reason } => {
                if let Some(connection) = self.server.connection(connection) {
                    connection.close(reason);
                }
            }
            Action::FindRoute { topic } => self.find_route(topic),
            Action::Peer { to, message } => self.send_to_peer(to, message),
            Action::Forward { id, to, request } => self.forward(id, to, request),
            Action::RoleChanged(role) => self.on_role_changed(role),
            Action::MembersChanged(members) => self.on_members_changed(&members),
            Action::Alarm(text) => tracing::error!(shard = self.number, "{text}"),
            Action::Register { then: None } => {
                self.registrars.iter().for_each(|registrar| registrar.on_changed());
            }
            Action::Register { then: Some((to, reply)) } => {
                let Some(this) = self.this.upgrade() else { return };
                let work = async move {
                    this.register_everywhere().await;
                    this.send(to, reply);
                };
                glommio::spawn_local(work).detach();
            }
        }
    }

    fn send(&self, to: ReplyTo, reply: Reply) {
        let Some(connection) = self.server.connection(to.connection) else { return };
        if let Err(error) = reply.send(to, &connection) {
            let reply = Reply::error(ResponseCode::SYSTEM_ERROR, format!("the reply is too large: {error}"));
            reply.send(to, &connection).expect("an error reply fits a frame");
        }
    }

    fn push(&self, to: ConnectionId, push: Push) {
        let Some(connection) = self.server.connection(to) else { return };
        let (opaque, oneway) = (push.answered_as.unwrap_or(0), push.answered_as.is_none());
        let head = RequestHead { code: push.code, opaque, oneway, ext: &*push.ext };
        let body_len = push.body.iter().map(Chunk::len).sum();
        let sent =
            connection.send(|out| encode_request(out, HeaderEncoding::Json, &head, body_len), push.body);
        if let Err(error) = sent {
            tracing::warn!(code = %push.code, %error, "cannot push to a client");
        }
    }
}

impl Service for ShardDriver {
    fn on_frame(&self, connection: &Rc<Connection>, frame: RawFrame) {
        if self.stopping.get() {
            return;
        }
        let Some(request) = Request::of(connection, &frame) else { return };
        let now = self.turn_began();
        if request.is_answer() {
            return self.shard.borrow_mut().on_answer(&request, now.ms);
        }
        let asked = self.shard.borrow_mut().on_request(&request, now.ms);
        if let Err(pages) = asked {
            self.ask_again(&request, &frame, pages);
        }
    }

    fn on_turn_end(&self) {
        self.pump();
    }

    fn on_closed(&self, connection: &Rc<Connection>) {
        self.shard.borrow_mut().on_connection_closed(connection.id(), now_ms());
        self.pump();
    }
}

fn bind(ip: IpAddr, port: u16) -> anyhow::Result<Listener> {
    let address = SocketAddr::new(ip, port);
    Listener::bind(address).with_context(|| format!("cannot listen on {address}"))
}

/// The port that clients up to 4.4 send to (`vipChannelEnabled`). Not having it is no reason not to start.
fn bind_vip(ip: IpAddr, port: u16) -> Option<Listener> {
    let address = SocketAddr::new(ip, port - 2);
    match Listener::bind(address) {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::warn!(%address, %error, "the VIP channel of old clients is not available");
            None
        }
    }
}
