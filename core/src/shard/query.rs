//! Messages by key: a search in steps, none of which keeps the shard's thread for long.
//!
//! ```text
//!     keys in memory ──> records are read and compared ──> enough: answer
//!     (some per tick)         │ not enough    ^
//!                             v               │
//!                      index files, newest first (on the blocking pool, some at once) ──> none left: answer
//! ```
//!
//! The log finds by a hash of topic and key, so each record is compared before it is given. Newest first: that is what
//! the number of messages asked for counts (`IndexService#queryOffset`); the answer is in the order of the log.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;

use apogee_net::code::ResponseCode;
use apogee_net::io::Chunk;
use apogee_net::message::{StoredMessage, StoredMessages, property};
use apogee_net::request::QueryMessageReply;
use apogee_storage::{
    Buffer, DiskError, IndexEntry, IndexFault, KeyCursor, KeySearch as IndexSearch, LogOffset,
};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::action::Action;
use super::load::LoadError;
use super::record::key_hash;
use super::refusal::Refusal;
use super::state::Shard;
use crate::service::{Reply, ReplyTo};

/// Searches of one shard at once; one more is answered as busy.
const SEARCHES_MAX: usize = 64;

/// Steps through the keys in memory in one turn, of some 20 µs each.
const STEPS_PER_TURN: u32 = 16;

/// Index files looked at by one job of the blocking pool.
const INDEXES_PER_JOB: usize = 64;

/// Records with the hash that are remembered of the keys in memory, the newest of them: these keys have no times, so
/// some may lie behind the range asked for. Of each job less will do, for there times are looked at.
const CANDIDATES_MAX: usize = 4096;
const CANDIDATES_PER_JOB: usize = 512;

/// Records read and compared together.
const COMPARED_AT_ONCE: usize = 64;
const COMPARED_BYTES_AT_ONCE: u64 = 1024 * 1024;

/// Messages of one answer (`maxMsgsNumBatch`), and their bytes: a frame has room for them.
const ANSWER_MESSAGES_MAX: usize = 64;
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a search asks for.
#[derive(Debug)]
pub(super) struct KeyQuery {
    pub topic: Box<str>,
    pub key: Box<str>,
    /// Store times.
    pub times_ms: RangeInclusive<i64>,
    pub messages_max: usize,
}

/// Searches that are under way.
#[derive(Debug, Default)]
pub(super) struct Searches {
    /// Those that go on in the next tick.
    in_turn: VecDeque<Search>,
    /// Those that wait for a job.
    in_indexes: FxHashMap<SearchId, Search>,
    next_id: u64,
    under_way: usize,
}

/// Names a search between the shard and its driver. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SearchId(u64);

/// Why a job has found nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Fault(#[from] IndexFault),
}

#[derive(Debug)]
struct Search {
    to: ReplyTo,
    query: KeyQuery,
    hash: u32,
    /// Where in the keys in memory it goes on; `None` behind them.
    cursor: Option<KeyCursor>,
    /// Records that may be wanted, oldest first; each with its length.
    candidates: VecDeque<(LogOffset, u32)>,
    /// Segments from here on were looked at.
    indexes_from: LogOffset,
    found: Vec<Bytes>,
    found_bytes: usize,
}

impl Searches {
    /// Whether one goes on by itself.
    pub(super) fn has_work(&self) -> bool {
        !self.in_turn.is_empty()
    }
}

