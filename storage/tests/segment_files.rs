//! Segments as readers see them, on a real file system: cold and loaded, while they are written, recycled and removed.

mod harness;
#[path = "harness/place.rs"]
mod place;

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use apogee_storage::driver::{Disk, DiskConfig, LoadIndexError, LogFiles, SegmentFile};
use apogee_storage::{
    Access, BatchIndex, Completion, DiskError, DiskOp, FileRun, IndexFault, LogConfig, LogFile, LogOffset,
    LogSource as _, NodeId, OpId, QueueKey, SealedIndex, SegmentInfo,
};
use harness::{Shard, append, identity, on_executor, open_disk};
use place::directory;

const SEGMENT: SegmentInfo = SegmentInfo { base: LogOffset(0), bytes: 4 << 20 };
const NEXT: SegmentInfo = SegmentInfo { base: LogOffset(4 << 20), bytes: 4 << 20 };

/// A disk of one directory, and the segments in it.
struct World {
    disk: Disk,
    files: LogFiles,
}

fn with_disk<F: Future<Output = ()>>(config: DiskConfig, test: impl FnOnce(World) -> F) {
    let Some(directory) = directory() else { return };
    let files = LogFiles::new(directory.path());
    fs::create_dir_all(files.log_path()).unwrap();
    on_executor(async {
        let disk = open_disk(files.clone(), config, ()).await;
        test(World { disk, files }).await;
    });
}

