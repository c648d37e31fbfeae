use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Scenario, ScenarioError};
use crate::figures;
use crate::schedule::Schedule;

/// How messages are offered to the broker. Rates are messages per second over all queues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Load {
    /// Open loop: evenly spaced, whatever the broker does.
    Constant { rate: u64 },
    /// Open loop: at times that know nothing of each other, `rate` on average; the same times for the same seed.
    Poisson {
        rate: u64,
        #[serde(default)]
        seed: u64,
    },
    /// Open loop: `rate` on average, all of it in the first `on` of every `on` + `off`. With an `on` of zero, a burst
    /// is due at one instant.
    Bursts {
        rate: u64,
        #[serde(with = "humantime_serde")]
        on: Duration,
        #[serde(with = "humantime_serde")]
        off: Duration,
    },
    /// Open loop: evenly from one rate to another over the measured part; the warm-up keeps the first.
    Ramp { from: u64, to: u64 },
    /// Open loop: one rate after the other, each for an equal length of the measured part; the warm-up has the first.
    Steps { rates: Vec<u64> },
    /// Open loop: the arrivals of a file, `speed` times as fast, from the beginning of the warm-up to the run's end.
    Trace {
        file: PathBuf,
        #[serde(default = "as_recorded")]
        speed: f64,
    },
    /// A fixed number of requests in flight on each connection; the next leaves when one is answered.
    Closed { depth: u32 },
}

fn as_recorded() -> f64 {
    1.0
}

impl Default for Load {
    fn default() -> Load {
        Load::Constant { rate: 1_000 }
    }
}

impl Load {
    /// Whether sends follow a plan, so that a message has a time at which it is due.
    pub fn is_open(&self) -> bool {
        !matches!(self, Load::Closed { .. })
    }

    /// Messages planned per second in the measured part, on average; `None` where only the broker or a file knows.
    pub fn mean_rate(&self) -> Option<u64> {
        match self {
            Load::Constant { rate } | Load::Poisson { rate, .. } | Load::Bursts { rate, .. } => Some(*rate),
            Load::Ramp { from, to } => Some(from.midpoint(*to)),
            Load::Steps { rates } if !rates.is_empty() => {
                let sum: u128 = rates.iter().copied().map(u128::from).sum();
                u64::try_from(sum / rates.len() as u128).ok()
            }
            Load::Steps { .. } | Load::Trace { .. } | Load::Closed { .. } => None,
        }
    }

    /// The same load at another rate; a closed loop, which has none, becomes a constant one. `None` for loads whose
    /// rate changes in the course of the run.
    pub fn at_rate(&self, rate: u64) -> Option<Load> {
        match *self {
            Load::Constant { .. } | Load::Closed { .. } => Some(Load::Constant { rate }),
            Load::Poisson { seed, .. } => Some(Load::Poisson { rate, seed }),
            Load::Bursts { on, off, .. } => Some(Load::Bursts { rate, on, off }),
            Load::Ramp { .. } | Load::Steps { .. } | Load::Trace { .. } => None,
        }
    }
}

impl Scenario {
    /// The plan of an open loop; reads the trace if there is one.
    pub fn schedule(&self) -> Result<Option<Schedule>, ScenarioError> {
        let (warmup, measured) = (self.run.warmup, self.run.duration);
        let schedule = match &self.load {
            Load::Constant { rate } => Schedule::constant(*rate, self.length())?,
            Load::Poisson { rate, seed } => Schedule::poisson(*rate, *seed, self.length())?,
            Load::Bursts { rate, on, off } => Schedule::bursts(*rate, *on, *off, self.length())?,
            Load::Ramp { from, to } => Schedule::ramp(*from, *to, warmup, measured)?,
            Load::Steps { rates } => Schedule::steps(rates, warmup, measured)?,
            Load::Trace { file, speed } => Schedule::trace(file, *speed, self.length())?,
            Load::Closed { .. } => return Ok(None),
        };
        Ok(Some(schedule))
    }
}

