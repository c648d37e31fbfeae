//! How long a client goes without any acknowledgement: what a failover, a restart or a stall looks like from outside.
//!
//! ```text
//!     acknowledgements  ││││││││                         │││││││││
//!     messages due      ╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵╵
//!     failures                   ×××××××××××××××××××××
//!                               ├────── the gap ────────┤
//!                                ├──── to recover ──────┤
//! ```
//!
//! A gap begins with the last acknowledgement before it, or, if nothing was waiting then, when the next message was due; it
//! ends with the first acknowledgement after it. One thread sees only its own acknowledgements, so it notes its silences
//! towards each broker, and a gap is where all of them are silent at the same time.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::RunTime;
use crate::figures;

/// Shorter silences are not noted; gaps are exact above this.
const SILENCE_MIN: Duration = Duration::from_millis(1);

/// Silences noted by one thread towards one broker. Of more the longest are kept; the others then count as if
/// acknowledgements had come all along, which can only hide gaps shorter than every one that is kept.
const SILENCES_MAX: usize = 1024;

/// A stretch in which one thread had no acknowledgement from one broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Silence {
    /// The acknowledgement before it; the run's start if there was none.
    since: RunTime,
    /// The one after it; the end of the plan if there was none.
    until: RunTime,
    /// From when on a message was waiting.
    waiting_since: RunTime,
    is_over: bool,
    failed: u64,
    first_failure: Option<RunTime>,
}

impl Silence {
    fn length(&self) -> Duration {
        self.until.since(self.since)
    }
}

/// What one thread notes about one broker; times never go backwards.
///
/// Order of calls: for each message `on_due`, then `on_acked` or `on_failed`, once.
#[derive(Clone, Debug, Default)]
struct Listener {
    last_acked: RunTime,
    waiting: u64,
    waiting_since: Option<RunTime>,
    failed: u64,
    first_failure: Option<RunTime>,
    silences: Vec<Silence>,
}

impl Listener {
    fn on_due(&mut self, due: RunTime) {
        self.waiting += 1;
        self.waiting_since.get_or_insert(due.max(self.last_acked));
    }

    fn on_failed(&mut self, now: RunTime) {
        self.waiting -= 1;
        self.failed += 1;
        self.first_failure.get_or_insert(now);
    }

    fn on_acked(&mut self, now: RunTime) {
        self.waiting -= 1;
        if now.since(self.last_acked) >= SILENCE_MIN {
            self.note(now, true);
        }
        self.last_acked = now;
        self.waiting_since = (self.waiting > 0).then_some(now);
        (self.failed, self.first_failure) = (0, None);
    }

    fn note(&mut self, until: RunTime, is_over: bool) {
        self.silences.push(Silence {
            since: self.last_acked,
            until,
            waiting_since: self.waiting_since.unwrap_or(until),
            is_over,
            failed: self.failed,
            first_failure: self.first_failure,
        });
        if self.silences.len() >= 2 * SILENCES_MAX {
            self.silences.sort_unstable_by_key(|silence| std::cmp::Reverse(silence.length()));
            self.silences.truncate(SILENCES_MAX);
            self.silences.sort_unstable_by_key(|silence| silence.since);
        }
    }

    /// The silences until `end`, when nothing was due any more.
    fn finish(mut self, end: RunTime) -> Vec<Silence> {
        if self.last_acked < end {
            self.note(end, false);
        }
        self.silences
    }
}

/// What one thread notes; brokers are indexes into the run's list.
#[derive(Clone, Debug, Default)]
pub struct GapWatch {
    listeners: Vec<Option<Listener>>,
}

impl GapWatch {
    /// `brokers` are those that this thread sends to.
    pub fn new(brokers: impl IntoIterator<Item = usize>) -> GapWatch {
        let mut listeners: Vec<Option<Listener>> = Vec::new();
        for broker in brokers {
            if broker >= listeners.len() {
                listeners.resize_with(broker + 1, || None);
            }
            listeners[broker].get_or_insert_default();
        }
        GapWatch { listeners }
    }

    /// A message for `broker` was due, and its fate is open from now on.
    pub fn on_due(&mut self, broker: usize, due: RunTime) {
        self.listener(broker).on_due(due);
    }

