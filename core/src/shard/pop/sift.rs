//! Pops with an expression: messages are read first, for their properties decide.
//!
//! A queue that is being read is nobody else's of the group meanwhile: others pass it over (`QueueLockManager`).

use apogee_net::code::ResponseCode;
use apogee_net::message::StoredMessages;
use apogee_storage::{Buffer, QueueKey, QueueOffset, ReadLimits};
use bytes::Bytes;
use smallvec::SmallVec;

use super::super::filter::pick::{PickLimits, Picking};
use super::super::load::Wanted;
use super::super::refusal::Refusal;
use super::super::state::Shard;
use super::plan::{Left, Look, Messages, Plan, PopSource, Popped};
use super::wake::ParkedPop;

/// Bytes of messages that are read of one queue at once.
const READ_BYTES_MAX: u64 = 512 * 1024;

/// Reads of one pop, whether of messages or to bring pages of an index into memory.
const READS_MAX: u32 = 8;

/// A pop with an expression under way.
pub(super) struct Sifting<B> {
    parked: ParkedPop,
    deadline_ms: i64,
    /// Not looked at yet, the next one last.
    sources: SmallVec<[PopSource; 16]>,
    /// Of a queue that was looked at and has more.
    resume: Option<Part>,
    left: Left,
    reads: u32,
    plan: Plan<B>,
    held: SmallVec<[QueueKey; 4]>,
}

/// Messages of a queue that are not looked at yet.
#[derive(Clone, Copy)]
struct Part {
    source: PopSource,
    from: QueueOffset,
    max: QueueOffset,
}

