//! What goes on behind the appends: rolls, and making segments ready.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use apogee_storage::{AlignedBuffer, LogConfig, Retention};

use super::Scale;
use super::harness::on_executor;
use super::load::{Appender, Load, RECORD_LEN};
use super::samples::{Samples, latency_head, latency_line};

/// Appends at a steady pace: within one segment; in a log that rolls about every second, so that a segment is made
/// ready, one is sealed and snapshots are taken all the time; and in one that keeps some segments only, so that the
/// oldest leave and are recycled.
pub(crate) fn run(scale: &Scale, directory: &Path) {
    let mib_per_s = if scale.is_smoke { 8.0 } else { 48.0 };
    let calls_per_s = mib_per_s * f64::from(1 << 20) / f64::from(RECORD_LEN);
    on_executor(async {
        let round_bytes = mib_per_s * f64::from(1 << 20) * scale.round.as_secs_f64();
        let at_rest = LogConfig {
            // With some room for headers and padding.
            segment_bytes: block_aligned(round_bytes * scale.rounds as f64 * 1.5).max(8 << 20),
            ..scale.log_config()
        };
        let rolling = LogConfig {
            segment_bytes: block_aligned(mib_per_s * f64::from(1 << 20)).max(8 << 20),
            ..scale.log_config()
        };
        let keeping = LogConfig {
            retention: Retention { bytes: Some(4 * rolling.segment_bytes), ..Retention::default() },
            ..rolling.clone()
        };
        let mut at_rest = Load::open(&directory.join("at-rest"), at_rest, scale.disk_config()).await;
        let mut rolling = Load::open(&directory.join("rolling"), rolling, scale.disk_config()).await;
        let mut keeping = Load::open(&directory.join("keeping"), keeping, scale.disk_config()).await;
        let appenders: Vec<_> = (0..16).map(Appender::of_queue).collect();
        let [mut without, mut with, mut with_all] = [(); 3].map(|()| Samples::default());
        for _ in 0..scale.rounds {
            without.push_round(at_rest.open_loop(&appenders, calls_per_s, scale.round).await.all());
            with.push_round(rolling.open_loop(&appenders, calls_per_s, scale.round).await.all());
            with_all.push_round(keeping.open_loop(&appenders, calls_per_s, scale.round).await.all());
        }
        println!("1 KiB records, {mib_per_s} MiB/s planned");
        latency_head();
        latency_line("within one segment", &without, &without);
        latency_line("rolling, sealing, zeroing", &with, &without);
        latency_line("rolling, sealing, retention, recycling", &with_all, &without);
        at_rest.finish().await;
        rolling.finish().await;
        keeping.finish().await;
    });
}

fn block_aligned(bytes: f64) -> u64 {
    (bytes as u64).next_multiple_of(1 << 20)
}

/// How a segment can be made ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    Allocated,
    Zeroed,
    Recycled,
}

/// What it costs to make a segment ready, and what it saves at every write and sync.
pub(crate) fn preparation(scale: &Scale, directory: &Path) {
    let bytes = scale.segment_bytes.min(256 << 20);
    let kinds = [Ready::Allocated, Ready::Zeroed, Ready::Recycled];
    println!("{:<12} {:>14} {:>14} {:>14}   of {} MiB", "", "ms", "ms CPU", "ms of a sync", bytes >> 20);
    for kind in kinds {
        let (path, old) = (directory.join(format!("{kind:?}")), directory.join("old"));
        if kind == Ready::Recycled {
            write_through(&open(&old), bytes, 0x5a);
        }
        let (begun, cpu) = (Instant::now(), process_cpu());
        let file = match kind {
            Ready::Recycled => {
                std::fs::rename(&old, &path).expect("the old file is there");
                open(&path)
            }
            Ready::Allocated | Ready::Zeroed => {
                let file = open(&path);
                // SAFETY: a plain system call on a descriptor that `file` keeps open.
                assert_eq!(unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes as libc::off_t) }, 0);
                file
            }
        };
        if kind == Ready::Zeroed {
            write_through(&file, bytes, 0);
        }
        let (made, cpu) = (begun.elapsed(), process_cpu() - cpu);
        let begun = Instant::now();
        file.sync_all().expect("a sync");
        let sync = begun.elapsed();
        let [made, cpu, sync] = [made, cpu, sync].map(|time| time.as_secs_f64() * 1000.0);
        println!("{:<12} {made:>14.1} {cpu:>14.1} {sync:>14.1}", format!("{kind:?}"));
    }

    let files = kinds.map(|kind| (kind, open(&directory.join(format!("{kind:?}")))));
    println!();
    latency_head();
    let mut position = 0;
    for len in [4 << 10, 64 << 10, 256 << 10] {
        let mut samples = kinds.map(|_| Samples::default());
        for _ in 0..scale.rounds {
            let mut round = kinds.map(|_| Vec::new());
            // Each byte is written once: only the first write to an allocated block is the dear one.
            let last = position + bytes / 3 / scale.rounds as u64;
            let begun = Instant::now();
            while position + len as u64 <= last.min(bytes) && begun.elapsed() < scale.round {
                for ((_, file), round) in files.iter().zip(&mut round) {
                    round.push(write_and_sync(file, position, len));
                }
                position += len as u64;
            }
            for (samples, round) in samples.iter_mut().zip(round) {
                samples.push_round(round);
            }
        }
        for (kind, samples_of) in kinds.iter().zip(&samples) {
            let name = format!("{} KiB + fdatasync, {kind:?}", len >> 10);
            latency_line(&name, samples_of, &samples[1]);
        }
    }
}

fn open(path: &Path) -> File {
    let mut options = File::options();
    options.write(true).create(true).truncate(false).custom_flags(libc::O_DIRECT);
    options.open(path).expect("a file for direct writes")
}

fn write_through(file: &File, bytes: u64, byte: u8) {
    let mut piece = AlignedBuffer::zeroed(1 << 20);
    piece.as_mut().fill(byte);
    for position in (0..bytes).step_by(1 << 20) {
        file.write_all_at(piece.as_ref(), position).expect("a direct write");
    }
}

fn write_and_sync(file: &File, position: u64, len: usize) -> Duration {
    let mut buffer = AlignedBuffer::zeroed(len);
    buffer.as_mut().fill(0x5b);
    let begun = Instant::now();
    file.write_all_at(buffer.as_ref(), position).expect("a direct write");
    file.sync_data().expect("a sync");
    begun.elapsed()
}

/// CPU time of this process so far.
fn process_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` has room for the answer; the clock is one that every process has.
    let asked = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(asked, 0, "the clock of the process");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