    /// A message that was due will not be acknowledged.
    pub fn on_failed(&mut self, broker: usize, now: RunTime) {
        self.listener(broker).on_failed(now);
    }

    /// A message that was due was acknowledged.
    pub fn on_acked(&mut self, broker: usize, now: RunTime) {
        self.listener(broker).on_acked(now);
    }

    /// `end` is when the plan ended. Events may still follow; they are in nothing.
    pub fn finish(&self, end: RunTime) -> Silences {
        let listeners = self.listeners.iter().cloned().enumerate();
        Silences(listeners.filter_map(|(broker, listener)| Some((broker, listener?.finish(end)))).collect())
    }

    fn listener(&mut self, broker: usize) -> &mut Listener {
        let listener = self.listeners.get_mut(broker).and_then(Option::as_mut);
        listener.unwrap_or_else(|| panic!("this thread does not send to broker {broker}"))
    }
}

/// The silences of several threads, ready to be laid over each other.
#[derive(Clone, Debug, Default)]
pub struct Silences(Vec<(usize, Vec<Silence>)>);

impl Silences {
    pub fn merge(&mut self, other: &Silences) {
        self.0.extend_from_slice(&other.0);
    }

    /// The longest gaps from `from` on: of all brokers together, and of each. `brokers` are their names.
    pub fn gaps(&self, from: RunTime, brokers: &[String]) -> Gaps {
        let all: Vec<&[Silence]> = self.0.iter().map(|(_, silences)| silences.as_slice()).collect();
        let of_broker = |(at, name): (usize, &String)| {
            let own = self.0.iter().filter(|(broker, _)| *broker == at);
            let own: Vec<&[Silence]> = own.map(|(_, silences)| silences.as_slice()).collect();
            longest(&own, from).map(|longest| BrokerGap { broker: name.clone(), longest })
        };
        Gaps {
            longest: longest(&all, from),
            brokers: brokers.iter().enumerate().filter_map(of_broker).collect(),
        }
    }
}

/// The longest stretch in which all are silent while at least one is waiting.
fn longest(lists: &[&[Silence]], from: RunTime) -> Option<Gap> {
    let mut longest: Option<Gap> = None;
    let mut lists = lists.to_vec();
    // Ends when the first list does: from then on it had acknowledgements, or the plan was over.
    while let Some(current) = lists.iter().map(|list| list.first()).collect::<Option<Vec<_>>>() {
        let until = current.iter().map(|silence| silence.until).min()?;
        let since = current.iter().map(|silence| silence.since).max()?.max(from);
        let began = current.iter().map(|silence| silence.waiting_since).min()?.max(since);
        if began < until && longest.is_none_or(|longest| until.since(began) > longest.length()) {
            longest = Some(Gap {
                began,
                ended: until,
                is_over: current.iter().any(|silence| silence.until == until && silence.is_over),
                failed: current.iter().map(|silence| silence.failed).sum(),
                first_failure: current
                    .iter()
                    .filter_map(|silence| silence.first_failure)
                    .min()
                    .map(|at| at.max(began)),
            });
        }
        for list in &mut lists {
            if list[0].until == until {
                *list = &list[1..];
            }
        }
    }
    longest
}

/// The longest gaps of a run, after the warm-up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gaps {
    /// No broker acknowledged anything: what a client feels that may choose its broker.
    pub longest: Option<Gap>,
    /// The same, broker by broker.
    pub brokers: Vec<BrokerGap>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerGap {
    pub broker: String,
    #[serde(flatten)]
    pub longest: Gap,
}

/// A time without any acknowledgement while messages were due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Members", into = "Members")]
pub struct Gap {
    pub began: RunTime,
    pub ended: RunTime,
    /// An acknowledgement ended it; otherwise the plan did.
    pub is_over: bool,
    /// Failures of those that were silent: exact for one thread; of several, some may lie a little outside.
    pub failed: u64,
    pub first_failure: Option<RunTime>,
}

impl Gap {
    pub fn length(&self) -> Duration {
        self.ended.since(self.began)
    }

