//! A whole cluster and its clients, from one seed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;

use apogee_net::code::RequestCode;
use apogee_net::flags::Perm;
use apogee_net::request::CreateTopicRequest;
use apogee_storage::{CommitRule, GroupId, LogConfig, Marks, NodeId, Retention};

use super::audit::{Audit, LOOK_EVERY, Watched};
use super::broker::{Broker, BrokerSetup, Drive, GroupSetup};
use super::client::consumer::{Consumer, ConsumerSetup};
use super::client::instance::Instance;
use super::client::popper::{self, Popper};
use super::executor::{MS, SECOND, Scope, Sim, Us};
use super::host::{Clock, SKEW_MS_MAX};
use super::ledger::{Counts, Ledger};
use super::mutant::Mutant;
use super::namesrv::Namesrv;
use super::network::{Ending, HostId, Network};
use super::remoting::Remoting;
use super::server::client_ip;
use super::wire::Answer;
use super::workload::{self, BARGAIN, HANDED, LATER, ORDERED, PLAIN, Sending};
use crate::config::member_address;
use crate::shard::ShardConfig;
use crate::shard::settings::Settings;
use crate::shard::timers::TimerSettings;
use crate::shard::topics::TopicPolicy;

const CLUSTER: &str = "SimCluster";
pub(super) const NODES: u16 = 3;
pub(super) const NAMESRVS: u16 = 3;
pub(super) const SHARDS: u16 = 2;
const PRODUCERS: u16 = 2;
const CONSUMERS: u16 = 4;
const POPPERS: u16 = 2;
/// In so many of a hundred runs of groups little is kept, so that a node that was away has to begin anew.
const KEEPS_LITTLE_PERCENT: u64 = 20;
const RETENTION_BYTES: u64 = 4 << 20;
/// Of each topic that is made beforehand.
pub(super) const QUEUES: i32 = 2;

/// Within this time topics are made, by groups that have to elect their leaders first.
const TOPICS_WITHIN: Us = 30 * SECOND;
/// Clients have so long to start before faults come.
const CALM_BEFORE: Us = 4 * SECOND;
/// After which nothing goes wrong any more.
const FAULTS_FOR: Us = 60 * SECOND;
/// Producers go on for so long after the last fault.
const SENDING_AFTER: Us = 5 * SECOND;
/// Within this time after that all that was promised must be there: clients look at routes every 30 s, share queues
/// out every 20 s, give up a silent queue after 120 s, and a half message is asked about every 30 s.
const SETTLE_WITHIN: Us = 300 * SECOND;

/// And within this all replicas must hold the same.
const LEVEL_WITHIN: Us = 60 * SECOND;

pub(super) struct Node {
    pub(super) host: HostId,
    pub(super) setups: Vec<BrokerSetup>,
    pub(super) drives: Vec<Drive>,
    pub(super) brokers: RefCell<Vec<Rc<Broker>>>,
    pub(super) is_busy: Cell<bool>,
    /// Has an empty disk, and waits to be added to its groups.
    pub(super) joins: Cell<bool>,
}

pub(super) struct NamesrvHost {
    pub(super) host: HostId,
    address: SocketAddr,
    pub(super) running: RefCell<Option<Rc<Namesrv>>>,
}

pub(super) struct World {
    pub(super) sim: Sim,
    pub(super) network: Rc<Network>,
    pub(super) ledger: Ledger,
    audit: Rc<Audit>,
    pub(super) nodes: Vec<Node>,
    pub(super) namesrvs: Vec<NamesrvHost>,
    pub(super) clients: Vec<HostId>,
    consumers: RefCell<Vec<(ConsumerSetup, HostId, Rc<Consumer>)>>,
    /// Have ended, and are to begin again.
    missing: RefCell<Vec<(ConsumerSetup, HostId)>>,
    poppers: RefCell<Vec<(HostId, Rc<Popper>)>>,
    producers: RefCell<Vec<Rc<Instance>>>,
    sending: Sending,
    pub(super) scope: Rc<Scope>,
    watching: Rc<Scope>,
    in_groups: bool,
    keeps_little: bool,
    mutant: Option<Mutant>,
    next_client: Cell<u64>,
    /// A disk has done wrong, and its replica is not mended.
    pub(super) is_damaged: Cell<bool>,
    pub(super) tally: RefCell<Tally>,
}

