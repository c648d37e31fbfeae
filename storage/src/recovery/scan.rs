//! The scan: batch after batch from the beginning of the log.
//!
//! What stands where batch `i` is expected, after batch `i-1` of term `t`, and what follows from it. "Elsewhere" means
//! the start of the next segment: a roll leaves the rest of a segment unwritten.
//!
//! ```text
//! here                              elsewhere     a later header with     decision
//!                                   goes on       commit_hint >= i
//! --------------------------------  ------------  ----------------------  ------------------------------------
//! batch i, whole, follows           -             -                       take it
//! end of the segment                -             -                       look at the next segment
//! header whole, newer version       -             -                       error NewerFormat
//! header whole, another group       -             -                       error ForeignGroup
//! header whole, a field impossible  -             -                       error Inconsistent
//! zeros | torn | stale              yes           -                       roll: go on there
//! zeros | torn | stale              no            yes                     error Damaged
//! zeros                             no            no                      end, nothing cut
//! torn | stale                      no            no                      end, cut here
//! ```
//!
//! *Torn*: magic, a checksum or the length does not hold. *Stale*: whole, but base offset, index or previous term is
//! not that of batch `i`. Batches of an earlier life are never newer than the cut they lie behind, hence their commit
//! hints are below it and they bear no witness.
//!
//! Nothing is erased, so a batch that was cut off as torn can become whole by chance: a later life, torn in the same
//! place, may have written exactly the bytes it lacked (zeros, most likely). It is taken then. It follows the batch before,
//! nothing was acknowledged in its place, and its own appends were told no outcome: they are late, not wrong.

use std::io;

use super::report::{Cut, CutCause, RecoveryError, RecoveryReport};
use crate::config::{LogConfig, WRITE_WINDOW_BYTES_LIMIT};
use crate::disk::SegmentInfo;
use crate::format::{
    BATCH_BYTES_LIMIT, BLOCK_LEN, Batch, BatchError, BatchHeader, FORMAT_VERSION, HeaderError, RawBatch,
    RawHeader,
};
use crate::index::{IndexEntry, Queues};
use crate::log::{Restored, RestoredArchive};
use crate::source::{LogFile, LogSource};
use crate::types::{BatchIndex, LogOffset, QueueKey, QueueOffset, Term};
use crate::unsealed::{NewBatch, Unsealed};
use crate::window::Window;

/// How much of the segment behind the last one is searched. What is written while batch `i` is not durable lies
/// within the write window of it, in any life; so nothing of it is missed, and reading stays bounded by one segment.
const SCAN_BEHIND_BYTES: u64 = WRITE_WINDOW_BYTES_LIMIT + BATCH_BYTES_LIMIT as u64;

/// A record as recovery passes it on, in the order of the log.
#[derive(Clone, Copy, Debug)]
pub struct RecoveredRecord<'a> {
    pub queue: QueueKey,
    pub queue_offset: QueueOffset,
    pub log_offset: LogOffset,
    pub store_time_ms: i64,
    pub tag_hash: i32,
    pub bytes: &'a [u8],
}

/// A log that can be opened, by [`CommitLog::open`](crate::CommitLog::open).
#[derive(Debug)]
pub struct Recovered {
    pub(crate) restored: Restored,
    pub report: RecoveryReport,
}

impl Recovered {
    /// The term to open with where no group decides on terms.
    #[must_use]
    pub fn next_term(&self) -> Term {
        self.restored.greatest_term.next()
    }
}

