//! What the log adds to the disk: group commit beside bare direct writes and syncs of the same sizes.

use std::path::Path;
use std::time::{Duration, Instant};

use apogee_storage::format::{BATCH_HEADER_LEN, BLOCK_LEN, DIRECTORY_ENTRY_LEN};
use apogee_storage::{Durability, LogConfig};

use super::Scale;
use super::floor::Floor;
use super::harness::{append, on_executor};
use super::load::{Appender, Load, RECORD_LEN};
use super::samples::{Samples, latency_head, latency_line, median, with_spread};

/// On disk: a batch of one record of 1 KiB, and batches of many.
const SIZES: [u32; 3] = [4 << 10, 64 << 10, 256 << 10];

pub(crate) fn run(scale: &Scale, directory: &Path) {
    on_executor(async {
        latency(scale, &directory.join("latency")).await;
        throughput(scale, &directory.join("throughput")).await;
    });
}

/// One at a time: write and sync by system calls, the same through the ring, and a commit by the log.
async fn latency(scale: &Scale, directory: &Path) {
    let mut floor = Floor::new(&directory.join("floor"), scale.segment_bytes).await;
    let mut load = Load::open(&directory.join("log"), scale.log_config(), scale.disk_config()).await;
    latency_head();
    for size in SIZES {
        let [mut calls, mut ring, mut log] = [(); 3].map(|()| Samples::default());
        // No more than leaves the log in its first segments: preparing is not the question here.
        let ops_max = (scale.segment_bytes / u64::from(size)) as usize / scale.rounds / 2;
        for _ in 0..scale.rounds {
            let mut round = [(); 3].map(|()| Vec::new());
            let begun = Instant::now();
            while begun.elapsed() < scale.round && round[0].len() < ops_max {
                round[0].push(floor.by_system_calls(size, true));
                round[1].push(floor.by_ring(size, true).await);
                round[2].push(commit_batch(&mut load, size).await);
            }
            let [of_calls, of_ring, of_log] = round;
            calls.push_round(of_calls);
            ring.push_round(of_ring);
            log.push_round(of_log);
        }
        let kib = size >> 10;
        latency_line(&format!("{kib} KiB pwrite + fdatasync"), &calls, &calls);
        latency_line(&format!("{kib} KiB the same through the ring"), &ring, &calls);
        latency_line(&format!("{kib} KiB commit by the log"), &log, &calls);
    }
    load.finish().await;
}

/// Stages records of 1 KiB that make one batch of `len` bytes, and waits until they are committed.
async fn commit_batch(load: &mut Load, len: u32) -> Duration {
    let shard = &mut load.shard;
    let records =
        ((len as usize - BATCH_HEADER_LEN) / (RECORD_LEN as usize + DIRECTORY_ENTRY_LEN)).max(1) as u64;
    let last_block = len - BLOCK_LEN as u32;
    let begun = Instant::now();
    shard
        .log
        .stage((0..records).map(|nth| append(nth % 16, nth, RECORD_LEN)))
        .expect("nothing else is under way");
    shard.submit();
    let mut committed = None;
    while committed.is_none() {
        shard.complete_one().await;
        committed = shard.log.take_committed();
        shard.submit();
    }
    let took = begun.elapsed();
    let committed = committed.expect("the loop ended with it");
    assert_eq!(committed.places.len() as u64, records);
    let bytes = committed.batch_bytes;
    assert!(bytes > last_block && bytes <= len, "{bytes} bytes of {len}");
    took
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// As fast as it goes at batches of 256 KiB: a loop of direct writes and the log without waiting for syncs, then both
/// with them.
async fn throughput(scale: &Scale, directory: &Path) {
    const BATCH_BYTES: u32 = 256 << 10;
    let mut floor = Floor::new(&directory.join("floor"), scale.segment_bytes).await;
    let at_256_kib =
        |durability| LogConfig { durability, batch_bytes_target: BATCH_BYTES, ..scale.log_config() };
    let written = at_256_kib(Durability::Async { sync_interval_ms: 1000 });
    let mut written = Load::open(&directory.join("written"), written, scale.disk_config()).await;
    let synced = at_256_kib(Durability::Sync);
    let mut synced = Load::open(&directory.join("synced"), synced, scale.disk_config()).await;
    // Enough that a whole batch is staged whenever the pipeline has room for one.
    let of_len = |record_len: u32, count| -> Vec<_> {
        (0..count).map(|nth| Appender { record_len, ..Appender::of_queue(nth % 16) }).collect()
    };
    let loads = [("1 KiB", of_len(1024, 4096)), ("16 KiB", of_len(15 << 10, 256))];

    // All rounds together stay within one segment: the same one file is written from its beginning to its end.
    let round_bytes = scale.segment_bytes / scale.rounds as u64 / loads.len() as u64 * 9 / 10;
    println!("\n{:<52} {:>24} {:>8} {:>8}", "256 KiB batches, MiB/s", "of all bytes", "ratio", "us CPU");
    for (sync, (size, appenders)) in
        [(false, &loads[0]), (false, &loads[1]), (true, &loads[0]), (true, &loads[1])]
    {
        let load = if sync { &mut synced } else { &mut written };
        let (mut floors, mut logs, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..scale.rounds {
            let begun = Instant::now();
            let mut bytes = 0;
            while bytes < round_bytes {
                floor.by_system_calls(BATCH_BYTES, sync);
                bytes += u64::from(BATCH_BYTES);
            }
            floors.push(mib(bytes) / begun.elapsed().as_secs_f64());
            let outcome = load.closed_loop(appenders, Duration::MAX, round_bytes).await;
            logs.push(mib(outcome.batch_bytes) / outcome.elapsed.as_secs_f64());
            cpu.push(outcome.cpu.as_secs_f64() * 1e6 / outcome.latencies.len() as f64);
        }
        let sync = if sync { " + fdatasync" } else { "" };
        println!(
            "{:<52} {:>24} {:>8.2}",
            format!("direct writes{sync}, one after another"),
            with_spread(&floors),
            1.0
        );
        println!(
            "{:<52} {:>24} {:>8.2} {:>8.2}",
            format!("the log, {size} records{sync}"),
            with_spread(&logs),
            median(logs.clone()) / median(floors.clone()),
            median(cpu)
        );
    }
    written.finish().await;
    synced.finish().await;
}
