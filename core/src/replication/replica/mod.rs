//! The replica of one shard.

mod incoming;
mod members;
mod outgoing;
mod outside;
mod propose;
mod reset;
mod settle;
mod status;
mod time;
mod transfer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use apogee_storage::format::{BLOCK_LEN, BatchKind, RawHeader};
use apogee_storage::{
    BatchIndex, Buffer, Checkpoint, DiskError, ForeignBatch, ForeignRefused, GroupState, LogOffset, NodeId,
    OpId, Term,
};
pub use status::{GroupStatus, NO_MEMBER, PeerStatus};

use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use raft::{Config, ProgressState, RawNode, SnapshotStatus, StateRole};

use super::action::{ReplicaAction, Role};
use super::checkpoint::{self, Begin, CHECKPOINT_BYTES_MAX};
use super::codec::ADDRESS_BYTES_MAX;
use super::config::ReplicaConfig;
use super::entries::{ENTRY_BYTES, Entries};
use super::group_log::{GroupLog, configuration_body};
use super::lease::Lease;
use super::logger::raft_logger;
use super::membership::{
    ChangeRefused, Configuration, MEMBERS_MAX, MemberChange, Step, from_raft, has_vote, is_member, nodes_of,
    to_raft,
};
use super::message::{
    AppendAnswer, AppendHead, Heartbeat, HeartbeatAnswer, Members, PeerHello, PeerMessage, ResetAnswer,
    ResetHead, ResetPart, VoteAnswer, VoteRequest,
};
use super::peers::{Farewell, Filled, LeaderNow, Peer, Successor};
use super::state_file::StateFile;

/// Entries of one of raft's messages; the window counts bytes, see [`Peer::fill`].
const ENTRIES_PER_MESSAGE: u64 = 16;

/// Messages of raft's on their way to one follower. The window is far smaller.
const MESSAGES_IN_FLIGHT_MAX: usize = 256;

/// A learner this close behind may become a voter: it does not hold commits up for longer than any other.
const PROMOTE_LAG_BATCHES_MAX: u64 = 64;

/// Election timeouts without an answer after which appends on their way are sent again, and a checkpoint is given up.
const STUCK_TIMEOUTS: i64 = 2;
const RESET_STUCK_MS: i64 = 10_000;

/// Pause between two tries of a log to begin anew, if there is no room for the checkpoint.
const RESET_PAUSE_MS: i64 = 1000;

/// Election timeouts for which a node that could not make its first batch leaves leading to others.
const UNABLE_TIMEOUTS: i64 = 20;

/// Pause between two writes of the group's state only for the sake of how far is committed. Damage of what came since cannot be
/// told from a write that was interrupted, unless much lies behind it.
const SAVE_COMMIT_MS: i64 = 1000;

/// What raft marks votes with that the leader asked for.
const CAMPAIGN_TRANSFER: &[u8] = b"CampaignTransfer";

/// Why a transfer of leadership was not begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferRefused {
    #[error("this node does not lead the group")]
    NotLeader { leader: Option<NodeId> },
    #[error("node {node} is no voter of the group")]
    NotVoter { node: NodeId },
    #[error("node {node} leads already")]
    Leads { node: NodeId },
    #[error("node {node} is not heard of, recovering, or its disk is not well")]
    Away { node: NodeId },
    #[error("no other voter is fit to lead")]
    Nobody,
    #[error("leadership is being handed over to node {to}")]
    Busy { to: NodeId },
    #[error("the group's nodes are being changed")]
    Changing,
}

/// A message that no sound peer sends; its connection is to be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct PeerFault {
    pub what: String,
}

fn fault(what: impl Into<String>) -> PeerFault {
    PeerFault { what: what.into() }
}

/// What raft said in one go, until all that was said before is durable.
#[derive(Debug)]
struct Pending {
    /// Change of the group's state to be saved first.
    change: u64,
    /// The log begins anew behind this batch.
    start: Option<u64>,
    /// Index and term of the batch to be persisted first.
    last: Option<(u64, u64)>,
    /// Some of its batches were cut off: what raft is to know of it comes with what replaced them.
    is_cut: bool,
    /// It has not begun anew yet.
    resets: bool,
    messages: Vec<Message>,
}

