//! What the log adds to the disk: group commit through the log beside the bare direct write and sync of the same sizes.
//!
//!     cargo bench -p apogee-storage --bench append -- --dir DIR [--rounds 5] [--ops 400]
//!
//! Run by `cargo test` it does a small round, so that it cannot rot. Each size is measured in turns, floor and log, so
//! that what disturbs the machine disturbs both. Printed: medians over all operations, p99, the ratio of the medians,
//! and the spread of the rounds' medians. Not measured: throughput of many appenders, reads, sockets.

#[path = "../tests/harness/mod.rs"]
mod harness;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use apogee_storage::driver::{Disk, DiskConfig, LogFiles, check_direct_io};
use apogee_storage::format::BLOCK_LEN;
use apogee_storage::{BatchIndex, Completion, DiskOp, LogConfig, LogOffset, NodeId, OpId, SegmentInfo};
use harness::{Shard, append, identity, on_executor, open_disk};
use smallvec::smallvec;

const SIZES: [u32; 3] = [4 << 10, 64 << 10, 256 << 10];
const RECORD_LEN: u32 = 1024;
/// Of a record's entry in the directory, and of the header.
const ENTRY_LEN: u32 = 40;
const HEADER_LEN: u32 = 128;

struct Options {
    dir: PathBuf,
    rounds: usize,
    ops: usize,
}

fn options() -> Options {
    let mut options = Options { dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")), rounds: 5, ops: 400 };
    let mut args = std::env::args().skip(1);
    let mut measured = false;
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg} needs a value"));
        match arg.as_str() {
            "--bench" => measured = true,
            "--dir" => options.dir = value().into(),
            "--rounds" => options.rounds = value().parse().expect("--rounds takes a number"),
            "--ops" => options.ops = value().parse().expect("--ops takes a number"),
            other => panic!("unknown argument {other}; known are --dir, --rounds, --ops"),
        }
    }
    if !measured {
        (options.rounds, options.ops) = (1, 5);
    }
    options
}

#[derive(Default)]
struct Samples {
    rounds: Vec<Vec<Duration>>,
}

impl Samples {
    fn quantile(mut samples: Vec<Duration>, quantile: f64) -> Duration {
        samples.sort_unstable();
        samples[((samples.len() - 1) as f64 * quantile) as usize]
    }

    fn all(&self, quantile: f64) -> Duration {
        Samples::quantile(self.rounds.concat(), quantile)
    }

    /// Least and greatest of the rounds' medians.
    fn spread(&self) -> (Duration, Duration) {
        let medians = self.rounds.iter().map(|round| Samples::quantile(round.clone(), 0.5));
        let medians: Vec<Duration> = medians.collect();
        (
            *medians.iter().min().expect("one round at least"),
            *medians.iter().max().expect("one round at least"),
        )
    }
}

fn us(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1000.0
}

fn print_line(name: &str, samples: &Samples, floor: Option<&Samples>) {
    let (least, most) = samples.spread();
    let ratio = floor.map_or(1.0, |floor| us(samples.all(0.5)) / us(floor.all(0.5)));
    println!(
        "{name:<34} {:>9.1} {:>9.1} {ratio:>7.2} {:>9.1} .. {:.1}",
        us(samples.all(0.5)),
        us(samples.all(0.99)),
        us(least),
        us(most)
    );
}

/// The bare disk: one direct write, then one sync, in a segment made as the log's are.
struct Floor {
    disk: Rc<Disk>,
    segment: SegmentInfo,
    position: u64,
}

impl Floor {
    async fn new(directory: &Path, bytes: u64) -> Floor {
        std::fs::create_dir_all(directory.join("log")).expect("a directory for the floor");
        let disk = Rc::new(open_disk(LogFiles::new(directory), DiskConfig::default()).await);
        let segment = SegmentInfo { base: LogOffset(0), bytes };
        match disk.execute(DiskOp::Prepare { segment, recycle: None, reserve_bytes: 0 }).await {
            Completion::Prepared { result: Ok(()), .. } => Floor { disk, segment, position: 0 },
            other => panic!("{other:?}"),
        }
    }

