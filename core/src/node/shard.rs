//! Drives the shards of one executor: sockets and disk to [`Shard`], its actions to sockets and disk.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use anyhow::Context;
use apogee_net::code::ResponseCode;
use apogee_net::command::{RequestHead, encode_request};
use apogee_net::frame::{HeaderEncoding, RawFrame};
use apogee_net::io::{
    Chunk, Connection, ConnectionId, Driver, DriverConfig, Listener, Server, ServerLimits, Service, Signal,
};
use apogee_storage::driver::{Disk, DmaBuffer, LoadIndexError, ShardDirectory};
use apogee_storage::{DiskError, DiskOp, FileRun, KeySearch};
use bytes::Bytes;
use futures_lite::future;
use glommio::sync::Semaphore;
use glommio::{Latency, Shares, TaskQueueHandle};

use super::NodeEvent;
use super::clock::{Now, now, now_ms};
use super::log_events::EventWriter;
use super::open::OpenShard;
use super::registrar::{BrokerIdentity, Registrar};
use super::segment_source::{self, SENDFILE_BYTES_MIN};
use super::stop::StopSignal;
use crate::config::BrokerConfig;
use crate::service::{Reply, ReplyTo, Request};
use crate::shard::assignment::FoundRoute;
use crate::shard::{
    Action, ColdPages, Fetch, LoadId, Moment, Need, Push, SearchError, SearchId, Shard, ShardConfig,
};

/// How often a shard looks at what falls due by time alone.
const TICK: Duration = Duration::from_millis(100);

/// What falls due sooner waits this long, so that much that falls due little by little is done together.
const TICK_MIN: Duration = Duration::from_millis(5);

/// How often the free space of the file system is asked for.
const SPACE_PERIOD: Duration = Duration::from_secs(1);

/// Replies whose messages are being read from disk into memory, each up to 8 MiB; more wait for their turn. Twice the
/// reads that the disk has under way, so that it never waits for this thread. Long runs are not read here: they leave
/// by `sendfile`, and each connection's writer has at most one piece of 256 KiB brought in for it, within the same
/// catch-up budget.
const READS_IN_FLIGHT_MAX: u64 = 4;

/// Pulls that wait for one of those reads; one more is answered as busy, and its client tries again.
const READS_WAITING_MAX: usize = 16 * 1024;

/// Requests that need pages of index files which are not in memory; one more is answered as busy.
const INDEX_WAITERS_MAX: usize = 1024;

/// Longest header and body of such a request. It is copied out of the receive buffer, so those that wait hold 64 MiB.
const INDEX_WAITER_BYTES_MAX: usize = 64 * 1024;

/// Loads that one request gets. Each brings it further, unless memory is so short that pages leave before they are
/// looked at: a search over a thousand segments, all cold, takes some twenty.
const INDEX_LOADS_PER_REQUEST_MAX: u32 = 32;

/// Longest wait for NameServers before whoever made a topic is answered all the same.
const REGISTER_WAIT: Duration = Duration::from_secs(3);

/// How long a stopping shard waits for its last writes.
const IDLE_WAIT: Duration = Duration::from_secs(5);

/// How long the last replies have to leave.
const LAST_REPLIES_WAIT: Duration = Duration::from_millis(20);

/// Scheduling groups of a shard's executor. Client I/O, appends and timers run in glommio's default queue; what can
/// wait a little runs here, with a tenth of its shares.
#[derive(Debug, Clone, Copy)]
struct Groups {
    /// Reads from disk for consumers that lag: they must not delay producers.
    catch_up: TaskQueueHandle,
    /// Preparing and sealing segments, snapshots, retention.
    background: TaskQueueHandle,
}

