//! Puts rows where they belong, then checksums over them.

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromZeros, IntoBytes};

use super::layout::{
    BatchRow, EntryRow, INDEX_HEADER_LEN, INDEX_MAGIC, INDEX_VERSION, IndexHeader, KeyRow, PAGE_LEN, PageRow,
    QueueRow, Row, rows_of_page,
};
use super::reader::{IndexSummary, header_crc};
use super::sections::{Section, Sections};
use crate::types::{QueueKey, QueueOffset};

/// The bytes of an index file in the making.
pub(super) struct IndexWriter {
    summary: IndexSummary,
    sections: Sections,
    out: Vec<u8>,
}

impl IndexWriter {
    pub(super) fn new(summary: IndexSummary) -> IndexWriter {
        let sections = Sections::new(summary.queues, summary.entries, summary.keys, summary.batches);
        let out = vec![0; sections.file_len()];
        IndexWriter { summary, sections, out }
    }

    pub(super) fn put_queue(&mut self, nth: u32, row: QueueRow) {
        self.put(self.sections.queues, nth, row);
    }

    pub(super) fn put_entry(&mut self, nth: u32, row: EntryRow) {
        self.put(self.sections.entries, nth, row);
    }

    pub(super) fn put_key(&mut self, nth: u32, row: KeyRow) {
        self.put(self.sections.keys, nth, row);
    }

    pub(super) fn put_batch(&mut self, nth: u32, row: BatchRow) {
        self.put(self.sections.batches, nth, row);
    }

    fn put<R: Row>(&mut self, section: Section<R>, nth: u32, row: R) {
        self.out[section.range_of(nth)].copy_from_slice(row.as_bytes());
    }

    /// All rows have been put.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let mut table = Vec::with_capacity(self.sections.pages().len());
        self.describe(self.sections.queues, &mut table);
        self.describe(self.sections.entries, &mut table);
        self.describe(self.sections.keys, &mut table);
        self.describe(self.sections.batches, &mut table);
        let bytes = table.as_bytes();
        let range = self.sections.table();
        self.out[range.clone()][..bytes.len()].copy_from_slice(bytes);
        let header = self.header(crc32c::crc32c(&self.out[range]));
        self.out[..INDEX_HEADER_LEN].copy_from_slice(header.as_bytes());
        let crc = header_crc(&self.out[..PAGE_LEN]);
        let crc_at = std::mem::offset_of!(IndexHeader, header_crc);
        self.out[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        self.out
    }

    fn describe<R: Row>(&self, section: Section<R>, table: &mut Vec<PageRow>) {
        for page in section.pages() {
            let bytes = &self.out[page as usize * PAGE_LEN..][..PAGE_LEN];
            let first = rows_of_page::<R>(bytes, 1)[0].sought_by();
            table.push(PageRow { crc: crc32c::crc32c(bytes).into(), first: first.into() });
        }
    }

    fn header(&self, table_crc: u32) -> IndexHeader {
        let summary = &self.summary;
        IndexHeader {
            magic: INDEX_MAGIC,
            version: U16::new(INDEX_VERSION),
            header_len: U16::new(INDEX_HEADER_LEN as u16),
            header_crc: U32::new_zeroed(),
            table_crc: table_crc.into(),
            group: summary.group.0.into(),
            segment: summary.segment.base.0.into(),
            segment_bytes: summary.segment.bytes.into(),
            end: summary.end.0.into(),
            first_index: summary.first_index.0.into(),
            last_index: summary.last_index.0.into(),
            prev_term: summary.prev_term.0.into(),
            last_term: summary.last_term.0.into(),
            first_time: summary.first_time_ms.into(),
            last_time: summary.last_time_ms.into(),
            queues: summary.queues.into(),
            entries: summary.entries.into(),
            keys: summary.keys.into(),
            batches: summary.batches.into(),
        }
    }
}

/// The bytes of the index of a segment of one batch without records: all that it tells is where the queues stood. They
/// are given by ascending number.
pub(crate) fn empty_index(summary: IndexSummary, queue_ends: &[(QueueKey, QueueOffset)]) -> Vec<u8> {
    assert_eq!((summary.entries, summary.keys, summary.batches), (0, 0, 1), "not an empty segment");
    let batch_len = (summary.end.0 - summary.segment.base.0) as u32;
    let mut writer = IndexWriter::new(summary);
    for (nth, (queue, end)) in queue_ends.iter().enumerate() {
        let (queue, begin) = (queue.0.into(), end.0.into());
        writer.put_queue(nth as u32, QueueRow { queue, begin, first_entry: U32::ZERO, count: U32::ZERO });
    }
    writer.put_batch(0, BatchRow { position: U32::ZERO, length: batch_len.into() });
    writer.finish()
}