/// What was done to the cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) faults: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub(super) fn count(&mut self, what: &'static str) {
        *self.faults.entry(what).or_default() += 1;
    }
}

fn log_config(group: u64, node: u16) -> LogConfig {
    LogConfig {
        segment_bytes: 1 << 20,
        batch_bytes_target: 64 << 10,
        batch_bytes_max: 512 << 10,
        write_window_bytes: 1 << 20,
        staged_bytes_max: 2 << 20,
        tail_cache_bytes: 128 << 10,
        reserve_bytes: 0,
        retention: Retention { may_reclaim: false, ..Retention::default() },
        snapshot_pause_ms: 1000,
        ..LogConfig::new(GroupId(group), NodeId(node.into()))
    }
}

fn namesrv_address(host: HostId) -> SocketAddr {
    SocketAddr::new(client_ip(host), 9876)
}

impl World {
    pub(super) fn new(seed: u64, in_groups: bool) -> Rc<World> {
        World::with(seed, in_groups, None)
    }

    /// A cluster whose drivers do something wrong on purpose.
    pub(super) fn with(seed: u64, in_groups: bool, mutant: Option<Mutant>) -> Rc<World> {
        let sim = Sim::new(seed);
        let network = Network::new(&sim);
        let watched: Watched = vec![
            ("Readers", vec![PLAIN, LATER, BARGAIN]),
            ("Followers", vec![ORDERED]),
            (popper::GROUP, vec![HANDED]),
        ];
        let audit = Audit::new(&sim, in_groups, watched);
        let keeps_little = in_groups && sim.chance(KEEPS_LITTLE_PERCENT);
        let ledger = Ledger::new(&sim, &audit, keeps_little);
        let mut next_host = 0;
        let mut add_host = || {
            let host = network.add_host(client_ip(HostId(next_host)));
            next_host += 1;
            host
        };
        let node_hosts: Vec<_> = (0..NODES).map(|_| add_host()).collect();
        let namesrv_hosts: Vec<_> = (0..NAMESRVS).map(|_| add_host()).collect();
        let clients: Vec<_> = (0..PRODUCERS + CONSUMERS + POPPERS).map(|_| add_host()).collect();
        let namesrv_addresses: Vec<_> = namesrv_hosts.iter().copied().map(namesrv_address).collect();
        let node = |(node, host): (usize, HostId)| {
            let setups = (0..SHARDS)
                .map(|shard| {
                    let setup = setup(node as u16, &node_hosts, shard, in_groups, &namesrv_addresses);
                    let bytes = keeps_little.then_some(RETENTION_BYTES);
                    let retention = Retention { bytes, ..setup.log.retention };
                    BrokerSetup { mutant, log: LogConfig { retention, ..setup.log }, ..setup }
                })
                .collect();
            let drives =
                (0..SHARDS).map(|shard| Drive::new(seed ^ (node as u64 * 100 + u64::from(shard) + 1) << 40));
            Node {
                host,
                setups,
                drives: drives.collect(),
                brokers: RefCell::default(),
                is_busy: Cell::new(false),
                joins: Cell::new(false),
            }
        };
        let world = Rc::new(World {
            nodes: node_hosts.iter().copied().enumerate().map(node).collect(),
            namesrvs: namesrv_hosts
                .into_iter()
                .map(|host| NamesrvHost { host, address: namesrv_address(host), running: RefCell::default() })
                .collect(),
            clients,
            consumers: RefCell::default(),
            missing: RefCell::default(),
            poppers: RefCell::default(),
            producers: RefCell::default(),
            sending: Sending::new(2 * SKEW_MS_MAX * MS),
            scope: Scope::new(&sim),
            is_damaged: Cell::default(),
            next_client: Cell::new(1),
            tally: RefCell::default(),
            network,
            ledger,
            audit,
            watching: Scope::new(&sim),
            in_groups,
            keeps_little,
            mutant,
            sim,
        });
        world.start();
        world
    }