/// What moves in the log without this replica: whatever else it does there it knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LogMarks {
    /// Retention moves it.
    start: BatchIndex,
    /// Sealing.
    last: BatchIndex,
    /// The disk.
    persisted: BatchIndex,
}

impl LogMarks {
    fn of<B>(log: &impl GroupLog<B>) -> LogMarks {
        LogMarks { start: log.before_first().index, last: log.last_index(), persisted: log.persisted_index() }
    }
}

/// The election timeout, in ticks, of a term and the elections stood for until then.
#[derive(Clone, Copy, Debug, Default)]
struct DrawnTimeout {
    term: u64,
    campaigns: u64,
    ticks: usize,
}

/// A leadership of this node.
#[derive(Debug)]
struct Leading {
    term: u64,
    since_ms: i64,
    /// The first batch of it.
    noop: u64,
    /// Up to here followers were told what is committed.
    told: u64,
    transfer: Option<Transfer>,
    /// The successor was told to stand for election: it may do so at any later time, so there is no lease any more.
    timeout_now_sent: bool,
    /// A batch that changes the members, until raft has it.
    sealing: Option<(u64, Rc<Configuration>)>,
    /// The balancer waits from here on.
    calm_since_ms: i64,
}

#[derive(Clone, Copy, Debug)]
struct Transfer {
    to: NodeId,
    since_ms: i64,
    /// Raft knows: nothing is sealed from now on.
    asked: bool,
}

/// The leader heard of last.
#[derive(Clone, Copy, Debug)]
struct Heard {
    leader: u64,
    term: u64,
    clock_ms: i64,
}

/// What this node has told a leader that it has, as long as their connection lasts.
#[derive(Clone, Copy, Debug)]
struct Answered {
    leader: u64,
    term: u64,
    index: u64,
    commit: u64,
}

/// What a recovering node must hold before it is one like the others.
#[derive(Clone, Copy, Debug)]
struct Target {
    term: u64,
    index: u64,
}

/// A checkpoint that is coming.
#[derive(Debug)]
struct Arriving {
    from: NodeId,
    head: ResetHead,
    bytes: Vec<u8>,
}

/// The log is about to begin anew.
#[derive(Debug)]
struct Resetting {
    begin: Begin,
    asked: Option<AskedReset>,
    /// There was no room for it before: not tried again until then.
    put_off_until_ms: Option<i64>,
}

#[derive(Debug)]
struct AskedReset {
    id: OpId,
    /// The group's state without it.
    before: Box<GroupState>,
}

