//! Small files: written whole and durable, or not there. Only the two slots of a group node's state are written in place,
//! and may be torn.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::rng::Rng;
use crate::format::BLOCK_LEN;
use crate::source::IndexBytes;

#[derive(Debug)]
pub(super) struct SmallFile {
    bytes: Arc<Vec<u8>>,
    /// What it would be without damage.
    written: Arc<Vec<u8>>,
}

impl SmallFile {
    pub(super) fn new(written: &[u8]) -> SmallFile {
        let written = Arc::new(written.to_vec());
        SmallFile { bytes: Arc::clone(&written), written }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn bytes_on_disk(&self) -> u64 {
        (self.bytes.len() as u64).next_multiple_of(BLOCK_LEN as u64)
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.bytes != self.written
    }

    pub(super) fn repair(&mut self) {
        self.bytes = Arc::clone(&self.written);
    }

    pub(super) fn flip_bit(&mut self, bit: u64) {
        let bit = bit as usize % (self.bytes.len() * 8);
        Arc::make_mut(&mut self.bytes)[bit / 8] ^= 1 << (bit % 8);
    }

    /// Writes in place.
    pub(super) fn overwrite(&mut self, position: usize, bytes: &[u8]) {
        for copy in [&mut self.bytes, &mut self.written] {
            Arc::make_mut(copy)[position..position + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Maps it, so that each page is in memory with a chance of so many percent.
    pub(super) fn map(&self, rng: &mut Rng, resident_percent: u64) -> MappedIndex {
        let pages = self.bytes.len().div_ceil(BLOCK_LEN);
        let is_resident = (0..pages).map(|_| AtomicBool::new(rng.chance(resident_percent))).collect();
        MappedIndex { bytes: Arc::clone(&self.bytes), is_resident }
    }
}

/// An index file as a process has mapped it: which of its pages are in memory is up to the disk.
#[derive(Debug)]
pub(super) struct MappedIndex {
    bytes: Arc<Vec<u8>>,
    is_resident: Vec<AtomicBool>,
}

impl MappedIndex {
    fn pages(&self, range: Range<usize>) -> &[AtomicBool] {
        let upto = range.end.div_ceil(BLOCK_LEN).min(self.is_resident.len());
        &self.is_resident[(range.start / BLOCK_LEN).min(upto)..upto]
    }

    pub(super) fn evict(&self, rng: &mut Rng, percent: u64) {
        self.is_resident.iter().filter(|_| rng.chance(percent)).for_each(|page| page.store(false, Relaxed));
    }
}

impl IndexBytes for MappedIndex {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn is_resident(&self, range: Range<usize>) -> bool {
        self.pages(range).iter().all(|page| page.load(Relaxed))
    }

    fn prefetch(&self, range: Range<usize>) {
        self.pages(range).iter().for_each(|page| page.store(true, Relaxed));
    }
}