impl<B: Buffer + 'static> Shard<B> {
    /// Gives out what there is; if there is nothing, waits until the deadline.
    pub(in crate::shard) fn sift(&mut self, parked: ParkedPop, deadline_ms: i64, now_ms: i64) {
        let pop = &parked.pop;
        self.pop_hears_of_resets(&pop.group, pop.topic, now_ms);
        let mut sources = self.pop_sources(pop.topic, &pop.group, pop.queue_id, pop.is_ordered);
        sources.reverse();
        let left = Left::of(pop);
        let (plan, held) = (Plan::default(), SmallVec::new());
        self.sift_next(
            Sifting { parked, deadline_ms, sources, resume: None, left, reads: 0, plan, held },
            now_ms,
        );
    }

    fn sift_next(&mut self, mut sifting: Sifting<B>, now_ms: i64) {
        if let Some(part) = self.next_part(&mut sifting, now_ms) {
            let Part { source, from, max } = part;
            let Sifting { parked: ParkedPop { pop, .. }, left, plan, reads, .. } = &mut sifting;
            if *reads >= READS_MAX {
                plan.is_cut_short = true;
                plan.rest += (max.0 - from.0) as i64;
                return self.end_sifting(sifting, now_ms);
            }
            *reads += 1;
            let limits = ReadLimits {
                messages_max: left.examine,
                bytes_max: READ_BYTES_MAX,
                examine_max: left.examine,
            };
            let read = self.log.plan_read(source.queue, from, limits, |_| true);
            if read.messages == 0 {
                // The pages of its index come first.
                sifting.resume = Some(part);
                let then = move |shard: &mut Self, read: Result<Bytes, _>, now_ms| match read {
                    Ok(_) => shard.sift_next(sifting, now_ms),
                    Err(_) => shard.end_sifting(sifting, now_ms),
                };
                return self.load(Wanted::Entry(source.queue, from), now_ms, Box::new(then));
            }
            if self.popping.sifted.insert((pop.group.clone(), source.queue)) {
                sifting.held.push(source.queue);
            }
            let then = move |shard: &mut Self, read: Result<Bytes, _>, now_ms| {
                match read {
                    Ok(messages) => sifting.pick(part, &messages),
                    Err(_) => sifting.sources.clear(),
                }
                shard.sift_next(sifting, now_ms);
            };
            return self.load_plan(read.runs, now_ms, Box::new(then));
        }
        self.end_sifting(sifting, now_ms);
    }

    /// What is to be read next.
    fn next_part(&self, sifting: &mut Sifting<B>, now_ms: i64) -> Option<Part> {
        if let Some(part) = sifting.resume.take() {
            return Some(part);
        }
        while let Some(source) = sifting.sources.pop() {
            let Sifting { parked: ParkedPop { pop, .. }, left, plan, .. } = &mut *sifting;
            if let Look::At { from, max } = self.look(pop, source, left, plan, now_ms) {
                return Some(Part { source, from, max });
            }
        }
        None
    }

    fn end_sifting(&mut self, sifting: Sifting<B>, now_ms: i64) {
        let Sifting { parked, deadline_ms, plan, held, .. } = sifting;
        for queue in held {
            self.popping.sifted.remove(&(parked.pop.group.clone(), queue));
        }
        let key = parked.pop.key();
        match self.give(&parked.pop, plan, Some(parked.to), now_ms) {
            Ok(Popped::Given { rest }) => {
                if rest > 0 {
                    self.popping.look_again(key);
                }
            }
            Ok(Popped::Nothing { rest, is_cut_short }) => {
                self.park_pop(parked, deadline_ms, rest, is_cut_short, now_ms);
            }
            Err(error) => self.reply(Some(parked.to), Refusal::from(error).into()),
        }
    }

    /// Who got nothing waits, unless its time is up or too many wait.
    pub(in crate::shard) fn park_pop(
        &mut self,
        parked: ParkedPop,
        deadline_ms: i64,
        rest: i64,
        is_cut_short: bool,
        now_ms: i64,
    ) {
        let (to, key) = (parked.to, parked.pop.key());
        if deadline_ms <= now_ms {
            let reply = parked.pop.nothing(ResponseCode::POLLING_TIMEOUT, rest, now_ms);
            return self.reply(Some(to), reply);
        }
        match self.popping.polls.park(key.clone(), to.connection, deadline_ms, parked) {
            Ok(()) if is_cut_short => self.popping.look_again(key),
            Ok(()) => {}
            Err((_, ParkedPop { pop, .. })) => {
                let reply = pop.nothing(ResponseCode::POLLING_FULL, rest, now_ms);
                self.reply(Some(to), reply);
            }
        }
    }
}

impl<B> Sifting<B> {
    /// Takes what the expression wants of messages that were read.
    fn pick(&mut self, Part { source, from, max }: Part, messages: &Bytes) {
        let Self { parked: ParkedPop { pop, .. }, left, plan, .. } = self;
        let filter = pop.filter.sql().expect("only pops with an expression are sifted");
        let limits = PickLimits { messages_max: left.messages, bytes_max: left.bytes };
        let mut picking = Picking::new(filter, from, limits);
        let mut loaded: SmallVec<[Bytes; 2]> = SmallVec::new();
        let picked = picking.pick(messages, |range| loaded.push(messages.slice(range)));
        let wanted = loaded.iter().flat_map(|piece| StoredMessages::new(piece)).flatten();
        let offsets: Vec<u64> = wanted.map(|message| message.queue_offset as u64).collect();
        let next = picking.next_offset();
        left.messages -= offsets.len() as u32;
        left.bytes = left.bytes.saturating_sub(loaded.iter().map(|piece| piece.len() as u64).sum());
        left.examine = left.examine.saturating_sub((next.0 - from.0) as u32);
        if picked.is_err() {
            // Damaged on disk: what is behind it cannot be looked at.
            self.sources.clear();
        } else if offsets.is_empty() && from < next && next < max && left.examine > 0 {
            plan.passed_over(source, next);
            self.resume = Some(Part { source, from: next, max });
            return;
        }
        plan.found(source, (from, next, max), offsets, Messages::Loaded(loaded));
    }
}