/// The consensus decisions of one shard's group.
///
/// The order of calls, by one owner: what happened, one or more `on_…`; then, at the end of the turn,
/// [`on_log_progress`](Replica::on_log_progress), [`take_action`](Replica::take_action) and the log's `poll_op` until none gives
/// anything.
///
/// When [`wake_at_ms`](Replica::wake_at_ms) has come, first what the sockets hold is handed in, then
/// [`on_tick`](Replica::on_tick) is called once, however late it is: a stalled thread must not take its own lateness for the
/// leader's silence.
///
/// What cannot be (raft panics, or an invariant of this code fails) stops the replica, not the process: its role is
/// [`Stopped`](Role::Stopped) from then on, an alarm says why, and the log stays as it is.
pub struct Replica<B> {
    config: ReplicaConfig,
    /// What belongs to its `ready` must not be used: see `take_words`.
    raw: RawNode<Entries>,
    file: StateFile,
    role: Role,
    stopped: Option<String>,
    /// The log when all that followed from it was carried out last.
    settled: Option<LogMarks>,
    actions: VecDeque<ReplicaAction<B>>,
    peers: BTreeMap<NodeId, Peer>,
    /// Term and vote that raft said last.
    voted: (u64, u64),
    pending: VecDeque<Pending>,
    /// An empty list for raft to speak into.
    spare_messages: Vec<Message>,
    /// Whole batches of the message that raft is looking at, and changes of members among them.
    received: VecDeque<ForeignBatch<B>>,
    received_changes: BTreeMap<u64, Rc<Configuration>>,
    /// Batches that raft has taken and the log has not yet.
    waiting: VecDeque<ForeignBatch<B>>,
    /// For the first batch of a leadership, which cannot wait for one.
    spare: Option<B>,
    leading: Option<Leading>,
    lease: Lease,
    heard: Option<Heard>,
    answered: Option<Answered>,
    /// No vote for anybody before.
    promised_until_ms: i64,
    next_tick_ms: i64,
    /// Elections this node stood for by itself.
    campaigns: u64,
    /// Changes of members that raft has and the disk not yet: index and change of the group's state.
    unsaved: VecDeque<(u64, u64)>,
    /// Up to here what is committed and durable here was looked at for changes of members.
    apply_to: u64,
    target: Option<Target>,
    /// The newest change of the state that this node must not forget before it takes part: that it recovers, which it found out
    /// while it ran, and the terms of the others.
    doubted: Option<u64>,
    /// Nodes that have said in this life who they are, and the newest term that any of them was in.
    met: BTreeSet<NodeId>,
    met_term: u64,
    /// What this node was told by others when it was outside of the group.
    farewell: Option<Farewell>,
    /// Up to here the log is that of the leader of this term.
    verified: (u64, u64),
    arriving: Option<Arriving>,
    /// What the snapshot that raft is looking at stands for.
    begin: Option<Begin>,
    resetting: Option<Resetting>,
    /// A change of members to be sealed.
    change: Option<Configuration>,
    is_holding: bool,
    /// The log asks nothing of the disk until the term of this leadership is durable.
    waits_for_term: bool,
    sick: Option<String>,
    /// The node is about to stop.
    is_leaving: bool,
    next_checkpoint: u64,
    saved_commit: (u64, i64),
    /// No batch could be made for a leadership: not tried again before.
    unable_until_ms: i64,
    drawn: DrawnTimeout,
}