    /// From the first failure to the next success.
    pub fn recovered_in(&self) -> Option<Duration> {
        self.first_failure.filter(|_| self.is_over).map(|failure| self.ended.since(failure))
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Duration| format!("{:.3} s", time.as_secs_f64());
        write!(f, "{} from {} on", seconds(self.length()), seconds(self.began.since_start()))?;
        if self.failed > 0 {
            write!(f, ", {} messages failed", figures::count(self.failed))?;
        }
        match self.recovered_in() {
            Some(time) => write!(f, ", {} from the first failure to the next success", seconds(time)),
            None if !self.is_over => f.write_str(", to the end of the plan"),
            None => Ok(()),
        }
    }
}

/// A gap as reports have it; times since the first planned message, warm-up included.
#[derive(Serialize, Deserialize)]
struct Members {
    began_s: f64,
    length_s: f64,
    is_over: bool,
    failed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_failure_s: Option<f64>,
    /// For whoever reads the file: follows from the others.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    recovered_in_s: Option<f64>,
}

impl From<Gap> for Members {
    fn from(gap: Gap) -> Members {
        Members {
            began_s: gap.began.since_start().as_secs_f64(),
            length_s: gap.length().as_secs_f64(),
            is_over: gap.is_over,
            failed: gap.failed,
            first_failure_s: gap.first_failure.map(|at| at.since_start().as_secs_f64()),
            recovered_in_s: gap.recovered_in().map(|time| time.as_secs_f64()),
        }
    }
}

