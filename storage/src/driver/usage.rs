//! Who has a segment's file open, so that a file is not written anew under those who read it.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use rustc_hash::FxHashMap;

use super::background::BackgroundSender;
use crate::disk::DiskError;
use crate::types::LogOffset;

/// The uses of all segments. Segments leave from the oldest on, and one that has left is not opened again, unless the log
/// begins anew.
#[derive(Debug)]
pub(super) struct Usage {
    uses: RefCell<FxHashMap<LogOffset, Weak<Use>>>,
    /// No segment at or below it may be opened.
    left: Cell<Option<LogOffset>>,
    background: BackgroundSender,
}

/// Held by all that has a segment's file open, or is about to.
#[derive(Debug)]
pub(super) struct Use {
    segment: LogOffset,
    usage: Rc<Usage>,
}

impl Usage {
    pub(super) fn new(background: BackgroundSender) -> Rc<Usage> {
        Rc::new(Usage { uses: RefCell::default(), left: Cell::new(None), background })
    }

    /// To be taken before the file is opened.
    pub(super) fn begin(self: &Rc<Usage>, segment: LogOffset) -> Result<Rc<Use>, DiskError> {
        if self.has_left(segment) {
            return Err(DiskError::Io {
                action: format!("open segment {segment}"),
                os_code: Some(libc::ENOENT),
                message: "it has left the log".to_owned(),
            });
        }
        let mut uses = self.uses.borrow_mut();
        if let Some(running) = uses.get(&segment).and_then(Weak::upgrade) {
            return Ok(running);
        }
        let begun = Rc::new(Use { segment, usage: Rc::clone(self) });
        uses.insert(segment, Rc::downgrade(&begun));
        Ok(begun)
    }

    pub(super) fn is_used(&self, segment: LogOffset) -> bool {
        self.uses.borrow().contains_key(&segment)
    }

    /// From now on no use of the segment, or of one before it, begins.
    pub(super) fn on_left(&self, segment: LogOffset) {
        self.left.set(self.left.get().max(Some(segment)));
    }

    /// The log begins anew at `start`, in front of or behind where it was.
    pub(super) fn on_begun_anew(&self, start: LogOffset) {
        self.left.set(start.0.checked_sub(1).map(LogOffset));
    }

    pub(super) fn has_left(&self, segment: LogOffset) -> bool {
        self.left.get() >= Some(segment)
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.usage.uses.borrow_mut().remove(&self.segment);
        if self.usage.has_left(self.segment) {
            self.usage.background.release(self.segment);
        }
    }
}
