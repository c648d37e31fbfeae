//! A machine: its disk, its clock, and the process on it, if one runs.

use std::collections::BTreeMap;

use apogee_storage::sim::SimDisk;
use apogee_storage::{
    AlignedBuffer, Append, CommitLog, CommitRule, DiskOp, GroupId, GroupState, LogConfig, Member, NodeId,
    Place, QueueKey, Record, Retention, Ticket, read_group_state, recover_group,
};
use smallvec::smallvec;

use super::plan::Plan;
use crate::replication::{PeerHello, Replica, ReplicaConfig};

pub(super) const GROUP: GroupId = GroupId(7);
pub(super) const SEGMENT_BYTES: u64 = 256 << 10;
pub(super) const BATCH_BYTES_MAX: u32 = 32 << 10;
pub(super) const STAGED_BYTES_MAX: u64 = 64 << 10;

/// A record that says which it is.
#[derive(Clone, Debug)]
pub(super) struct Numbered {
    pub(super) id: u64,
    pub(super) len: u32,
}

impl Record for Numbered {
    fn encoded_len(&self) -> u32 {
        self.len
    }

    fn encode(&self, _place: Place, out: &mut [u8]) {
        out.fill(self.id as u8);
        out[..8].copy_from_slice(&self.id.to_le_bytes());
    }
}

pub(super) type Log = CommitLog<AlignedBuffer, Numbered>;

pub(super) struct Process {
    pub(super) log: Log,
    pub(super) replica: Replica<AlignedBuffer>,
    /// Records staged, by their tickets.
    pub(super) tickets: BTreeMap<Ticket, u64>,
    pub(super) next_log_tick_ms: i64,
    /// As last seen.
    pub(super) committed: u64,
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) disk: SimDisk,
    pub(super) process: Option<Process>,
    /// Counts processes: what is due for an earlier one is dropped.
    pub(super) life: u64,
    /// Thousandths of real time that its clock counts.
    pub(super) rate: i64,
    pub(super) offset_ms: i64,
    pub(super) incarnation: u64,
    /// Nothing of the disk is answered before.
    pub(super) stalled_until_us: u64,
    /// What the disk has for sure.
    pub(super) saved: Saved,
    /// Writes of batches that the disk does not begin with yet, if it is told to wait.
    pub(super) held_writes: Option<Vec<DiskOp<AlignedBuffer>>>,
    /// The process began with nothing or with damage, and is to have all again before it counts.
    pub(super) is_in_doubt: bool,
}

/// Of the group's state.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Saved {
    pub(super) term: u64,
    pub(super) vote: Option<NodeId>,
    /// The change of members it is of.
    pub(super) conf_index: u64,
}

impl Saved {
    pub(super) fn of(state: &GroupState) -> Saved {
        Saved { term: state.term.0, vote: state.vote, conf_index: state.conf.index.0 }
    }
}

impl Node {
    pub(super) fn new(id: NodeId, seed: u64, rate: i64, offset_ms: i64) -> Node {
        Node {
            id,
            disk: SimDisk::new(seed),
            process: None,
            life: 0,
            rate,
            offset_ms,
            incarnation: 1,
            stalled_until_us: 0,
            saved: Saved::default(),
            held_writes: None,
            is_in_doubt: false,
        }
    }

    pub(super) fn now_ms(&self, now_us: u64) -> i64 {
        self.offset_ms + now_us as i64 * self.rate / 1_000_000
    }

    /// When the clock will show this.
    pub(super) fn at_us(&self, at_ms: i64) -> u64 {
        let ahead_ms = (at_ms - self.offset_ms).max(0);
        (ahead_ms * 1_000_000).div_euclid(self.rate) as u64 + 1000
    }