impl From<Members> for Gap {
    fn from(members: Members) -> Gap {
        // A file may say anything; what is no time becomes none.
        let at =
            |seconds: f64| RunTime::after_start(Duration::try_from_secs_f64(seconds).unwrap_or_default());
        let began = at(members.began_s);
        Gap {
            began,
            ended: began + Duration::try_from_secs_f64(members.length_s).unwrap_or_default(),
            is_over: members.is_over,
            failed: members.failed,
            first_failure: members.first_failure_s.map(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(millis: u64) -> RunTime {
        RunTime::START + Duration::from_millis(millis)
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|at| format!("b{at}")).collect()
    }

    /// A message every millisecond up to `end`, each acknowledged at once except while the broker is `down`, when it fails at
    /// once.
    fn send(watch: &mut GapWatch, broker: usize, end: u64, down: std::ops::Range<u64>) {
        for at in 0..end {
            watch.on_due(broker, ms(at));
            if down.contains(&at) {
                watch.on_failed(broker, ms(at));
            } else {
                watch.on_acked(broker, ms(at));
            }
        }
    }

    #[test]
    fn an_outage_is_measured_from_the_first_message_that_had_no_answer() {
        let mut watch = GapWatch::new([0]);
        send(&mut watch, 0, 1_000, 300..500);
        let gaps = watch.finish(ms(1_000)).gaps(ms(0), &names(1));
        let gap = gaps.longest.unwrap();
        assert_eq!((gap.began, gap.ended, gap.is_over, gap.failed), (ms(300), ms(500), true, 200));
        assert_eq!(gap.recovered_in(), Some(Duration::from_millis(200)));
        assert_eq!(gaps.brokers[0].longest, gap);
    }

    #[test]
    fn a_gap_reads_as_a_sentence() {
        let gap = Gap {
            began: ms(4_000),
            ended: ms(6_503),
            is_over: true,
            failed: 1_234,
            first_failure: Some(ms(4_010)),
        };
        let text = "2.503 s from 4.000 s on, 1,234 messages failed, 2.493 s from the first failure to the next success";
        assert_eq!(gap.to_string(), text);
        let json = serde_json::to_value(gap).unwrap();
        assert_eq!((json["length_s"].as_f64(), json["recovered_in_s"].as_f64()), (Some(2.503), Some(2.493)));
        assert_eq!(serde_json::from_value::<Gap>(json).unwrap(), gap);
        let silent = Gap { is_over: false, failed: 0, first_failure: None, ..gap };
        assert_eq!(silent.to_string(), "2.503 s from 4.000 s on, to the end of the plan");
    }

    #[test]
    fn what_was_waiting_at_the_last_acknowledgement_waits_from_there() {
        let mut watch = GapWatch::new([0]);
        watch.on_due(0, ms(1));
        watch.on_due(0, ms(2));
        watch.on_acked(0, ms(10));
        watch.on_acked(0, ms(50));
        let gap = watch.finish(ms(50)).gaps(ms(0), &names(1)).longest.unwrap();
        assert_eq!((gap.began, gap.ended, gap.failed, gap.recovered_in()), (ms(10), ms(50), 0, None));
    }

    #[test]
    fn time_in_which_nothing_was_due_is_no_gap() {
        let mut watch = GapWatch::new([0]);
        for at in [0, 1_000, 5_000] {
            watch.on_due(0, ms(at));
            watch.on_acked(0, ms(at + 3));
        }
        let gap = watch.finish(ms(9_000)).gaps(ms(0), &names(1)).longest.unwrap();
        assert_eq!(gap.length(), Duration::from_millis(3));
    }

    #[test]
    fn a_broker_that_never_comes_back_is_silent_to_the_end() {
        let mut watch = GapWatch::new([0]);
        send(&mut watch, 0, 1_000, 400..1_000);
        let gap = watch.finish(ms(1_000)).gaps(ms(0), &names(1)).longest.unwrap();
        assert_eq!((gap.began, gap.ended, gap.is_over, gap.failed), (ms(400), ms(1_000), false, 600));
        assert_eq!(gap.recovered_in(), None);
    }

    #[test]
    fn the_warm_up_does_not_count() {
        let mut watch = GapWatch::new([0]);
        send(&mut watch, 0, 1_000, 0..300);
        let silences = watch.finish(ms(1_000));
        assert_eq!(silences.gaps(ms(250), &names(1)).longest.unwrap().length(), Duration::from_millis(50));
        assert_eq!(silences.gaps(ms(300), &names(1)).longest, None);
    }

    #[test]
    fn the_run_has_a_gap_only_where_every_broker_is_silent() {
        let mut watch = GapWatch::new([0, 1]);
        send(&mut watch, 0, 1_000, 100..400);
        send(&mut watch, 1, 1_000, 300..600);
        let gaps = watch.finish(ms(1_000)).gaps(ms(0), &names(2));
        let found = gaps.longest.unwrap();
        // Broker 1 acknowledged for the last time at 299.
        assert_eq!((found.began, found.ended), (ms(299), ms(400)));
        let lengths: Vec<_> = gaps.brokers.iter().map(|gap| gap.longest.length().as_millis()).collect();
        assert_eq!(lengths, [300, 300]);
    }

    #[test]
    fn threads_that_share_a_broker_are_laid_over_each_other() {
        let mut sum = Silences::default();
        for down in [100..500, 200..300] {
            let mut watch = GapWatch::new([0]);
            send(&mut watch, 0, 1_000, down);
            sum.merge(&watch.finish(ms(1_000)));
        }
        let gap = sum.gaps(ms(0), &names(1)).brokers[0].longest;
        assert_eq!((gap.began, gap.ended), (ms(199), ms(300)));
    }

    #[test]
    fn many_silences_do_not_push_out_the_longest() {
        let mut watch = GapWatch::new([0]);
        let mut now = 0;
        for turn in 0..10_000 {
            watch.on_due(0, ms(now));
            now += if turn == 5_000 { 700 } else { 5 };
            watch.on_acked(0, ms(now));
        }
        let silences = watch.finish(ms(now));
        assert!(silences.0[0].1.len() < 2 * SILENCES_MAX);
        assert_eq!(silences.gaps(ms(0), &names(1)).longest.unwrap().length(), Duration::from_millis(700));
    }

    proptest! {
        /// Against every millisecond looked at on its own.
        #[test]
        fn overlaps_are_those_that_counting_finds(
            downs in proptest::collection::vec((2u64..400, 2u64..400), 1..4),
        ) {
            let mut sum = Silences::default();
            for (start, length) in &downs {
                let mut watch = GapWatch::new([0]);
                send(&mut watch, 0, 1_000, *start..start + length);
                sum.merge(&watch.finish(ms(1_000)));
            }
            let is_down = |at: &u64| downs.iter().all(|(start, length)| (*start..start + length).contains(at));
            let counted = (0..1_000).filter(is_down).count() as u64;
            let found = sum.gaps(ms(0), &names(1)).longest.map_or(0, |gap| gap.length().as_millis() as u64);
            // The last acknowledgement may have come up to a millisecond before.
            prop_assert!((counted..=counted + 1).contains(&found), "{} instead of {}", found, counted);
        }
    }
}