/// Rates of a staircase that are printed one by one.
const STEPS_SHOWN_MAX: usize = 6;

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = figures::count;
        match self {
            Load::Constant { rate } => write!(f, "open loop, {} msg/s planned", count(*rate)),
            Load::Poisson { rate, .. } => {
                write!(f, "open loop, {} msg/s planned, Poisson arrivals", count(*rate))
            }
            Load::Bursts { rate, on, off } => {
                write!(
                    f,
                    "open loop, {} msg/s planned, in bursts of {on:?} every {:?}",
                    count(*rate),
                    *on + *off
                )
            }
            Load::Ramp { from, to } => {
                write!(f, "open loop, {} to {} msg/s planned", count(*from), count(*to))
            }
            Load::Steps { rates } => match &rates[..] {
                [first, .., last] if rates.len() > STEPS_SHOWN_MAX => {
                    let steps = rates.len();
                    write!(
                        f,
                        "open loop, {steps} steps from {} to {} msg/s planned",
                        count(*first),
                        count(*last)
                    )
                }
                rates => {
                    let rates: Vec<_> = rates.iter().map(|rate| count(*rate)).collect();
                    write!(f, "open loop, {} msg/s planned", rates.join(", then "))
                }
            },
            Load::Trace { file, speed } => {
                write!(f, "open loop, arrivals of {}", file.display())?;
                if *speed == 1.0 { Ok(()) } else { write!(f, " {speed} times as fast") }
            }
            Load::Closed { depth } => write!(f, "closed loop, {depth} in flight per connection"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_from_a_file_and_written_back() {
        let table = [
            ("kind = 'constant'\nrate = 5_000", "open loop, 5,000 msg/s planned"),
            ("kind = 'poisson'\nrate = 5000", "open loop, 5,000 msg/s planned, Poisson arrivals"),
            (
                "kind = 'bursts'\nrate = 10\non = '100ms'\noff = '900ms'",
                "open loop, 10 msg/s planned, in bursts of 100ms every 1s",
            ),
            ("kind = 'ramp'\nfrom = 0\nto = 2000", "open loop, 0 to 2,000 msg/s planned"),
            ("kind = 'steps'\nrates = [1, 5000]", "open loop, 1, then 5,000 msg/s planned"),
            ("kind = 'steps'\nrates = [1, 2, 3, 4, 5, 6, 7]", "open loop, 7 steps from 1 to 7 msg/s planned"),
            ("kind = 'trace'\nfile = 'friday.txt'", "open loop, arrivals of friday.txt"),
            (
                "kind = 'trace'\nfile = 'friday.txt'\nspeed = 2",
                "open loop, arrivals of friday.txt 2 times as fast",
            ),
            ("kind = 'closed'\ndepth = 3", "closed loop, 3 in flight per connection"),
        ];
        for (text, words) in table {
            let load: Load = toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(load.to_string(), words);
            assert_eq!(toml::from_str::<Load>(&toml::to_string(&load).unwrap()).unwrap(), load);
            assert_eq!(load.is_open(), !words.starts_with("closed"));
        }
        assert!(toml::from_str::<Load>("kind = 'poisson'\nrate = 1\nburst = 2").is_err());
    }

    #[test]
    fn the_mean_rate_is_that_of_the_measured_part() {
        let rate = |load: Load| load.mean_rate();
        assert_eq!(rate(Load::Ramp { from: 100, to: 300 }), Some(200));
        assert_eq!(rate(Load::Steps { rates: vec![0, 10, 20] }), Some(10));
        assert_eq!(rate(Load::Closed { depth: 1 }), None);
    }

    #[test]
    fn only_a_steady_load_can_be_had_at_another_rate() {
        let bursts =
            |rate| Load::Bursts { rate, on: Duration::from_millis(1), off: Duration::from_millis(9) };
        assert_eq!(bursts(10).at_rate(20), Some(bursts(20)));
        assert_eq!(Load::Closed { depth: 4 }.at_rate(20), Some(Load::Constant { rate: 20 }));
        assert_eq!(Load::Ramp { from: 1, to: 2 }.at_rate(20), None);
    }
}
