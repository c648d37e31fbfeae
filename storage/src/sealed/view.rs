//! Questions to an index. Each asks for the pages it needs before it touches them: mostly one.

use std::ops::Range;

use super::error::IndexFault;
use super::layout::{EntryRow, KeyRow, PAGE_LEN, QueueRow, Row, rows_of_page};
use super::reader::SealedIndex;
use super::sections::Section;
use crate::index::{IndexEntry, TimeBound};
use crate::types::{LogOffset, QueueKey, QueueOffset};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A shard's thread, which must not wait for a disk: pages that are not in memory are a [`IndexFault::Cold`].
    Resident,
    /// The blocking pool, start-up, tools: pages are read as they are touched.
    Blocking,
}

/// The records of one queue in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSpan {
    /// Of the first record, and where the queue stood when the segment began.
    pub begin: QueueOffset,
    pub count: u32,
    /// Number of the first record's entry in the index.
    pub first_entry: u32,
}

impl QueueSpan {
    /// One past the last record; where the queue stood when the segment ended.
    #[must_use]
    pub fn end(&self) -> QueueOffset {
        QueueOffset(self.begin.0 + u64::from(self.count))
    }

    fn entries(&self) -> Range<u32> {
        self.first_entry..self.first_entry + self.count
    }
}

/// An index as seen by one who may block or may not.
#[derive(Clone, Copy, Debug)]
pub struct IndexView<'a> {
    index: &'a SealedIndex,
    access: Access,
}

impl<'a> IndexView<'a> {
    pub(super) fn new(index: &'a SealedIndex, access: Access) -> IndexView<'a> {
        IndexView { index, access }
    }

    /// Where a queue stands in this segment; nothing if the log did not know the queue when the segment ended.
    /// Touches one page.
    pub fn queue(&self, key: QueueKey) -> Result<Option<QueueSpan>, IndexFault> {
        let section = &self.index.sections().queues;
        let Some(page) = self.last_page(section, |first| first <= key.0) else { return Ok(None) };
        let rows = self.rows_in(section, page)?;
        let found = rows.binary_search_by_key(&key.0, |row| row.queue.get());
        Ok(found.ok().map(|nth| span(&rows[nth])))
    }

    /// The entries of a queue from an offset on, at most `max` of them, in order; none if the offset lies outside.
    /// Touches a page per 256 entries, all of them before the first is given, so the caller's `max` bounds the time.
    pub fn entries(
        &self,
        span: QueueSpan,
        from: QueueOffset,
        max: u32,
    ) -> Result<impl ExactSizeIterator<Item = IndexEntry> + use<'a>, IndexFault> {
        let wanted = span.entries();
        let skipped =
            from.0.checked_sub(span.begin.0).map_or(span.count.into(), |by| by.min(span.count.into()));
        let begin = wanted.start + skipped as u32;
        let rows = self.entry_rows(begin..begin.saturating_add(max).min(wanted.end))?;
        let index = self.index;
        Ok(rows.iter().map(move |row| entry(index, row)))
    }

    /// How many of a queue's entries are older than a time ([`TimeBound::Lower`]), or not newer ([`TimeBound::Upper`]).
    /// Touches one page.
    pub fn count_before(&self, span: QueueSpan, time_ms: i64, bound: TimeBound) -> Result<u32, IndexFault> {
        let since = i128::from(time_ms) - i128::from(self.index.summary().first_time_ms);
        let before = match bound {
            TimeBound::Lower => since,
            TimeBound::Upper => since + 1,
        };
        let before = before.clamp(0, 1 << 32) as u64;
        let wanted = span.entries();
        if wanted.is_empty() {
            return Ok(0);
        }
        let section = &self.index.sections().entries;
        let (first, last) = (section.page_of(wanted.start), section.page_of(wanted.end - 1));
        // The first page may begin with another queue; the first rows of all others are of this one.
        let others = self.index.firsts(first + 1..last + 1);
        let page = first + others.partition_point(|time| *time < before) as u32;
        let in_page = section.rows_in(page);
        let (begin, end) = (wanted.start.max(in_page.start), wanted.end.min(in_page.end));
        let rows = self.entry_rows(begin..end)?;
        let within = rows.partition_point(|row| u64::from(row.time.get()) < before) as u32;
        Ok(begin + within - wanted.start)
    }

    /// Base and length of the batch that covers a byte of the log, if it lies in one of this segment's. Touches one page.
    pub fn batch_covering(&self, offset: LogOffset) -> Result<Option<(LogOffset, u32)>, IndexFault> {
        let base = self.index.summary().segment.base;
        let Some(position) = offset.0.checked_sub(base.0) else { return Ok(None) };
        let section = &self.index.sections().batches;
        let Some(page) = self.last_page(section, |first| first <= position) else { return Ok(None) };
        let rows = self.rows_in(section, page)?;
        let behind = rows.partition_point(|row| u64::from(row.position.get()) <= position);
        let row = rows[behind.checked_sub(1).expect("the page begins at or before the position")];
        let begin = u64::from(row.position.get());
        let covers = position - begin < u64::from(row.length.get());
        Ok(covers.then(|| (base.plus(begin), row.length.get())))
    }