    async fn write_and_sync(&mut self, len: u32, sync: bool) -> Duration {
        if self.position + u64::from(len) > self.segment.bytes {
            self.position = 0;
        }
        let mut buffer = self.disk.alloc(len as usize);
        buffer.as_bytes_mut().fill(0x5a);
        let (id, index, segment) = (OpId(1), BatchIndex(1), self.segment.base);
        let begun = Instant::now();
        let op = DiskOp::Write { id, index, segment, position: self.position, buffer: Rc::new(buffer), len };
        let written = self.disk.execute(op).await;
        assert!(matches!(written, Completion::Written { result: Ok(()), .. }), "{written:?}");
        if sync {
            let synced = self.disk.execute(DiskOp::Sync { id, segments: smallvec![segment] }).await;
            assert!(matches!(synced, Completion::Synced { result: Ok(()), .. }), "{synced:?}");
        }
        self.position += u64::from(len);
        begun.elapsed()
    }
}

/// Stages records of 1 KiB that make one batch of `len` bytes, and waits until they are committed.
async fn commit_batch(shard: &mut Shard, len: u32) -> Duration {
    let records = ((len - HEADER_LEN) / (RECORD_LEN + ENTRY_LEN)).max(1);
    let last_block = len - BLOCK_LEN as u32;
    let begun = Instant::now();
    for nth in 0..records {
        let staged = shard.log.stage([append(u64::from(nth % 16), u64::from(nth), RECORD_LEN)]);
        staged.expect("nothing else is under way");
    }
    shard.submit();
    let mut committed = None;
    while committed.is_none() {
        shard.complete_one().await;
        shard.submit();
        committed = shard.log.take_committed();
    }
    let took = begun.elapsed();
    let committed = committed.expect("the loop ended with it");
    assert_eq!(committed.places.len(), records as usize);
    assert!(
        committed.batch_bytes > last_block && committed.batch_bytes <= len,
        "{} bytes",
        committed.batch_bytes
    );
    took
}

fn main() {
    let options = options();
    if let Err(why) = check_direct_io(&options.dir) {
        if std::env::var("CI").is_ok_and(|ci| ci == "true") {
            panic!("cannot be skipped under CI: {why}");
        }
        return println!("SKIPPED: {why}");
    }
    let directory = tempfile::tempdir_in(&options.dir).expect("a directory to measure in");
    let segment_bytes = if options.ops > 5 { 256 << 20 } else { 4 << 20 };
    println!(
        "direct write + fdatasync, and one group commit of 1 KiB records over 16 queues; {} rounds of {} in {}",
        options.rounds,
        options.ops,
        options.dir.display()
    );
    println!("{:<34} {:>9} {:>9} {:>7} {:>9}", "us", "median", "p99", "ratio", "medians of the rounds");
    on_executor(async {
        let mut floor = Floor::new(&directory.path().join("floor"), segment_bytes).await;
        let config = LogConfig {
            segment_bytes,
            batch_bytes_max: 1 << 20,
            reserve_bytes: 0,
            ..LogConfig::new(identity().group_id(), NodeId(1))
        };
        let mut shard = Shard::open(&directory.path().join("log"), config, DiskConfig::default()).await;
        shard.settle().await;
        for size in SIZES {
            let (mut write, mut write_sync, mut log) =
                (Samples::default(), Samples::default(), Samples::default());
            for _ in 0..options.rounds {
                let (mut writes, mut syncs, mut commits) = (Vec::new(), Vec::new(), Vec::new());
                for _ in 0..options.ops {
                    writes.push(floor.write_and_sync(size, false).await);
                    syncs.push(floor.write_and_sync(size, true).await);
                    commits.push(commit_batch(&mut shard, size).await);
                }
                write.rounds.push(writes);
                write_sync.rounds.push(syncs);
                log.rounds.push(commits);
            }
            let kib = size >> 10;
            print_line(&format!("{kib} KiB direct write alone"), &write, Some(&write_sync));
            print_line(&format!("{kib} KiB direct write + fdatasync"), &write_sync, None);
            print_line(&format!("{kib} KiB group commit by the log"), &log, Some(&write_sync));
        }
    });
}
