//! Reading stored messages back, for whoever has to look into one: a redelivery, a timer, a transaction, a query.
//!
//! What is in memory is given at once. Otherwise the driver brings index pages or pieces of segments
//! ([`Action::Load`]) and tells the shard ([`Shard::on_loaded`]); what was asked for then goes on.

use std::fmt;
use std::sync::Arc;

use apogee_storage::format::RawDirectory;
use apogee_storage::{
    Buffer, DiskError, FileRun, IndexFault, Located, LogOffset, MemoryRun, QueueKey, QueueOffset, Run,
};
use bytes::{Bytes, BytesMut};
use rustc_hash::FxHashMap;
use smallvec::{SmallVec, smallvec};

use super::action::Action;
use super::cold::ColdPages;
use super::state::Shard;

/// Loads of one shard that wait for the disk; one more fails as busy.
pub const LOADS_MAX: usize = 16_384;

/// Times that one load brings index pages into memory: each brings it further, unless memory is so short that pages
/// leave before they are looked at.
const PAGE_LOADS_MAX: u32 = 32;

/// One message, as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Entry(QueueKey, QueueOffset),
    /// The message that begins there.
    At(LogOffset),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LoadError {
    #[error("there is no such message")]
    Missing,
    #[error("{LOADS_MAX} messages are being read from disk already")]
    Busy,
    #[error("this node no longer leads")]
    Deposed,
    #[error("index files do not stay in memory: the machine has too little of it")]
    TooLittleMemory,
    #[error("{0}")]
    DamagedIndex(String),
    #[error("a batch read from disk is damaged: {0}")]
    DamagedBatch(String),
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Names a load between the shard and its driver. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoadId(u64);

/// What the driver shall bring into memory.
#[derive(Debug)]
pub enum Need {
    Pages(ColdPages),
    /// The bytes of each, in order.
    Runs(SmallVec<[FileRun; 4]>),
}

/// Called once, with the bytes asked for or the reason why there are none. Where several messages were asked for,
/// they stand back to back.
pub(super) type OnLoaded<B> = Box<dyn FnOnce(&mut Shard<B>, Result<Bytes, LoadError>, i64)>;

/// Loads that wait for the disk.
pub(super) struct Loads<B> {
    waiting: FxHashMap<LoadId, Load<B>>,
    next_id: u64,
    /// None may begin while those of a master end.
    are_ending: bool,
}

struct Load<B> {
    step: Step<B>,
    then: OnLoaded<B>,
}

enum Step<B> {
    /// Index pages, to find out where the message is.
    Finding { wanted: Wanted, tries: u32 },
    /// The batch that holds the record which begins there.
    Batch(LogOffset),
    /// Index pages, for whoever met the fault and looks again.
    Pages,
    /// Exactly what was asked for, in pieces of which some are in memory.
    Pieces(SmallVec<[Run<B>; 4]>),
}

impl<B> Default for Loads<B> {
    fn default() -> Self {
        Loads { waiting: FxHashMap::default(), next_id: 0, are_ending: false }
    }
}

impl<B> fmt::Debug for Loads<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Loads({} waiting)", self.waiting.len())
    }
}

/// Where a message was found.
enum Found<B> {
    Here(MemoryRun<B>),
    Pages(ColdPages),
    InBatch(FileRun, LogOffset),
    Record(FileRun),
}

