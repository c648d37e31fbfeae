//! Timers: messages are read a while before their time, and delivered when it has come.
//!
//! Every call does a bounded piece of work; the rest follows with the next tick, or when something that was begun
//! has ended.

use std::ops::Range;

use apogee_net::message::{StoredMessage, property};
use apogee_storage::{Append, Buffer, FileRun, Run};
use bytes::Bytes;
use smallvec::smallvec;

use super::copy;
use super::record::{TimerId, TimerPut, TimerRecord};
use super::table::recall_hash;
use crate::shard::commit::Then;
use crate::shard::control::ControlRecord;
use crate::shard::load::{LoadError, Wanted};
use crate::shard::record::ShardRecord;
use crate::shard::state::Shard;

/// Timers whose messages are read by one call: some 150 µs.
const READS_AT_ONCE: usize = 128;

/// Messages of a batch, and their bytes, but for the last: some 100 µs to make, and as long to take out of the table.
const DELIVERY_MESSAGES_MAX: usize = 64;
const DELIVERY_BYTES_MAX: usize = 512 << 10;

/// Batches on their way to the log: with 5 ms for a sync, 100,000 messages a second.
const DELIVERIES_MAX: usize = 8;

/// Messages on disk that lie no farther apart are read together.
const GAP_BYTES_MAX: u64 = 4 << 10;
const SPAN_BYTES_MAX: u64 = 128 << 10;

/// Messages that lie near each other on disk.
struct Span {
    run: FileRun,
    /// Each with its place in the run.
    timers: Vec<(TimerId, Range<usize>)>,
}

