//! The log under load: appenders that wait for each other (closed loop) or keep to a plan (open loop).

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use apogee_storage::driver::DiskConfig;
use apogee_storage::{AppendRefused, LogConfig};
use futures_lite::future;

use super::harness::{Shard, append};

/// Records of all loads but where the size is the question.
pub(crate) const RECORD_LEN: u32 = 1024;

/// What one appender does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appender {
    /// The records go round so many queues, from this one on.
    pub(crate) queue: u64,
    pub(crate) queues: u64,
    pub(crate) record_len: u32,
    /// Records of one call, which land in one batch.
    pub(crate) records: u32,
}

impl Appender {
    /// Appends of one record of 1 KiB.
    pub(crate) fn of_queue(queue: u64) -> Appender {
        Appender { queue, queues: 1, record_len: RECORD_LEN, records: 1 }
    }
}

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Of each call, from when it was due to its commit; in the order of commits, with the appender.
    pub(crate) latencies: Vec<(usize, Duration)>,
    pub(crate) record_bytes: u64,
    pub(crate) batches: u64,
    pub(crate) batch_bytes: u64,
    pub(crate) elapsed: Duration,
    /// CPU time of the executor's thread.
    pub(crate) cpu: Duration,
}

impl Outcome {
    pub(crate) fn mib_per_s(&self) -> f64 {
        self.record_bytes as f64 / f64::from(1 << 20) / self.elapsed.as_secs_f64()
    }

    pub(crate) fn of_appender(&self, wanted: usize) -> Vec<Duration> {
        self.latencies.iter().filter(|(who, _)| *who == wanted).map(|(_, latency)| *latency).collect()
    }

    pub(crate) fn all(&self) -> Vec<Duration> {
        self.latencies.iter().map(|(_, latency)| *latency).collect()
    }
}

/// A log and the calls that wait for their commit.
pub(crate) struct Load {
    pub(crate) shard: Shard,
    /// In the order of tickets: who, how many records, since when.
    waiting: VecDeque<(usize, Appender, Instant)>,
    ids: u64,
    outcome: Outcome,
}

impl Load {
    pub(crate) async fn open(directory: &Path, config: LogConfig, disk: DiskConfig) -> Load {
        let mut shard = Shard::open(directory, config, disk).await;
        shard.settle().await;
        Load { shard, waiting: VecDeque::new(), ids: 0, outcome: Outcome::default() }
    }

    /// How many were ever staged.
    pub(crate) fn records(&self) -> u64 {
        self.ids
    }

    /// False if the log is busy: its staging is full.
    fn stage(&mut self, who: usize, appender: Appender, due: Instant) -> bool {
        let Appender { queue, queues, record_len, records } = appender;
        let ids = self.ids..self.ids + u64::from(records);
        let staged = self.shard.log.stage(ids.map(|id| append(queue + id % queues, id, record_len)));
        match staged {
            Ok(_) => {}
            Err(AppendRefused::Busy { .. }) => return false,
            Err(refused) => panic!("{refused}"),
        }
        self.ids += u64::from(records);
        self.waiting.push_back((who, appender, due));
        true
    }

    /// Notes what was committed; gives back who may append again.
    fn reap(&mut self) -> Vec<(usize, Appender)> {
        let mut free = Vec::new();
        let now = Instant::now();
        while let Some(committed) = self.shard.log.take_committed() {
            self.outcome.batches += 1;
            self.outcome.batch_bytes += u64::from(committed.batch_bytes);
            let mut records = committed.places.len() as u32;
            while records > 0 {
                let (who, appender, due) = self.waiting.pop_front().expect("what was committed was staged");
                records -= appender.records;
                self.outcome.record_bytes += u64::from(appender.records) * u64::from(appender.record_len);
                self.outcome.latencies.push((who, now - due));
                free.push((who, appender));
            }
        }
        assert!(self.shard.log.take_failed().is_none(), "nothing here fails");
        free
    }

    /// Ends what goes on in the background, which the executor must outlive.
    pub(crate) async fn finish(mut self) {
        self.shard.settle().await;
    }

    async fn until_all_committed(&mut self) {
        while !self.waiting.is_empty() {
            self.shard.submit();
            self.shard.complete_one().await;
            self.reap();
        }
    }

    /// Each appender has one call under way and makes the next when it is committed; until `length` is over or
    /// `batch_bytes` are on the disk.
    pub(crate) async fn closed_loop(
        &mut self,
        appenders: &[Appender],
        length: Duration,
        batch_bytes: u64,
    ) -> Outcome {
        let (begun, cpu) = self.begin();
        for (who, appender) in appenders.iter().enumerate() {
            assert!(self.stage(who, *appender, Instant::now()), "a closed loop asks for more than is staged");
        }
        self.shard.submit();
        while begun.elapsed() < length && self.outcome.batch_bytes < batch_bytes {
            self.shard.complete_one().await;
            for (who, appender) in self.reap() {
                assert!(self.stage(who, appender, Instant::now()), "there was room for it before");
            }
            self.shard.submit();
        }
        let outcome = self.end(begun, cpu);
        self.until_all_committed().await;
        outcome
    }

    /// Calls come at a steady pace whether or not earlier ones are committed, the appenders taking turns. Latency
    /// counts from the planned time, so that a stall is not hidden.
    pub(crate) async fn open_loop(
        &mut self,
        appenders: &[Appender],
        calls_per_s: f64,
        length: Duration,
    ) -> Outcome {
        let (begun, cpu) = self.begin();
        let pause = Duration::from_secs_f64(1.0 / calls_per_s);
        let mut due = begun;
        let mut turn = 0;
        while due < begun + length {
            let now = Instant::now();
            while due <= now {
                let who = turn % appenders.len();
                // A call that is refused as busy is made again after something was committed.
                if !self.stage(who, appenders[who], due) {
                    break;
                }
                turn += 1;
                due += pause;
            }
            self.shard.submit();
            let rest = due.saturating_duration_since(Instant::now()).max(Duration::from_micros(100));
            let rest = glommio::timer::sleep(rest);
            let next_due = async {
                rest.await;
            };
            future::or(self.shard.complete_one(), next_due).await;
            self.reap();
            self.shard.submit();
        }
        let outcome = self.end(begun, cpu);
        self.until_all_committed().await;
        outcome
    }

    fn begin(&mut self) -> (Instant, Duration) {
        self.outcome = Outcome::default();
        (Instant::now(), thread_cpu())
    }

    fn end(&mut self, begun: Instant, cpu: Duration) -> Outcome {
        let outcome = std::mem::take(&mut self.outcome);
        Outcome { elapsed: begun.elapsed(), cpu: thread_cpu() - cpu, ..outcome }
    }
}

/// CPU time of this thread so far.
pub(crate) fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` has room for the answer; the clock is one that every thread has.
    let asked = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(asked, 0, "the clock of the thread");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
