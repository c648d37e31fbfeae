//! An index file opened: header and page table are believed, all else is checked when it is first touched.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::FromBytes;

use super::error::{IndexError, IndexFault};
use super::layout::{INDEX_HEADER_LEN, INDEX_MAGIC, INDEX_VERSION, IndexHeader, PAGE_LEN, PageRow};
use super::sections::Sections;
use super::view::{Access, IndexView};
use crate::disk::SegmentInfo;
use crate::format::BLOCK_LEN;
use crate::source::IndexBytes;
use crate::types::{BatchIndex, GroupId, LogOffset, Term};

/// No segment is larger: positions in it are u32.
const SEGMENT_BYTES_LIMIT: u64 = 1 << 32;

/// What an index says of its segment as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexSummary {
    pub group: GroupId,
    pub segment: SegmentInfo,
    /// One past the segment's last batch.
    pub end: LogOffset,
    pub first_index: BatchIndex,
    pub last_index: BatchIndex,
    /// Term of the batch before the segment's first.
    pub prev_term: Term,
    pub last_term: Term,
    pub first_time_ms: i64,
    pub last_time_ms: i64,
    /// All queues the log knew at the segment's end.
    pub queues: u32,
    pub entries: u32,
    pub keys: u32,
    pub batches: u32,
}

/// The index of a sealed segment. Never changes; can be shared with the blocking pool.
///
/// Takes some 12 bytes of memory for each 4 KiB of the file; the file itself stays in the page cache.
pub struct SealedIndex {
    bytes: Arc<dyn IndexBytes>,
    summary: IndexSummary,
    sections: Sections,
    /// Checksums of the pages from `sections.first_page()` on. Copies, so that checking a page touches no other.
    crcs: Box<[u32]>,
    /// What each of these pages' first row is found by.
    firsts: Box<[u64]>,
    /// A bit for each of them: it was read and its checksum held. What the kernel drops and reads again is not checked
    /// again.
    verified: Box<[AtomicU64]>,
}

impl fmt::Debug for SealedIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedIndex").field("summary", &self.summary).finish_non_exhaustive()
    }
}

impl SealedIndex {
    /// Checks header and page table, and reads nothing else. Blocks while these are read from disk. Whose log and which
    /// segment it belongs to, the [summary](SealedIndex::summary) says.
    pub fn open(bytes: Arc<dyn IndexBytes>) -> Result<SealedIndex, IndexError> {
        let file = bytes.bytes();
        let header = verify_header(file)?;
        let summary = summarise(header)?;
        let sections = Sections::of(header);
        let (expected, found) = (sections.file_len() as u64, file.len() as u64);
        if found != expected {
            return Err(IndexError::Length { expected, found });
        }
        let table = &file[sections.table()];
        let (expected, found) = (header.table_crc.get(), crc32c::crc32c(table));
        if found != expected {
            return Err(IndexError::TableCrc { expected, found });
        }
        let rows = &table[..sections.pages().len() * size_of::<PageRow>()];
        let rows = <[PageRow]>::ref_from_bytes(rows).expect("whole rows without alignment");
        let crcs = rows.iter().map(|row| row.crc.get()).collect();
        let firsts = rows.iter().map(|row| row.first.get()).collect();
        let verified = (0..rows.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(SealedIndex { bytes, summary, sections, crcs, firsts, verified })
    }

    #[must_use]
    pub fn summary(&self) -> &IndexSummary {
        &self.summary
    }

    /// Where questions are asked.
    #[must_use]
    pub fn view(&self, access: Access) -> IndexView<'_> {
        IndexView::new(self, access)
    }

    /// Brings a range of the file into memory and checks it: what [`IndexFault::Cold`] asked for. Blocks; for the pool.
    pub fn load(&self, range: Range<u64>) -> Result<(), IndexFault> {
        let pages = self.sections.pages();
        let begin = (range.start / PAGE_LEN as u64).clamp(pages.start.into(), pages.end.into()) as u32;
        let end = range.end.div_ceil(PAGE_LEN as u64).clamp(begin.into(), pages.end.into()) as u32;
        self.bytes.prefetch(byte_range(&(begin..end)));
        (begin..end).try_for_each(|page| self.check(page))
    }

    /// The bytes of the whole file, checked or not.
    pub(super) fn file(&self) -> &[u8] {
        self.bytes.bytes()
    }

    pub(super) fn sections(&self) -> &Sections {
        &self.sections
    }

    /// What the first rows of these pages are found by.
    pub(super) fn firsts(&self, pages: Range<u32>) -> &[u64] {
        let first = self.sections.first_page();
        &self.firsts[(pages.start - first) as usize..(pages.end - first) as usize]
    }