    pub(super) fn config(&self, plan: &Plan) -> LogConfig {
        LogConfig {
            commit_rule: CommitRule::Group,
            segment_bytes: SEGMENT_BYTES,
            batch_bytes_target: 16 << 10,
            batch_bytes_max: BATCH_BYTES_MAX,
            write_window_bytes: 256 << 10,
            staged_bytes_max: STAGED_BYTES_MAX,
            tail_cache_bytes: 128 << 10,
            reserve_bytes: 0,
            retention: Retention { age_ms: None, bytes: Some(4 * SEGMENT_BYTES), may_reclaim: false },
            snapshot_pause_ms: 0,
            retry_ms: 50,
            batches_in_flight_max: if plan.window_bytes > 1 << 20 { 16 } else { 4 },
            ..LogConfig::new(GROUP, self.id)
        }
    }

    /// The state of a node that is in the group from its beginning, or waits to be.
    fn first_state(&self, plan: &Plan) -> GroupState {
        let mut state = GroupState::new(GROUP, self.id);
        state.incarnation = self.incarnation;
        state.segment_bytes = SEGMENT_BYTES;
        let founders = plan.voters + plan.learners;
        if self.id.0 <= founders && self.incarnation == 1 {
            state.conf.voters = (1..=plan.voters).map(NodeId).collect();
            state.conf.learners = (plan.voters + 1..=founders).map(NodeId).collect();
            state.members = (1..=founders).map(|node| member(NodeId(node))).collect();
        }
        state
    }

    /// Starts a process; whether the log was damaged. An error says why it cannot be.
    pub(super) fn start(&mut self, plan: &Plan, seed: u64, now_us: u64) -> Result<bool, String> {
        assert!(self.process.is_none(), "node {} runs already", self.id);
        let config = self.config(plan);
        let saved = read_group_state(&self.disk, GROUP, self.id).map_err(|error| error.to_string())?;
        let state = saved.unwrap_or_else(|| self.first_state(plan));
        let recovered =
            recover_group(&self.disk, &config, state, &mut ()).map_err(|error| error.to_string())?;
        // The recovery has saved what it changed.
        self.saved = Saved::of(&recovered.state);
        let is_damaged = recovered.damage.is_some();
        let recovered_in_doubt = recovered.state.recovering;
        let mut log =
            CommitLog::open_group(config, recovered.recovered, SimDisk::alloc).expect("a good config");
        let now_ms = self.now_ms(now_us);
        let config = ReplicaConfig {
            seed,
            election_timeout_ms: plan.election_timeout_ms,
            heartbeat_ms: plan.heartbeat_ms,
            window_bytes: plan.window_bytes,
            uncommitted_bytes_max: plan.uncommitted_bytes_max,
            preferred_leaders_wait_ms: plan.preferred_wait_ms,
            ..ReplicaConfig::new(self.id, 0)
        };
        let replica = Replica::open(config, recovered.state, &mut log, now_ms);
        let committed = log.committed_index().0;
        self.life += 1;
        self.is_in_doubt = recovered_in_doubt;
        self.process =
            Some(Process { log, replica, tickets: BTreeMap::new(), next_log_tick_ms: now_ms, committed });
        Ok(is_damaged)
    }

    pub(super) fn hello(&self) -> PeerHello {
        let process = self.process.as_ref().expect("a node that runs");
        let state = process.replica.group_state();
        PeerHello {
            cluster: "sim".into(),
            group: GROUP,
            shard: 0,
            node: self.id,
            incarnation: self.incarnation,
            format: 1,
            segment_bytes: SEGMENT_BYTES,
            recovering: state.recovering,
            joining: state.conf.voters.is_empty(),
            term: process.replica.term(),
            last_index: process.log.persisted_index(),
            committed: process.log.committed_index(),
            client_address: format!("10.0.0.{}:10911", self.id),
        }
    }
}

pub(super) fn member(node: NodeId) -> Member {
    Member { node, address: format!("10.0.0.{node}:10912").into_bytes() }
}

pub(super) fn append(id: u64, queue: u64, len: u32) -> Append<Numbered> {
    Append { queue: QueueKey(queue), tag_hash: 0, key_hashes: smallvec![], record: Numbered { id, len } }
}
