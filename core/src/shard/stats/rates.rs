use std::collections::VecDeque;
use std::fmt;

/// Samples are taken each second, and kept for ten minutes and one more, from which the first window begins.
const SAMPLE_PAUSE_MS: i64 = 1_000;
const SAMPLES_MAX: usize = 601;

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    put: u64,
    /// Requests that found messages, those that found none, and the messages found.
    found: u64,
    missed: u64,
    transferred: u64,
}

/// What is counted per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Rate {
    Put,
    Found,
    Missed,
    /// Requests for messages, whatever they found.
    Get,
    Transferred,
}

/// How far back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) struct Seconds(pub usize);

/// Puts and gets per second over the last ten seconds, minute and ten minutes (`StoreStatsService#sampling`).
#[derive(Debug)]
pub(in crate::shard) struct Rates {
    now: Counts,
    samples: VecDeque<(i64, Counts)>,
}

impl Rates {
    pub(super) fn new(now_ms: i64) -> Self {
        Rates { now: Counts::default(), samples: VecDeque::from([(now_ms, Counts::default())]) }
    }

    pub(super) fn put(&mut self, messages: u64) {
        self.now.put += messages;
    }

    pub(super) fn found(&mut self, messages: u64) {
        self.now.found += 1;
        self.now.transferred += messages;
    }

    pub(super) fn missed(&mut self) {
        self.now.missed += 1;
    }

    pub(super) fn on_tick(&mut self, now_ms: i64) {
        let (last_ms, _) = *self.samples.back().expect("there is one from the start");
        if now_ms - last_ms < SAMPLE_PAUSE_MS {
            return;
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((now_ms, self.now));
    }

    /// Over less than asked for, if the broker has not run so long (RocketMQ leaves the figure out then, and its own
    /// tools fail).
    pub(in crate::shard) fn per_second(&self, rate: Rate, over: Seconds) -> f64 {
        let begin = self.samples.len().saturating_sub(over.0 + 1);
        let (Some((begin_ms, begin)), Some((end_ms, end))) = (self.samples.get(begin), self.samples.back())
        else {
            return 0.0;
        };
        let passed = end.of(rate) - begin.of(rate);
        passed as f64 * 1000.0 / (end_ms - begin_ms).max(1) as f64
    }

    /// Three numbers with blanks between them: over ten seconds, one minute and ten minutes.
    pub(in crate::shard) fn text(&self, rate: Rate) -> impl fmt::Display {
        let [ten, sixty, six_hundred] = [10, 60, 600].map(|over| self.per_second(rate, Seconds(over)));
        format!("{ten:?} {sixty:?} {six_hundred:?}")
    }
}

impl Counts {
    fn of(&self, rate: Rate) -> u64 {
        match rate {
            Rate::Put => self.put,
            Rate::Found => self.found,
            Rate::Missed => self.missed,
            Rate::Get => self.found + self.missed,
            Rate::Transferred => self.transferred,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_over_their_windows() {
        let mut rates = Rates::new(0);
        assert_eq!(rates.text(Rate::Put).to_string(), "0.0 0.0 0.0");
        for second in 1..=1000 {
            rates.put(if second > 990 { 100 } else { 10 });
            rates.found(3);
            rates.missed();
            rates.on_tick(second * 1000);
        }
        assert_eq!(rates.text(Rate::Put).to_string(), "100.0 25.0 11.5");
        assert_eq!(rates.text(Rate::Get).to_string(), "2.0 2.0 2.0");
        assert_eq!(rates.text(Rate::Transferred).to_string(), "3.0 3.0 3.0");
        assert_eq!(rates.samples.len(), SAMPLES_MAX);
    }

    #[test]
    fn a_young_broker_tells_what_it_has() {
        let mut rates = Rates::new(5_000);
        rates.put(30);
        rates.on_tick(5_500);
        rates.on_tick(8_000);
        assert_eq!(rates.text(Rate::Put).to_string(), "10.0 10.0 10.0");
    }
}