    fn start(self: &Rc<Self>) {
        for namesrv in 0..usize::from(NAMESRVS) {
            self.start_namesrv(namesrv);
        }
        for (setup, drive) in self.nodes.iter().flat_map(|node| node.setups.iter().zip(&node.drives)) {
            self.audit.add(&setup.config.broker_name, setup.log.segment_bytes, drive);
        }
        let this = Rc::downgrade(self);
        let sim = self.sim.clone();
        self.watching.spawn(async move {
            loop {
                sim.sleep(LOOK_EVERY).await;
                let Some(this) = this.upgrade() else { return };
                this.look();
            }
        });
        for node in 0..usize::from(NODES) {
            self.start_node(node).expect("an empty disk holds nothing wrong");
        }
        // Before clients come: a producer would have them made with more queues, and what it sent to these is read by nobody
        // once there are fewer.
        let are_made = Rc::new(Cell::new(false));
        let (this, done) = (self.clone(), are_made.clone());
        self.scope.spawn(async move {
            this.make_topics().await;
            done.set(true);
        });
        while !are_made.get() {
            assert!(self.sim.now() < TOPICS_WITHIN, "the topics are not made");
            self.sim.run(self.sim.now() + 100 * MS);
        }
        let groups = [
            ("Readers", vec![PLAIN.to_owned(), LATER.to_owned(), BARGAIN.to_owned()], false),
            ("Followers", vec![ORDERED.to_owned()], true),
        ];
        for (group, topics, _) in &groups {
            topics.iter().for_each(|topic| self.ledger.subscribe(group, topic));
        }
        self.ledger.subscribe(popper::GROUP, HANDED);
        for nth in 0..usize::from(PRODUCERS) {
            self.start_producer(self.clients[nth]);
        }
        for nth in 0..usize::from(CONSUMERS) {
            let (group, topics, is_orderly) = groups[nth % groups.len()].clone();
            let setup = ConsumerSetup { group: group.to_owned(), topics, is_orderly };
            self.start_consumer(setup, self.clients[usize::from(PRODUCERS) + nth]);
        }
        for nth in 0..usize::from(POPPERS) {
            self.start_popper(self.clients[usize::from(PRODUCERS + CONSUMERS) + nth]);
        }
    }

    /// As an operator does before clients come; the other topics are made by whoever sends to them first.
    async fn make_topics(&self) {
        let remoting = Remoting::new(&self.sim, &self.network, self.clients[0]);
        for setup in self.nodes.iter().flat_map(|node| &node.setups) {
            for topic in [PLAIN, ORDERED, HANDED] {
                let header = CreateTopicRequest {
                    topic,
                    default_topic: "TBW102",
                    read_queues: QUEUES,
                    write_queues: QUEUES,
                    perm: Perm::READ_WRITE,
                    filter_type: "SINGLE_TAG",
                    topic_sys_flag: None,
                    order: false,
                    attributes: None,
                    force: false,
                };
                let (to, code) = (setup.config.address, RequestCode::UPDATE_AND_CREATE_TOPIC);
                let made = remoting.call(to, code, &header, b"", 5 * SECOND).await;
                assert!(made.as_ref().is_ok_and(Answer::is_success), "{made:?}");
            }
        }
    }

    fn look(&self) {
        let mut brokers = Vec::new();
        for (nth, node) in self.nodes.iter().enumerate() {
            brokers.extend(node.brokers.borrow().iter().map(|broker| (nth as u64, broker.clone())));
        }
        self.audit.look(&brokers);
    }

    /// All replicas hold the same, and all of it is committed.
    fn is_level(&self) -> bool {
        let brokers = self.nodes.iter().flat_map(|node| node.brokers.borrow().clone());
        let mut marks: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for broker in brokers {
            let Marks { appended, committed, durable, .. } = broker.marks();
            marks.entry(broker.name().to_owned()).or_default().extend([appended.0, committed.0, durable.0]);
        }
        marks.values().all(|marks| marks.len() == 1)
    }

