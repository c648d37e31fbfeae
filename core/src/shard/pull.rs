//! What a pull finds: decided here once, for the first execution and for the one after parking.

use apogee_net::code::ResponseCode;
use apogee_net::message::TagExpression;
use apogee_net::request::PullMessageReply;
use apogee_storage::{Buffer, IndexFault, QueueKey, QueueOffset, ReadLimits, ReadPlan, Run};

use super::action::{Action, Fetch};
use super::state::Shard;
use crate::service::{Reply, ReplyTo};

/// Messages and bytes of one reply; the bytes are RocketMQ's own, for requests that name none.
pub(super) const PULL_MESSAGES_MAX: u32 = 1024;
pub(super) const PULL_BYTES_DEFAULT: u64 = 256 * 1024;
pub(super) const PULL_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Index entries that one pull looks at: at some 5 ns each far below the time a task may take.
const EXAMINE_MAX: u32 = 16_384;

/// A pull that passed its checks.
#[derive(Debug)]
pub(super) struct Pull {
    pub queue: QueueKey,
    pub from: QueueOffset,
    pub messages_max: u32,
    pub bytes_max: u64,
    pub filter: TagExpression,
    pub topic_sys_flag: i32,
    pub group_sys_flag: i32,
}

/// A pull that waits for a message, and where its answer goes.
#[derive(Debug)]
pub(super) struct ParkedPull {
    pub to: ReplyTo,
    pub pull: Pull,
}

/// What a pull comes to (`GetMessageStatus` and the code it is answered with).
#[derive(Debug)]
pub(super) enum Pulled<B> {
    Found(ReadPlan<B>),
    /// Messages were there, and the filter took none.
    NothingMatched {
        next: QueueOffset,
    },
    /// Worth waiting for.
    NothingNew {
        next: QueueOffset,
        remark: &'static str,
    },
    /// The offset is none of this queue's: the client corrects itself to `next`.
    OffsetMoved {
        next: QueueOffset,
        remark: &'static str,
    },
}

impl<B: Buffer + 'static> Shard<B> {
    /// A fault is met only in front of all that could be given; one behind it just ends the reply.
    ///
    /// Source of the table: `DefaultMessageStore#getMessage`, `PullMessageProcessor#composeResponseHeader`.
    pub(super) fn pull(&self, pull: &Pull) -> Result<Pulled<B>, IndexFault> {
        let (min, max) = (self.log.min_offset(pull.queue), self.log.max_offset(pull.queue));
        let from = pull.from;
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
        let limits = ReadLimits {
            messages_max: pull.messages_max,
            bytes_max: pull.bytes_max,
            examine_max: EXAMINE_MAX,
        };
        let mut plan =
            self.log.plan_read(pull.queue, from, limits, |entry| pull.filter.matches_hash(entry.tag_hash));
        match (plan.messages, plan.fault.take()) {
            (0, Some(fault)) if plan.next_offset == from => Err(fault),
            (0, _) => Ok(Pulled::NothingMatched { next: plan.next_offset }),
            _ => Ok(Pulled::Found(plan)),
        }
    }

    /// Answers a pull with what it came to.
    pub(super) fn answer_pull(&mut self, to: Option<ReplyTo>, pull: &Pull, pulled: Pulled<B>) {
        let Some(to) = to else { return };
        let (code, remark, next, plan) = match pulled {
            Pulled::Found(plan) => (ResponseCode::SUCCESS, "FOUND", plan.next_offset, Some(plan)),
            Pulled::NothingMatched { next } => {
                (ResponseCode::PULL_RETRY_IMMEDIATELY, "NO_MATCHED_MESSAGE", next, None)
            }
            Pulled::NothingNew { next, remark } => (ResponseCode::PULL_NOT_FOUND, remark, next, None),
            Pulled::OffsetMoved { next, remark } => (ResponseCode::PULL_OFFSET_MOVED, remark, next, None),
        };
        let mut reply = Reply::new(code).with_remark(remark).with_ext(PullMessageReply {
            suggest_which_broker_id: 0,
            next_begin_offset: next.0 as i64,
            min_offset: self.log.min_offset(pull.queue).0 as i64,
            max_offset: self.log.max_offset(pull.queue).0 as i64,
            topic_sys_flag: Some(pull.topic_sys_flag),
            group_sys_flag: Some(pull.group_sys_flag),
            forbidden_type: None,
        });
        let runs = plan.map(|plan| plan.runs).unwrap_or_default();
        if runs.iter().any(|run| matches!(run, Run::File(_))) {
            let runs = runs.into_iter().map(Fetch::from).collect();
            self.act(Action::Read { to, reply, runs });
            return;
        }
        reply.body.extend(runs.into_iter().filter_map(|run| match Fetch::from(run) {
            Fetch::Here(chunk) => Some(chunk),
            Fetch::File(_) => None,
        }));
        self.act(Action::Reply { to, reply });
    }

    /// Executes a parked pull again; it does not park a second time. What it finds is fresh, as a rule: should it lie
    /// in an index file already, the client is told to ask again, for nobody can wait here.
    pub(super) fn resume_pull(&mut self, parked: ParkedPull) {
        let ask_again = Pulled::NothingMatched { next: parked.pull.from };
        let pulled = self.pull(&parked.pull).unwrap_or(ask_again);
        self.answer_pull(Some(parked.to), &parked.pull, pulled);
    }

    /// Messages from `from` on became visible in `queue`.
    pub(super) fn wake_pulls(&mut self, queue: QueueKey, from: QueueOffset) {
        let log = &self.log;
        let tag_hashes = log.newest_entries(queue, from).map(|entry| entry.tag_hash);
        let mut woken = Vec::new();
        self.parked.on_arrival(queue, tag_hashes, &mut woken);
        for pull in woken {
            self.resume_pull(pull);
        }
    }
}