    /// The bytes of some pages, checked.
    pub(super) fn pages(&self, pages: Range<u32>, access: Access) -> Result<&[u8], IndexFault> {
        let range = byte_range(&pages);
        if access == Access::Resident && !self.bytes.is_resident(range.clone()) {
            let range = range.start as u64..range.end as u64;
            return Err(IndexFault::Cold { segment: self.summary.segment.base, range });
        }
        for page in pages {
            let nth = (page - self.sections.first_page()) as usize;
            if self.verified[nth / 64].load(Ordering::Relaxed) & 1 << (nth % 64) == 0 {
                self.check(page)?;
            }
        }
        Ok(&self.bytes.bytes()[range])
    }

    /// Compares a page with the page table, whether that was done before or not.
    pub(super) fn check(&self, page: u32) -> Result<(), IndexFault> {
        let bytes = &self.bytes.bytes()[byte_range(&(page..page + 1))];
        let nth = (page - self.sections.first_page()) as usize;
        let expected = self.crcs[nth];
        let found = crc32c::crc32c(bytes);
        if found != expected {
            return Err(IndexFault::Damaged { segment: self.summary.segment.base, page, expected, found });
        }
        // The bytes never change, so that the order in which others see this does not matter.
        self.verified[nth / 64].fetch_or(1 << (nth % 64), Ordering::Relaxed);
        Ok(())
    }
}

fn byte_range(pages: &Range<u32>) -> Range<usize> {
    pages.start as usize * PAGE_LEN..pages.end as usize * PAGE_LEN
}

/// The checksum of the first page, without the bytes where it stands.
pub(super) fn header_crc(page: &[u8]) -> u32 {
    const CRC_AT: usize = std::mem::offset_of!(IndexHeader, header_crc);
    crc32c::crc32c_append(crc32c::crc32c(&page[..CRC_AT]), &page[CRC_AT + 4..PAGE_LEN])
}

fn verify_header(file: &[u8]) -> Result<&IndexHeader, IndexError> {
    let short = IndexError::Short { found: file.len() as u64 };
    let page = file.get(..PAGE_LEN).ok_or(short)?;
    let (header, _) = IndexHeader::ref_from_prefix(page).expect("a page holds the header");
    if header.magic != INDEX_MAGIC {
        return Err(IndexError::Magic { found: header.magic });
    }
    let (expected, found) = (header.header_crc.get(), header_crc(page));
    if found != expected {
        return Err(IndexError::HeaderCrc { expected, found });
    }
    if header.version.get() != INDEX_VERSION {
        return Err(IndexError::Version { found: header.version.get() });
    }
    Ok(header)
}

/// Takes the header's fields if they fit each other.
fn summarise(header: &IndexHeader) -> Result<IndexSummary, IndexError> {
    let segment = SegmentInfo { base: LogOffset(header.segment.get()), bytes: header.segment_bytes.get() };
    let (base, end) = (segment.base.0, header.end.get());
    let (first_index, last_index) = (header.first_index.get(), header.last_index.get());
    let batches = u64::from(header.batches.get());
    let (first_time_ms, last_time_ms) = (header.first_time.get(), header.last_time.get());
    let block = BLOCK_LEN as u64;
    let rules = [
        (
            "header_len",
            usize::from(header.header_len.get()) == INDEX_HEADER_LEN,
            header.header_len.get().into(),
        ),
        ("segment", base.is_multiple_of(block), base),
        ("segment_bytes", (block..=SEGMENT_BYTES_LIMIT).contains(&segment.bytes), segment.bytes),
        ("segment_bytes", base.checked_add(segment.bytes).is_some(), segment.bytes),
        ("end", end > base && end - base <= segment.bytes && end.is_multiple_of(block), end),
        ("first_index", first_index > 0, first_index),
        ("last_index", last_index >= first_index, last_index),
        ("batches", last_index.wrapping_sub(first_index).wrapping_add(1) == batches, batches),
        ("prev_term", header.prev_term <= header.last_term, header.prev_term.get()),
        (
            "last_time",
            first_time_ms <= last_time_ms && last_time_ms.abs_diff(first_time_ms) <= u32::MAX.into(),
            last_time_ms as u64,
        ),
    ];
    if let Some((field, _, found)) = rules.into_iter().find(|(_, holds, _)| !holds) {
        return Err(IndexError::Field { field, found });
    }
    Ok(IndexSummary {
        group: GroupId(header.group.get()),
        segment,
        end: LogOffset(end),
        first_index: BatchIndex(first_index),
        last_index: BatchIndex(last_index),
        prev_term: Term(header.prev_term.get()),
        last_term: Term(header.last_term.get()),
        first_time_ms,
        last_time_ms,
        queues: header.queues.get(),
        entries: header.entries.get(),
        keys: header.keys.get(),
        batches: header.batches.get(),
    })
}
