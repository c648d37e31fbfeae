use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// One reading of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Now {
    /// As the protocol counts: milliseconds since 1970.
    pub ms: i64,
    /// Since the first reading.
    pub ns: u64,
}

/// The time. Never goes back.
///
/// The wall clock is read once; from there on a clock counts that follows its rate (NTP) but none of its steps: a
/// step back would hold parked pulls past their clients' patience and expire nothing. A process that saw a step
/// agrees with the wall clock again after its next start.
pub(super) fn now() -> Now {
    static START: OnceLock<(Instant, i64)> = OnceLock::new();
    let (started, started_ms) = START.get_or_init(|| {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (Instant::now(), i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    });
    let elapsed = started.elapsed();
    Now { ms: started_ms.saturating_add(elapsed.as_millis() as i64), ns: elapsed.as_nanos() as u64 }
}

pub(super) fn now_ms() -> i64 {
    now().ms
}
