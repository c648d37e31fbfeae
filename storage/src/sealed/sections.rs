//! Where in an index file the rows stand; follows from how many there are.
//!
//! ```text
//! page 0    1 ...                one section behind the other, each from a page of its own
//! | header | page table ........ | queues .... | entries .......... | keys ....... | batches ... |
//! ```

use std::marker::PhantomData;
use std::ops::Range;

use super::layout::{BatchRow, EntryRow, IndexHeader, KeyRow, PAGE_LEN, PageRow, QueueRow, Row};

/// One section: `rows` rows from page `first_page` on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<R> {
    pub(super) first_page: u32,
    pub(super) rows: u32,
    row: PhantomData<R>,
}

impl<R: Row> Section<R> {
    fn new(first_page: u32, rows: u32) -> Section<R> {
        Section { first_page, rows, row: PhantomData }
    }

    pub(super) fn pages(&self) -> Range<u32> {
        self.first_page..self.first_page + self.rows.div_ceil(R::PER_PAGE)
    }

    /// The page of a row.
    pub(super) fn page_of(&self, row: u32) -> u32 {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        self.first_page + row / R::PER_PAGE
    }

    /// The rows of a page.
    pub(super) fn rows_in(&self, page: u32) -> Range<u32> {
        let begin = (page - self.first_page) * R::PER_PAGE;
        begin..self.rows.min(begin.saturating_add(R::PER_PAGE))
    }

    /// Where in the file a row stands.
    pub(super) fn range_of(&self, row: u32) -> Range<usize> {
        let at = self.page_of(row) as usize * PAGE_LEN + (row % R::PER_PAGE) as usize * size_of::<R>();
        at..at + size_of::<R>()
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Sections {
    /// Pages of the page table; it follows the header's.
    pub(super) table_pages: u32,
    pub(super) queues: Section<QueueRow>,
    pub(super) entries: Section<EntryRow>,
    pub(super) keys: Section<KeyRow>,
    pub(super) batches: Section<BatchRow>,
}

impl Sections {
    pub(super) fn new(queues: u32, entries: u32, keys: u32, batches: u32) -> Sections {
        let pages = [
            queues.div_ceil(QueueRow::PER_PAGE),
            entries.div_ceil(EntryRow::PER_PAGE),
            keys.div_ceil(KeyRow::PER_PAGE),
            batches.div_ceil(BatchRow::PER_PAGE),
        ];
        // At most 2^24 pages of rows per section: far from overflow.
        let described = pages.iter().sum::<u32>() as usize;
        let table_pages = (described * size_of::<PageRow>()).div_ceil(PAGE_LEN) as u32;
        let queues = Section::new(1 + table_pages, queues);
        let entries = Section::new(queues.pages().end, entries);
        let keys = Section::new(entries.pages().end, keys);
        let batches = Section::new(keys.pages().end, batches);
        Sections { table_pages, queues, entries, keys, batches }
    }

    pub(super) fn of(header: &IndexHeader) -> Sections {
        Sections::new(header.queues.get(), header.entries.get(), header.keys.get(), header.batches.get())
    }

    /// Bytes of the page table.
    pub(super) fn table(&self) -> Range<usize> {
        PAGE_LEN..PAGE_LEN * self.first_page() as usize
    }

    /// The first page that the page table describes.
    pub(super) fn first_page(&self) -> u32 {
        1 + self.table_pages
    }

    /// All pages that the page table describes.
    pub(super) fn pages(&self) -> Range<u32> {
        self.first_page()..self.batches.pages().end
    }

    /// Bytes of the whole file.
    pub(super) fn file_len(&self) -> usize {
        self.pages().end as usize * PAGE_LEN
    }
}
