//! A log on a real directory, driven on one glommio executor. Shared by the tests on disk and the benchmark.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use apogee_storage::driver::{Disk, DiskConfig, DmaBuffer, Identity, LogFiles, ShardDirectory};
use apogee_storage::{
    Append, CommitLog, Committed, Completion, DerivedState, DiskOp, LogConfig, NodeId, Place, QueueKey,
    Record, recover,
};
use glommio::channels::local_channel::{LocalReceiver, LocalSender, new_unbounded};
use smallvec::SmallVec;

/// A record whose bytes follow from its number and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbered {
    pub(crate) id: u64,
    pub(crate) len: u32,
}

impl Record for Numbered {
    fn encoded_len(&self) -> u32 {
        self.len
    }

    fn encode(&self, _place: Place, out: &mut [u8]) {
        let word =
            |nth: usize| (self.id ^ (nth as u64) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        // Whole words apart from the rest: copies of a length known beforehand cost next to nothing.
        let (words, rest) = out.as_chunks_mut::<8>();
        for (nth, piece) in words.iter_mut().enumerate() {
            *piece = word(nth);
        }
        rest.copy_from_slice(&word(words.len())[..rest.len()]);
    }
}

pub(crate) fn append(queue: u64, id: u64, len: u32) -> Append<Numbered> {
    Append { queue: QueueKey(queue), tag_hash: 0, key_hashes: SmallVec::new(), record: Numbered { id, len } }
}

pub(crate) fn identity() -> Identity {
    Identity { cluster: "test".to_owned(), group: "group".to_owned(), shard: 3, node: NodeId(1) }
}

/// Runs on an executor of its own thread-to-be.
pub(crate) fn on_executor<T>(work: impl Future<Output = T>) -> T {
    glommio::LocalExecutorBuilder::default()
        .io_memory(1 << 20)
        .blocking_thread_pool_placement(glommio::PoolPlacement::Unbound(1))
        .make()
        .expect("an executor")
        .run(work)
}

/// The log of a directory and what carries out its wishes.
pub(crate) struct Shard {
    pub(crate) log: CommitLog<DmaBuffer, Numbered>,
    pub(crate) disk: Rc<Disk>,
    /// Keeps the directory locked.
    _directory: ShardDirectory,
    completions: LocalReceiver<Completion>,
    sender: Rc<LocalSender<Completion>>,
    under_way: usize,
    /// Each sync takes this much longer: as on a disk that is slower than the one at hand.
    pub(crate) slower_sync: Duration,
}

pub(crate) async fn open_disk<S>(files: LogFiles, config: DiskConfig, empty: S) -> Disk
where
    S: DerivedState + Clone + Send + Sync + 'static,
{
    Disk::open(files, config, Arc::new(move || Box::new(empty.clone()))).await.unwrap()
}

impl Shard {
    pub(crate) async fn open(path: &Path, config: LogConfig, disk_config: DiskConfig) -> Shard {
        Shard::open_with(path, config, disk_config, ()).await.0
    }

    /// Opens with the state of an empty log; gives also what the log's control records make of it.
    pub(crate) async fn open_with<S>(
        path: &Path,
        config: LogConfig,
        disk_config: DiskConfig,
        empty: S,
    ) -> (Shard, S)
    where
        S: DerivedState + Clone + Send + Sync + 'static,
    {
        let directory = ShardDirectory::open(path, &identity()).unwrap();
        let mut state = empty.clone();
        let recovered = recover(directory.files(), &config, &mut state).unwrap();
        let term = recovered.next_term();
        let log = CommitLog::open(config, recovered, term).unwrap();
        let disk = Rc::new(open_disk(directory.files().clone(), disk_config, empty).await);
        let (sender, completions) = new_unbounded();
        let shard = Shard {
            log,
            disk,
            _directory: directory,
            completions,
            sender: Rc::new(sender),
            under_way: 0,
            slower_sync: Duration::ZERO,
        };
        (shard, state)
    }

    /// Starts whatever the log wants done.
    pub(crate) fn submit(&mut self) {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        while let Some(op) = self.log.poll_op(now_ms, |len| self.disk.alloc(len)) {
            let (disk, sender) = (self.disk.clone(), self.sender.clone());
            self.under_way += 1;
            let slower = if matches!(op, DiskOp::Sync { .. }) { self.slower_sync } else { Duration::ZERO };
            glommio::spawn_local(async move {
                if !slower.is_zero() {
                    glommio::timer::sleep(slower).await;
                }
                let completion = disk.execute(op).await;
                sender.try_send(completion).expect("the channel is unbounded and open");
            })
            .detach();
        }
    }

    /// Waits for one operation and gives its answer to the log.
    pub(crate) async fn complete_one(&mut self) {
        let completion = self.completions.recv().await.expect("a sender is held");
        self.under_way -= 1;
        self.log.on_completion(completion);
    }

    /// Until nothing is under way; gives what was committed.
    pub(crate) async fn settle(&mut self) -> Vec<Committed<DmaBuffer>> {
        self.submit();
        while self.under_way > 0 {
            self.complete_one().await;
            self.submit();
        }
        std::iter::from_fn(|| self.log.take_committed()).collect()
    }
}
