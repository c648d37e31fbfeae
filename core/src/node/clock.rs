use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
///
/// It counts while the machine sleeps or is paused, which `Instant` does not: a leader that was away for a minute must
/// not believe that its lease of half a second still holds.
pub(super) fn now() -> Now {
    static START: OnceLock<(Duration, Duration)> = OnceLock::new();
    // With the part of the millisecond: without it messages with a delay came one too early by the wall clock.
    let (started, since_epoch) = START
        .get_or_init(|| (since_boot(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()));
    let elapsed = since_boot().saturating_sub(*started);
    let wall = since_epoch.saturating_add(elapsed);
    Now { ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX), ns: elapsed.as_nanos() as u64 }
}

/// CLOCK_BOOTTIME. Read without a system call, as the other clocks are.
fn since_boot() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the call. A kernel without this clock (before 2.6.39) has no io_uring either.
    let read = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    assert_eq!(read, 0, "CLOCK_BOOTTIME cannot be read");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

pub(super) fn now_ms() -> i64 {
    now().ms
}
