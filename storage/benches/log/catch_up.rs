//! A reader of old records, which are nowhere in memory, beside live appends.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use apogee_storage::driver::Disk;
use apogee_storage::{FileRun, LogOffset};
use glommio::{Latency, Shares};

use super::Scale;
use super::harness::on_executor;
use super::load::{Appender, Load, RECORD_LEN};
use super::samples::{Samples, latency_head, latency_line, median};

/// What a consumer gets with one pull.
const READ_LEN: u32 = 256 << 10;

pub(crate) fn run(scale: &Scale, directory: &Path) {
    let mib_per_s = if scale.is_smoke { 4.0 } else { 24.0 };
    let calls_per_s = mib_per_s * f64::from(1 << 20) / f64::from(RECORD_LEN);
    on_executor(async {
        // As the broker has it: reads for those who lag have a tenth of the shares.
        let group =
            glommio::executor().create_task_queue(Shares::Static(100), Latency::NotImportant, "catch-up");
        let mut load = Load::open(&directory.join("log"), scale.log_config(), scale.disk_config()).await;
        let old: Vec<_> =
            (0..64).map(|nth| Appender { record_len: 64 << 10, ..Appender::of_queue(nth) }).collect();
        load.closed_loop(&old, Duration::MAX, scale.segment_bytes / 2).await;

        let appenders: Vec<_> = (0..16).map(Appender::of_queue).collect();
        let [mut alone, mut beside] = [(); 2].map(|()| Samples::default());
        let mut read = Vec::new();
        for _ in 0..scale.rounds {
            alone.push_round(load.open_loop(&appenders, calls_per_s, scale.round).await.all());
            let stop = Rc::new(Cell::new(false));
            let reader = read_until(Rc::clone(&load.shard.disk), scale.segment_bytes / 2, Rc::clone(&stop));
            let reader = glommio::spawn_local_into(reader, group).expect("the group was just made");
            let outcome = load.open_loop(&appenders, calls_per_s, scale.round).await;
            stop.set(true);
            read.push(reader.await as f64 / f64::from(1 << 20) / outcome.elapsed.as_secs_f64());
            beside.push_round(outcome.all());
        }
        println!(
            "1 KiB records, {mib_per_s} MiB/s planned; the reader got {:.0} MiB/s past the page cache",
            median(read)
        );
        latency_head();
        latency_line("appends alone", &alone, &alone);
        latency_line("beside a cold reader", &beside, &alone);
        load.finish().await;
    });
}

/// Reads the beginning of the log over and over; returns how many bytes.
async fn read_until(disk: Rc<Disk>, bytes: u64, stop: Rc<Cell<bool>>) -> u64 {
    let (mut position, mut read) = (0, 0);
    while !stop.get() {
        let run = FileRun { segment: LogOffset(0), position, len: READ_LEN };
        disk.read(run).await.expect("a read of what was written");
        read += u64::from(READ_LEN);
        position = (position + u64::from(READ_LEN))
            % (bytes - u64::from(READ_LEN)).next_multiple_of(u64::from(READ_LEN));
    }
    read
}