impl<B: Buffer + 'static> Shard<B> {
    /// Reads and delivers what is due by now, or soon.
    pub(in crate::shard) fn advance_timers(&mut self, now_ms: i64) {
        self.timers.on_tick(now_ms);
        self.advance_levels(now_ms);
        self.advance_wheel(now_ms);
    }

    fn advance_wheel(&mut self, now_ms: i64) {
        if self.timers.is_stopping() || std::mem::replace(&mut self.timers.is_advancing, true) {
            return;
        }
        self.deliver_due(now_ms);
        self.read_ahead(now_ms);
        self.deliver_due(now_ms);
        self.timers.is_advancing = false;
    }

    /// Reads messages that are due soon, those on disk in the order in which they lie there.
    fn read_ahead(&mut self, now_ms: i64) {
        let mut wanted = Vec::new();
        while wanted.len() < READS_AT_ONCE
            && let Some(id) = self.timers.window.take(&self.timers.table, now_ms)
        {
            wanted.push(id);
        }
        wanted.sort_unstable_by_key(|id| id.offset);
        let mut lost = Vec::new();
        let mut spans: Vec<Span> = Vec::new();
        for id in wanted {
            match self
                .log
                .entry(self.timers.wheel, id.offset)
                .map(|entry| entry.and_then(|entry| self.log.run_of(&entry)))
            {
                Ok(Some(Run::Memory(run))) => {
                    let message = Bytes::copy_from_slice(run.as_ref());
                    self.timers.window.hold(message.len() as u32);
                    self.timers.window.on_ready(id, message);
                }
                Ok(Some(Run::File(run))) => {
                    self.timers.window.hold(run.len);
                    match spans.last_mut().and_then(|span| span.take_in(run).then_some(span)) {
                        Some(span) => span.timers.push((id, span.place_of(run))),
                        None => spans.push(Span { run, timers: vec![(id, 0..run.len as usize)] }),
                    }
                }
                Ok(None) => lost.push(id),
                // Its index pages come first.
                Err(_) => self.read_one(id, now_ms),
            }
        }
        for Span { run, timers } in spans {
            self.load_plan(
                smallvec![Run::File(run)],
                now_ms,
                Box::new(move |shard, bytes, now_ms| shard.on_span_read(timers, bytes, now_ms)),
            );
        }
        self.forget_lost(lost, now_ms);
    }

    fn read_one(&mut self, id: TimerId, now_ms: i64) {
        self.timers.window.hold(0);
        self.load(
            Wanted::Entry(self.timers.wheel, id.offset),
            now_ms,
            Box::new(move |shard, message, now_ms| {
                shard.timers.window.release(0);
                match message {
                    Ok(message) => {
                        shard.timers.window.hold(message.len() as u32);
                        shard.timers.window.on_ready(id, message);
                    }
                    Err(LoadError::Missing) => return shard.forget_lost(vec![id], now_ms),
                    Err(error) => shard.on_unreadable(id, &error, now_ms),
                }
                shard.advance_wheel(now_ms);
            }),
        );
    }

    fn on_span_read(
        &mut self,
        timers: Vec<(TimerId, Range<usize>)>,
        bytes: Result<Bytes, LoadError>,
        now_ms: i64,
    ) {
        for (id, place) in timers {
            match &bytes {
                Ok(bytes) => self.timers.window.on_ready(id, bytes.slice(place)),
                Err(error) => {
                    self.timers.window.release(place.len() as u32);
                    self.on_unreadable(id, error, now_ms);
                }
            }
        }
        self.advance_wheel(now_ms);
    }

    fn on_unreadable(&mut self, id: TimerId, error: &LoadError, now_ms: i64) {
        tracing::warn!(offset = id.offset.0, %error, "a timer's message cannot be read now");
        self.timers.window.give_back(id);
        self.timers.window.pause(now_ms);
    }

    /// Timers whose messages left the log before their time, which only happens when it must make room early.
    fn forget_lost(&mut self, lost: Vec<TimerId>, now_ms: i64) {
        if lost.is_empty() {
            return;
        }
        tracing::warn!(
            count = lost.len(),
            first = lost[0].offset.0,
            "messages left the log before their time"
        );
        let done = ControlRecord::Timer(TimerRecord::Done(lost.clone()));
        let again = lost.clone();
        let then = Then::Do(Box::new(move |shard: &mut Shard<B>, result: Result<_, &str>, now_ms| {
            if result.is_err() {
                shard.take_again(lost, now_ms);
            }
        }));
        if self.stage_with([], vec![done], then, now_ms).is_err() {
            self.take_again(again, now_ms);
        }
    }

    fn take_again(&mut self, timers: Vec<TimerId>, now_ms: i64) {
        timers.into_iter().for_each(|id| self.timers.window.give_back(id));
        self.timers.window.pause(now_ms);
    }

    /// Delivers some messages whose time has come, in one batch with the record that their timers are done.
    fn deliver_due(&mut self, now_ms: i64) {
        if self.timers.deliveries >= DELIVERIES_MAX {
            return;
        }
        let mut due = Vec::new();
        let mut bytes = 0;
        while due.len() < DELIVERY_MESSAGES_MAX
            && bytes < DELIVERY_BYTES_MAX
            && let Some((id, message)) = self.timers.window.poll_due(&self.timers.table, now_ms)
        {
            bytes += message.len();
            due.push((id, message));
        }
        if !due.is_empty() {
            self.deliver(due, now_ms);
        }
    }

    fn deliver(&mut self, due: Vec<(TimerId, Bytes)>, now_ms: i64) {
        let mut appends = Vec::with_capacity(due.len());
        let mut rolled = Vec::new();
        for (_, message) in &due {
            let Ok(stored) = StoredMessage::decode(message) else { continue };
            let out_ms = stored.properties.get(property::TIMER_OUT_MS).and_then(|ms| ms.parse().ok());
            let append = match out_ms {
                Some(out_ms) if out_ms > now_ms => self.roll(message, &stored, out_ms, now_ms, &mut rolled),
                _ => {
                    let enqueued = stored.store_timestamp.to_string();
                    let now = now_ms.to_string();
                    let set = [(property::TIMER_ENQUEUE_MS, &*enqueued), (property::TIMER_DEQUEUE_MS, &*now)];
                    copy::delivered(&self.topics, self.config.address, message, &stored, &set)
                }
            };
            if append.is_none() {
                tracing::warn!(offset = stored.queue_offset, "a timer's message has no topic any more");
            }
            appends.extend(append);
        }
        let mut changes =
            vec![ControlRecord::Timer(TimerRecord::Done(due.iter().map(|(id, _)| *id).collect()))];
        if !rolled.is_empty() {
            changes.push(ControlRecord::Timer(TimerRecord::Put(rolled)));
        }
        let again = due.clone();
        let then = Then::Do(Box::new(move |shard: &mut Shard<B>, result: Result<_, &str>, now_ms| {
            shard.timers.deliveries -= 1;
            match result {
                Ok(_) => due.iter().for_each(|(id, message)| shard.timers.window.on_delivered(*id, message)),
                Err(_) => shard.deliver_again(due, now_ms),
            }
            shard.advance_wheel(now_ms);
        }));
        match self.stage_with(appends, changes, then, now_ms) {
            Ok(()) => self.timers.deliveries += 1,
            // The log takes nothing just now.
            Err(_) => self.deliver_again(again, now_ms),
        }
    }

    /// A message that has to wait for longer still: in the timer topic, as a new one, so that the old may expire.
    fn roll(
        &self,
        message: &Bytes,
        stored: &StoredMessage<'_>,
        out_ms: i64,
        now_ms: i64,
        rolled: &mut Vec<TimerPut>,
    ) -> Option<Append<ShardRecord>> {
        let real_topic = stored.properties.get(property::REAL_TOPIC)?;
        let topic = self.topics.get(real_topic)?.number();
        let append = copy::rolled(self.timers.wheel, self.config.address, message, stored)?;
        let unique_key = stored.properties.get(property::UNIQUE_KEY).unwrap_or_default();
        rolled.push(TimerPut {
            id: self.timer_id(out_ms, rolled.len() as u64, now_ms),
            key_hash: recall_hash(real_topic, unique_key),
            topic,
        });
        Some(append)
    }

    fn deliver_again(&mut self, due: Vec<(TimerId, Bytes)>, now_ms: i64) {
        for (id, message) in due {
            self.timers.window.on_ready(id, message);
        }
        self.timers.window.pause(now_ms);
    }
}

impl Span {
    /// Grows by a message that lies behind, if it is near.
    fn take_in(&mut self, next: FileRun) -> bool {
        let end = self.run.position + u64::from(self.run.len);
        let Some(gap) = next.position.checked_sub(end).filter(|_| next.segment == self.run.segment) else {
            return false;
        };
        let len = u64::from(self.run.len) + gap + u64::from(next.len);
        let takes = gap <= GAP_BYTES_MAX && len <= SPAN_BYTES_MAX;
        if takes {
            self.run.len = len as u32;
        }
        takes
    }

    fn place_of(&self, message: FileRun) -> Range<usize> {
        let begin = (message.position - self.run.position) as usize;
        begin..begin + message.len as usize
    }
}