    /// The batches from the `nth` of the segment on, as far as one page tells. Touches that page.
    pub fn batches_from(
        &self,
        nth: u32,
    ) -> Result<impl ExactSizeIterator<Item = (LogOffset, u32)> + use<'a>, IndexFault> {
        let base = self.index.summary().segment.base;
        let section = &self.index.sections().batches;
        let page = section.page_of(nth);
        let rows = &self.rows_in(section, page)?[(nth - section.rows_in(page).start) as usize..];
        Ok(rows.iter().map(move |row| (base.plus(row.position.get().into()), row.length.get())))
    }

    /// The newest records with a key hash, at most `max` of them, newest last.
    pub fn find_key(&self, hash: u32, max: usize) -> Result<Vec<IndexEntry>, IndexFault> {
        let mut found = self.with_key(hash).take(max).collect::<Result<Vec<_>, _>>()?;
        found.reverse();
        Ok(found)
    }

    /// The records with a key hash, newest first; other keys may have the same hash. Touches a page or two, and up to
    /// one more for each record given. Ends with the first fault.
    pub fn with_key(&self, hash: u32) -> impl Iterator<Item = Result<IndexEntry, IndexFault>> + use<'a> {
        let view = *self;
        let section = self.index.sections().keys;
        let mut page = self.last_page(&section, |first| first <= hash.into());
        let mut rows = [].iter();
        std::iter::from_fn(move || {
            while rows.as_slice().is_empty() {
                let at = page?;
                match view.rows_in(&section, at) {
                    Ok(all) => {
                        let begin = all.partition_point(|row| row.hash.get() < hash);
                        let end = all.partition_point(|row| row.hash.get() <= hash);
                        rows = all[begin..end].iter();
                        // Only if the page begins with the hash the one before may end with it.
                        page = (begin == 0 && end > 0 && at > section.first_page).then(|| at - 1);
                    }
                    Err(fault) => {
                        page = None;
                        return Some(Err(fault));
                    }
                }
            }
            let row: &KeyRow = rows.next_back()?;
            let number = row.entry.get();
            let found = view.entry_rows(number..number + 1).map(|rows| entry(view.index, &rows[0]));
            if found.is_err() {
                (page, rows) = (None, [].iter());
            }
            Some(found)
        })
    }

    /// All queues the log knew when the segment ended, by ascending number. Ends with the first fault.
    pub fn rows(&self) -> impl Iterator<Item = Result<(QueueKey, QueueSpan), IndexFault>> + use<'a> {
        let view = *self;
        let section = self.index.sections().queues;
        let mut pages = section.pages();
        let mut rows = [].iter();
        std::iter::from_fn(move || {
            if rows.as_slice().is_empty() {
                match view.rows_in(&section, pages.next()?) {
                    Ok(next) => rows = next.iter(),
                    Err(fault) => {
                        pages = 0..0;
                        return Some(Err(fault));
                    }
                }
            }
            let row: &QueueRow = rows.next()?;
            Some(Ok((QueueKey(row.queue.get()), span(row))))
        })
    }

    /// Checks every page, those too that were checked before. Reads the whole file: not for a shard's thread.
    pub fn verify_all(&self) -> Result<(), IndexFault> {
        self.index.sections().pages().try_for_each(|page| self.index.check(page))
    }

    /// The last page of a section whose first row satisfies `upto`, which holds for a prefix of them.
    fn last_page<R: Row>(&self, section: &Section<R>, upto: impl Fn(u64) -> bool) -> Option<u32> {
        let behind = self.index.firsts(section.pages()).partition_point(|first| upto(*first));
        behind.checked_sub(1).map(|nth| section.first_page + nth as u32)
    }

    fn rows_in<R: Row>(&self, section: &Section<R>, page: u32) -> Result<&'a [R], IndexFault> {
        let bytes = self.index.pages(page..page + 1, self.access)?;
        Ok(rows_of_page(bytes, section.rows_in(page).len() as u32))
    }

    /// Entries stand one behind the other across pages, without gaps.
    fn entry_rows(&self, entries: Range<u32>) -> Result<&'a [EntryRow], IndexFault> {
        const { assert!(PAGE_LEN.is_multiple_of(size_of::<EntryRow>())) };
        if entries.is_empty() {
            return Ok(&[]);
        }
        let section = &self.index.sections().entries;
        let pages = section.page_of(entries.start)..section.page_of(entries.end - 1) + 1;
        let first = section.rows_in(pages.start).start;
        let bytes = self.index.pages(pages, self.access)?;
        let rows = rows_of_page(bytes, entries.end - first);
        Ok(&rows[(entries.start - first) as usize..])
    }
}

fn span(row: &QueueRow) -> QueueSpan {
    QueueSpan {
        begin: QueueOffset(row.begin.get()),
        count: row.count.get(),
        first_entry: row.first_entry.get(),
    }
}

fn entry(index: &SealedIndex, row: &EntryRow) -> IndexEntry {
    let summary = index.summary();
    IndexEntry {
        log_offset: summary.segment.base.plus(row.position.get().into()),
        store_time_ms: summary.first_time_ms + i64::from(row.time.get()),
        size: row.size.get(),
        tag_hash: row.tag_hash.get(),
    }
}
