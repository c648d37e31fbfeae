//! The measurements, one after the other.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::file::TestFile;
use super::ring::{Direction, Ring};
use super::{DiskProfile, Load, Row};

/// Sizes of single writes: a lone message, small batches, the log's usual ceilings.
const SIZES: [u32; 6] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 512 << 10, 1 << 20];
const DEPTHS: [u32; 4] = [1, 2, 4, 8];

/// Of reads: what a lagging consumer's segment is read in.
const READ_BYTES: u32 = 1 << 20;
const READ_DEPTH: u32 = 4;

/// Beside reads, and the pair they are compared with.
const MIXED_BYTES: u32 = 64 << 10;

/// Latencies are recorded up to a minute, in nanoseconds.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Rounds of the comparison with fresh blocks: each takes blocks that were never written.
const FRESH_BYTES_PER_ROUND: u32 = 4 << 10;

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Of each row.
    pub time_per_row: Duration,
    /// Of each of the two files.
    pub file_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("cannot {action} in {directory}: {error}")]
    Io { action: &'static str, directory: String, error: io::Error },
    #[error("{directory} has {found} bytes free, and {needed} are needed (--file-mib)")]
    Space { directory: String, found: u64, needed: u64 },
    #[error("a file of {found} bytes is too small: at least {least} are needed (--file-mib)")]
    FileSize { found: u64, least: u64 },
}

/// Smallest file: the largest round fits in it four times.
const FILE_BYTES_MIN: u64 = 32 << 20;

/// Measures the disk of `directory`; `progress` is told what comes next. Writes two files of the plan's size and removes them.
pub fn measure(
    directory: &Path,
    device: Option<String>,
    plan: &Plan,
    mut progress: impl FnMut(&str),
) -> Result<DiskProfile, DiskError> {
    let name = || directory.display().to_string();
    let io = |action| move |error| DiskError::Io { action, directory: name(), error };
    if plan.file_bytes < FILE_BYTES_MIN {
        return Err(DiskError::FileSize { found: plan.file_bytes, least: FILE_BYTES_MIN });
    }
    let needed = plan.file_bytes * 2;
    if let Some(found) = crate::sys::free_bytes(directory).filter(|found| *found < needed) {
        return Err(DiskError::Space { directory: name(), found, needed });
    }
    progress("writing the file that is measured");
    let file = TestFile::prewritten(directory, plan.file_bytes).map_err(io("write"))?;
    let mut rows = Vec::new();
    let mut run = |load, file: &TestFile, bytes, depth| -> Result<Row, DiskError> {
        progress(&format!("{}, {} KiB, {depth} at once", Load::text(load), bytes >> 10));
        rounds(load, file, bytes, depth, plan.time_per_row).map_err(io(Load::text(load)))
    };
    for load in [Load::Write, Load::WriteSync] {
        for bytes in SIZES {
            for depth in DEPTHS {
                rows.push(run(load, &file, bytes, depth)?);
            }
        }
    }
    rows.push(run(Load::Read, &file, READ_BYTES, READ_DEPTH)?);

    // By turns with its own reference, so that a disk whose speed drifts is compared with itself.
    let alone = run(Load::WriteSync, &file, MIXED_BYTES, 1)?;
    let beside = beside_reads(&file, |file| run(Load::WriteSyncBesideReads, file, MIXED_BYTES, 1))
        .map_err(io("read"))??;
    let fresh_file = TestFile::fresh(directory, plan.file_bytes).map_err(io("allocate"))?;
    let fresh = run(Load::FreshWriteSync, &fresh_file, FRESH_BYTES_PER_ROUND, 1)?;
    let prewritten = run(Load::WriteSync, &file, FRESH_BYTES_PER_ROUND, 1)?;
    let fresh_to_prewritten = fresh.p50_us / prewritten.p50_us;
    let beside_reads_to_alone = beside.p99_us / alone.p99_us;
    rows.extend([beside, fresh]);

    let most = |load| rows.iter().filter(|row: &&Row| row.load == load).map(|row| row.bytes_per_s).max();
    Ok(DiskProfile {
        directory: name(),
        device,
        read_bytes_per_s: most(Load::Read).unwrap_or(0),
        write_bytes_per_s: most(Load::Write).unwrap_or(0),
        fresh_to_prewritten,
        beside_reads_to_alone,
        rows,
    })
}

