//! Files of segments that are kept open, up to a number.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use rustc_hash::FxHashMap;

use crate::disk::DiskError;
use crate::types::LogOffset;

/// Beyond `max` files those that nobody uses are closed, the longest unused first.
pub(super) struct OpenFiles<F> {
    open: RefCell<FxHashMap<LogOffset, Open<F>>>,
    uses: Cell<u64>,
    /// How often all were let go: what was being opened meanwhile may be a file that is no longer there.
    emptied: Cell<u64>,
    max: usize,
}

struct Open<F> {
    file: Rc<F>,
    last_used: u64,
}

impl<F> OpenFiles<F> {
    pub(super) fn new(max: usize) -> OpenFiles<F> {
        OpenFiles { open: RefCell::default(), uses: Cell::new(0), emptied: Cell::new(0), max }
    }

    pub(super) fn find(&self, segment: LogOffset) -> Option<Rc<F>> {
        self.uses.set(self.uses.get() + 1);
        let mut open = self.open.borrow_mut();
        let found = open.get_mut(&segment)?;
        found.last_used = self.uses.get();
        Some(Rc::clone(&found.file))
    }

    /// The file that is open already, or what `opening` gives. That is kept unless the segment has left meanwhile, which
    /// `is_there` tells.
    pub(super) async fn find_or_open(
        &self,
        segment: LogOffset,
        opening: impl Future<Output = Result<F, DiskError>>,
        is_there: impl FnOnce() -> bool,
    ) -> Result<Rc<F>, DiskError> {
        if let Some(file) = self.find(segment) {
            return Ok(file);
        }
        let emptied = self.emptied.get();
        let file = Rc::new(opening.await?);
        if emptied != self.emptied.get() {
            return Ok(file);
        }
        // Another task may have opened it meanwhile; then the two are the same to everyone.
        if let Some(earlier) = self.find(segment) {
            return Ok(earlier);
        }
        if is_there() {
            let opened = Open { file: Rc::clone(&file), last_used: self.uses.get() };
            self.open.borrow_mut().insert(segment, opened);
            self.close_longest_unused();
        }
        Ok(file)
    }

    /// Keeps the file open no longer.
    pub(super) fn forget(&self, segment: LogOffset) -> Option<Rc<F>> {
        self.open.borrow_mut().remove(&segment).map(|open| open.file)
    }

    /// Keeps none open any longer.
    pub(super) fn forget_all(&self) -> Vec<Rc<F>> {
        self.emptied.set(self.emptied.get() + 1);
        self.open.borrow_mut().drain().map(|(_, open)| open.file).collect()
    }

    fn close_longest_unused(&self) {
        let mut open = self.open.borrow_mut();
        while open.len() > self.max {
            let unused = open.iter().filter(|(_, open)| Rc::strong_count(&open.file) == 1);
            let Some(segment) = unused.min_by_key(|(_, open)| open.last_used).map(|(segment, _)| *segment)
            else {
                return;
            };
            open.remove(&segment);
        }
    }
}