    fn namesrv_addresses(&self) -> Vec<SocketAddr> {
        self.namesrvs.iter().map(|namesrv| namesrv.address).collect()
    }

    pub(super) fn start_namesrv(&self, nth: usize) {
        let NamesrvHost { host, address, running } = &self.namesrvs[nth];
        self.network.host_is_up(*host);
        *running.borrow_mut() =
            Some(Namesrv::start(&self.sim, &self.network, *host, *address, nth, &self.audit, self.mutant));
    }

    pub(super) fn kill_namesrv(&self, nth: usize, ending: Ending) {
        let NamesrvHost { host, running, .. } = &self.namesrvs[nth];
        if let Some(namesrv) = running.borrow_mut().take() {
            namesrv.end();
            self.network.end_host(*host, ending);
        }
    }

    /// Starts a node's shards; the reason if one cannot be opened.
    pub(super) fn start_node(&self, nth: usize) -> Result<(), String> {
        let node = &self.nodes[nth];
        self.network.host_is_up(node.host);
        let clock = Clock::wrong(&self.sim);
        for (setup, drive) in node.setups.iter().zip(&node.drives) {
            let mut setup = setup.clone();
            if let Some(group) = &mut setup.group {
                group.joins = node.joins.get();
            }
            let setup = &setup;
            let broker = Broker::start(&self.sim, &self.network, setup, drive, clock.clone(), &self.audit)?;
            node.brokers.borrow_mut().push(broker);
        }
        Ok(())
    }

    pub(super) fn is_in_groups(&self) -> bool {
        self.in_groups
    }

    /// Retention takes what is a few seconds old.
    pub(super) fn keeps_little(&self) -> bool {
        self.keeps_little
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        self.nodes[0].setups[0].log.segment_bytes
    }

    pub(super) fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The shard's replica on a node, while that is up.
    pub(super) fn replica(&self, nth: usize, shard: usize) -> Option<Rc<Broker>> {
        self.nodes[nth].brokers.borrow().get(shard).cloned()
    }

    /// Which node is the master of a shard.
    pub(super) fn master(&self, shard: usize) -> Option<(usize, Rc<Broker>)> {
        let replicas = (0..self.nodes.len()).filter_map(|nth| Some((nth, self.replica(nth, shard)?)));
        replicas.into_iter().find(|(_, broker)| broker.is_master())
    }

    /// Where a node's replica of a shard meets the others.
    pub(super) fn member(&self, nth: usize, shard: usize) -> (NodeId, Vec<u8>) {
        let setup = &self.nodes[nth].setups[shard];
        let group = setup.group.as_ref().expect("a shard of a group");
        (setup.log.node, member_address(group.address))
    }

    pub(super) fn is_node_up(&self, nth: usize) -> bool {
        !self.nodes[nth].brokers.borrow().is_empty()
    }

    /// The node's process is gone, or its power with what was not synced.
    pub(super) fn kill_node(&self, nth: usize, ending: Ending) {
        let node = &self.nodes[nth];
        for broker in std::mem::take(&mut *node.brokers.borrow_mut()) {
            broker.kill();
        }
        self.network.end_host(node.host, ending);
        for drive in &node.drives {
            match ending {
                Ending::Process => drive.disk.kill(),
                Ending::Power => drive.disk.crash(),
            }
        }
    }

    /// The node is stopped as by a person, shard by shard.
    pub(super) async fn stop_node(&self, nth: usize) {
        let brokers = self.nodes[nth].brokers.borrow().clone();
        for broker in brokers {
            broker.stop().await;
        }
        self.kill_node(nth, Ending::Process);
    }

    /// The machine stands still with all that runs on it, as a virtual one that is paused; its clock goes on.
    pub(super) fn stand_still(&self, nth: usize) {
        let node = &self.nodes[nth];
        node.brokers.borrow().iter().for_each(|broker| broker.stand_still());
        self.network.stand_still(node.host);
    }