impl<B: Buffer + 'static> Shard<B> {
    /// Gives one message's bytes to `then`: at once if they are in memory.
    pub(super) fn load(&mut self, wanted: Wanted, now_ms: i64, then: OnLoaded<B>) {
        self.find_and_load(wanted, 0, now_ms, then);
    }

    /// Gives the messages of a read plan to `then`: at once if all are in memory.
    pub(super) fn load_plan(&mut self, runs: SmallVec<[Run<B>; 4]>, now_ms: i64, then: OnLoaded<B>) {
        let from_file = runs.iter().filter_map(|run| match run {
            Run::Memory(_) => None,
            Run::File(run) => Some(*run),
        });
        let from_file: SmallVec<[FileRun; 4]> = from_file.collect();
        if from_file.is_empty() {
            let bytes = join(&runs, &[]);
            return then(self, Ok(bytes), now_ms);
        }
        self.wait(Need::Runs(from_file), Load { step: Step::Pieces(runs), then }, now_ms);
    }

    /// Brings the index pages that somebody missed; `then` is given no bytes, and looks again.
    pub(super) fn load_pages(&mut self, fault: IndexFault, now_ms: i64, then: OnLoaded<B>) {
        match fault {
            IndexFault::Cold { segment, range } => {
                let index = self.log.sealed_index(segment).expect("the fault came from it just now");
                self.load_cold(ColdPages { index: Arc::clone(index), range }, now_ms, then);
            }
            IndexFault::Damaged { segment, .. } => {
                self.log.on_index_damaged(segment);
                then(self, Err(LoadError::DamagedIndex(fault.to_string())), now_ms);
            }
        }
    }

    /// Brings pages of an index file into memory; `then` is given no bytes.
    pub(super) fn load_cold(&mut self, pages: ColdPages, now_ms: i64, then: OnLoaded<B>) {
        self.wait(Need::Pages(pages), Load { step: Step::Pages, then }, now_ms);
    }

    /// Ends all loads: what a master had begun for itself must not go on, and clients ask again.
    pub(super) fn fail_loads(&mut self, now_ms: i64) {
        self.loads.are_ending = true;
        for load in std::mem::take(&mut self.loads.waiting).into_values() {
            (load.then)(self, Err(LoadError::Deposed), now_ms);
        }
        self.loads.are_ending = false;
    }

    /// The driver has brought what a load needed: for pages nothing, for runs the bytes of each.
    pub fn on_loaded(&mut self, id: LoadId, result: Result<Vec<Bytes>, DiskError>, now_ms: i64) {
        // Each load is answered once, but some have been ended before.
        let Some(Load { step, then }) = self.loads.waiting.remove(&id) else { return };
        let pieces = match result {
            Ok(pieces) => pieces,
            Err(error) => return then(self, Err(error.into()), now_ms),
        };
        match step {
            Step::Finding { wanted, tries } => self.find_and_load(wanted, tries, now_ms, then),
            Step::Pages => then(self, Ok(Bytes::new()), now_ms),
            Step::Batch(offset) => {
                let record = cut_out(&pieces[0], offset);
                then(self, record, now_ms);
            }
            Step::Pieces(runs) => {
                let bytes = join(&runs, &pieces);
                then(self, Ok(bytes), now_ms);
            }
        }
    }

    fn find_and_load(&mut self, wanted: Wanted, tries: u32, now_ms: i64, then: OnLoaded<B>) {
        match self.find(wanted) {
            Ok(Found::Here(run)) => {
                let bytes = Bytes::copy_from_slice(run.as_ref());
                then(self, Ok(bytes), now_ms);
            }
            Ok(Found::Pages(_)) if tries >= PAGE_LOADS_MAX => {
                then(self, Err(LoadError::TooLittleMemory), now_ms)
            }
            Ok(Found::Pages(pages)) => {
                let step = Step::Finding { wanted, tries: tries + 1 };
                self.wait(Need::Pages(pages), Load { step, then }, now_ms);
            }
            Ok(Found::InBatch(run, offset)) => {
                self.wait(Need::Runs(smallvec![run]), Load { step: Step::Batch(offset), then }, now_ms);
            }
            Ok(Found::Record(run)) => {
                let step = Step::Pieces(smallvec![Run::File(run)]);
                self.wait(Need::Runs(smallvec![run]), Load { step, then }, now_ms);
            }
            Err(error) => then(self, Err(error), now_ms),
        }
    }

    fn find(&mut self, wanted: Wanted) -> Result<Found<B>, LoadError> {
        let found = match wanted {
            Wanted::At(offset) => self.log.locate(offset).map(|located| {
                located.map(|located| match located {
                    Located::Memory(run) => Found::Here(run),
                    Located::InBatch(run) => Found::InBatch(run, offset),
                })
            }),
            Wanted::Entry(queue, offset) => self.log.entry(queue, offset).map(|entry| {
                entry.and_then(|entry| match self.log.run_of(&entry)? {
                    Run::Memory(run) => Some(Found::Here(run)),
                    Run::File(run) => Some(Found::Record(run)),
                })
            }),
        };
        match found {
            Ok(found) => found.ok_or(LoadError::Missing),
            Err(IndexFault::Cold { segment, range }) => {
                let index = self.log.sealed_index(segment).expect("the fault came from it just now");
                Ok(Found::Pages(ColdPages { index: Arc::clone(index), range }))
            }
            Err(fault @ IndexFault::Damaged { segment, .. }) => {
                self.log.on_index_damaged(segment);
                Err(LoadError::DamagedIndex(fault.to_string()))
            }
        }
    }

    fn wait(&mut self, need: Need, load: Load<B>, now_ms: i64) {
        if self.loads.are_ending {
            return (load.then)(self, Err(LoadError::Deposed), now_ms);
        }
        if self.loads.waiting.len() >= LOADS_MAX {
            return (load.then)(self, Err(LoadError::Busy), now_ms);
        }
        let id = LoadId(self.loads.next_id);
        self.loads.next_id += 1;
        self.loads.waiting.insert(id, load);
        self.act(Action::Load { id, need });
    }
}

/// The runs one behind the other; those in files are what was read, in order.
fn join<B: Buffer>(runs: &[Run<B>], read: &[Bytes]) -> Bytes {
    if let ([Run::File(_)], [bytes]) = (runs, read) {
        return bytes.clone();
    }
    let mut read = read.iter();
    let mut joined = BytesMut::with_capacity(runs.iter().map(Run::bytes).sum::<u64>() as usize);
    for run in runs {
        match run {
            Run::Memory(run) => joined.extend_from_slice(run.as_ref()),
            Run::File(_) => joined.extend_from_slice(read.next().expect("a piece for each run of a file")),
        }
    }
    joined.freeze()
}

fn cut_out(batch: &Bytes, offset: LogOffset) -> Result<Bytes, LoadError> {
    let directory =
        RawDirectory(batch).verify().map_err(|error| LoadError::DamagedBatch(error.to_string()))?;
    let range = directory.find(offset).ok_or(LoadError::Missing)?;
    Ok(batch.slice(range))
}
