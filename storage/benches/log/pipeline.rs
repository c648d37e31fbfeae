//! How deep the pipeline and how large a batch: every pair under one appender, under some and under very many. And
//! what small appends suffer from large ones.

use std::path::Path;
use std::time::Duration;

use apogee_storage::LogConfig;

use super::Scale;
use super::floor::Floor;
use super::harness::on_executor;
use super::load::{Appender, Load, Outcome};
use super::samples::{Samples, latency_head, latency_line, median};

const DEPTHS: [u32; 4] = [1, 2, 4, 8];
const TARGETS_KIB: [u32; 5] = [64, 128, 256, 512, 1024];
/// The most makes 4 MiB: all of a deep pipeline of large batches.
const APPENDERS: [u64; 4] = [1, 32, 1024, 4096];

/// What was measured of one pair under one number of appenders, a value for each round.
#[derive(Default)]
struct Cell {
    mib_per_s: Vec<f64>,
    latency: Samples,
    batch_kib: Vec<f64>,
    cpu_us: Vec<f64>,
}

impl Cell {
    fn push(&mut self, outcome: &Outcome) {
        self.mib_per_s.push(outcome.mib_per_s());
        self.batch_kib.push(outcome.batch_bytes as f64 / 1024.0 / outcome.batches as f64);
        self.cpu_us.push(outcome.cpu.as_secs_f64() * 1e6 / outcome.latencies.len() as f64);
        self.latency.push_round(outcome.all());
    }
}

/// Every pair of depth and target has a log of its own; rounds go over all of them in turn. Once with the disk as it
/// is, once with syncs as slow as those of network disks.
pub(crate) fn run(scale: &Scale, directory: &Path) {
    let (depths, targets) =
        if scale.is_smoke { (&DEPTHS[1..2], &TARGETS_KIB[2..3]) } else { (&DEPTHS[..], &TARGETS_KIB[..]) };
    on_executor(async {
        let mut logs = Vec::new();
        for &depth in depths {
            for &target in targets {
                let config = LogConfig {
                    batches_in_flight_max: depth,
                    batch_bytes_target: target << 10,
                    // A fourth is enough for all rounds, and there are many logs.
                    segment_bytes: scale.segment_bytes.div_ceil(4).max(8 << 20),
                    tail_cache_bytes: 16 << 20,
                    ..scale.log_config()
                };
                let directory = directory.join(format!("{depth}-{target}"));
                logs.push((depth, target, Load::open(&directory, config, scale.disk_config()).await));
            }
        }
        for slower_sync in [Duration::ZERO, Duration::from_millis(4)] {
            println!("\nsyncs {} ms slower than the disk's", slower_sync.as_millis());
            for appenders in APPENDERS {
                sweep(scale, &mut logs, appenders, slower_sync).await;
            }
        }
        for (_, _, load) in logs {
            load.finish().await;
        }
    });
}

async fn sweep(scale: &Scale, logs: &mut [(u32, u32, Load)], count: u64, slower_sync: Duration) {
    let appenders: Vec<_> = (0..count).map(|nth| Appender::of_queue(nth % 64)).collect();
    let mut cells: Vec<Cell> = logs.iter().map(|_| Cell::default()).collect();
    // All rounds of all loads together stay within the first segment.
    let bytes = scale.segment_bytes / 4 / 2 / (2 * APPENDERS.len() * scale.rounds) as u64;
    for _ in 0..scale.rounds {
        for ((_, _, load), cell) in logs.iter_mut().zip(&mut cells) {
            load.shard.slower_sync = slower_sync;
            cell.push(
                &load.closed_loop(&appenders, scale.round.min(Duration::from_millis(500)), bytes).await,
            );
        }
    }
    print_cells(&format!("{count} appenders"), logs, &cells);
}

