//! How long a log takes to open after `kill -9`, and that its sealed segments do not matter.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use apogee_storage::driver::ShardDirectory;
use apogee_storage::recover;

use super::Scale;
use super::harness::{identity, on_executor};
use super::load::{Appender, Load};

/// Set for the process that fills a log and is killed: where, how many MiB, and MiB of a segment.
const BUILDER: &str = "APOGEE_BENCH_BUILD";

pub(crate) fn run(scale: &Scale, directory: &Path) {
    println!("{:>10} {:>10} {:>12} {:>14} {:>14}", "MiB", "sealed", "MiB read", "ms to open", "ms again");
    for &mib in &scale.recovered_mib {
        let directory = directory.join(format!("{mib}"));
        let mut builder = Command::new(std::env::current_exe().expect("this program"))
            .env(BUILDER, format!("{mib} {} {}", scale.segment_bytes >> 20, directory.display()))
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program runs again");
        let mut line = String::new();
        let output = builder.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("a line from the builder");
        assert_eq!(line.trim(), "built");
        builder.kill().expect("the builder goes on until it is killed");
        builder.wait().expect("a killed process ends");

        let config = scale.log_config();
        let mut took = Vec::new();
        let (mut sealed, mut read_mib) = (0, 0);
        for _ in 0..2 {
            let begun = Instant::now();
            let shard = ShardDirectory::open(&directory, &identity()).expect("nobody has it open");
            let recovered = recover(shard.files(), &config, &mut ()).expect("a log that was only killed");
            took.push(begun.elapsed().as_secs_f64() * 1000.0);
            (sealed, read_mib) = (recovered.report.sealed_segments, recovered.report.bytes_read >> 20);
        }
        println!("{mib:>10} {sealed:>10} {read_mib:>12} {:>14.1} {:>14.1}", took[0], took[1]);
    }
}

pub(crate) fn is_builder() -> bool {
    std::env::var_os(BUILDER).is_some()
}

/// Fills a log as fast as it goes, says so, and goes on appending until killed.
pub(crate) fn build() {
    let order = std::env::var(BUILDER).expect("asked for before");
    let [mib, segment_mib, directory] =
        order.splitn(3, ' ').collect::<Vec<_>>().try_into().expect("three values");
    let [mib, segment_mib] = [mib, segment_mib].map(|mib: &str| mib.parse::<u64>().expect("a number"));
    let scale = Scale { segment_bytes: segment_mib << 20, ..Scale::full() };
    on_executor(async {
        let mut load = Load::open(Path::new(directory), scale.log_config(), scale.disk_config()).await;
        let appenders: Vec<_> =
            (0..256).map(|nth| Appender { record_len: 4096, ..Appender::of_queue(nth) }).collect();
        load.closed_loop(&appenders, Duration::MAX, mib << 20).await;
        println!("built");
        load.closed_loop(&appenders, Duration::MAX, u64::MAX).await;
    });
}