    /// It goes on, with all that came meanwhile first.
    pub(super) fn go_on(&self, nth: usize) {
        let node = &self.nodes[nth];
        self.network.go_on(node.host);
        let brokers = node.brokers.borrow().clone();
        brokers.iter().for_each(|broker| broker.go_on());
    }

    fn client_id(&self, host: HostId) -> String {
        let number = self.next_client.get();
        self.next_client.set(number + 1);
        format!("{}@{number}#sim", client_ip(host))
    }

    fn start_producer(&self, host: HostId) {
        let id = self.client_id(host);
        let instance = Instance::start(&self.sim, &self.network, host, id, &self.namesrv_addresses());
        workload::produce(&instance, &self.ledger, &self.sending);
        self.producers.borrow_mut().push(instance);
    }

    fn start_consumer(&self, setup: ConsumerSetup, host: HostId) {
        let namesrvs = self.namesrv_addresses();
        let id = self.client_id(host);
        let consumer =
            Consumer::start(&self.sim, &self.network, host, id, &namesrvs, setup.clone(), &self.ledger);
        self.consumers.borrow_mut().push((setup, host, consumer));
    }

    fn start_popper(&self, host: HostId) {
        let (id, namesrvs) = (self.client_id(host), self.namesrv_addresses());
        let popper = Popper::start(&self.sim, &self.network, host, id, &namesrvs, HANDED, &self.ledger);
        self.poppers.borrow_mut().push((host, popper));
    }

    /// One that pops is killed with all that it was handed, and another takes its place at once.
    pub(super) fn replace_popper(&self) {
        let nth = self.sim.below(POPPERS.into()) as usize;
        let (host, popper) = self.poppers.borrow_mut().remove(nth);
        popper.instance.kill();
        self.network.end_host(host, Ending::Process);
        self.start_popper(host);
    }

    /// One of the consumers ends, in order or not, and another takes its place.
    pub(super) async fn replace_consumer(&self, in_order: bool) {
        let count = self.consumers.borrow().len() as u64;
        if count == 0 {
            return;
        }
        let nth = self.sim.below(count) as usize;
        let (setup, host, consumer) = self.consumers.borrow_mut().remove(nth);
        self.missing.borrow_mut().push((setup.clone(), host));
        if in_order {
            consumer.stop().await;
        } else {
            consumer.instance.kill();
        }
        self.network.end_host(host, Ending::Process);
        self.sim.sleep(self.sim.below(5 * SECOND)).await;
        self.missing.borrow_mut().retain(|(_, missing)| *missing != host);
        self.start_consumer(setup, host);
    }

    /// The whole run: start, faults, and what must be true in the end.
    pub(super) fn run(self: &Rc<Self>, with_faults: bool) -> Outcome {
        self.sim.run(self.sim.now() + CALM_BEFORE);
        let until = self.sim.now() + FAULTS_FOR;
        if with_faults {
            self.scope.spawn(super::faults::happen(Rc::downgrade(self), until));
        }
        self.sim.run(until);
        // All that is held or stopped starts again now: a loss that is not mended would be a second one's first.
        while self.is_damaged.get() {
            self.sim.run(self.sim.now() + 100 * MS);
        }
        self.scope.end();
        self.heal();
        if self.in_groups {
            self.watching.spawn(super::faults::bring_all_back(Rc::downgrade(self)));
        }
        self.sim.run(self.sim.now() + SENDING_AFTER);
        self.sending.is_over.set(true);
        let deadline = self.sim.now() + SETTLE_WITHIN;
        let mut owed = self.ledger.owed(|queue| self.first_offset(queue));
        while !owed.is_empty() && self.sim.now() < deadline {
            self.sim.run(self.sim.now() + SECOND);
            owed = self.ledger.owed(|queue| self.first_offset(queue));
        }
        if let Some((id, group)) = owed.first() {
            let owed = owed.len();
            panic!("{group} never got {}, one of {owed}", self.ledger.describe(*id));
        }
        self.read_back();
        self.read_handed_out();
        if self.in_groups {
            let deadline = self.sim.now() + LEVEL_WITHIN;
            while !self.is_level() {
                assert!(self.sim.now() < deadline, "the replicas do not come to hold the same");
                self.sim.run(self.sim.now() + 50 * MS);
            }
            self.audit.is_lied_to.set(false);
            self.look();
        }
        Outcome {
            agreed: self.audit.agreed(),
            looks: self.audit.looks.get(),
            counts: self.ledger.counts(),
            tally: self.tally.borrow().clone(),
            frames: self.network.frames.get(),
            late: self.network.faults.get(),
            time: self.sim.now(),
            steps: self.sim.steps(),
            digest: self.sim.digest(),
        }
    }