impl<B: Buffer + 'static> Shard<B> {
    /// Answers with the messages that `query` asks for, now or later.
    pub(super) fn search(&mut self, to: ReplyTo, query: KeyQuery, now_ms: i64) -> Result<(), Refusal> {
        if self.searches.under_way >= SEARCHES_MAX {
            let remark = format!("{SEARCHES_MAX} searches for keys are under way already");
            return Err(Refusal::new(ResponseCode::SYSTEM_BUSY, remark));
        }
        self.searches.under_way += 1;
        let search = Search {
            to,
            hash: key_hash(&query.topic, &query.key),
            query,
            cursor: Some(KeyCursor::START),
            candidates: VecDeque::new(),
            indexes_from: LogOffset(u64::MAX),
            found: Vec::new(),
            found_bytes: 0,
        };
        self.go_on(search, now_ms);
        Ok(())
    }

    /// One search goes on for a while; the others have their turns.
    pub(super) fn search_tick(&mut self, now_ms: i64) {
        if let Some(search) = self.searches.in_turn.pop_front() {
            self.go_on(search, now_ms);
        }
    }

    /// A job through index files is done.
    pub fn on_keys_found(&mut self, id: SearchId, result: Result<Vec<IndexEntry>, SearchError>, now_ms: i64) {
        let mut search = self.searches.in_indexes.remove(&id).expect("each job is answered once");
        match result {
            Ok(entries) => {
                let oldest_first = entries.iter().rev();
                search.candidates.extend(oldest_first.map(|entry| (entry.log_offset, entry.size)));
                self.compare(search, now_ms);
            }
            Err(SearchError::Fault(fault)) => {
                if let IndexFault::Damaged { segment, .. } = fault {
                    self.log.on_index_damaged(segment);
                }
                self.end_search(search.to, Refusal::index_damaged(&fault).into());
            }
            Err(SearchError::Disk(error)) => {
                let reply = Reply::error(ResponseCode::SYSTEM_ERROR, error.to_string());
                self.end_search(search.to, reply);
            }
        }
    }

    fn go_on(&mut self, mut search: Search, now_ms: i64) {
        for _ in 0..STEPS_PER_TURN {
            let Some(cursor) = search.cursor else { break };
            let candidates = &mut search.candidates;
            search.cursor = self.log.find_unsealed_key(search.hash, cursor, |offset, size| {
                if candidates.len() == CANDIDATES_MAX {
                    candidates.pop_front();
                }
                candidates.push_back((offset, size));
            });
        }
        match search.cursor {
            Some(_) => self.searches.in_turn.push_back(search),
            None => self.compare(search, now_ms),
        }
    }

    /// Reads the newest candidates and compares them.
    fn compare(&mut self, mut search: Search, now_ms: i64) {
        let mut runs = SmallVec::new();
        let mut bytes = 0;
        while runs.len() < COMPARED_AT_ONCE && bytes < COMPARED_BYTES_AT_ONCE {
            let Some((log_offset, size)) = search.candidates.pop_back() else { break };
            let entry = IndexEntry { log_offset, store_time_ms: 0, size, tag_hash: 0 };
            // Nothing if its segment has left meanwhile.
            runs.extend(self.log.run_of(&entry));
            bytes += u64::from(size);
        }
        if runs.is_empty() {
            return self.search_indexes(search, now_ms);
        }
        let then = move |shard: &mut Self, loaded: Result<Bytes, LoadError>, now_ms: i64| match loaded {
            Ok(bytes) => {
                search.take_wanted(&bytes);
                if search.is_done() {
                    shard.answer_search(search, now_ms);
                } else if search.candidates.is_empty() {
                    shard.search_indexes(search, now_ms);
                } else {
                    // Behind the keys in memory: the next turn compares some more.
                    shard.searches.in_turn.push_back(search);
                }
            }
            Err(error) => {
                let code = match error {
                    LoadError::Busy => ResponseCode::SYSTEM_BUSY,
                    _ => ResponseCode::SYSTEM_ERROR,
                };
                shard.end_search(search.to, Reply::error(code, error.to_string()));
            }
        };
        self.load_plan(runs, now_ms, Box::new(then));
    }

    fn search_indexes(&mut self, mut search: Search, now_ms: i64) {
        let times_ms = search.query.times_ms.clone();
        let mut indexes = Vec::new();
        for index in self.log.sealed_indexes().rev() {
            let summary = index.summary();
            if summary.segment.base >= search.indexes_from || summary.first_time_ms > *times_ms.end() {
                continue;
            }
            // Store times do not go back.
            if indexes.len() == INDEXES_PER_JOB || summary.last_time_ms < *times_ms.start() {
                break;
            }
            search.indexes_from = summary.segment.base;
            indexes.push(Arc::clone(index));
        }
        if indexes.is_empty() {
            return self.answer_search(search, now_ms);
        }
        let id = SearchId(self.searches.next_id);
        self.searches.next_id += 1;
        let job = IndexSearch { indexes, hash: search.hash, times_ms, max: CANDIDATES_PER_JOB };
        self.searches.in_indexes.insert(id, search);
        self.act(Action::FindKey { id, search: job });
    }

    fn answer_search(&mut self, search: Search, now_ms: i64) {
        let to = search.to;
        // All up to now can be found.
        let header = QueryMessageReply {
            index_last_update_timestamp: now_ms,
            index_last_update_offset: self.log.marks().committed.0 as i64,
        };
        let mut reply = match search.found.is_empty() {
            true => Reply::error(
                ResponseCode::QUERY_NOT_FOUND,
                "can not find message, maybe time range not correct",
            ),
            false => Reply::success(),
        };
        reply = reply.with_ext(header);
        // Found newest first.
        reply.body.extend(search.found.into_iter().rev().map(Chunk::Bytes));
        self.end_search(to, reply);
    }

    fn end_search(&mut self, to: ReplyTo, reply: Reply) {
        self.searches.under_way -= 1;
        self.reply(Some(to), reply);
    }
}

impl Search {
    /// Keeps those of the records, newest first, that are asked for.
    fn take_wanted(&mut self, records: &Bytes) {
        let mut at = 0;
        for message in StoredMessages::new(records) {
            // Damage ends the look at these records, not the search.
            let Ok(message) = message else { return };
            if self.is_done() {
                return;
            }
            let begin = at;
            at += message.total_len;
            if self.query.wants(&message) {
                let bytes = records.slice(begin..at);
                // A segment that was sealed meanwhile may be searched twice.
                if self.found.contains(&bytes) {
                    continue;
                }
                self.found_bytes += bytes.len();
                self.found.push(bytes);
            }
        }
    }

    fn is_done(&self) -> bool {
        self.found.len() >= self.query.messages_max.min(ANSWER_MESSAGES_MAX)
            || self.found_bytes >= ANSWER_BYTES_MAX
    }
}

impl KeyQuery {
    fn wants(&self, message: &StoredMessage<'_>) -> bool {
        let keys = message.properties.get(property::KEYS).unwrap_or_default();
        *message.topic == *self.topic
            && self.times_ms.contains(&message.store_timestamp)
            && (message.properties.get(property::UNIQUE_KEY) == Some(&*self.key)
                || keys.split_ascii_whitespace().any(|key| *key == *self.key))
    }
}