impl<B: Buffer + 'static> Replica<B> {
    /// Opens the replica of a log as recovery left it. `state` is what is on the disk.
    ///
    /// # Panics
    /// If the state is not of this node.
    pub fn open(
        config: ReplicaConfig,
        state: GroupState,
        log: &mut impl GroupLog<B>,
        now_ms: i64,
    ) -> Replica<B> {
        assert!(
            config.node == state.node && config.node.0 != 0,
            "node {} with the state of {}",
            config.node,
            state.node
        );
        let mut entries = Entries::of_log(log);
        let committed = log.committed_index().0;
        // Up to what is committed every change of members is in the state: see `take_batches` and `commit`.
        for index in committed + 1..=entries.last() {
            let body = log.configuration_at(BatchIndex(index));
            if let Some(change) = body.and_then(|body| Configuration::decode(&body).ok()) {
                entries.add_configuration(index, Rc::new(change));
            }
        }
        let last_term = entries.term_of(entries.last()).expect("the last entry");
        // The log may say of a term that the state was not told of in time; nobody was voted for in it.
        let (term, vote) = match last_term > state.term.0 {
            true => (last_term, 0),
            false => (state.term.0, state.vote.map_or(0, |node| node.0)),
        };
        entries.hard.term = term;
        entries.hard.vote = vote;
        entries.hard.commit = committed;
        entries.conf = to_raft(&state.conf);
        let raw = new_raft(&config, entries, committed);
        let mut file = StateFile::new(state);
        if term > file.state.term.0 {
            file.state.term = Term(term);
            file.state.vote = None;
            file.changed();
        }
        let timeout_ms = i64::from(config.election_timeout_ms);
        let members = file.state.members.clone();
        let mut replica = Replica {
            next_tick_ms: now_ms + i64::from(config.tick_ms()),
            // Whom this node voted for is on the disk; when it heard a leader is not.
            promised_until_ms: now_ms + timeout_ms,
            config,
            raw,
            file,
            role: Role::Follower { leader: None },
            stopped: None,
            settled: None,
            actions: VecDeque::new(),
            peers: BTreeMap::new(),
            voted: (term, vote),
            pending: VecDeque::new(),
            spare_messages: Vec::new(),
            received: VecDeque::new(),
            received_changes: BTreeMap::new(),
            waiting: VecDeque::new(),
            spare: None,
            leading: None,
            lease: Lease::default(),
            heard: None,
            answered: None,
            campaigns: 0,
            unsaved: VecDeque::new(),
            apply_to: committed,
            target: None,
            doubted: None,
            met: BTreeSet::new(),
            met_term: 0,
            farewell: None,
            verified: (0, 0),
            arriving: None,
            begin: None,
            resetting: None,
            change: None,
            is_holding: false,
            waits_for_term: false,
            sick: None,
            is_leaving: false,
            next_checkpoint: 0,
            saved_commit: (committed, now_ms),
            unable_until_ms: now_ms,
            drawn: DrawnTimeout::default(),
        };
        replica.actions.push_back(ReplicaAction::MembersChanged(members));
        if replica.file.state.recovering {
            let text =
                "this node lost what it had acknowledged; it neither votes nor leads until it has all again";
            replica.actions.push_back(ReplicaAction::Alarm(text.into()));
        }
        replica.contained(log, |replica, log| replica.settle(log, now_ms));
        replica
    }

    /// When [`on_tick`](Replica::on_tick) is due.
    #[must_use]
    pub fn wake_at_ms(&self) -> i64 {
        if self.stopped.is_some() { i64::MAX } else { self.next_tick_ms }
    }

    pub fn on_tick(&mut self, log: &mut impl GroupLog<B>, now_ms: i64) {
        if now_ms < self.next_tick_ms {
            return;
        }
        self.next_tick_ms = now_ms + i64::from(self.config.tick_ms());
        self.contained(log, |replica, log| {
            replica.propose(log, now_ms);
            replica.tick(log, now_ms);
            replica.settle(log, now_ms);
        });
    }

    /// Takes a message of a peer that is up.
    pub fn on_message(
        &mut self,
        from: NodeId,
        message: PeerMessage<B>,
        log: &mut impl GroupLog<B>,
        now_ms: i64,
    ) -> Result<(), PeerFault> {
        let taken = self.contained(log, |replica, log| {
            replica.propose(log, now_ms);
            replica.peers.entry(from).or_default().heard_ms = Some(now_ms);
            let is_answer = matches!(message, PeerMessage::AppendAnswer(_));
            let taken = replica.take_message(from, message, log, now_ms);
            match is_answer {
                true => replica.settle_answer(log, now_ms),
                false => replica.settle(log, now_ms),
            }
            replica.received.clear();
            replica.received_changes.clear();
            replica.begin = None;
            taken
        });
        taken.unwrap_or(Ok(()))
    }

    /// Both connections to a peer are there. Nothing of earlier ones is delivered from now on.
    pub fn on_peer_up(&mut self, hello: PeerHello, log: &mut impl GroupLog<B>, now_ms: i64) {
        self.contained(log, |replica, log| {
            replica.propose(log, now_ms);
            replica.peer_up(hello, now_ms);
            replica.settle(log, now_ms);
        });
    }

    /// A connection to a peer broke; the other is to be closed.
    pub fn on_peer_down(&mut self, node: NodeId, log: &mut impl GroupLog<B>, now_ms: i64) {
        self.contained(log, |replica, log| {
            replica.propose(log, now_ms);
            replica.peer_down(node);
            replica.settle(log, now_ms);
        });
    }

    /// Takes what the log sealed, wrote and synced, and tells followers what is committed. `alloc` as for `poll_op`. Costs next to
    /// nothing if there is nothing, as in most of its calls.
    pub fn on_log_progress(
        &mut self,
        log: &mut impl GroupLog<B>,
        now_ms: i64,
        alloc: &mut dyn FnMut(usize) -> B,
    ) {
        if self.spare.is_none() {
            self.spare = Some(alloc(BLOCK_LEN));
        }
        if !self.is_settled(log) {
            self.contained(log, |replica, log| {
                replica.propose(log, now_ms);
                replica.seal_change(log, now_ms, alloc);
                replica.propose(log, now_ms);
                replica.settle(log, now_ms);
            });
        }
        self.tell_commit(now_ms);
    }

    pub fn on_group_state_saved(
        &mut self,
        id: OpId,
        result: Result<(), DiskError>,
        log: &mut impl GroupLog<B>,
        now_ms: i64,
    ) {
        self.contained(log, |replica, log| {
            replica.propose(log, now_ms);
            match result {
                Ok(()) => replica.file.on_saved(id),
                // Either state may be what the next opening finds: nothing may follow from the new one.
                Err(error) => {
                    return replica.stop(format!("the group's state could not be saved: {error}"), log);
                }
            }
            replica.settle(log, now_ms);
        });
    }

    /// The pages that a [`LoadPages`](ReplicaAction::LoadPages) named are in memory, or could not be brought there.
    pub fn on_pages_loaded(&mut self, log: &mut impl GroupLog<B>, now_ms: i64) {
        self.contained(log, |replica, log| {
            replica.propose(log, now_ms);
            replica.peers.values_mut().for_each(|peer| peer.waits_for_pages = false);
            replica.settle(log, now_ms);
        });
    }

    pub fn on_checkpoint(
        &mut self,
        id: OpId,
        result: Result<Box<Checkpoint>, DiskError>,
        log: &mut impl GroupLog<B>,
        now_ms: i64,
    ) {
        self.contained(log, |replica, log| {
            replica.propose(log, now_ms);
            replica.checkpoint_taken(id, result, now_ms);
            replica.settle(log, now_ms);
        });
    }

    /// The log was begun anew, as the action said, or that failed.
    pub fn on_reset(
        &mut self,
        id: OpId,
        result: Result<(), DiskError>,
        log: &mut impl GroupLog<B>,
        now_ms: i64,
    ) {
        self.contained(log, |replica, log| {
            match result {
                Ok(()) => replica.reset_done(id, log),
                Err(error @ DiskError::NotBegun { .. }) => replica.put_off_reset(id, &error, now_ms),
                Err(error) => {
                    return replica.stop(format!("the log could not be begun anew: {error}"), log);
                }
            }
            replica.settle(log, now_ms);
        });
    }

    pub fn take_action(&mut self) -> Option<ReplicaAction<B>> {
        self.actions.pop_front()
    }

    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    #[must_use]
    pub fn term(&self) -> Term {
        Term(self.raw.raft.term)
    }

    /// Nobody else leads before this moment is over: what this leader has is the newest there is. None while it hands over.
    #[must_use]
    pub fn has_lease(&self, now_ms: i64) -> bool {
        self.lease_left_ms(now_ms) > 0
    }

    fn lease_left_ms(&self, now_ms: i64) -> i64 {
        match (&self.role, &self.leading) {
            (Role::Leader { ready: true }, Some(leading))
                if leading.transfer.is_none()
                    && (!leading.timeout_now_sent || flawed!(LeaseAfterTransfer)) =>
            {
                let length_ms = self.timeout_ms() * 4 / 5 - i64::from(self.config.tick_ms());
                let length_ms = if flawed!(LeaseTooLong) { 4 * length_ms } else { length_ms };
                self.lease.left_ms(self.config.node, &self.file.state.conf, length_ms, now_ms)
            }
            _ => 0,
        }
    }

    /// Leadership is on its way to another node: what needs a leader is to be held back.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        self.leading.as_ref().is_some_and(|leading| leading.transfer.is_some())
    }

    /// Hands leadership over once what is staged is committed, or soon after.
    pub fn transfer_to(
        &mut self,
        node: NodeId,
        log: &mut impl GroupLog<B>,
        now_ms: i64,
    ) -> Result<(), TransferRefused> {
        let begun = self.contained(log, |replica, log| {
            replica.propose(log, now_ms);
            let begun = replica.begin_transfer(node, now_ms);
            replica.settle(log, now_ms);
            begun
        });
        begun.unwrap_or(Err(TransferRefused::NotLeader { leader: None }))
    }

    /// Hands leadership to whichever voter has the most, for an orderly stop.
    pub fn transfer_away(
        &mut self,
        log: &mut impl GroupLog<B>,
        now_ms: i64,
    ) -> Result<NodeId, TransferRefused> {
        if self.leading.is_none() {
            return Err(TransferRefused::NotLeader { leader: self.leader() });
        }
        let to = self.successor(now_ms).ok_or(TransferRefused::Nobody)?;
        self.transfer_to(to, log, now_ms).map(|()| to)
    }

    /// The node is about to stop: from now on it neither stands for election nor is given leadership, and hands over what it
    /// has whenever somebody can take it.
    pub fn leave(&mut self) {
        self.is_leaving = true;
    }

    /// Begins to change the group's nodes; it is done when [`status`](Replica::status) says so.
    pub fn change_members(
        &mut self,
        change: MemberChange,
        log: &mut impl GroupLog<B>,
        now_ms: i64,
    ) -> Result<(), ChangeRefused> {
        let steps = self.plan_change(change, log, now_ms)?;
        self.change = Some(Configuration { steps });
        Ok(())
    }

    /// The group's state as it is, or is about to be, on disk.
    #[must_use]
    pub fn group_state(&self) -> &GroupState {
        &self.file.state
    }
}

