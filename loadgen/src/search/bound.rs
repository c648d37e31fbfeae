use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::figures;
use crate::latency::{SAMPLES_BEYOND_MIN, Summary, micros};

/// Longest that one probe is held. A percentile needs samples, so low rates are held longer; rates that would need
/// more than this are not tried.
pub const HOLD_MAX: Duration = Duration::from_secs(120);

/// Samples beyond those a percentile needs, for probes of which some messages are lost or random arrivals fewer.
const SAMPLES_MARGIN: f64 = 1.2;

/// A percentile that reports have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Percentile {
    P50,
    P90,
    P99,
    P999,
    P9999,
    P99999,
}

impl Percentile {
    pub const ALL: [Percentile; 6] = [
        Percentile::P50,
        Percentile::P90,
        Percentile::P99,
        Percentile::P999,
        Percentile::P9999,
        Percentile::P99999,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Percentile::P50 => "p50",
            Percentile::P90 => "p90",
            Percentile::P99 => "p99",
            Percentile::P999 => "p99.9",
            Percentile::P9999 => "p99.99",
            Percentile::P99999 => "p99.999",
        }
    }

    pub fn quantile(self) -> f64 {
        match self {
            Percentile::P50 => 0.5,
            Percentile::P90 => 0.9,
            Percentile::P99 => 0.99,
            Percentile::P999 => 0.999,
            Percentile::P9999 => 0.9999,
            Percentile::P99999 => 0.99999,
        }
    }

    /// Microseconds, if there were samples enough.
    pub fn of(self, summary: &Summary) -> Option<f64> {
        match self {
            Percentile::P50 => summary.p50_us,
            Percentile::P90 => summary.p90_us,
            Percentile::P99 => summary.p99_us,
            Percentile::P999 => summary.p999_us,
            Percentile::P9999 => summary.p9999_us,
            Percentile::P99999 => summary.p99999_us,
        }
    }

    /// Messages that a probe should have so that this percentile can be named.
    fn samples_wanted(self) -> f64 {
        SAMPLES_BEYOND_MIN / (1.0 - self.quantile()) * SAMPLES_MARGIN
    }

    /// How long a probe at `rate` is held: as long as wished, or longer if samples ask for it.
    pub fn hold(self, rate: u64, wished: Duration) -> Duration {
        let needed = Duration::from_secs_f64(self.samples_wanted() / rate.max(1) as f64);
        // Whole milliseconds read better.
        wished.max(Duration::from_millis(needed.as_millis() as u64 + 1).min(HOLD_MAX))
    }

    /// The lowest rate at which probes of that length have enough samples.
    pub fn lowest_rate(self, hold: Duration) -> u64 {
        (self.samples_wanted() / hold.as_secs_f64().max(f64::EPSILON)).ceil() as u64
    }
}

impl FromStr for Percentile {
    type Err = String;

    fn from_str(text: &str) -> Result<Percentile, String> {
        let number = text.trim_start_matches(['p', 'P']);
        let known = Percentile::ALL.into_iter().find(|percentile| percentile.name()[1..] == *number);
        known.ok_or_else(|| format!("'{text}' is not one of p50, p90, p99, p99.9, p99.99, p99.999"))
    }
}

impl Serialize for Percentile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Which latency is meant; both run from the planned send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// To the broker's acknowledgement
    #[default]
    Publish,
    /// To the receipt by the consumer
    E2e,
}

/// What a rate has to keep to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bound {
    pub measure: Measure,
    pub percentile: Percentile,
    #[serde(rename = "below_us", serialize_with = "as_micros")]
    pub below: Duration,
}

impl Bound {
    pub fn below_us(&self) -> f64 {
        micros(self.below)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let measure = match self.measure {
            Measure::Publish => "publish",
            Measure::E2e => "end-to-end",
        };
        write!(f, "{measure} {} below {}", self.percentile.name(), figures::latency(self.below_us()))
    }
}

fn as_micros<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(micros(*duration))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::enough_samples;

    #[test]
    fn percentiles_are_read_by_the_names_they_are_printed_with() {
        for percentile in Percentile::ALL {
            assert_eq!(percentile.name().parse(), Ok(percentile));
            assert_eq!(percentile.name()[1..].parse(), Ok(percentile));
        }
        assert!("p95".parse::<Percentile>().unwrap_err().contains("p99.9"));
    }

    #[test]
    fn low_rates_are_held_until_the_percentile_has_its_samples() {
        let hold = Duration::from_secs(10);
        assert_eq!(Percentile::P999.hold(50_000, hold), hold);
        for rate in [100, 333, 1_000] {
            let held = Percentile::P999.hold(rate, hold);
            assert!(enough_samples((held.as_secs_f64() * rate as f64) as u64, 0.999), "{rate}: {held:?}");
        }
        assert_eq!(Percentile::P9999.hold(1, hold), HOLD_MAX);
        assert_eq!(Percentile::P999.hold(Percentile::P999.lowest_rate(HOLD_MAX), hold), HOLD_MAX);
    }
}
