//! What only the inside of a cluster shows: who leads, what the disks hold, what NameServers believe.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use apogee_net::message::StoredMessage;
use apogee_storage::format::{BATCH_HEADER_LEN, RawHeader};
use apogee_storage::sim::SimDisk;
use apogee_storage::{FileRun, LogOffset};

use super::broker::{Broker, Drive};
use super::client::producer::id_of;
use super::executor::{MS, Sim, Us};
use super::ledger::MessageId;
use crate::nameserver::NameServer;
use crate::replication::Role;
use crate::shard::seen::Progress;

/// How often everything is looked at.
pub(super) const LOOK_EVERY: Us = 100 * MS;

/// Progress that a master has had in its table for so long, while its log went on, is in the log: it is put there once a
/// second.
const JOURNALLED_AFTER: Us = 1500 * MS;

/// Groups of consumers whose progress is watched, and their topics.
pub(super) type Watched = Vec<(&'static str, Vec<&'static str>)>;

/// One shard on all its nodes.
struct OfShard {
    segment_bytes: u64,
    disks: Vec<SimDisk>,
    leaders: BTreeMap<u64, u64>,
    /// Up to here all replicas were found to hold the same.
    agreed: Cell<u64>,
    /// Progress that is in the log.
    floors: BTreeMap<Progress, u64>,
    history: VecDeque<Look>,
}

/// What a master's table held at a time.
struct Look {
    at: Us,
    master: (u64, u64, u64),
    appended: LogOffset,
    /// The log took all that the tables had for it.
    is_flowing: bool,
    progress: BTreeMap<Progress, u64>,
}

pub(super) struct Audit {
    sim: Sim,
    in_groups: bool,
    watched: Watched,
    shards: RefCell<BTreeMap<String, OfShard>>,
    /// Of the master that a NameServer's life has of each broker name.
    elections: RefCell<BTreeMap<(usize, u64, String), i64>>,
    /// A disk called a write done that is not there, and nobody could know yet.
    pub(super) is_lied_to: Cell<bool>,
    /// Copies of what consumers see that must be durable: as many, until a disk loses something.
    pub(super) copies_min: Cell<usize>,
    pub(super) looks: Cell<u64>,
}

impl Audit {
    pub(super) fn new(sim: &Sim, in_groups: bool, watched: Watched) -> Rc<Audit> {
        Rc::new(Audit {
            sim: sim.clone(),
            in_groups,
            watched,
            shards: RefCell::default(),
            elections: RefCell::default(),
            is_lied_to: Cell::new(false),
            copies_min: Cell::new(if in_groups { 2 } else { 1 }),
            looks: Cell::new(0),
        })
    }

    /// A replica's disk is to be looked at.
    pub(super) fn add(&self, broker: &str, segment_bytes: u64, drive: &Drive) {
        let new = || OfShard {
            segment_bytes,
            disks: Vec::new(),
            leaders: BTreeMap::new(),
            agreed: Cell::new(0),
            floors: BTreeMap::new(),
            history: VecDeque::new(),
        };
        let mut shards = self.shards.borrow_mut();
        shards.entry(broker.to_owned()).or_insert_with(new).disks.push(drive.disk.clone());
    }

    /// A producer is told that a message is stored: it must be durable, in a group on a majority.
    pub(super) fn is_acknowledged(&self, broker: &str, physical_offset: i64, id: MessageId) {
        let is_majority = self.in_groups && !self.is_lied_to.get();
        self.is_durable(broker, physical_offset, id, if is_majority { 2 } else { 1 });
    }

    /// A consumer sees a message.
    pub(super) fn is_seen(&self, broker: &str, physical_offset: i64, id: MessageId) {
        self.is_durable(broker, physical_offset, id, self.copies_min.get());
    }

    /// Up to where all replicas of a shard were found to hold the same.
    pub(super) fn agreed_of(&self, broker: &str) -> u64 {
        self.shards.borrow()[broker].agreed.get()
    }

