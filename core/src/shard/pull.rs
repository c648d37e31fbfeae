//! What a pull finds: decided here once, for the first execution and for the one after parking.

use std::ops::ControlFlow;

use apogee_net::code::ResponseCode;
use apogee_net::io::Chunk;
use apogee_net::message::MessageError;
use apogee_net::request::PullMessageReply;
use apogee_storage::{Buffer, IndexFault, QueueKey, QueueOffset, ReadLimits, ReadPlan, Run};
use bytes::Bytes;
use smallvec::SmallVec;

use super::action::{Action, Fetch};
use super::filter::Filter;
use super::filter::pick::{PickLimits, Picking};
use super::filter::sql::SqlExpression;
use super::load::LoadError;
use super::parked::{ParkRefused, Wait};
use super::roles::Readers;
use super::state::Shard;
use super::stats::{MeterId, Totals};
use crate::service::{Reply, ReplyTo};

/// Messages and bytes of one reply; the bytes are RocketMQ's own, for requests that name none.
pub(super) const PULL_MESSAGES_MAX: u32 = 1024;
pub(super) const PULL_BYTES_DEFAULT: u64 = 256 * 1024;
pub(super) const PULL_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Index entries that one pull looks at: at some 5 ns each far below the time a task may take.
const EXAMINE_MAX: u32 = 16_384;

/// Messages that a pull with an expression looks at, whole: their properties decide. What is not in memory is read.
const FILTERED_BYTES_MAX: u64 = 512 * 1024;

/// Work for pulls that wait with an expression and are woken by the same messages: about that of a few pulls. The
/// others are told to ask again.
const WAKE_WORK_MAX: u64 = 65_536;

/// A pull that passed its checks.
#[derive(Clone, Debug)]
pub(super) struct Pull {
    pub queue: QueueKey,
    pub from: QueueOffset,
    pub messages_max: u32,
    pub bytes_max: u64,
    pub filter: Filter,
    pub topic_sys_flag: i32,
    pub group_sys_flag: i32,
    /// From whom the group reads, where there is a choice.
    pub readers: Readers,
    /// Where what is given is counted.
    pub meter: Option<MeterId>,
}

/// A pull that waits for a message, and where its answer goes.
#[derive(Debug)]
pub(super) struct ParkedPull {
    pub to: ReplyTo,
    pub pull: Pull,
    pub deadline_ms: i64,
}

/// What a pull comes to (`GetMessageStatus` and the code it is answered with).
#[derive(Debug)]
pub(super) enum Pulled<B> {
    Found(ReadPlan<B>),
    /// By an expression.
    Picked {
        messages: SmallVec<[Chunk; 2]>,
        next: QueueOffset,
    },
    /// Messages that an expression has to decide on, once they are read.
    ToPick(SmallVec<[Run<B>; 4]>),
    /// Messages were there, and the filter took none.
    NothingMatched {
        next: QueueOffset,
    },
    /// Worth waiting for.
    NothingNew {
        next: QueueOffset,
        remark: &'static str,
    },
    /// This replica cannot say whether the offset is one of the queue's.
    ForLeader,
    /// The offset is none of this queue's: the client corrects itself to `next`.
    OffsetMoved {
        next: QueueOffset,
        remark: &'static str,
    },
}