    /// Ends all faults.
    fn heal(&self) {
        for (from, to) in self.network.hosts().flat_map(|from| self.network.hosts().map(move |to| (from, to)))
        {
            self.network.set_way(from, to, super::network::Way::default());
        }
        for nth in 0..self.namesrvs.len() {
            if self.namesrvs[nth].running.borrow().is_none() {
                self.start_namesrv(nth);
            }
        }
        for (setup, host) in std::mem::take(&mut *self.missing.borrow_mut()) {
            self.network.end_host(host, Ending::Process);
            self.start_consumer(setup, host);
        }
        for (nth, node) in self.nodes.iter().enumerate() {
            for drive in &node.drives {
                drive.latency.set(super::broker::DISK_LATENCY);
                drive.disk.set_full(false);
            }
            self.go_on(nth);
            // One that was being stopped is stopped halfway.
            if self.is_node_up(nth) && node.is_busy.get() {
                self.kill_node(nth, Ending::Process);
            }
            if !self.is_node_up(nth) {
                self.start_node(nth).unwrap_or_else(|error| panic!("node {nth} cannot start: {error}"));
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.scope.end();
        self.watching.end();
        self.sim.end();
    }
}

/// What a shard of a node is started with. In a group, nodes are numbered from 1 on, and the shard has one name on all of
/// them.
fn setup(node: u16, hosts: &[HostId], shard: u16, in_groups: bool, namesrvs: &[SocketAddr]) -> BrokerSetup {
    let host = hosts[usize::from(node)];
    let broker_name = if in_groups { format!("set-{shard}") } else { format!("node{node}-{shard}") };
    let address = SocketAddr::new(client_ip(host), 10911 + 10 * shard);
    let meets_at = |host: HostId| SocketAddr::new(client_ip(host), 10912 + 10 * shard);
    let nodes = hosts.iter().enumerate();
    let group = GroupSetup {
        shard: shard.into(),
        nodes: nodes.map(|(nth, host)| (NodeId(nth as u64 + 1), meets_at(*host))).collect(),
        address: meets_at(host),
        joins: false,
    };
    let log = if in_groups {
        let log = log_config(1 + u64::from(shard), node + 1);
        LogConfig { commit_rule: CommitRule::Group, ..log }
    } else {
        log_config(1 + u64::from(node) * 100 + u64::from(shard), node)
    };
    BrokerSetup {
        host,
        config: ShardConfig {
            cluster: CLUSTER.into(),
            broker_name: broker_name.clone(),
            shards: SHARDS,
            address,
            message_bytes_max: 64 << 10,
            timers: TimerSettings::default(),
            enable_property_filter: true,
            settings: Settings { reclaim_early: false, ..Settings::default() },
            properties: Rc::default(),
            server_side_reset: true,
        },
        policy: TopicPolicy {
            cluster_name: CLUSTER.into(),
            broker_name,
            auto_create: true,
            has_trace_topic: false,
        },
        log,
        namesrvs: namesrvs.to_vec(),
        group: in_groups.then_some(group),
        mutant: None,
    }
}

/// What a run came to.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) counts: Counts,
    pub(super) tally: Tally,
    pub(super) frames: u64,
    /// Pieces and connections that the network delayed, held up or broke.
    pub(super) late: u64,
    /// Virtual.
    pub(super) time: Us,
    pub(super) steps: u64,
    /// Bytes of logs that were compared over all replicas, and how often everything was looked at.
    pub(super) agreed: u64,
    pub(super) looks: u64,
    pub(super) digest: u64,
}
