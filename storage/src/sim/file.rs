//! One segment file: what a process sees of it, and what of that is there for good.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::rng::Rng;

/// What a disk writes whole or not at all.
pub const SECTOR_LEN: usize = 512;

type Sector = [u8; SECTOR_LEN];

#[derive(Debug)]
struct Unsynced {
    /// Number of the write's completion.
    completed: u64,
    at: u64,
    sector: Sector,
}

#[derive(Debug)]
pub(super) struct SimFile {
    bytes: u64,
    /// What a process reads. Sectors that are not there are zeros.
    seen: FxHashMap<u64, Sector>,
    /// What a loss of power cannot take.
    durable: FxHashMap<u64, Sector>,
    /// Written and not synced, oldest first.
    unsynced: VecDeque<Unsynced>,
}

impl SimFile {
    /// All zeros, and durable.
    pub(super) fn new(bytes: u64) -> SimFile {
        SimFile {
            bytes,
            seen: FxHashMap::default(),
            durable: FxHashMap::default(),
            unsynced: VecDeque::new(),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn read(&self, position: u64, out: &mut [u8]) {
        copy_from(&self.seen, position, out);
    }

    pub(super) fn read_durable(&self, position: u64, out: &mut [u8]) {
        copy_from(&self.durable, position, out);
    }

    /// Takes whole sectors, by the write with this number.
    pub(super) fn write(&mut self, completed: u64, position: u64, bytes: &[u8]) {
        for (nth, sector) in bytes.chunks(SECTOR_LEN).enumerate() {
            let at = position / SECTOR_LEN as u64 + nth as u64;
            let sector = sector.try_into().expect("writes are of whole blocks");
            self.seen.insert(at, sector);
            self.unsynced.push_back(Unsynced { completed, at, sector });
        }
    }

    /// Makes durable what writes up to number `completed` wrote.
    pub(super) fn sync(&mut self, completed: u64) {
        while self.unsynced.front().is_some_and(|oldest| oldest.completed <= completed) {
            let Unsynced { at, sector, .. } = self.unsynced.pop_front().expect("it was looked at");
            self.durable.insert(at, sector);
        }
    }

    /// Of what was not synced, each sector survives with a chance of so many percent, whatever was written before or
    /// behind it; the others are again what they were.
    pub(super) fn lose_unsynced(&mut self, rng: &mut Rng, survive_percent: u64) {
        for Unsynced { at, sector, .. } in std::mem::take(&mut self.unsynced) {
            if rng.chance(survive_percent) {
                self.durable.insert(at, sector);
            }
        }
        self.seen = self.durable.clone();
    }

    /// Changes bytes for good, as damage does.
    pub(super) fn overwrite(&mut self, position: u64, bytes: &[u8]) {
        let mut rest = bytes;
        let mut at = position;
        while !rest.is_empty() {
            let (number, within) = (at / SECTOR_LEN as u64, at as usize % SECTOR_LEN);
            let (piece, behind) = rest.split_at(rest.len().min(SECTOR_LEN - within));
            let mut sector = self.seen.get(&number).copied().unwrap_or([0; SECTOR_LEN]);
            sector[within..within + piece.len()].copy_from_slice(piece);
            self.unsynced.retain(|unsynced| unsynced.at != number);
            self.seen.insert(number, sector);
            self.durable.insert(number, sector);
            (rest, at) = (behind, at + piece.len() as u64);
        }
    }
}

/// Fills `out` from `position` on; sectors that are not there are zeros.
fn copy_from(sectors: &FxHashMap<u64, Sector>, position: u64, out: &mut [u8]) {
    let mut at = position;
    let mut rest = out;
    while !rest.is_empty() {
        let within = at as usize % SECTOR_LEN;
        let (piece, behind) = rest.split_at_mut((SECTOR_LEN - within).min(rest.len()));
        match sectors.get(&(at / SECTOR_LEN as u64)) {
            Some(sector) => piece.copy_from_slice(&sector[within..within + piece.len()]),
            None => piece.fill(0),
        }
        at += piece.len() as u64;
        rest = behind;
    }
}