/// Bytes that follow from where they are and from a seed.
fn bytes_at(range: std::ops::Range<u64>, seed: u64) -> Vec<u8> {
    range.map(|at| ((at ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

impl World {
    fn path(&self, segment: SegmentInfo) -> PathBuf {
        self.files.path(LogFile::Segment(segment.base))
    }

    fn inode(&self, segment: SegmentInfo) -> u64 {
        fs::metadata(self.path(segment)).unwrap().ino()
    }

    async fn try_prepare(&self, segment: SegmentInfo, recycle: Option<LogOffset>) -> Result<(), DiskError> {
        match self.disk.execute(DiskOp::Prepare { segment, recycle, reserve_bytes: 0 }).await {
            Completion::Prepared { base, result } if base == segment.base => result,
            other => panic!("{other:?}"),
        }
    }

    async fn prepare(&self, segment: SegmentInfo, recycle: Option<LogOffset>) {
        self.try_prepare(segment, recycle).await.unwrap();
        assert_eq!(fs::metadata(self.path(segment)).unwrap().len(), segment.bytes);
    }

    /// Writes as the log does, past the page cache.
    async fn write(&self, segment: SegmentInfo, position: u64, len: u32, seed: u64) {
        let mut buffer = self.disk.alloc(len as usize);
        buffer.as_bytes_mut().copy_from_slice(&bytes_at(position..position + u64::from(len), seed));
        let (id, index, segment) = (OpId(1), BatchIndex(1), segment.base);
        let op = DiskOp::Write { id, index, segment, position, buffer: Rc::new(buffer), len };
        let written = self.disk.execute(op).await;
        assert!(matches!(written, Completion::Written { result: Ok(()), .. }), "{written:?}");
    }

    /// Makes a segment of zeros and writes all of it.
    async fn fill(&self, segment: SegmentInfo, seed: u64) {
        self.prepare(segment, None).await;
        for position in (0..segment.bytes).step_by(1 << 20) {
            self.write(segment, position, 1 << 20, seed).await;
        }
    }

    async fn remove(&self, segment: SegmentInfo) {
        match self.disk.execute(DiskOp::Remove { segment: segment.base }).await {
            Completion::Removed { result, .. } => result.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    async fn open(&self, segment: SegmentInfo) -> Rc<SegmentFile> {
        self.disk.segment_file(segment.base).await.unwrap()
    }
}

/// What `sendfile` would send.
fn through_descriptor(file: &SegmentFile, range: std::ops::Range<u64>) -> Vec<u8> {
    let file = File::from(file.fd().try_clone_to_owned().unwrap());
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut bytes, range.start).unwrap();
    bytes
}

async fn assert_reads(file: &Rc<SegmentFile>, range: std::ops::Range<u64>, seed: u64) {
    let wanted = bytes_at(range.clone(), seed);
    assert!(file.read(range.clone()).await.unwrap() == wanted, "{range:?} read");
    assert!(through_descriptor(file, range.clone()) == wanted, "{range:?} through the descriptor");
}

async fn eventually(mut met: impl FnMut() -> bool) {
    let started = Instant::now();
    while !met() {
        assert!(started.elapsed() < Duration::from_secs(10), "not met in time");
        glommio::timer::sleep(Duration::from_millis(1)).await;
    }
}

/// Removed files of this directory that this process still has open.
fn removed_and_open(directory: &Path) -> usize {
    let open = fs::read_dir("/proc/self/fd").unwrap();
    let links = open.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    links.filter(|file| file.starts_with(directory) && file.to_string_lossy().ends_with("(deleted)")).count()
}

// Reading

#[test]
fn what_was_written_past_the_cache_is_cold_until_it_is_loaded() {
    with_disk(DiskConfig::DEFAULT, |world| async move {
        world.fill(SEGMENT, 1).await;
        let file = world.open(SEGMENT).await;
        let whole = 0..SEGMENT.bytes;
        assert!(!file.is_resident(0..1) && !file.is_resident(whole.clone()));
        file.load(100_000..1_500_000).await.unwrap();
        assert!(file.is_resident(100_000..1_500_000));
        assert!(!file.is_resident(90_000..1_500_000) && !file.is_resident(100_000..1_510_000));
        assert_reads(&file, 100_000..1_500_000, 1).await;
        // Cold and of any length; nothing behind the end.
        assert_reads(&file, 2_000_001..2_000_100, 1).await;
        assert_reads(&file, whole, 1).await;
        let upto_end = file.read(SEGMENT.bytes - 10..SEGMENT.bytes + 10).await.unwrap();
        assert!(upto_end == bytes_at(SEGMENT.bytes - 10..SEGMENT.bytes, 1));
        assert!(file.read(SEGMENT.bytes + 1..SEGMENT.bytes + 10).await.unwrap().is_empty());
    });
}

#[test]
fn direct_writes_show_through_the_cache() {
    with_disk(DiskConfig::DEFAULT, |world| async move {
        world.fill(SEGMENT, 1).await;
        let file = world.open(SEGMENT).await;
        file.load(0..SEGMENT.bytes).await.unwrap();
        world.write(SEGMENT, 8192, 4096, 2).await;
        // How much beside it leaves the cache with it is the kernel's choice: the whole folio, large or small.
        assert!(!file.is_resident(8192..8193));
        assert_reads(&file, 8192..12_288, 2).await;
        assert_reads(&file, 0..8192, 1).await;
    });
}

#[test]
fn reads_are_served_in_their_order_whatever_they_want() {
    let one_at_a_time = DiskConfig { catch_up_reads_max: 1, ..DiskConfig::DEFAULT };
    with_disk(one_at_a_time, |world| async move {
        world.fill(SEGMENT, 1).await;
        let file = world.open(SEGMENT).await;
        let world = Rc::new(world);
        let done = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = Vec::new();
        for nth in 0..12u64 {
            let (file, world, done) = (file.clone(), world.clone(), done.clone());
            tasks.push(glommio::spawn_local(async move {
                let begin = nth * (300 << 10);
                // Loads of one page and of a whole piece, reads through the cache and past it.
                match nth % 4 {
                    0 => file.load(begin..begin + 1).await.unwrap(),
                    1 => file.load(begin..begin + (256 << 10)).await.unwrap(),
                    2 => assert_eq!(file.read(begin..begin + 5000).await.unwrap().len(), 5000),
                    _ => {
                        let run = FileRun { segment: SEGMENT.base, position: begin, len: 100 };
                        assert_eq!(world.disk.read(run).await.unwrap().as_ref().len(), 100);
                    }
                }
                done.borrow_mut().push(nth);
            }));
        }
        for task in tasks {
            task.await;
        }
        assert_eq!(*done.borrow(), (0..12).collect::<Vec<_>>());
    });
}

#[test]
fn a_load_nobody_waits_for_any_more_ends_and_gives_its_share_back() {
    let one_at_a_time = DiskConfig { catch_up_reads_max: 1, ..DiskConfig::DEFAULT };
    with_disk(one_at_a_time, |world| async move {
        world.fill(SEGMENT, 1).await;
        let file = world.open(SEGMENT).await;
        for nth in 0..8 {
            let mut load = pin!(file.load(nth << 19..(nth << 19) + 100_000));
            assert!(load.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        file.load(3 << 20..4 << 20).await.unwrap();
        assert!(file.is_resident(3 << 20..4 << 20));
    });
}

#[test]
fn a_segment_that_is_not_there_is_named() {
    with_disk(DiskConfig::DEFAULT, |world| async move {
        match world.disk.segment_file(LogOffset(77)).await {
            Err(error @ DiskError::Io { os_code: Some(libc::ENOENT), .. }) => {
                assert!(error.to_string().contains("00000000000000000077.seg"), "{error}");
            }
            other => panic!("{:?}", other.map(|file| file.segment())),
        }
    });
}

// Segments that leave

#[test]
fn the_file_of_a_segment_that_left_becomes_the_next_one() {
    with_disk(DiskConfig::DEFAULT, |world| async move {
        world.fill(SEGMENT, 1).await;
        let before = world.open(SEGMENT).await;
        before.load(0..SEGMENT.bytes).await.unwrap();
        drop(before);
        for index in [LogOffset(0), NEXT.base] {
            world.files.write_index(index, b"index").unwrap();
        }
        let inode = world.inode(SEGMENT);
        world.prepare(NEXT, Some(SEGMENT.base)).await;
        assert_eq!(world.inode(NEXT), inode);
        assert!(!world.path(SEGMENT).exists());
        // The index of the one that left says where the queues of the next one begin.
        assert_eq!(world.files.indexes().unwrap().len(), 2);
        let after = world.open(NEXT).await;
        assert!(!after.is_resident(0..SEGMENT.bytes), "nothing of the old segment fills the cache");
        assert_reads(&after, 0..4096, 1).await;
        world.write(NEXT, 0, 4096, 2).await;
        assert_reads(&after, 0..4096, 2).await;
        assert_reads(&after, 4096..8192, 1).await;
        let error = world.disk.segment_file(SEGMENT.base).await.map(drop).unwrap_err().to_string();
        assert!(error.ends_with("it has left the log"), "{error}");
        let run = FileRun { segment: SEGMENT.base, position: 0, len: 10 };
        let error = world.disk.read(run).await.map(drop).unwrap_err().to_string();
        assert!(error.ends_with("it has left the log"), "{error}");

        let third = SegmentInfo { base: NEXT.end(), bytes: NEXT.bytes };
        drop(after);
        world.prepare(third, Some(NEXT.base)).await;
        assert_eq!(world.inode(third), inode);
        assert_eq!(world.files.indexes().unwrap(), [NEXT.base]);
    });
}

#[test]
fn a_file_that_is_read_is_not_written_anew() {
    with_disk(DiskConfig::DEFAULT, |world| async move {
        world.fill(SEGMENT, 1).await;
        let reading = world.open(SEGMENT).await;
        let inode = world.inode(SEGMENT);
        world.prepare(NEXT, Some(SEGMENT.base)).await;
        assert_ne!(world.inode(NEXT), inode);
        assert!(!world.path(SEGMENT).exists());
        for position in (0..NEXT.bytes).step_by(1 << 20) {
            world.write(NEXT, position, 1 << 20, 2).await;
        }
        assert_reads(&reading, 0..SEGMENT.bytes, 1).await;
        assert_reads(&world.open(NEXT).await, 0..NEXT.bytes, 2).await;
        assert_eq!(
            removed_and_open(world.files.log_path()),
            2,
            "the reader's, and the one that frees its blocks"
        );
        drop(reading);
        eventually(|| removed_and_open(world.files.log_path()) == 0).await;
    });
}

#[test]
fn a_file_that_is_about_to_be_read_is_not_written_anew() {
    with_disk(DiskConfig::DEFAULT, |world| async move {
        world.fill(SEGMENT, 1).await;
        let inode = world.inode(SEGMENT);
        {
            let mut opening = pin!(world.disk.segment_file(SEGMENT.base));
            assert!(opening.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            world.prepare(NEXT, Some(SEGMENT.base)).await;
            assert_ne!(world.inode(NEXT), inode);
            match opening.await {
                Ok(opened) => assert_reads(&opened, 0..SEGMENT.bytes, 1).await,
                Err(DiskError::Io { os_code: Some(libc::ENOENT), .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        eventually(|| removed_and_open(world.files.log_path()) == 0).await;
    });
}

#[test]
fn a_file_that_will_not_do_is_replaced() {
    let shorter = SegmentInfo { bytes: SEGMENT.bytes - 4096, ..SEGMENT };
    with_disk(DiskConfig::DEFAULT, |world| async move {
        // Of another size.
        world.prepare(shorter, None).await;
        let inode = world.inode(shorter);
        // Keeps the number from being given to another file.
        let kept = File::open(world.path(shorter)).unwrap();
        world.prepare(NEXT, Some(shorter.base)).await;
        assert_ne!(world.inode(NEXT), inode);
        assert!(!world.path(shorter).exists());
        drop(kept);
        // With holes, as a copy may have.
        let third = SegmentInfo { base: NEXT.end(), bytes: NEXT.bytes };
        let kept = File::options().write(true).open(world.path(NEXT)).unwrap();
        // SAFETY: a plain system call on an open descriptor.
        let punched = unsafe {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            libc::fallocate(kept.as_raw_fd(), mode, 1 << 20, 1 << 20)
        };
        assert_eq!(punched, 0);
        let inode = world.inode(NEXT);
        world.prepare(third, Some(NEXT.base)).await;
        assert_ne!(world.inode(third), inode);
        // Gone altogether.
        let fourth = SegmentInfo { base: third.end(), bytes: third.bytes };
        fs::remove_file(world.path(third)).unwrap();
        world.prepare(fourth, Some(third.base)).await;
    });
}

#[test]
fn a_removed_segment_is_read_to_the_end_by_those_who_have_it() {
    with_disk(DiskConfig::DEFAULT, |world| async move {
        world.fill(SEGMENT, 1).await;
        world.fill(NEXT, 2).await;
        let reading = world.open(SEGMENT).await;
        for index in [LogOffset(0), NEXT.base] {
            world.files.write_index(index, b"index").unwrap();
        }
        world.remove(SEGMENT).await;
        assert!(!world.path(SEGMENT).exists());
        assert_eq!(world.files.indexes().unwrap().len(), 2);
        assert_reads(&reading, 0..SEGMENT.bytes, 1).await;
        assert!(world.disk.segment_file(SEGMENT.base).await.is_err());
        drop(reading);
        eventually(|| removed_and_open(world.files.log_path()) == 0).await;
        world.remove(NEXT).await;
        assert_eq!(world.files.indexes().unwrap(), [NEXT.base]);
        assert_eq!(removed_and_open(world.files.log_path()), 0);
        // What is not there is as good as removed.
        world.remove(NEXT).await;
    });
}

#[test]
fn files_beyond_the_limit_are_closed_unless_they_are_read() {
    let config = DiskConfig { open_files_max: 2, ..DiskConfig::DEFAULT };
    with_disk(config, |world| async move {
        let segments: Vec<_> =
            (0..5).map(|nth| SegmentInfo { base: LogOffset(nth << 20), bytes: 1 << 20 }).collect();
        for segment in &segments {
            world.fill(*segment, segment.base.0).await;
        }
        let held = [world.open(segments[0]).await, world.open(segments[1]).await];
        for segment in &segments[2..] {
            assert_reads(&world.open(*segment).await, 0..4096, segment.base.0).await;
        }
        assert!(Rc::ptr_eq(&held[0], &world.open(segments[0]).await));
        assert!(Rc::ptr_eq(&held[1], &world.open(segments[1]).await));
    });
}

// Index pages

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1 << 20,
        batch_bytes_max: 128 << 10,
        batch_bytes_target: 64 << 10,
        tail_cache_bytes: 128 << 10,
        reserve_bytes: 0,
        ..LogConfig::new(identity().group_id(), NodeId(1))
    }
}

/// Leaves a log behind whose first segment is sealed, with 1000 queues.
fn seal_segment(path: &Path) {
    on_executor(async {
        let mut shard = Shard::open(path, config(), DiskConfig::DEFAULT).await;
        let mut id = 0;
        while shard.log.sealed_index(LogOffset(0)).is_none() {
            for _ in 0..100 {
                shard.log.stage([append(id % 1000, id, 500)]).unwrap();
                id += 1;
            }
            shard.settle().await;
            assert!(id < 20_000, "nothing was sealed");
        }
    });
}

/// A disk, and the index of a sealed segment of which only the beginning was read.
fn with_cold_index<F: Future<Output = ()>>(test: impl FnOnce(Disk, PathBuf, Arc<SealedIndex>) -> F) {
    let Some(directory) = directory() else { return };
    seal_segment(directory.path());
    let files = LogFiles::new(directory.path());
    let path = files.path(LogFile::Index(LogOffset(0)));
    // Nobody has it mapped any more.
    let file = File::open(&path).unwrap();
    // SAFETY: a plain system call on an open descriptor.
    assert_eq!(unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
    let index = Arc::new(SealedIndex::open(files.map_index(LogOffset(0)).unwrap()).unwrap());
    on_executor(async { test(open_disk(files, DiskConfig::DEFAULT, ()).await, path, index).await });
}

#[test]
fn cold_pages_of_an_index_are_brought_in() {
    with_cold_index(|disk, _, index| async move {
        let mut loads = 0;
        let span = loop {
            match index.view(Access::Resident).queue(QueueKey(999)) {
                Ok(span) => break span.unwrap(),
                Err(IndexFault::Cold { segment, range }) => {
                    assert_eq!(segment, LogOffset(0));
                    disk.load_index(&index, range).await.unwrap();
                    loads += 1;
                }
                Err(fault) => panic!("{fault}"),
            }
        };
        assert_eq!((span.begin.0, loads), (0, 1));
    });
}

#[test]
fn damaged_and_missing_pages_of_an_index_are_told_apart() {
    with_cold_index(|disk, path, index| async move {
        let len = fs::metadata(&path).unwrap().len();
        disk.load_index(&index, 0..len).await.unwrap();
        File::options().write(true).open(&path).unwrap().write_all_at(b"damage", len - 4096).unwrap();
        match disk.load_index(&index, 0..len).await.unwrap_err() {
            LoadIndexError::Fault(IndexFault::Damaged { segment, .. }) => assert_eq!(segment, LogOffset(0)),
            other => panic!("{other}"),
        }
        fs::remove_file(&path).unwrap();
        match disk.load_index(&index, 0..len).await.unwrap_err() {
            LoadIndexError::Disk(error @ DiskError::Io { os_code: Some(libc::ENOENT), .. }) => {
                assert!(error.to_string().contains("00000000000000000000.idx"), "{error}");
            }
            other => panic!("{other}"),
        }
    });
}

#[test]
fn a_preparation_ends_when_the_disk_is_stopped_and_leaves_nothing() {
    with_disk(DiskConfig::default(), |world| async move {
        let large = SegmentInfo { base: LogOffset(0), bytes: 2 << 30 };
        let world = Rc::new(world);
        let preparing = {
            let world = world.clone();
            glommio::spawn_local(async move { world.try_prepare(large, None).await })
        };
        while fs::read_dir(world.files.log_path()).unwrap().count() == 0 {
            glommio::timer::sleep(Duration::from_millis(1)).await;
        }
        let begun = Instant::now();
        world.disk.stop().await;
        let stopped = preparing.await;
        assert!(
            stopped.is_err() && begun.elapsed() < Duration::from_secs(3),
            "{stopped:?} {:?}",
            begun.elapsed()
        );
        assert_eq!(fs::read_dir(world.files.log_path()).unwrap().count(), 0);
    });
}
