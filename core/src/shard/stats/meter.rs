use std::collections::VecDeque;

/// What passed by since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub messages: u64,
    pub bytes: u64,
}

impl Totals {
    pub(super) fn add(&mut self, more: Totals) {
        self.messages += more.messages;
        self.bytes += more.bytes;
    }
}

/// How far back a question looks, and how often samples are taken for it (`StatsItem#init`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    Minute,
    Hour,
    Day,
}

impl Period {
    const fn pause_ms(self) -> i64 {
        match self {
            Period::Minute => 10_000,
            Period::Hour => 600_000,
            Period::Day => 3_600_000,
        }
    }

    /// The window lies between the first and the last sample.
    const fn samples_max(self) -> usize {
        match self {
            Period::Minute | Period::Hour => 7,
            Period::Day => 25,
        }
    }
}

/// What a window came to (`StatsSnapshot`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    pub totals: Totals,
    pub messages_per_second: f64,
    pub bytes_per_second: f64,
}

/// Totals, and samples of them.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) totals: Totals,
    minute: Window,
    hour: Window,
    day: Window,
    changed_ms: i64,
}

impl Meter {
    pub(super) fn new(now_ms: i64) -> Self {
        Meter {
            totals: Totals::default(),
            minute: Window::new(Period::Minute),
            hour: Window::new(Period::Hour),
            day: Window::new(Period::Day),
            changed_ms: now_ms,
        }
    }

    /// Takes the samples that are due; to be called every ten seconds.
    pub(super) fn sample(&mut self, now_ms: i64) {
        if self.minute.last().is_none_or(|last| last != self.totals) {
            self.changed_ms = now_ms;
        }
        for window in [&mut self.minute, &mut self.hour, &mut self.day] {
            window.sample(self.totals, now_ms);
        }
    }

    pub(super) fn figures(&self, period: Period) -> Figures {
        match period {
            Period::Minute => self.minute.figures(),
            Period::Hour => self.hour.figures(),
            Period::Day => self.day.figures(),
        }
    }

    /// Nothing passed for longer than the longest window, as of the last sample.
    pub(super) fn is_idle(&self, now_ms: i64) -> bool {
        now_ms - self.changed_ms > Period::Day.pause_ms() * Period::Day.samples_max() as i64
    }
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at_ms: i64,
    totals: Totals,
}

#[derive(Debug)]
struct Window {
    period: Period,
    samples: VecDeque<Sample>,
}

impl Window {
    fn new(period: Period) -> Self {
        Window { period, samples: VecDeque::new() }
    }

    fn last(&self) -> Option<Totals> {
        self.samples.back().map(|last| last.totals)
    }

    /// The first sample stands for what came before it: a pause earlier there was nothing.
    fn sample(&mut self, totals: Totals, now_ms: i64) {
        let pause_ms = self.period.pause_ms();
        match self.samples.back() {
            None => {
                self.samples.reserve_exact(self.period.samples_max() + 1);
                self.samples.push_back(Sample { at_ms: now_ms - pause_ms, totals: Totals::default() });
            }
            // Samples are taken by a tick that is not punctual: half a turn early is better than a turn late.
            Some(last) if now_ms - last.at_ms < pause_ms - Period::Minute.pause_ms() / 2 => return,
            Some(_) => {}
        }
        self.samples.push_back(Sample { at_ms: now_ms, totals });
        if self.samples.len() > self.period.samples_max() {
            self.samples.pop_front();
        }
    }

    fn figures(&self) -> Figures {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else {
            return Figures::default();
        };
        let totals = Totals {
            messages: last.totals.messages - first.totals.messages,
            bytes: last.totals.bytes - first.totals.bytes,
        };
        let seconds = (last.at_ms - first.at_ms).max(1) as f64 / 1000.0;
        Figures {
            totals,
            messages_per_second: totals.messages as f64 / seconds,
            bytes_per_second: totals.bytes as f64 / seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(messages: u64) -> Totals {
        Totals { messages, bytes: 100 * messages }
    }

    #[test]
    fn a_window_is_what_lies_between_its_first_and_last_sample() {
        let mut meter = Meter::new(0);
        assert_eq!(meter.figures(Period::Minute), Figures::default());
        for turn in 1..=20 {
            meter.totals.add(passed(50));
            meter.sample(turn * 10_000);
        }
        let figures = meter.figures(Period::Minute);
        assert_eq!(figures.totals, passed(300), "six pauses of ten seconds");
        assert_eq!((figures.messages_per_second, figures.bytes_per_second), (5.0, 500.0));
        assert_eq!(
            meter.figures(Period::Hour).totals,
            passed(50),
            "its next sample is due after ten minutes"
        );
    }

    #[test]
    fn an_hour_and_a_day_have_samples_of_their_own() {
        let mut meter = Meter::new(0);
        for turn in 1..=(26 * 360) {
            meter.totals.add(passed(1));
            meter.sample(turn * 10_000);
        }
        assert_eq!(meter.figures(Period::Hour).totals, passed(360));
        assert_eq!(meter.figures(Period::Day).totals, passed(24 * 360));
        let figures = meter.figures(Period::Day);
        assert!((figures.messages_per_second - 0.1).abs() < 1e-9, "{figures:?}");
        assert!(meter.day.samples.capacity() <= 26 && meter.hour.samples.capacity() <= 8);
    }

    #[test]
    fn a_meter_is_idle_when_its_longest_window_is_empty() {
        let mut meter = Meter::new(0);
        meter.totals.add(passed(1));
        meter.sample(10_000);
        meter.sample(20_000);
        assert!(!meter.is_idle(24 * 3_600_000));
        assert!(meter.is_idle(26 * 3_600_000));
    }
}
