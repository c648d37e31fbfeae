//! Very many queues beside a few: throughput, and memory for each.

use std::path::Path;
use std::time::Duration;

use super::Scale;
use super::harness::on_executor;
use super::load::{Appender, Load};
use super::samples::{median, with_spread};

pub(crate) fn run(scale: &Scale, directory: &Path) {
    let many = if scale.is_smoke { 1000 } else { 100_000 };
    on_executor(async {
        let config = apogee_storage::LogConfig { tail_cache_bytes: 0, ..scale.log_config() };
        let mut few = Load::open(&directory.join("few"), config.clone(), scale.disk_config()).await;
        let mut very_many = Load::open(&directory.join("many"), config, scale.disk_config()).await;

        // Each queue once, so that what follows finds them all.
        let once = Appender { queues: many, records: 500, record_len: 64, ..Appender::of_queue(0) };
        let before = resident_bytes();
        while very_many.records() < many {
            very_many.closed_loop(&[once], Duration::MAX, 1).await;
        }
        let per_queue = resident_bytes().saturating_sub(before) / many;

        let round = |queues| -> Vec<Appender> { vec![Appender { queues, ..Appender::of_queue(0) }; 1024] };
        let bytes = scale.segment_bytes * 8 / 10 / scale.rounds as u64;
        let [mut of_few, mut of_many, mut cpu_few, mut cpu_many] = [(); 4].map(|()| Vec::new());
        for _ in 0..scale.rounds {
            for (load, queues, speeds, cpu) in [
                (&mut few, 8, &mut of_few, &mut cpu_few),
                (&mut very_many, many, &mut of_many, &mut cpu_many),
            ] {
                let outcome = load.closed_loop(&round(queues), scale.round, bytes).await;
                speeds.push(outcome.mib_per_s());
                cpu.push(outcome.cpu.as_secs_f64() * 1e6 / outcome.latencies.len() as f64);
            }
        }
        println!("1024 appenders of 1 KiB, records round all queues");
        println!("{:>8} queues {:>30} MiB/s {:>6.2} us CPU", 8, with_spread(&of_few), median(cpu_few));
        println!("{many:>8} queues {:>30} MiB/s {:>6.2} us CPU", with_spread(&of_many), median(cpu_many));
        println!("ratio {:.2}", median(of_many) / median(of_few));
        println!("memory of a queue with one record: {per_queue} bytes");
        few.finish().await;
        very_many.finish().await;
    });
}

/// Memory of this process.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages = statm.split(' ').nth(1).expect("the second field is the resident set");
    pages.parse::<u64>().expect("a number") * 4096
}
