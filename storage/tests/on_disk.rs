//! The log on a real file system, through glommio.
//!
//! Skipped, with a word, where the machine has no io_uring or the file system no direct I/O; never under `CI=true`.

#[path = "on_disk/group.rs"]
mod group;
mod harness;
#[path = "on_disk/kill.rs"]
mod kill;
#[path = "harness/place.rs"]
mod place;
#[path = "harness/reading.rs"]
mod reading;

use std::fs::DirEntry;
use std::os::fd::{BorrowedFd, OwnedFd};

use apogee_storage::driver::{DirectoryError, DiskConfig, Identity, LogFiles, ShardDirectory};
use apogee_storage::{
    AppendRefused, DiskError, FileRun, LogConfig, LogOffset, LogSource as _, NodeId, recover,
};
use harness::{Numbered, Shard, append, identity, on_executor, open_disk};
use place::directory;
use reading::{bytes_of, read_all};

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 2 << 20,
        batch_bytes_max: 1 << 20,
        tail_cache_bytes: 256 << 10,
        reserve_bytes: 0,
        ..LogConfig::new(identity().group_id(), NodeId(1))
    }
}

const FEW_FILES: DiskConfig = DiskConfig { open_files_max: 2, ..DiskConfig::DEFAULT };

#[test]
fn appended_rolled_and_reopened_records_are_what_they_were() {
    let Some(directory) = directory() else { return };
    let mut wanted: [Vec<u8>; 3] = Default::default();
    on_executor(async {
        let mut shard = Shard::open(directory.path(), config(), FEW_FILES).await;
        for id in 0..300 {
            let record = Numbered { id, len: (1 + id * 7919 % 60_000) as u32 };
            wanted[id as usize % 3].extend(bytes_of(record));
            shard.log.stage([append(id % 3, id, record.len)]).unwrap();
            shard.submit();
            if id % 10 == 0 {
                shard.settle().await;
            }
        }
        shard.settle().await;
        for (queue, wanted) in wanted.iter().enumerate() {
            assert!(read_all(&shard, queue as u64).await == *wanted, "queue {queue} before the restart");
        }
    });
    let segments = std::fs::read_dir(directory.path().join("log")).unwrap().count();
    assert!(segments >= 5, "300 records of 30 KB in segments of 2 MiB: {segments}");
    on_executor(async {
        let mut shard = Shard::open(directory.path(), config(), FEW_FILES).await;
        for (queue, wanted) in wanted.iter_mut().enumerate() {
            assert!(read_all(&shard, queue as u64).await == *wanted, "queue {queue} after the restart");
            let record = Numbered { id: 1000, len: 10 };
            assert_eq!(shard.log.stage([append(queue as u64, 1000, 10)]).unwrap().first_queue_offset.0, 100);
            wanted.extend(bytes_of(record));
        }
        shard.settle().await;
        for (queue, wanted) in wanted.iter().enumerate() {
            assert!(read_all(&shard, queue as u64).await == *wanted, "queue {queue} goes on");
        }
    });
}

