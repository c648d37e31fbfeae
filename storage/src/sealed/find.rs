//! A search for a key through the indexes of many segments.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use super::error::IndexFault;
use super::reader::SealedIndex;
use super::view::Access;
use crate::index::IndexEntry;

/// Times that pages of one index are brought in before the rest are read as they are touched: each brings the search
/// further, unless memory is so short that pages leave before they are looked at.
const LOADS_PER_INDEX_MAX: u32 = 64;

/// What is looked for, and where. For the blocking pool.
#[derive(Debug)]
pub struct KeySearch {
    /// Newest first.
    pub indexes: Vec<Arc<SealedIndex>>,
    pub hash: u32,
    /// Store times of the records wanted.
    pub times_ms: RangeInclusive<i64>,
    /// Records, at most: the newest.
    pub max: usize,
}

impl KeySearch {
    /// The records found, newest first; hashes may collide. `load` brings bytes of an index file into memory and has
    /// them checked, as [`SealedIndex::load`] does.
    pub fn run<E: From<IndexFault>>(
        &self,
        mut load: impl FnMut(&Arc<SealedIndex>, Range<u64>) -> Result<(), E>,
    ) -> Result<Vec<IndexEntry>, E> {
        let mut found = Vec::new();
        for index in &self.indexes {
            let mut loads = 0;
            loop {
                let access = if loads < LOADS_PER_INDEX_MAX { Access::Resident } else { Access::Blocking };
                match self.in_index(index, access, self.max - found.len()) {
                    Ok(records) => {
                        found.extend(records);
                        break;
                    }
                    Err(IndexFault::Cold { range, .. }) => load(index, range)?,
                    Err(fault @ IndexFault::Damaged { .. }) => return Err(fault.into()),
                }
                loads += 1;
            }
            if found.len() >= self.max {
                break;
            }
        }
        Ok(found)
    }

    fn in_index(
        &self,
        index: &SealedIndex,
        access: Access,
        max: usize,
    ) -> Result<Vec<IndexEntry>, IndexFault> {
        let mut found = Vec::new();
        for entry in index.view(access).with_key(self.hash) {
            let entry = entry?;
            if entry.store_time_ms < *self.times_ms.start() || found.len() >= max {
                break;
            }
            if self.times_ms.contains(&entry.store_time_ms) {
                found.push(entry);
            }
        }
        Ok(found)
    }
}