    fn is_durable(&self, broker: &str, physical_offset: i64, id: MessageId, min: usize) {
        let shards = self.shards.borrow();
        let shard = &shards[broker];
        let at = physical_offset as u64;
        let had = |disk: &&SimDisk| shard.is_gone(disk, at) || shard.holds(disk, at, id);
        let copies = shard.disks.iter().filter(had).count();
        assert!(
            copies >= min,
            "{id:?} at {physical_offset} of {broker} is durable on {copies} nodes, not on {min}"
        );
    }

    /// A client says how far it has come, perhaps less far than before.
    pub(super) fn told(&self, broker: &str, progress: &Progress, offset: u64) {
        if let Some(shard) = self.shards.borrow_mut().get_mut(broker) {
            if let Some(floor) = shard.floors.get_mut(progress) {
                *floor = (*floor).min(offset);
            }
            for look in &mut shard.history {
                if let Some(seen) = look.progress.get_mut(progress) {
                    *seen = (*seen).min(offset);
                }
            }
        }
    }

    /// A NameServer has heard of something: no master that it had gives place to one of an earlier election. Once the last
    /// broker of a name has gone it knows nothing of the name any more.
    pub(super) fn look_at_masters(&self, nth: usize, life: u64, nameserver: &NameServer) {
        let is_known = |(by, of_life, name): &(usize, u64, String)| {
            (*by, *of_life) != (nth, life) || nameserver.knows(name)
        };
        self.elections.borrow_mut().retain(|election, _| is_known(election));
        for (name, election) in nameserver.masters() {
            let mut elections = self.elections.borrow_mut();
            let newest = elections.entry((nth, life, name.clone())).or_insert(election);
            assert!(
                *newest <= election,
                "NameServer {nth} had the master of election {newest} for {name}, and now that of {election}"
            );
            *newest = election;
        }
    }

    pub(super) fn look(&self, brokers: &[(u64, Rc<Broker>)]) {
        self.looks.set(self.looks.get() + 1);
        let mut shards = self.shards.borrow_mut();
        for (name, shard) in &mut *shards {
            let replicas: Vec<_> = brokers.iter().filter(|(_, broker)| broker.name() == name).collect();
            let mut leases = 0;
            for (node, broker) in &replicas {
                leases += shard.look_at(&self.sim, name, *node, broker, &self.watched);
            }
            assert!(leases <= 1, "{leases} nodes hold a lease of {name}");
            if self.in_groups && !self.is_lied_to.get() && replicas.len() == shard.disks.len() {
                let upto = replicas
                    .iter()
                    .map(|(_, broker)| broker.marks())
                    .map(|marks| marks.committed.min(marks.durable));
                shard.agree(name, upto.min().unwrap_or_default().0);
            }
        }
    }

    /// Up to where all replicas of all shards were found to hold the same.
    pub(super) fn agreed(&self) -> u64 {
        self.shards.borrow().values().map(|shard| shard.agreed.get()).sum()
    }
}

