//! A recorded trace: one arrival per line, in seconds from the start, in order.
//!
//! ```text
//! # orders of last Friday, from 18:00
//! 0
//! 0.000731
//! 0.0012
//! ```
//!
//! Empty lines and what follows a `#` mean nothing.

use std::io::{BufRead, Read};
use std::time::Duration;

use crate::figures::count;

/// Arrivals of a trace that are kept, 8 bytes each; a longer trace is refused.
pub const ARRIVALS_MAX: usize = 1 << 24;

/// Longest line, so that a file without line ends is not read into memory.
const LINE_BYTES_MAX: usize = 1024;

/// Latest arrival: about 31 years, where a nanosecond still fits its number.
const SECONDS_MAX: f64 = 1e9;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    #[error("{0}")]
    Io(String),
    #[error("line {line}: '{text}' is no time in seconds, 0 to {SECONDS_MAX}")]
    NoTime { line: u64, text: String },
    #[error("line {line} is earlier than the one before it; arrivals must be in order")]
    OutOfOrder { line: u64 },
    #[error("line {line} is longer than {LINE_BYTES_MAX} bytes")]
    LineTooLong { line: u64 },
    #[error("line {line}: a trace may have at most {} arrivals within the run", count(ARRIVALS_MAX as u64))]
    TooMany { line: u64 },
    #[error("a speed of {0} is no number above zero")]
    Speed(String),
}

/// The arrivals before `length`, in nanoseconds, `speed` times as fast as recorded. What lies behind is not read.
pub(super) fn read(from: impl BufRead, speed: f64, length: Duration) -> Result<Vec<u64>, TraceError> {
    read_at_most(ARRIVALS_MAX, from, speed, length)
}

fn read_at_most(
    arrivals_max: usize,
    mut from: impl BufRead,
    speed: f64,
    length: Duration,
) -> Result<Vec<u64>, TraceError> {
    if !(speed.is_finite() && speed > 0.0) {
        return Err(TraceError::Speed(speed.to_string()));
    }
    let mut arrivals = Vec::new();
    let mut bytes = Vec::new();
    let mut before = 0.0;
    for line in 1.. {
        bytes.clear();
        let limited = &mut (&mut from).take(LINE_BYTES_MAX as u64 + 1);
        if limited.read_until(b'\n', &mut bytes).map_err(|error| TraceError::Io(error.to_string()))? == 0 {
            break;
        }
        if bytes.len() > LINE_BYTES_MAX {
            return Err(TraceError::LineTooLong { line });
        }
        let text = String::from_utf8_lossy(&bytes);
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let seconds = text.parse().ok().filter(|seconds| (0.0..=SECONDS_MAX).contains(seconds));
        let seconds: f64 = seconds.ok_or_else(|| TraceError::NoTime { line, text: text.to_owned() })?;
        if seconds < before {
            return Err(TraceError::OutOfOrder { line });
        }
        before = seconds;
        let nanos = (seconds / speed * 1e9).round();
        if nanos >= length.as_nanos() as f64 {
            break;
        }
        if arrivals.len() == arrivals_max {
            return Err(TraceError::TooMany { line });
        }
        arrivals.push(nanos as u64);
    }
    Ok(arrivals)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn times_are_read_in_seconds_and_comments_skipped() {
        let text = "# a trace\n0\n\n 0.5 # half\r\n0.5\n1e0\n2.000000001";
        assert_eq!(
            read(text.as_bytes(), 1.0, LONG),
            Ok(vec![0, 500_000_000, 500_000_000, 1_000_000_000, 2_000_000_001])
        );
    }

    #[test]
    fn speed_compresses_time_and_the_end_of_the_run_ends_the_trace() {
        let text = "0.1\n0.2\n0.3\n0.4\nnot read";
        assert_eq!(
            read(text.as_bytes(), 2.0, Duration::from_millis(200)),
            Ok(vec![50_000_000, 100_000_000, 150_000_000])
        );
    }

    #[test]
    fn errors_name_the_line() {
        let error = |text: &str| read(text.as_bytes(), 1.0, LONG).unwrap_err().to_string();
        assert_eq!(error("1\n\nx\n"), "line 3: 'x' is no time in seconds, 0 to 1000000000");
        for wrong in ["-1", "nan", "inf", "1e10", "1 2", "1s"] {
            assert!(error(wrong).starts_with("line 1: "), "{wrong}");
        }
        assert_eq!(
            error("# \n2\n1\n"),
            "line 3 is earlier than the one before it; arrivals must be in order"
        );
        assert_eq!(error(&format!("1\n{}", "1".repeat(2_000))), "line 2 is longer than 1024 bytes");
        assert_eq!(read_at_most(2, &b"0\n0\n0\n"[..], 1.0, LONG), Err(TraceError::TooMany { line: 3 }));
    }

    #[test]
    fn a_speed_must_be_a_number_above_zero() {
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(read(&b"0"[..], wrong, LONG), Err(TraceError::Speed(_))), "{wrong}");
        }
    }
}