/// Reads a whole log, passes each record to `visit` and rebuilds the index. An empty source is an empty log.
///
/// All that is found is durable afterwards. Nothing is erased: the next batch overwrites what lies behind the end.
pub fn recover<S: LogSource + ?Sized>(
    source: &S,
    config: &LogConfig,
    visit: &mut dyn FnMut(RecoveredRecord<'_>),
) -> Result<Recovered, RecoveryError> {
    config.validate()?;
    let segments = list_segments(source, config)?;
    let mut scan = Scan::new(source, config, visit);
    let mut cut = None;
    let mut used = 0;
    while let Some(segment) = segments.get(used) {
        let stop = scan.read_segment(*segment)?;
        let next = segments.get(used + 1);
        if let Some(next) = next
            && scan.goes_on_in(*next)?
        {
            used += 1;
            continue;
        }
        cut = scan.judge_end(&segments[used..], stop)?;
        break;
    }
    for segment in segments.iter().take(used + 1) {
        source.sync(segment.base).map_err(|error| scan.io_error(segment.base, "sync", 0, &error))?;
    }
    Ok(scan.finish(segments, cut))
}

fn list_segments<S: LogSource + ?Sized>(
    source: &S,
    config: &LogConfig,
) -> Result<Vec<SegmentInfo>, RecoveryError> {
    let mut segments =
        source.segments().map_err(|error| RecoveryError::List { message: error.to_string() })?;
    segments.sort_by_key(|segment| segment.base);
    let mut expected = 0;
    for segment in &segments {
        let (file, bytes, min) =
            (source.name(LogFile::Segment(segment.base)), segment.bytes, u64::from(config.batch_bytes_max));
        if segment.base.0 != expected {
            return Err(RecoveryError::Gap { file, expected, found: segment.base.0 });
        }
        if bytes < min || !bytes.is_multiple_of(BLOCK_LEN as u64) {
            return Err(RecoveryError::SegmentSize { file, bytes, min });
        }
        expected = segment.end().0;
    }
    Ok(segments)
}

/// What stands where a batch is expected.
enum Found {
    Follows { len: u64 },
    SegmentEnd,
    Zeros,
    Torn(BatchError),
    Stale { field: &'static str, expected: u64, found: u64 },
}

struct Scan<'a, S: ?Sized> {
    source: &'a S,
    config: &'a LogConfig,
    visit: &'a mut dyn FnMut(RecoveredRecord<'_>),
    queues: Queues,
    unsealed: Unsealed,
    report: RecoveryReport,
    last_store_time_ms: i64,
    greatest_term: Term,
}