#[test]
fn damage_is_told_with_file_and_position() {
    use std::os::unix::fs::FileExt as _;
    let Some(directory) = directory() else { return };
    on_executor(async {
        let mut shard = Shard::open(directory.path(), config(), FEW_FILES).await;
        for id in 0..3 {
            shard.log.stage([append(0, id, 100)]).unwrap();
            shard.settle().await;
        }
    });
    let file = directory.path().join("log/00000000000000000000.seg");
    std::fs::File::options().write(true).open(&file).unwrap().write_all_at(b"damage", 4096 + 200).unwrap();
    let shard = ShardDirectory::open(directory.path(), &identity()).unwrap();
    let error = recover(shard.files(), &config(), &mut ()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{} at 4096: batch 2 is damaged", file.display())), "{error}");
}

#[test]
fn segment_that_leaves_too_little_space_is_refused() {
    let Some(directory) = directory() else { return };
    on_executor(async {
        let greedy = LogConfig { reserve_bytes: u64::MAX, ..config() };
        let mut shard = Shard::open(directory.path(), greedy, FEW_FILES).await;
        shard.log.stage([append(0, 1, 100)]).unwrap();
        shard.settle().await;
        assert_eq!(shard.log.take_failed().unwrap().count, 1);
        match shard.log.stage([append(0, 2, 100)]) {
            Err(AppendRefused::NoSpace(error @ DiskError::NoSpace { .. })) => {
                assert!(error.to_string().contains("bytes are free in"), "{error}");
            }
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(std::fs::read_dir(directory.path().join("log")).unwrap().count(), 0);
}

#[test]
fn read_of_a_segment_that_is_not_there_names_it() {
    let Some(directory) = directory() else { return };
    on_executor(async {
        std::fs::create_dir(directory.path().join("log")).unwrap();
        let disk = open_disk(LogFiles::new(directory.path()), FEW_FILES, ()).await;
        let run = FileRun { segment: LogOffset(77), position: 0, len: 10 };
        match disk.read(run).await.unwrap_err() {
            error @ DiskError::Io { os_code: Some(libc::ENOENT), .. } => {
                assert!(error.to_string().contains("open segment 77"), "{error}");
            }
            other => panic!("{other}"),
        }
    });
}

#[test]
fn unfinished_segment_is_removed_and_foreign_files_are_left() {
    let Some(directory) = directory() else { return };
    let log = directory.path().join("log");
    std::fs::create_dir(&log).unwrap();
    std::fs::write(log.join("00000000000000000000.seg.tmp"), b"half").unwrap();
    std::fs::write(log.join("probe.1.1.tmp"), b"probe").unwrap();
    std::fs::write(log.join("notes.txt"), b"mine").unwrap();
    let shard = ShardDirectory::open(directory.path(), &identity()).unwrap();
    assert!(shard.files().segments().unwrap().is_empty());
    let names: Vec<_> = std::fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["notes.txt"]);
}

// Directory, lock and identity

#[test]
fn directory_in_use_is_refused_and_its_holder_named() {
    let Some(directory) = directory() else { return };
    let held = ShardDirectory::open(directory.path(), &identity()).unwrap();
    match ShardDirectory::open(directory.path(), &identity()) {
        Err(error @ DirectoryError::Locked { .. }) => {
            let text = error.to_string();
            assert!(
                text.contains(&format!("in use by another process (pid {})", std::process::id())),
                "{text}"
            );
        }
        other => panic!("{other:?}"),
    }
    drop(held);
    ShardDirectory::open(directory.path(), &identity()).unwrap();
}

#[test]
fn directory_is_let_go_even_if_a_process_is_being_started() {
    let Some(directory) = directory() else { return };
    let held = ShardDirectory::open(directory.path(), &identity()).unwrap();
    // What such a process has between `fork` and `exec`.
    let lock = directory.path().canonicalize().unwrap().join("lock");
    let is_lock = |entry: &DirEntry| std::fs::read_link(entry.path()).is_ok_and(|file| file == lock);
    let open_files = std::fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap);
    let copies: Vec<OwnedFd> = open_files
        .filter(is_lock)
        .map(|entry| {
            let descriptor = entry.file_name().to_str().unwrap().parse().unwrap();
            // SAFETY: `held` keeps it open.
            unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned().unwrap()
        })
        .collect();
    assert_eq!(copies.len(), 1, "who has the lock?");
    drop(held);
    ShardDirectory::open(directory.path(), &identity()).unwrap();
}

#[test]
fn data_of_another_shard_is_refused() {
    let Some(directory) = directory() else { return };
    drop(ShardDirectory::open(directory.path(), &identity()).unwrap());
    let others = [
        ("cluster", Identity { cluster: "other".to_owned(), ..identity() }),
        ("group", Identity { group: "other".to_owned(), ..identity() }),
        ("shard", Identity { shard: 4, ..identity() }),
        ("node", Identity { node: NodeId(2), ..identity() }),
    ];
    for (field, other) in others {
        let error = ShardDirectory::open(directory.path(), &other).unwrap_err().to_string();
        assert!(error.contains(&format!("the data belongs to {field} ")), "{error}");
    }
    ShardDirectory::open(directory.path(), &identity()).unwrap();
}

#[test]
fn identity_that_cannot_be_read_is_refused() {
    let Some(directory) = directory() else { return };
    let table: [(&[u8], &str); 5] = [
        (b"", "format expected"),
        (b"format: 1\ncluster: test\n", "directory format 1; this program knows format 2 only"),
        (b"format: one\n", "format is \"one\""),
        (b"format: 2\nshard: 3\n", "cluster expected, found \"shard: 3\""),
        (b"\xff\xff", "it is not text"),
    ];
    for (content, expected) in table {
        std::fs::write(directory.path().join("identity"), content).unwrap();
        let error = ShardDirectory::open(directory.path(), &identity()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn identity_of_names_that_break_its_lines_is_refused() {
    let Some(directory) = directory() else { return };
    for cluster in ["", "two\nlines", &"x".repeat(256)] {
        let broken = Identity { cluster: cluster.to_owned(), ..identity() };
        let error = ShardDirectory::open(directory.path(), &broken).unwrap_err().to_string();
        assert!(error.contains("cannot be part of an identity"), "{error}");
    }
}

#[test]
fn group_number_follows_from_the_names_alone() {
    assert_eq!(identity().group_id().0, 0x7d92_d87d_cea6_3ad3);
    let other = Identity { node: NodeId(2), ..identity() };
    assert_eq!(other.group_id(), identity().group_id(), "all nodes of a group write the same batches");
    let other = Identity { shard: 4, ..identity() };
    assert_ne!(other.group_id(), identity().group_id());
}