/// Raft over these entries.
fn new_raft(config: &ReplicaConfig, entries: Entries, applied: u64) -> RawNode<Entries> {
    let tick_ms = config.tick_ms();
    let election_tick = config.election_timeout_ms.div_ceil(tick_ms) as usize;
    let settings = Config {
        id: config.node.0,
        election_tick,
        heartbeat_tick: (config.heartbeat_ms / tick_ms).max(1) as usize,
        applied,
        max_size_per_msg: ENTRIES_PER_MESSAGE * ENTRY_BYTES,
        max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
        skip_bcast_commit: true,
        check_quorum: true,
        pre_vote: true,
        ..Config::default()
    };
    RawNode::new(&settings, entries, &raft_logger()).expect("settings and entries that raft takes")
}

impl<B: Buffer + 'static> Replica<B> {
    /// Runs `act`; a panic ends the group, not the process.
    fn contained<L: GroupLog<B>, T>(
        &mut self,
        log: &mut L,
        act: impl FnOnce(&mut Self, &mut L) -> T,
    ) -> Option<T> {
        if self.stopped.is_some() {
            return None;
        }
        match catch_unwind(AssertUnwindSafe(|| act(self, log))) {
            Ok(done) => Some(done),
            Err(panic) => {
                let what = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("a panic without a message");
                let what = format!("consensus met a state that cannot be, and stopped: {what}");
                // The log, too, may have been in the middle of something.
                let _ = catch_unwind(AssertUnwindSafe(|| self.stop(what.clone(), log)));
                self.stopped.get_or_insert(what);
                None
            }
        }
    }

    fn stop<L: GroupLog<B>>(&mut self, what: String, log: &mut L) {
        self.leading = None;
        self.stopped = Some(what.clone());
        self.actions.push_back(ReplicaAction::Alarm(what));
        self.set_role(Role::Stopped);
        if log.is_leading() {
            log.follow();
        }
    }

    fn set_role(&mut self, role: Role) {
        if self.role != role {
            self.role = role;
            self.actions.push_back(ReplicaAction::RoleChanged(role));
        }
    }

    fn leader(&self) -> Option<NodeId> {
        if self.is_outside()
            && let Some(farewell) = self.farewell
        {
            return self.leader_as_told(farewell);
        }
        Some(NodeId(self.raw.raft.leader_id)).filter(|leader| leader.0 != raft::INVALID_ID)
    }

    fn entries(&self) -> &Entries {
        self.raw.store()
    }

    fn timeout_ms(&self) -> i64 {
        self.config.election_timeout_ms.into()
    }

    fn is_heard(&self, node: NodeId, now_ms: i64) -> bool {
        let heard = self.peers.get(&node).filter(|peer| peer.up).and_then(|peer| peer.heard_ms);
        heard.is_some_and(|heard_ms| now_ms - heard_ms < self.timeout_ms())
    }
}

/// A message of raft's from a peer.
fn raft_message(kind: MessageType, from: NodeId, term: Term) -> Message {
    let mut message = Message::default();
    message.set_msg_type(kind);
    message.from = from.0;
    message.term = term.0;
    message
}

/// Whether the message says that batches from `index` on are durable here.
fn is_acknowledgement(message: &Message, index: u64) -> bool {
    message.get_msg_type() == MessageType::MsgAppendResponse && !message.reject && message.index >= index
}

/// Whether the message says something that must be durable, besides the term it is said in: a leader's heartbeat is
/// answered while the disk works.
fn waits(message: &Message) -> bool {
    !matches!(
        message.get_msg_type(),
        MessageType::MsgHeartbeatResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
    )
}

/// Splitmix64's mixing.
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