impl<'a, S: LogSource + ?Sized> Scan<'a, S> {
    fn new(
        source: &'a S,
        config: &'a LogConfig,
        visit: &'a mut dyn FnMut(RecoveredRecord<'_>),
    ) -> Scan<'a, S> {
        let report = RecoveryReport {
            segments: 0,
            batches: 0,
            records: 0,
            bytes: 0,
            end: LogOffset(0),
            last_index: BatchIndex(0),
            last_term: Term(0),
            cut: None,
        };
        let (queues, unsealed) = (Queues::default(), Unsealed::default());
        Scan {
            source,
            config,
            visit,
            queues,
            unsealed,
            report,
            last_store_time_ms: i64::MIN,
            greatest_term: Term(0),
        }
    }

    /// Takes all batches of a segment that follow each other; returns what stands behind the last of them.
    fn read_segment(&mut self, segment: SegmentInfo) -> Result<Found, RecoveryError> {
        let mut window = Window::new(self.source, segment);
        let mut position = 0;
        loop {
            match self.look_at(&mut window, position)? {
                Found::Follows { len } => {
                    let bytes = window.read(position, len);
                    let bytes =
                        bytes.map_err(|error| self.io_error(segment.base, "read", position, &error))?;
                    match RawBatch(bytes).verify() {
                        Ok(batch) => self.take(segment, &batch)?,
                        Err(
                            error @ (BatchError::Short { .. }
                            | BatchError::DirectoryCrc { .. }
                            | BatchError::RecordsCrc { .. }),
                        ) => {
                            return Ok(Found::Torn(error));
                        }
                        Err(BatchError::Entry { field, expected, found, .. }) => {
                            return Err(self.inconsistent(segment, position, field, expected, found));
                        }
                        Err(BatchError::Sum { part, expected, found }) => {
                            return Err(self.inconsistent(segment, position, part, expected, found));
                        }
                        Err(BatchError::Header(_)) => {
                            unreachable!("the header was verified from the same bytes")
                        }
                    }
                    position += len;
                }
                found => return Ok(found),
            }
        }
    }

    /// Judges the header at a position, as far as headers can tell.
    fn look_at(&self, window: &mut Window<'_, S>, position: u64) -> Result<Found, RecoveryError> {
        let segment = window.segment();
        if position == segment.bytes {
            return Ok(Found::SegmentEnd);
        }
        let block = window.block(position);
        let block = block.map_err(|error| self.io_error(segment.base, "read", position, &error))?;
        let header = match RawHeader(block).verify() {
            Ok(header) => header,
            Err(HeaderError::Zero) => return Ok(Found::Zeros),
            Err(HeaderError::Version { found }) => {
                let file = self.source.name(LogFile::Segment(segment.base));
                return Err(RecoveryError::NewerFormat { file, position, known: FORMAT_VERSION, found });
            }
            Err(HeaderError::Field { field, found }) => {
                return Err(self.inconsistent(segment, position, field, 0, found));
            }
            Err(HeaderError::Kind { found }) => {
                return Err(self.inconsistent(segment, position, "kind", 0, found.into()));
            }
            Err(error) => return Ok(Found::Torn(error.into())),
        };
        if header.group() != self.config.group {
            let file = self.source.name(LogFile::Segment(segment.base));
            let (expected, found) = (self.config.group, header.group());
            return Err(RecoveryError::ForeignGroup { file, position, expected, found });
        }
        let follows = [
            ("base_offset", segment.base.0 + position, header.base_offset().0),
            ("index", self.report.last_index.0 + 1, header.index().0),
            ("prev_term", self.report.last_term.0, header.prev_term().0),
        ];
        for (field, expected, found) in follows {
            if expected != found {
                return Ok(Found::Stale { field, expected, found });
            }
        }
        if position + header.batch_len() as u64 > segment.bytes {
            let (expected, found) = (segment.bytes - position, header.batch_len() as u64);
            return Err(self.inconsistent(segment, position, "length", expected, found));
        }
        Ok(Found::Follows { len: header.batch_len() as u64 })
    }

    /// Whether the next segment begins with the batch that is expected now.
    fn goes_on_in(&self, next: SegmentInfo) -> Result<bool, RecoveryError> {
        let mut window = Window::new(self.source, next);
        let Found::Follows { len } = self.look_at(&mut window, 0)? else { return Ok(false) };
        let bytes = window.read(0, len).map_err(|error| self.io_error(next.base, "read", 0, &error))?;
        Ok(!matches!(
            RawBatch(bytes).verify(),
            Err(BatchError::Short { .. } | BatchError::DirectoryCrc { .. } | BatchError::RecordsCrc { .. })
        ))
    }

    fn take(&mut self, segment: SegmentInfo, batch: &Batch<'_>) -> Result<(), RecoveryError> {
        let header = batch.header();
        let position = header.base_offset().0 - segment.base.0;
        let store_time_ms = header.store_time.get();
        if store_time_ms < self.last_store_time_ms {
            let (expected, found) = (self.last_store_time_ms as u64, store_time_ms as u64);
            return Err(self.inconsistent(segment, position, "store_time", expected, found));
        }
        self.unsealed.push(NewBatch {
            segment: segment.base,
            base: header.base_offset(),
            len: header.length.get(),
            index: header.index(),
            prev_term: header.prev_term(),
            store_time_ms,
        });
        for entry in batch.entries() {
            let slot = self.queues.slot_or_new(entry.queue);
            let tail = self.queues.at(slot).tail;
            if entry.queue_offset != tail {
                return Err(RecoveryError::QueueOffset {
                    file: self.source.name(LogFile::Segment(segment.base)),
                    position,
                    queue: entry.queue,
                    expected: tail,
                    found: entry.queue_offset,
                });
            }
            self.queues.at(slot).tail = tail.next();
            let (log_offset, size) = (entry.log_offset, entry.record.len() as u32);
            let (store_time_ms, tag_hash) = (entry.store_time_ms, entry.tag_hash);
            let indexed = IndexEntry { log_offset, store_time_ms, size, tag_hash };
            self.queues.publish(slot, tail, indexed, segment.base);
            for hash in entry.key_hashes {
                self.unsealed.push_key(hash.get(), log_offset, size);
            }
            (self.visit)(RecoveredRecord {
                queue: entry.queue,
                queue_offset: tail,
                log_offset,
                store_time_ms,
                tag_hash,
                bytes: entry.record,
            });
        }
        self.last_store_time_ms = store_time_ms;
        self.report.batches += 1;
        self.report.records += u64::from(header.record_count.get());
        self.report.bytes += header.batch_len() as u64;
        self.report.end = header.base_offset().plus(header.batch_len() as u64);
        self.report.last_index = header.index();
        self.report.last_term = header.term();
        Ok(())
    }

    /// The log seems to end with `stop`, in the first of `segments`. Looks behind for a header that says otherwise,
    /// and for the greatest term there: the next life must not use it again.
    fn judge_end(&mut self, segments: &[SegmentInfo], stop: Found) -> Result<Option<Cut>, RecoveryError> {
        let segment = segments[0];
        let position = self.report.end.0.max(segment.base.0) - segment.base.0;
        let missing = self.report.last_index.next();
        let mut batches_behind = 0;
        for (nth, behind) in segments.iter().enumerate() {
            let mut window = Window::new(self.source, *behind);
            let (mut at, upto) = match nth {
                0 => (position, behind.bytes),
                1 => (0, behind.bytes.min(SCAN_BEHIND_BYTES)),
                _ => (0, BLOCK_LEN as u64),
            };
            while at < upto {
                let Some(header) = self.whole_header(&mut window, at)? else {
                    at += BLOCK_LEN as u64;
                    continue;
                };
                if header.commit_hint() >= missing {
                    return Err(RecoveryError::Damaged {
                        file: self.source.name(LogFile::Segment(segment.base)),
                        position,
                        index: missing,
                        found: describe(&stop),
                        witness: header.index(),
                        witness_offset: header.base_offset(),
                        committed: header.commit_hint(),
                    });
                }
                batches_behind += 1;
                self.greatest_term = self.greatest_term.max(header.term());
                at += self.untouched_len(&mut window, at, &header)?;
            }
        }
        let cause = match stop {
            Found::Torn(error) => CutCause::Torn(error),
            Found::Stale { field, expected, found } => CutCause::Stale { field, expected, found },
            Found::Zeros | Found::SegmentEnd | Found::Follows { .. } => return Ok(None),
        };
        Ok(Some(Cut {
            file: self.source.name(LogFile::Segment(segment.base)),
            position,
            cause,
            batches_behind,
        }))
    }

    /// A header of this log that stands where it was written to.
    fn whole_header(
        &self,
        window: &mut Window<'_, S>,
        at: u64,
    ) -> Result<Option<BatchHeader>, RecoveryError> {
        let segment = window.segment();
        let block = window.block(at).map_err(|error| self.io_error(segment.base, "read", at, &error))?;
        let header = RawHeader(block).verify().ok().filter(|header| {
            header.group() == self.config.group && header.base_offset() == segment.base.plus(at)
        });
        Ok(header.copied())
    }

    /// How far from a header the next one may stand. Batches of later lives may have been written into a batch that
    /// was cut off, so only a whole one is known to hide none.
    fn untouched_len(
        &self,
        window: &mut Window<'_, S>,
        at: u64,
        header: &BatchHeader,
    ) -> Result<u64, RecoveryError> {
        let base = window.segment().base;
        let bytes = window.read(at, header.batch_len() as u64);
        let bytes = bytes.map_err(|error| self.io_error(base, "read", at, &error))?;
        Ok(if RawBatch(bytes).verify().is_ok() { bytes.len() } else { BLOCK_LEN } as u64)
    }

    fn inconsistent(
        &self,
        segment: SegmentInfo,
        position: u64,
        field: &'static str,
        expected: u64,
        found: u64,
    ) -> RecoveryError {
        let (file, index) = (self.source.name(LogFile::Segment(segment.base)), self.report.last_index.next());
        RecoveryError::Inconsistent { file, position, index, field, expected, found }
    }

    fn io_error(
        &self,
        base: LogOffset,
        action: &'static str,
        position: u64,
        error: &io::Error,
    ) -> RecoveryError {
        RecoveryError::Io {
            file: self.source.name(LogFile::Segment(base)),
            action,
            position,
            message: error.to_string(),
        }
    }

    fn finish(self, segments: Vec<SegmentInfo>, cut: Option<Cut>) -> Recovered {
        let report = RecoveryReport { segments: segments.len(), cut, ..self.report };
        let restored = Restored {
            segments,
            end: report.end,
            last_index: report.last_index,
            last_term: report.last_term,
            greatest_term: self.greatest_term.max(report.last_term),
            last_store_time_ms: self.last_store_time_ms,
            queues: self.queues,
            unsealed: self.unsealed,
            archive: RestoredArchive::default(),
        };
        Recovered { restored, report }
    }
}

fn describe(stop: &Found) -> String {
    match stop {
        Found::Torn(error) => error.to_string(),
        Found::Stale { field, expected, found } => format!("{field} is {found}, expected {expected}"),
        Found::Zeros | Found::SegmentEnd | Found::Follows { .. } => "nothing is written there".to_owned(),
    }
}