fn print_cells(what: &str, logs: &[(u32, u32, Load)], cells: &[Cell]) {
    println!(
        "{what:<32} depth target KiB {:>9} {:>9} {:>9} {:>9} {:>10} {:>9}",
        "MiB/s", "p50 us", "p99 us", "p99.9 us", "KiB/batch", "us CPU"
    );
    for ((depth, target, _), cell) in logs.iter().zip(cells) {
        println!(
            "{depth:>38} {target:>10} {:>9.1} {:>9.0} {:>9.0} {:>9.0} {:>10.1} {:>9.2}",
            median(cell.mib_per_s.clone()),
            cell.latency.quantile(0.5),
            cell.latency.quantile(0.99),
            cell.latency.quantile(0.999),
            median(cell.batch_kib.clone()),
            median(cell.cpu_us.clone()),
        );
    }
}

/// Appends at a steady pace, as they come over the network: the pipeline of the defaults and others.
pub(crate) fn steady(scale: &Scale, directory: &Path) {
    let pairs: &[(u32, u32)] = if scale.is_smoke {
        &[(2, 256)]
    } else {
        &[(1, 1024), (2, 256), (2, 1024), (4, 512), (8, 256), (8, 512), (8, 1024)]
    };
    let rates: &[f64] = if scale.is_smoke { &[5e3] } else { &[1e3, 2e4, 6e4, 1e5] };
    on_executor(async {
        let mut logs = Vec::new();
        for &(depth, target) in pairs {
            let config = LogConfig {
                batches_in_flight_max: depth,
                batch_bytes_target: target << 10,
                tail_cache_bytes: 16 << 20,
                ..scale.log_config()
            };
            let directory = directory.join(format!("{depth}-{target}"));
            logs.push((depth, target, Load::open(&directory, config, scale.disk_config()).await));
        }
        let appenders: Vec<_> = (0..64).map(Appender::of_queue).collect();
        for slower_sync in [Duration::ZERO, Duration::from_millis(4)] {
            for &rate in rates {
                let mut cells: Vec<Cell> = logs.iter().map(|_| Cell::default()).collect();
                for _ in 0..scale.rounds {
                    for ((_, _, load), cell) in logs.iter_mut().zip(&mut cells) {
                        load.shard.slower_sync = slower_sync;
                        cell.push(&load.open_loop(&appenders, rate, scale.round).await);
                    }
                }
                print_cells(&format!("{rate}/s, syncs {} ms slower", slower_sync.as_millis()), &logs, &cells);
            }
        }
        for (_, _, load) in logs {
            load.finish().await;
        }
    });
}

/// Small appends alone, and beside one appender of 4 MiB.
pub(crate) fn neighbours(scale: &Scale, directory: &Path) {
    const LARGE: u32 = 4 << 20;
    on_executor(async {
        let mut floor = Floor::new(&directory.join("floor"), scale.segment_bytes).await;
        let config = LogConfig { batch_bytes_max: 8 << 20, ..scale.log_config() };
        let mut load = Load::open(&directory.join("log"), config, scale.disk_config()).await;
        let small: Vec<_> = (0..64).map(Appender::of_queue).collect();
        let mut both = small.clone();
        both.push(Appender { record_len: LARGE, ..Appender::of_queue(64) });

        let [mut bare, mut alone, mut beside, mut large] = [(); 4].map(|()| Samples::default());
        for _ in 0..scale.rounds {
            bare.push_round(
                (0..8).map(|_| (0..4).map(|_| floor.by_system_calls(1 << 20, true)).sum()).collect(),
            );
            let bytes = scale.segment_bytes / scale.rounds as u64 / 3;
            alone.push_round(load.closed_loop(&small, scale.round, bytes).await.all());
            let outcome = load.closed_loop(&both, scale.round, bytes).await;
            large.push_round(outcome.of_appender(small.len()));
            beside.push_round(
                outcome
                    .latencies
                    .iter()
                    .filter(|(who, _)| *who < small.len())
                    .map(|(_, took)| *took)
                    .collect(),
            );
        }
        latency_head();
        latency_line("4 MiB pwrite + fdatasync, in four", &bare, &bare);
        latency_line("64 appenders of 1 KiB, alone", &alone, &alone);
        latency_line("64 appenders of 1 KiB, beside 4 MiB", &beside, &alone);
        latency_line("the appender of 4 MiB", &large, &bare);
        load.finish().await;
    });
}