impl OfShard {
    /// Looks at one replica; 1 if it holds a lease.
    fn look_at(&mut self, sim: &Sim, name: &str, node: u64, broker: &Broker, watched: &Watched) -> u64 {
        let status = broker.group_status();
        if let Some(status) = &status {
            assert_ne!(
                status.role,
                Role::Stopped,
                "consensus stopped at node {node} of {name}: {}",
                status.why
            );
        }
        let mut lease = 0;
        let mut is_master = status.is_none();
        if let Some(status) = &status
            && let Role::Leader { ready } = status.role
        {
            let leader = *self.leaders.entry(status.term.0).or_insert(node);
            assert_eq!(leader, node, "two nodes lead {name} in term {}", status.term.0);
            lease = u64::from(status.lease_ms > 0);
            is_master = ready && broker.is_master() && lease > 0;
        }
        if !is_master {
            return lease;
        }
        let (marks, term) = (broker.marks(), status.map_or(0, |status| status.term.0));
        let progress: BTreeMap<Progress, u64> =
            watched.iter().flat_map(|(group, topics)| broker.progress_of(group, topics)).collect();
        for (of, floor) in &self.floors {
            let now = progress.get(of).copied();
            assert!(
                now.is_some_and(|now| now >= *floor),
                "{name}: the progress of {of:?} was logged at {floor}, and the master of term {term}, node {node}, has {now:?}"
            );
        }
        // A leadership: what it had not logged when it ended may be lost, though the same node leads again.
        let master = (node, broker.life(), term);
        self.history.retain(|look| look.master == master);
        self.history.push_back(Look {
            at: sim.now(),
            master,
            appended: marks.appended,
            is_flowing: !broker.has_unlogged(),
            progress,
        });
        // The record was made by the time of a later look, and all up to there is committed now.
        let Some(oldest) = self.history.front() else { return lease };
        let later = self.history.iter().find(|look| look.at >= oldest.at + JOURNALLED_AFTER);
        if later.is_some_and(|later| later.appended <= marks.committed) {
            let is_flowing = self.history.iter().all(|look| look.is_flowing);
            let oldest = self.history.pop_front().expect("looked at just now");
            if !is_flowing {
                return lease;
            }
            for (of, mut offset) in oldest.progress {
                // What went back since went back by a client's word.
                for look in &self.history {
                    offset = look.progress.get(&of).map_or(offset, |seen| offset.min(*seen));
                }
                self.floors.insert(of, offset);
            }
        }
        lease
    }

    fn read(&self, disk: &SimDisk, at: u64, len: u32) -> Option<Vec<u8>> {
        let position = at % self.segment_bytes;
        let run = FileRun { segment: LogOffset(at - position), position, len };
        let is_there =
            disk.segment_bases().contains(&run.segment) && position + u64::from(len) <= self.segment_bytes;
        is_there.then(|| disk.read_durable(run))
    }

    /// Retention took it, or the log began anew behind it.
    fn is_gone(&self, disk: &SimDisk, at: u64) -> bool {
        disk.segment_bases().first().is_some_and(|first| at < first.0)
    }

    fn holds(&self, disk: &SimDisk, at: u64, id: MessageId) -> bool {
        let Some(head) = self.read(disk, at, 4) else { return false };
        let len = u32::from_be_bytes(head.try_into().expect("four bytes"));
        let Some(bytes) = (len < self.segment_bytes as u32).then(|| self.read(disk, at, len)).flatten()
        else {
            return false;
        };
        StoredMessage::decode(&bytes)
            .is_ok_and(|message| message.is_body_intact() && id_of(message.body) == Some(id))
    }

    /// Compares what the replicas hold from where they agreed last, batch by batch.
    fn agree(&self, name: &str, upto: u64) {
        while self.agreed.get() < upto {
            let at = self.agreed.get();
            // A log that begins anew behind all this has no segment yet.
            let has_segments = |disk: &SimDisk| !disk.segment_bases().is_empty();
            let disks = self.disks.iter().enumerate();
            let disks: Vec<_> =
                disks.filter(|(_, disk)| has_segments(disk) && !self.is_gone(disk, at)).collect();
            let header = disks.first().and_then(|(_, disk)| self.read(disk, at, BATCH_HEADER_LEN as u32));
            let header = header.as_deref().and_then(|bytes| RawHeader(bytes).verify().ok());
            let found = header.map(|header| (header.base_offset().0, header.batch_len() as u32));
            let Some((_, len)) = found.filter(|(base, _)| *base == at) else {
                // What is left of a segment.
                self.agreed.set((at / self.segment_bytes + 1) * self.segment_bytes);
                continue;
            };
            let read: Vec<_> = disks.iter().map(|(nth, disk)| (nth, self.read(disk, at, len))).collect();
            for pair in read.windows(2) {
                let [(one, held), (other, held_there)] = pair else { unreachable!("pairs") };
                assert!(
                    held == held_there,
                    "node {other} holds another batch at {at} of {name} than node {one}"
                );
            }
            self.agreed.set(at + u64::from(len));
        }
    }
}