impl<B: Buffer + 'static> Shard<B> {
    /// A fault is met only in front of all that could be given; one behind it just ends the reply.
    ///
    /// Source of the table: `DefaultMessageStore#getMessage`, `PullMessageProcessor#composeResponseHeader`. That an offset is
    /// none of the queue's is said by the leader only: push consumers go where they are told to, and commit it. What is
    /// behind all that a replica shows may have been read elsewhere, and what is in front of it may still be there.
    pub(super) fn pull(&self, pull: &Pull, now_ms: i64) -> Result<Pulled<B>, IndexFault> {
        let (min, max) = (self.log.min_offset(pull.queue), self.log.max_offset(pull.queue));
        let from = pull.from;
        if (from < min || from > max) && !self.leads(now_ms) {
            let (next, remark) = (from, "OFFSET_OVERFLOW_ONE");
            return Ok(if from < min { Pulled::ForLeader } else { Pulled::NothingNew { next, remark } });
        }
        // A leader that has a change of members still to write down commits nothing behind it; others may, and have shown it.
        if from > max && from <= self.log.tail_offset(pull.queue) {
            return Ok(Pulled::NothingNew { next: from, remark: "OFFSET_OVERFLOW_ONE" });
        }
        if max == QueueOffset(0) {
            let (next, remark) = (QueueOffset(0), "NO_MESSAGE_IN_QUEUE");
            return Ok(match from {
                QueueOffset(0) => Pulled::NothingNew { next, remark },
                _ => Pulled::OffsetMoved { next, remark },
            });
        }
        if from < min {
            return Ok(Pulled::OffsetMoved { next: min, remark: "OFFSET_TOO_SMALL" });
        }
        if from == max {
            return Ok(Pulled::NothingNew { next: from, remark: "OFFSET_OVERFLOW_ONE" });
        }
        if from > max {
            return Ok(Pulled::OffsetMoved { next: max, remark: "OFFSET_OVERFLOW_BADLY" });
        }
        if let Some(sql) = pull.filter.sql() {
            return self.pull_filtered(pull, sql);
        }
        let limits = ReadLimits {
            messages_max: pull.messages_max,
            bytes_max: pull.bytes_max,
            examine_max: EXAMINE_MAX,
        };
        let mut plan =
            self.log.plan_read(pull.queue, from, limits, |entry| pull.filter.may_match_hash(entry.tag_hash));
        match (plan.messages, plan.fault.take()) {
            (0, Some(fault)) if plan.next_offset == from => Err(fault),
            (0, _) => Ok(Pulled::NothingMatched { next: plan.next_offset }),
            _ => Ok(Pulled::Found(plan)),
        }
    }

    /// Looks into messages that are in memory; the first that is not ends the reply, or has to be read.
    fn pull_filtered(&self, pull: &Pull, filter: &SqlExpression) -> Result<Pulled<B>, IndexFault> {
        let limits =
            ReadLimits { messages_max: EXAMINE_MAX, bytes_max: FILTERED_BYTES_MAX, examine_max: EXAMINE_MAX };
        let mut plan = self.log.plan_read(pull.queue, pull.from, limits, |_| true);
        if let (0, Some(fault)) = (plan.messages, plan.fault.take()) {
            return Err(fault);
        }
        let in_memory = plan.runs.iter().position(|run| matches!(run, Run::Memory(_)));
        if in_memory != Some(0) {
            plan.runs.truncate(in_memory.unwrap_or(plan.runs.len()));
            return Ok(Pulled::ToPick(plan.runs));
        }
        let mut picking = Picking::new(filter, pull.from, pull.pick_limits());
        let mut messages = SmallVec::new();
        for run in &plan.runs {
            let Run::Memory(run) = run else { break };
            let begin = run.range.start;
            let wanted = |range: std::ops::Range<usize>| {
                let range = begin + range.start..begin + range.end;
                messages.push(Chunk::shared(run.buffer.clone(), range));
            };
            let flow = picking.pick(run.as_ref(), wanted).expect("a message in memory is whole");
            if flow == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(Pulled::picked(messages, &picking))
    }

    /// Picks from messages that had to be read.
    fn pick_loaded(pull: &Pull, filter: &SqlExpression, loaded: &Bytes) -> Result<Pulled<B>, MessageError> {
        let mut picking = Picking::new(filter, pull.from, pull.pick_limits());
        let mut messages = SmallVec::new();
        let _ = picking.pick(loaded, |range| messages.push(Chunk::Bytes(loaded.slice(range))))?;
        Ok(Pulled::picked(messages, &picking))
    }

    /// What is still to be picked is counted when it was.
    fn count_pull(&mut self, meter: Option<MeterId>, pulled: &Pulled<B>) {
        let got = match pulled {
            Pulled::Found(plan) => Totals { messages: plan.messages.into(), bytes: plan.bytes },
            Pulled::Picked { messages, .. } => Totals {
                messages: messages.len() as u64,
                bytes: messages.iter().map(|message| message.len() as u64).sum(),
            },
            Pulled::ToPick(_) => return,
            Pulled::NothingMatched { .. }
            | Pulled::NothingNew { .. }
            | Pulled::OffsetMoved { .. }
            | Pulled::ForLeader => return self.stats.on_missed(),
        };
        self.stats.on_found(meter, got);
    }

    /// Answers a pull with what it came to.
    pub(super) fn answer_pull(&mut self, to: Option<ReplyTo>, pull: &Pull, pulled: Pulled<B>, now_ms: i64) {
        self.count_pull(pull.meter, &pulled);
        let Some(to) = to else { return };
        let (code, remark, next, messages) = match pulled {
            Pulled::Found(plan) => {
                let runs = plan.runs.into_iter().map(Fetch::from).collect();
                (ResponseCode::SUCCESS, "FOUND", plan.next_offset, runs)
            }
            Pulled::Picked { messages, next } => {
                let chunks = messages.into_iter().map(Fetch::Here).collect();
                (ResponseCode::SUCCESS, "FOUND", next, chunks)
            }
            Pulled::ToPick(runs) => return self.load_and_pick(to, pull, runs, now_ms),
            Pulled::NothingMatched { next } => {
                (ResponseCode::PULL_RETRY_IMMEDIATELY, "NO_MATCHED_MESSAGE", next, SmallVec::new())
            }
            Pulled::ForLeader => {
                (ResponseCode::PULL_RETRY_IMMEDIATELY, "ASK_AGAIN", pull.from, SmallVec::new())
            }
            Pulled::NothingNew { next, remark } => {
                (ResponseCode::PULL_NOT_FOUND, remark, next, SmallVec::new())
            }
            Pulled::OffsetMoved { next, remark } => {
                (ResponseCode::PULL_OFFSET_MOVED, remark, next, SmallVec::new())
            }
        };
        let is_slow = messages.iter().any(|fetch| matches!(fetch, Fetch::File(_)));
        let mut reply = Reply::new(code).with_remark(remark).with_ext(PullMessageReply {
            suggest_which_broker_id: self.suggested_broker(pull.readers, is_slow),
            next_begin_offset: next.0 as i64,
            min_offset: self.log.min_offset(pull.queue).0 as i64,
            max_offset: self.log.max_offset(pull.queue).0 as i64,
            topic_sys_flag: Some(pull.topic_sys_flag),
            group_sys_flag: Some(pull.group_sys_flag),
            forbidden_type: None,
        });
        if is_slow {
            self.act(Action::Read { to, reply, runs: messages });
            return;
        }
        reply.body.extend(messages.into_iter().filter_map(|fetch| match fetch {
            Fetch::Here(chunk) => Some(chunk),
            Fetch::File(_) => None,
        }));
        self.act(Action::Reply { to, reply });
    }

    fn load_and_pick(&mut self, to: ReplyTo, pull: &Pull, runs: SmallVec<[Run<B>; 4]>, now_ms: i64) {
        let pull = pull.clone();
        let then = move |shard: &mut Self, loaded: Result<Bytes, LoadError>, now_ms: i64| {
            let filter = pull.filter.sql().expect("only expressions decide on messages");
            let picked = match &loaded {
                Err(LoadError::Deposed) => Ok(Pulled::NothingMatched { next: pull.from }),
                Ok(bytes) => Self::pick_loaded(&pull, filter, bytes).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match picked {
                Ok(pulled) => shard.answer_pull(Some(to), &pull, pulled, now_ms),
                Err(reason) => {
                    let remark = format!("cannot read messages: {reason}");
                    shard.reply(Some(to), Reply::error(ResponseCode::SYSTEM_ERROR, remark));
                }
            }
        };
        self.load_plan(runs, now_ms, Box::new(then));
    }

    /// Executes a parked pull again; it does not park a second time. What it finds is fresh, as a rule: should it lie
    /// in an index file already, the client is told to ask again, for nobody can wait here.
    pub(super) fn resume_pull(&mut self, parked: ParkedPull, now_ms: i64) {
        let ask_again = Pulled::NothingMatched { next: parked.pull.from };
        let pulled = self.pull(&parked.pull, now_ms).unwrap_or(ask_again);
        self.answer_pull(Some(parked.to), &parked.pull, pulled, now_ms);
    }

    /// Messages from `from` on became visible in `queue`.
    pub(super) fn wake_pulls(&mut self, queue: QueueKey, from: QueueOffset, now_ms: i64) {
        let log = &self.log;
        let tag_hashes = log.newest_entries(queue, from).map(|entry| entry.tag_hash);
        let mut woken = Vec::new();
        self.parked.on_arrival(queue, tag_hashes, &mut woken);
        let mut work_left = WAKE_WORK_MAX;
        for parked in woken {
            match parked.pull.filter.sql().map(|sql| sql.nodes()) {
                None => self.resume_pull(parked, now_ms),
                Some(nodes) => self.wake_filtered(parked, nodes, &mut work_left, now_ms),
            }
        }
    }

    /// A parked pull whose expression decides: if it wants none of the new messages, it waits for the rest of its time.
    fn wake_filtered(&mut self, mut parked: ParkedPull, nodes: u32, work_left: &mut u64, now_ms: i64) {
        let from = parked.pull.from;
        let ask_again = || Pulled::NothingMatched { next: from };
        let pulled = match *work_left {
            0 => ask_again(),
            _ => self.pull(&parked.pull, now_ms).unwrap_or_else(|_| ask_again()),
        };
        if let Pulled::NothingMatched { next } = pulled {
            *work_left = work_left.saturating_sub((next.0 - from.0) * u64::from(1 + nodes));
            if next == self.log.max_offset(parked.pull.queue) {
                parked.pull.from = next;
                return self.park_again(parked, now_ms);
            }
        }
        self.answer_pull(Some(parked.to), &parked.pull, pulled, now_ms);
    }

    fn park_again(&mut self, parked: ParkedPull, now_ms: i64) {
        let wait = Wait {
            queue: parked.pull.queue,
            connection: parked.to.connection,
            filter: parked.pull.filter.clone(),
            hold_ms: parked.deadline_ms - now_ms,
        };
        if let Err(ParkRefused { pull: parked, .. }) = self.parked.park(wait, now_ms, parked) {
            let pulled = Pulled::NothingMatched { next: parked.pull.from };
            self.answer_pull(Some(parked.to), &parked.pull, pulled, now_ms);
        }
    }
}

impl Pull {
    fn pick_limits(&self) -> PickLimits {
        PickLimits { messages_max: self.messages_max, bytes_max: self.bytes_max }
    }
}

impl<B> Pulled<B> {
    fn picked(messages: SmallVec<[Chunk; 2]>, picking: &Picking<'_>) -> Self {
        let next = picking.next_offset();
        if messages.is_empty() { Pulled::NothingMatched { next } } else { Pulled::Picked { messages, next } }
    }
}
