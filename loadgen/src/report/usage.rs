//! CPU and memory of the processes that took part, once a second.

use serde::{Deserialize, Serialize};

/// Time between two samples, until they become too many.
const PERIOD_S: f64 = 1.0;

/// The generator, and the broker where it runs on the same machine and may be looked at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    pub generator: ProcessUsage,
    /// Several if the brokers are several processes.
    pub brokers: Vec<ProcessUsage>,
}

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessUsage {
    pub pid: u32,
    pub name: String,
    pub samples: Vec<UsageSample>,
}

/// A process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UsageSample {
    /// Since the first message was due.
    pub at_s: f64,
    /// CPU time of all its threads since it was started, in user and kernel space.
    pub cpu_s: f64,
    pub resident_mib: f64,
}

/// Samples kept of a process: two hours of seconds. Longer runs keep every second one, then every fourth, …
pub const SAMPLES_MAX: usize = 7_200;

impl ProcessUsage {
    /// Percent of one CPU between each sample and the one before, at the middle of the two.
    pub fn cpu_percent(&self) -> Vec<(f64, f64)> {
        let pairs = self.samples.windows(2).filter(|pair| pair[1].at_s > pair[0].at_s);
        let share = |pair: &[UsageSample]| {
            let (cpu, time) = (pair[1].cpu_s - pair[0].cpu_s, pair[1].at_s - pair[0].at_s);
            ((pair[0].at_s + pair[1].at_s) / 2.0, cpu / time * 100.0)
        };
        pairs.map(share).collect()
    }

    /// CPU seconds that were used between two moments, at the rate of the samples nearest to them; `None` if these are
    /// the same sample. Sampling ends with the run: up to a period of it lies behind the last sample.
    pub fn cpu_seconds(&self, from_s: f64, to_s: f64) -> Option<f64> {
        let nearest = |at: f64| {
            let distance = |sample: &&UsageSample| (sample.at_s - at).abs();
            self.samples.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))
        };
        let (from, to) = (nearest(from_s)?, nearest(to_s)?);
        let end_s = to_s.min(self.samples.last()?.at_s + PERIOD_S);
        (to.at_s > from.at_s)
            .then(|| (to.cpu_s - from.cpu_s) / (to.at_s - from.at_s) * (end_s - from_s).max(0.0))
    }

    /// Most memory that was resident.
    pub fn resident_mib_max(&self) -> Option<f64> {
        self.samples.iter().map(|sample| sample.resident_mib).reduce(f64::max)
    }
}

/// Says when a sample is due, and keeps the number of samples within bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cadence {
    period_s: f64,
    due_s: f64,
}

impl Default for Cadence {
    fn default() -> Cadence {
        Cadence { period_s: PERIOD_S, due_s: 0.0 }
    }
}

impl Cadence {
    /// Whether it is time for a sample; asked often, it says so once a period.
    pub fn is_due(&mut self, now_s: f64) -> bool {
        let is_due = now_s >= self.due_s;
        if is_due {
            // From the plan, so that the samples do not drift; but never two at once after a pause.
            self.due_s = (self.due_s + self.period_s).max(now_s + self.period_s / 2.0);
        }
        is_due
    }

    /// Halves what was kept if it is too much, and samples half as often from then on.
    pub fn thin<'a>(&mut self, processes: impl IntoIterator<Item = &'a mut ProcessUsage>) {
        let mut is_thinned = false;
        for process in processes.into_iter().filter(|process| process.samples.len() >= SAMPLES_MAX) {
            let mut number = 0;
            process.samples.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            is_thinned = true;
        }
        if is_thinned {
            self.period_s *= 2.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(samples: &[(f64, f64, f64)]) -> ProcessUsage {
        let sample =
            |&(at_s, cpu_s, resident_mib): &(f64, f64, f64)| UsageSample { at_s, cpu_s, resident_mib };
        ProcessUsage { pid: 7, name: "broker".into(), samples: samples.iter().map(sample).collect() }
    }

    #[test]
    fn shares_are_those_between_two_samples() {
        let process = process(&[(0.0, 100.0, 40.0), (1.0, 100.5, 60.0), (3.0, 104.5, 50.0)]);
        assert_eq!(process.cpu_percent(), [(0.5, 50.0), (2.0, 200.0)]);
        assert_eq!(process.cpu_seconds(1.0, 9.0), Some(6.0));
        assert_eq!(process.cpu_seconds(0.9, 1.1), None);
        assert_eq!(process.resident_mib_max(), Some(60.0));
        assert_eq!(ProcessUsage::default().cpu_seconds(0.0, 1.0), None);
    }

    #[test]
    fn samples_are_taken_once_a_second_and_never_pile_up() {
        let mut cadence = Cadence::default();
        let ticks = [0.0, 0.1, 0.9, 1.05, 1.9, 2.0, 7.0, 7.1, 7.6];
        let taken: Vec<_> = ticks.into_iter().filter(|now| cadence.is_due(*now)).collect();
        assert_eq!(taken, [0.0, 1.05, 2.0, 7.0, 7.6]);
    }

    #[test]
    fn a_day_is_kept_in_bounds() {
        let (mut cadence, mut process) = (Cadence::default(), ProcessUsage::default());
        for second in 0..86_400 {
            if cadence.is_due(f64::from(second)) {
                process.samples.push(UsageSample { at_s: f64::from(second), ..UsageSample::default() });
                cadence.thin([&mut process]);
            }
        }
        let (count, last) = (process.samples.len(), process.samples.last().unwrap().at_s);
        assert!(
            (SAMPLES_MAX / 3..SAMPLES_MAX).contains(&count) && last > 86_300.0,
            "{count}, last at {last}"
        );
    }
}
