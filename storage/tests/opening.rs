//! Opening and inspecting a log in a real directory: with sealed segments, beside its own writer, and after damage.

mod harness;
#[path = "harness/place.rs"]
mod place;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use apogee_storage::driver::{DiskConfig, Identity, LogFiles, ShardDirectory};
use apogee_storage::inspect::{Problem, VerifyReport, Wrong, batches, records, verify};
use apogee_storage::{
    LogConfig, LogFile, LogOffset, NodeId, QueueKey, RecoveryReport, ReplacedBy, Retention, recover,
};
use harness::{Shard, append, identity, on_executor};
use place::directory;

const SEGMENT: u64 = 1 << 20;

fn config(retained: Option<u64>) -> LogConfig {
    LogConfig {
        segment_bytes: SEGMENT,
        batch_bytes_max: 256 << 10,
        batch_bytes_target: 64 << 10,
        tail_cache_bytes: 256 << 10,
        reserve_bytes: 0,
        snapshot_pause_ms: 0,
        retention: Retention { bytes: retained, ..Retention::default() },
        ..LogConfig::new(identity().group_id(), NodeId(1))
    }
}

/// Appends records of all lengths to four queues, one of them the control records'.
async fn fill(directory: &Path, retained: Option<u64>, records: u64) {
    let mut shard = Shard::open(directory, config(retained), DiskConfig::DEFAULT).await;
    for id in 0..records {
        let queue = if id % 10 == 0 { QueueKey::CONTROL.0 } else { id % 3 };
        shard.log.stage([append(queue, id, (1 + id * 7919 % 20_000) as u32)]).unwrap();
        shard.submit();
        if id % 8 == 0 {
            shard.settle().await;
            shard.log.on_tick();
        }
    }
    shard.settle().await;
}

fn checked(directory: &Path) -> (VerifyReport, Vec<Problem>) {
    let group = Identity::read(directory).unwrap().map(|identity| identity.group_id());
    let mut problems = Vec::new();
    let files = LogFiles::new(directory);
    let report = verify(&files, group, &mut |problem| problems.push(problem), &mut |_| {});
    (report, problems)
}

fn opened(directory: &Path) -> RecoveryReport {
    let shard = ShardDirectory::open(directory, &identity()).unwrap();
    recover(shard.files(), &config(None), &mut ()).unwrap().report
}

#[test]
fn log_is_checked_and_listed_beside_its_writer() {
    let Some(directory) = directory() else { return };
    let is_done = Arc::new(AtomicBool::new(false));
    let (path, stop) = (directory.path().to_owned(), Arc::clone(&is_done));
    let inspector = std::thread::spawn(move || {
        let (mut rounds, mut end) = (0, LogOffset(0));
        while !stop.load(Ordering::Acquire) {
            if !path.join("identity").exists() {
                continue;
            }
            let (report, problems) = checked(&path);
            assert!(problems.is_empty(), "{problems:?}");
            assert!(report.end >= end, "the log ended at {end}, then at {}", report.end);
            end = report.end;
            let listed = batches(&LogFiles::new(&path), None, end).filter(Result::is_err).count();
            assert_eq!(listed, 0);
            rounds += 1;
        }
        rounds
    });
    // Segments leave and are recycled all the time.
    on_executor(fill(directory.path(), Some(4 * SEGMENT), 2000));
    is_done.store(true, Ordering::Release);
    assert!(inspector.join().unwrap() > 0, "the inspector had no time");
    let (report, problems) = checked(directory.path());
    assert_eq!(problems, []);
    assert!(report.begin > LogOffset(0) && report.indexes_compared >= 2, "{report:?}");
    assert_eq!(report.last_index, opened(directory.path()).last_index);
}

#[test]
fn sealed_segments_are_opened_by_their_indexes_and_repaired() {
    let Some(directory) = directory() else { return };
    on_executor(fill(directory.path(), None, 800));
    let (files, whole) = (LogFiles::new(directory.path()), opened(directory.path()));
    assert!(whole.sealed_segments >= 5, "{whole:?}");
    assert!(whole.snapshot.is_some() && whole.bytes_read < whole.bytes, "{whole:?}");
    assert_eq!(records(&files, None, LogOffset(0), None).map(Result::unwrap).count() as u64, whole.records);

    let index = files.path(LogFile::Index(LogOffset(SEGMENT)));
    let good = fs::read(&index).unwrap();
    for damage in ["missing", "damaged", "unfinished"] {
        match damage {
            "missing" => fs::remove_file(&index).unwrap(),
            "damaged" => {
                fs::write(&index, [&good[..50], b"damage", &good[56..]].concat()).unwrap();
            }
            _ => {
                fs::rename(&index, index.with_extension("idx.tmp")).unwrap();
            }
        }
        assert_eq!(checked(directory.path()).1.len(), 1, "{damage}");
        let report = opened(directory.path());
        let [replaced] = &report.indexes_replaced[..] else { panic!("{damage}: {report:?}") };
        assert_eq!((Path::new(&replaced.file), replaced.by), (&*index, ReplacedBy::Rebuilt));
        assert!(fs::read(&index).unwrap() == good, "{damage}: made anew, it is the same");
        assert!(!index.with_extension("idx.tmp").exists());
        assert_eq!(checked(directory.path()).1, []);
    }
}

#[test]
fn damage_in_the_middle_is_named_by_whoever_meets_it() {
    let Some(directory) = directory() else { return };
    on_executor(fill(directory.path(), None, 400));
    let files = LogFiles::new(directory.path());
    let segment = files.path(LogFile::Segment(LogOffset(SEGMENT)));
    let hit = batches(&files, None, LogOffset(SEGMENT)).nth(3).unwrap().unwrap();
    let file = fs::File::options().write(true).open(&segment).unwrap();
    file.write_all_at(b"damage", hit.position + 100).unwrap();

    // Opening does not read it, a check does.
    opened(directory.path());
    let (_, problems) = checked(directory.path());
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert_eq!((Path::new(&problem.file), problem.position), (&*segment, hit.position));
    assert!(matches!(problem.wrong, Wrong::Missing { index, .. } if index == Some(hit.header.index())));

    // Nor does it go unnoticed when the segment has to be read.
    fs::remove_file(files.path(LogFile::Index(LogOffset(SEGMENT)))).unwrap();
    let shard = ShardDirectory::open(directory.path(), &identity()).unwrap();
    let error = recover(shard.files(), &config(None), &mut ()).unwrap_err().to_string();
    let expected =
        format!("{} at {}: batch {} is damaged", segment.display(), hit.position, hit.header.index());
    assert!(error.starts_with(&expected), "{error}");
}
