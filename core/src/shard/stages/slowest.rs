use std::fmt;
use std::time::{Duration, SystemTime};

use apogee_net::io::ConnectionId;
use apogee_storage::LogOffset;

use super::gauges::millis;

/// How many are kept of each period.
const SLOWEST_MAX: usize = 10;

const PERIOD_NS: u64 = 60_000_000_000;

/// A send and what the shard was doing meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::shard) struct SlowRequest {
    pub(super) total_ns: u64,
    pub(super) sealed_ns: u64,
    pub(super) written_ns: u64,
    pub(super) durable_ns: Option<u64>,
    pub(super) answered_ns: u64,
    pub(super) answered_ms: i64,
    pub(super) connection: ConnectionId,
    pub(super) log_offset: LogOffset,
    pub(super) batch_records: u32,
    pub(super) batch_bytes: u32,
    pub(super) batches_ahead: u32,
    pub(super) catch_up_reads: u32,
}

impl fmt::Display for SlowRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since_epoch = Duration::from_millis(self.answered_ms.max(0).unsigned_abs());
        let at = humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since_epoch);
        let (total, sealed, written) =
            (millis(self.total_ns), millis(self.sealed_ns), millis(self.written_ns));
        write!(f, "{at} {total} ms: sealed after {sealed}, written {written}")?;
        if let Some(durable_ns) = self.durable_ns {
            write!(f, ", durable {}", millis(durable_ns))?;
        }
        write!(
            f,
            ", answered {}; at log offset {} for {}, in a batch of {} records and {} bytes behind {} others, \
             catch-up reads: {}",
            millis(self.answered_ns),
            self.log_offset,
            self.connection,
            self.batch_records,
            self.batch_bytes,
            self.batches_ahead,
            self.catch_up_reads
        )
    }
}

/// The slowest requests of this period and the one before. Of those received together, the first stands for all.
#[derive(Debug, Default)]
pub(super) struct Slowest {
    began_ns: u64,
    /// The slowest first.
    current: Vec<SlowRequest>,
    last: Vec<SlowRequest>,
}

impl Slowest {
    pub(super) fn offer(&mut self, now_ns: u64, total_ns: u64, request: impl FnOnce() -> SlowRequest) {
        if now_ns.saturating_sub(self.began_ns) >= PERIOD_NS {
            self.last =
                if self.is_last_stale(now_ns) { Vec::new() } else { std::mem::take(&mut self.current) };
            self.current.clear();
            self.began_ns = now_ns;
        }
        if self.current.len() == SLOWEST_MAX {
            if self.current[SLOWEST_MAX - 1].total_ns >= total_ns {
                return;
            }
            self.current.pop();
        }
        let at = self.current.partition_point(|other| other.total_ns >= total_ns);
        self.current.insert(at, request());
    }

    fn is_last_stale(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.began_ns) >= 2 * PERIOD_NS
    }

    /// Nothing older than two periods.
    pub(super) fn list(&self, now_ns: u64) -> Vec<&SlowRequest> {
        let age_ns = now_ns.saturating_sub(self.began_ns);
        let last = self.last.iter().filter(|_| age_ns < PERIOD_NS);
        let current = self.current.iter().filter(|_| age_ns < 2 * PERIOD_NS);
        let mut list: Vec<_> = current.chain(last).collect();
        list.sort_by_key(|request| std::cmp::Reverse(request.total_ns));
        list.truncate(SLOWEST_MAX);
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(total_ns: u64) -> SlowRequest {
        SlowRequest {
            total_ns,
            sealed_ns: 1_000_000,
            written_ns: 2_000_000,
            durable_ns: Some(3_000_000),
            answered_ns: 4_000,
            answered_ms: 1_000,
            connection: ConnectionId(7),
            log_offset: LogOffset(4096),
            batch_records: 3,
            batch_bytes: 8192,
            batches_ahead: 1,
            catch_up_reads: 2,
        }
    }

    fn totals(slowest: &Slowest, now_ns: u64) -> Vec<u64> {
        slowest.list(now_ns).iter().map(|request| request.total_ns).collect()
    }

    #[test]
    fn the_slowest_of_two_periods_are_kept() {
        let mut slowest = Slowest::default();
        for total_ns in 1..=20 {
            slowest.offer(1, total_ns, || took(total_ns));
        }
        assert_eq!(totals(&slowest, 1), (11..=20).rev().collect::<Vec<_>>());
        slowest.offer(PERIOD_NS, 15, || took(15));
        assert_eq!(totals(&slowest, PERIOD_NS)[..7], [20, 19, 18, 17, 16, 15, 15]);
        slowest.offer(2 * PERIOD_NS, 5, || took(5));
        assert_eq!(totals(&slowest, 2 * PERIOD_NS), [15, 5]);
        assert_eq!(totals(&slowest, 3 * PERIOD_NS), [5]);
        assert_eq!(totals(&slowest, 4 * PERIOD_NS), [0; 0], "nothing was slow lately");
        slowest.offer(9 * PERIOD_NS, 1, || took(1));
        assert_eq!(totals(&slowest, 9 * PERIOD_NS), [1]);
    }

    #[test]
    fn a_slow_request_says_where_its_time_went() {
        assert_eq!(
            took(6_004_000).to_string(),
            "1970-01-01T00:00:01.000Z 6.004 ms: sealed after 1.000, written 2.000, durable 3.000, answered 0.004; at log \
             offset 4096 for c7, in a batch of 3 records and 8192 bytes behind 1 others, catch-up reads: 2"
        );
    }
}