/// Rounds of one load for some time, from the file's begin on and round again. In fresh blocks only as far as the file goes.
fn rounds(load: Load, file: &TestFile, bytes: u32, depth: u32, time: Duration) -> io::Result<Row> {
    let direction = match load {
        Load::Read => Direction::Read,
        Load::Write => Direction::Write { then_sync: false },
        Load::WriteSync | Load::FreshWriteSync | Load::WriteSyncBesideReads => {
            Direction::Write { then_sync: true }
        }
    };
    let starts_over = load != Load::FreshWriteSync;
    let started = Instant::now();
    let latencies = latencies(file, bytes, depth, direction, starts_over, time)?;
    let took = started.elapsed();
    let round_bytes = u64::from(bytes) * u64::from(depth);
    let rounds = latencies.len();
    let us = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Row {
        load,
        bytes,
        depth,
        rounds,
        p50_us: us(0.5),
        p99_us: us(0.99),
        p999_us: (rounds >= 10_000).then(|| us(0.999)),
        max_us: latencies.max() as f64 / 1e3,
        bytes_per_s: ((rounds + 1) as f64 * round_bytes as f64 / took.as_secs_f64()) as u64,
    })
}

/// Rounds of one write and sync for some time, in nanoseconds.
pub(crate) fn round_latencies(file: &TestFile, bytes: u32, time: Duration) -> io::Result<Histogram<u64>> {
    latencies(file, bytes, 1, Direction::Write { then_sync: true }, true, time)
}

fn latencies(
    file: &TestFile,
    bytes: u32,
    depth: u32,
    direction: Direction,
    starts_over: bool,
    time: Duration,
) -> io::Result<Histogram<u64>> {
    let mut ring = Ring::new(depth, bytes)?;
    let round_bytes = u64::from(bytes) * u64::from(depth);
    let mut latencies = Histogram::<u64>::new_with_max(LATENCY_NS_MAX, 3).expect("bounds that hold");
    let started = Instant::now();
    let mut at = 0;
    let mut first = true;
    while started.elapsed() < time || latencies.is_empty() {
        if at + round_bytes > file.bytes {
            if !starts_over {
                break;
            }
            at = 0;
        }
        let begun = Instant::now();
        ring.round(&file.file, at, direction)?;
        // The first round of a row pays for the row before.
        if !std::mem::take(&mut first) {
            latencies.saturating_record(begun.elapsed().as_nanos() as u64);
        }
        at += round_bytes;
    }
    Ok(latencies)
}

/// Runs `work` while another thread reads the file as fast as it can.
fn beside_reads<T>(file: &TestFile, work: impl FnOnce(&TestFile) -> T) -> io::Result<T> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| -> io::Result<()> {
            let mut ring = Ring::new(READ_DEPTH, READ_BYTES)?;
            let round_bytes = u64::from(READ_BYTES) * u64::from(READ_DEPTH);
            let mut at = 0;
            while !stop.load(Ordering::Relaxed) {
                if at + round_bytes > file.bytes {
                    at = 0;
                }
                ring.round(&file.file, at, Direction::Read)?;
                at += round_bytes;
            }
            Ok(())
        });
        let result = work(file);
        stop.store(true, Ordering::Relaxed);
        reader.join().expect("a reader that panics has found a bug")?;
        Ok(result)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_measured_and_left_empty() {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan { time_per_row: Duration::from_millis(2), file_bytes: FILE_BYTES_MIN };
        let measured = measure(dir.path(), None, &plan, |_| {});
        let disk = match measured {
            Ok(disk) => disk,
            // A temporary directory that takes no direct I/O has nothing to measure.
            Err(DiskError::Io { error, .. }) if error.raw_os_error() == Some(libc::EINVAL) => return,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(disk.rows.len(), 2 * SIZES.len() * DEPTHS.len() + 3);
        assert!(disk.read_bytes_per_s > 0 && disk.write_bytes_per_s > 0);
        assert!(disk.deepest_gainful().is_some() && disk.lowest_latency().is_some());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_too_small_is_refused_by_name() {
        let plan = Plan { time_per_row: Duration::ZERO, file_bytes: 1 << 20 };
        let refused = measure(Path::new("/nowhere"), None, &plan, |_| {}).unwrap_err().to_string();
        assert!(refused.contains("--file-mib"), "{refused}");
    }
}