/// Runs the shards until the order to stop. Reports each that is ready, and the first failure.
pub(super) async fn run_all(
    config: BrokerConfig,
    shards: Vec<u16>,
    stop: StopSignal,
    events: Sender<NodeEvent>,
) {
    Driver::start(DriverConfig { spin: Duration::from_micros(config.spin_us) });
    let groups = Groups {
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
    stop.given().await;
    let stopping: Vec<_> = running.into_iter().map(|driver| glommio::spawn_local(driver.stop())).collect();
    for stopped in stopping {
        stopped.await;
    }
}

/// Opens all shards, then serves them: recovery blocks the thread, and no client may wait for another shard's.
async fn start_all(
    config: &BrokerConfig,
    shards: Vec<u16>,
    groups: Groups,
    events: &Sender<NodeEvent>,
) -> anyhow::Result<Vec<Rc<ShardDriver>>> {
    let mut opened = Vec::new();
    for number in shards {
        let shard =
            OpenShard::open(config, number).await.with_context(|| format!("shard {number} cannot start"))?;
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
        let driver = Rc::new_cyclic(|this| ShardDriver {
            number,
            shard: RefCell::new(shard),
            server,
            disk: Rc::new(disk),
            registrars,
            reads: Semaphore::new(READS_IN_FLIGHT_MAX),
            reads_waiting: Cell::default(),
            index_waiters: Cell::default(),
            planned_wake_ms: Cell::default(),
            wake_earlier: Signal::default(),
            turn: Cell::default(),
            groups,
            tasks: RefCell::default(),
            stopping: Cell::default(),
            events: RefCell::new(EventWriter::new(number)),
            this: this.clone(),
            _directory: directory,
        });
        driver.own(driver.server.clone().accept(listener, driver.clone()));
        if let Some(vip) = vip {
            driver.own(driver.server.clone().accept(vip, driver.clone()));
        }
        driver.own(driver.server.clone().close_idle());
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

    async fn tick(self: Rc<Self>) {
        loop {
            self.sleep_until_due().await;
            self.shard.borrow_mut().on_tick(now_ms());
            self.pump();
            self.write_events();
        }
    }

    /// Until the shard has something due, but at least [`TICK_MIN`] and at most [`TICK`].
    async fn sleep_until_due(&self) {
        let begun = now_ms();
        glommio::timer::sleep(TICK_MIN).await;
        loop {
            let tick_at_ms = begun + TICK.as_millis() as i64;
            let wake_at_ms = self.shard.borrow().wake_at_ms().map_or(tick_at_ms, |due| due.min(tick_at_ms));
            self.planned_wake_ms.set(wake_at_ms);
            let Ok(wait_ms @ 1..) = u64::try_from(wake_at_ms - now_ms()) else { return };
            let asleep = async {
                glommio::timer::sleep(Duration::from_millis(wait_ms)).await;
            };
            future::or(asleep, self.wake_earlier.wait()).await;
        }
    }

    /// Tells the shard what the file system has left, so that it makes room before there is none.
    async fn watch_space(self: Rc<Self>) {
        let mut is_failing = false;
        loop {
            match self.disk.space().await {
                Ok(space) => {
                    is_failing = false;
                    self.shard.borrow_mut().on_space(space);
                    self.pump();
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::error!(shard = self.number, %error, "the free space of the disk is not known");
                    }
                }
            }
            glommio::timer::sleep(SPACE_PERIOD).await;
        }
    }

    /// What the log did by itself, for people.
    fn write_events(&self) {
        loop {
            let Some(event) = self.shard.borrow_mut().take_log_event() else { return };
            self.events.borrow_mut().write(event);
        }
    }

    /// Registers for ever, and reports the shard as ready the first time that a NameServer knows it.
    async fn keep_registered(self: Rc<Self>, registrar: Rc<Registrar>, events: Sender<NodeEvent>) {
        let on_registered = || {
            let first = self.registrars.iter().filter(|other| other.was_registered()).count() == 1;
            if first {
                // Nobody listens only when the process is ending already.
                let _ = events.send(NodeEvent::ShardReady(self.number));
            }
        };
        registrar.run(&self.shard, on_registered).await;
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

    fn take_action(&self) -> Option<Action> {
        self.shard.borrow_mut().take_action()
    }

    fn start_op(&self, op: DiskOp<DmaBuffer>) {
        let Some(this) = self.this.upgrade() else { return };
        let is_background = match op {
            DiskOp::Write { .. } | DiskOp::Sync { .. } | DiskOp::SaveGroupState { .. } => false,
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
            glommio::spawn_local(work).detach();
        }
    }

    fn spawn_into(&self, work: impl Future<Output = ()> + 'static, group: TaskQueueHandle) {
        glommio::spawn_local_into(work, group).expect("the group was made on this executor").detach();
    }

    fn carry_out(&self, action: Action) {
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

    /// Loads the index pages that a request needs, and asks it again.
    fn ask_again(&self, request: &Request<'_>, frame: &RawFrame, pages: ColdPages) {
        let Some(this) = self.this.upgrade() else { return };
        let (connection, peer) = (request.connection, request.peer);
        let busy = |reason: String| {
            if let Some(to) = request.reply_to() {
                self.send(to, Reply::error(ResponseCode::SYSTEM_BUSY, reason));
            }
        };
        if self.index_waiters.get() >= INDEX_WAITERS_MAX {
            return busy(format!("{INDEX_WAITERS_MAX} requests wait for index files already"));
        }
        if frame.header.len() + frame.body.len() > INDEX_WAITER_BYTES_MAX {
            return busy("index files must be read, and the request is too large to wait for that".into());
        }
        self.index_waiters.set(self.index_waiters.get() + 1);
        let frame = RawFrame {
            encoding: frame.encoding,
            header: Bytes::copy_from_slice(&frame.header),
            body: Bytes::copy_from_slice(&frame.body),
        };
        let work = async move {
            let request = Request::decode(connection, peer, &frame).expect("it was decoded before");
            if let Err(reason) = this.load_and_ask(&request, pages).await
                && let Some(to) = request.reply_to()
            {
                this.send(to, Reply::error(ResponseCode::SYSTEM_BUSY, reason));
            }
            this.index_waiters.set(this.index_waiters.get() - 1);
            this.pump();
        };
        self.spawn_into(work, self.groups.catch_up);
    }

    /// Until the request needs no pages any more; otherwise says why it cannot be answered.
    async fn load_and_ask(&self, request: &Request<'_>, mut pages: ColdPages) -> Result<(), String> {
        for _ in 0..INDEX_LOADS_PER_REQUEST_MAX {
            match self.disk.load_index(&pages.index, pages.range).await {
                // Damage is met again by the request, and dealt with there.
                Ok(()) | Err(LoadIndexError::Fault(_)) => {}
                Err(LoadIndexError::Disk(error)) => {
                    tracing::error!(shard = self.number, %error, "cannot read an index file");
                    return Err(error.to_string());
                }
            }
            // Nothing is done for a client that is gone, or has to go elsewhere.
            if self.stopping.get() || self.server.connection(request.connection).is_none() {
                return Ok(());
            }
            let now = self.read_clock();
            let asked = self.shard.borrow_mut().on_request(request, now.ms);
            match asked {
                Ok(()) => return Ok(()),
                Err(next) => pages = next,
            }
        }
        Err("index files do not stay in memory: the machine has too little of it".into())
    }

    /// Brings in what the shard itself wants to look at. The shard bounds how many loads wait, the disk how many run.
    fn start_load(&self, id: LoadId, need: Need) {
        let Some(this) = self.this.upgrade() else { return };
        let work = async move {
            let result = this.load(need).await;
            this.shard.borrow_mut().on_loaded(id, result, now_ms());
            this.pump();
        };
        self.spawn_into(work, self.groups.catch_up);
    }

    /// Looks for a key in index files. The shard bounds how many searches there are.
    fn start_search(&self, id: SearchId, search: KeySearch) {
        let Some(this) = self.this.upgrade() else { return };
        let work = async move {
            let result = this.disk.find_key(search).await.map_err(|error| match error {
                LoadIndexError::Disk(error) => SearchError::Disk(error),
                LoadIndexError::Fault(fault) => SearchError::Fault(fault),
            });
            this.shard.borrow_mut().on_keys_found(id, result, now_ms());
            this.pump();
        };
        self.spawn_into(work, self.groups.catch_up);
    }

    async fn load(&self, need: Need) -> Result<Vec<Bytes>, DiskError> {
        match need {
            Need::Pages(pages) => match self.disk.load_index(&pages.index, pages.range).await {
                // Damage is met again by whoever looks into the pages, and dealt with there.
                Ok(()) | Err(LoadIndexError::Fault(_)) => Ok(Vec::new()),
                Err(LoadIndexError::Disk(error)) => Err(error),
            },
            Need::Runs(runs) => {
                let mut pieces = Vec::with_capacity(runs.len());
                for run in runs {
                    pieces.push(Bytes::copy_from_slice(self.disk.read(run).await?.as_ref()));
                }
                Ok(pieces)
            }
        }
    }

    fn start_read(&self, to: ReplyTo, reply: Reply, runs: impl IntoIterator<Item = Fetch> + 'static) {
        let Some(this) = self.this.upgrade() else { return };
        if self.reads_waiting.get() >= READS_WAITING_MAX {
            let remark = format!("{READS_WAITING_MAX} pulls wait for the disk already");
            return self.send(to, Reply::error(ResponseCode::SYSTEM_BUSY, remark));
        }
        self.reads_waiting.set(self.reads_waiting.get() + 1);
        let work = async move {
            // Never closed, so always granted.
            let permit = this.reads.acquire_permit(1).await;
            this.reads_waiting.set(this.reads_waiting.get() - 1);
            // Nothing is read for a client that is gone.
            if permit.is_ok() && this.server.connection(to.connection).is_some() {
                let reply = this.read(reply, runs).await;
                this.send(to, reply);
            }
        };
        self.spawn_into(work, self.groups.catch_up);
    }

    /// The reply with its body read from disk, or open to be sent from there; or the reason why it cannot be.
    async fn read(&self, mut reply: Reply, runs: impl IntoIterator<Item = Fetch>) -> Reply {
        for run in runs {
            let fetched = match run {
                Fetch::Here(chunk) => Ok(chunk),
                Fetch::File(run) => self.fetch(run).await,
            };
            match fetched {
                Ok(chunk) => reply.body.push(chunk),
                Err(error) => {
                    tracing::error!(shard = self.number, %error, "cannot read messages");
                    let remark = format!("cannot read messages: {error}");
                    return Reply::error(ResponseCode::SYSTEM_ERROR, remark);
                }
            }
        }
        reply
    }

    async fn fetch(&self, run: FileRun) -> Result<Chunk, DiskError> {
        if run.len >= SENDFILE_BYTES_MIN {
            let file = self.disk.segment_file(run.segment).await?;
            return Ok(segment_source::chunk_of(file, run));
        }
        let bytes = self.disk.read(run).await?;
        Ok(Chunk::shared(Rc::new(bytes), 0..run.len as usize))
    }

    /// Tells all NameServers at once; waits for those that can be reached, at most [`REGISTER_WAIT`].
    async fn register_everywhere(self: &Rc<Self>) {
        let told: Vec<_> = self
            .registrars
            .iter()
            .map(|registrar| {
                let (this, registrar) = (self.clone(), registrar.clone());
                glommio::spawn_local(async move { registrar.register_now(&this.shard).await })
            })
            .collect();
        let all = async {
            for task in told {
                task.await;
            }
        };
        let too_late = async {
            glommio::timer::sleep(REGISTER_WAIT).await;
        };
        future::or(all, too_late).await;
    }

    /// Asks one NameServer after the other where a topic's queues are.
    fn find_route(&self, topic: String) {
        let Some(this) = self.this.upgrade() else { return };
        let work = async move {
            let mut found = FoundRoute::Unreachable;
            for registrar in &this.registrars {
                found = registrar.find_route(&topic).await;
                if !matches!(found, FoundRoute::Unreachable) {
                    break;
                }
            }
            this.shard.borrow_mut().on_route(&topic, found, now_ms());
            this.pump();
        };
        glommio::spawn_local(work).detach();
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

    /// Says good-bye to the NameServers, then waits until everything taken is durable.
    async fn stop(self: Rc<Self>) {
        for registrar in &self.registrars {
            registrar.unregister(&self.shard).await;
        }
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        for task in tasks {
            task.cancel().await;
        }
        self.stopping.set(true);
        let started = Instant::now();
        loop {
            self.shard.borrow_mut().prepare_stop(now_ms());
            self.pump();
            if self.shard.borrow().is_idle() || started.elapsed() > IDLE_WAIT {
                break;
            }
            glommio::timer::sleep(Duration::from_millis(2)).await;
        }
        self.write_events();
        // The last replies are queued now; their connections' tasks still have to write them.
        glommio::timer::sleep(LAST_REPLIES_WAIT).await;
        self.disk.stop().await;
        tracing::info!(shard = self.number, "stopped");
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
