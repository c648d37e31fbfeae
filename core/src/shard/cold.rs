use std::ops::Range;
use std::sync::Arc;

use apogee_storage::SealedIndex;

/// Pages of an index file that a request needs and that are not in memory.
#[derive(Debug)]
pub struct ColdPages {
    pub index: Arc<SealedIndex>,
    /// In bytes of the file.
    pub range: Range<u64>,
}
