//! How late the generator itself was, and whether that taints what it reports.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attention::{self, ThreadUse};
use crate::figures;
use crate::latency::{Latency, Summary};
use crate::tally::Measurements;

/// The generator's share of a reported percentile above which it is not small.
const SHARE_MAX: f64 = 0.1;
/// The same for the maxima: single samples, which seldom belong to the same message.
const MAX_SHARE_MAX: f64 = 0.5;

/// The generator's own error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scheduling {
    /// Of sends against the plan.
    pub lateness: Latency,
    /// Times from one look for replies to the next while sending; a stall of the generator is a long one.
    pub gaps: Latency,
    /// How late replies were noticed therefore; computed from `gaps`, for replies that come evenly over time.
    pub noticing: Summary,
    pub threads: Vec<ThreadUse>,
    pub verdict: Verdict,
    /// Says what is wrong, if something is.
    pub warning: Option<String>,
}

/// Whether the report is about the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// A percentile is tainted: there is no verdict on the broker. The maximum alone, which is one message, is only
    /// marked.
    pub generator_was_the_bottleneck: bool,
    /// The first of the reported figures, from the middle outwards, against which the generator's error is not small;
    /// those behind it are not to be relied on either.
    pub tainted_from: Option<String>,
}

impl Verdict {
    /// Whether a figure, given by the name of its column, is to be marked.
    pub fn taints(&self, column: &str) -> bool {
        let place = |name: &str| COLUMNS.iter().position(|column| column.0 == name);
        let from = self.tainted_from.as_deref().and_then(place);
        from.is_some_and(|from| place(column).is_some_and(|at| at >= from))
    }
}

type Column = (&'static str, f64, fn(&Summary) -> Option<f64>);

const COLUMNS: [Column; 7] = [
    ("p50", SHARE_MAX, |summary| summary.p50_us),
    ("p90", SHARE_MAX, |summary| summary.p90_us),
    ("p99", SHARE_MAX, |summary| summary.p99_us),
    ("p99.9", SHARE_MAX, |summary| summary.p999_us),
    ("p99.99", SHARE_MAX, |summary| summary.p9999_us),
    ("p99.999", SHARE_MAX, |summary| summary.p99999_us),
    (MAX, MAX_SHARE_MAX, |summary| summary.max_us),
];
const MAX: &str = "max";

impl Scheduling {
    /// Why there is no verdict on the broker, if so. A tainted maximum alone is no reason.
    pub fn objection(&self) -> Option<String> {
        self.warning.clone().filter(|_| self.verdict.generator_was_the_bottleneck)
    }

    /// Against the publish latency; of messages that nobody acknowledges, against that to their receipt. `sending` is how long the threads sent in the measured part, added up.
    pub fn judge(measured: &Measurements, sending: Duration) -> Scheduling {
        let (felt, name) = match measured.publish.from_due.count() {
            0 => (&measured.end_to_end.from_due, "end to end"),
            _ => (&measured.publish.from_due, "publish"),
        };
        let noticing = attention::noticing(&measured.gaps, sending, felt.count());
        let tainted = taint(&measured.lateness.summary(), &noticing, &felt.summary());
        let preempted: u64 = measured.threads.iter().map(|thread| thread.preempted).sum();
        Scheduling {
            lateness: measured.lateness.clone(),
            gaps: measured.gaps.clone(),
            noticing,
            threads: measured.threads.clone(),
            verdict: Verdict {
                generator_was_the_bottleneck: tainted.as_ref().is_some_and(|tainted| tainted.from != MAX),
                tainted_from: tainted.as_ref().map(|tainted| tainted.from.to_owned()),
            },
            warning: tainted.map(|tainted| tainted.warning(name, preempted)),
        }
    }
}

/// Where the generator's error is first not small.
struct Tainted {
    from: &'static str,
    what: &'static str,
    error_us: f64,
    reported_us: f64,
}

impl Tainted {
    fn warning(&self, name: &str, preempted: u64) -> String {
        let Tainted { from, what, error_us, reported_us } = self;
        let mut warning = format!(
            "the generator itself {what}: {from} {}, {:.0} % of the {name} {from}.",
            figures::latency(*error_us),
            error_us / reported_us * 100.0
        );
        if preempted > 0 {
            warning.push_str(&format!(
                " Its threads were preempted {} times: other programs had their CPUs.",
                figures::count(preempted)
            ));
        }
        warning.push_str(
            " Figures marked with * tell of it too. Give it CPUs of its own (--pin), or less to do.",
        );
        warning
    }
}

/// Compares like with like, from the middle outwards; of the two errors, the larger one counts.
fn taint(lateness: &Summary, noticing: &Summary, publish: &Summary) -> Option<Tainted> {
    let errors = [("was late", lateness), ("noticed replies late", noticing)];
    COLUMNS.iter().find_map(|(from, share_max, figure)| {
        let reported_us = figure(publish)?;
        let errors = errors.iter().filter_map(|(what, error)| Some((*what, figure(error)?)));
        let (what, error_us) = errors.max_by(|one, other| one.1.total_cmp(&other.1))?;
        (error_us > reported_us * share_max).then_some(Tainted { from, what, error_us, reported_us })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(samples: u64, micros: u64, max_micros: u64) -> Latency {
        let mut latency = Latency::new();
        latency.record_many(Duration::from_micros(micros), samples - 1);
        latency.record(Duration::from_micros(max_micros));
        latency
    }

    /// 10,000 messages in 10 s, most acknowledged after 200 µs, one after 5 ms.
    fn judge(lateness: Latency, gaps: Latency) -> Scheduling {
        let mut measured = Measurements { lateness, gaps, ..Measurements::default() };
        measured.publish.from_due = latency(10_000, 200, 5_000);
        Scheduling::judge(&measured, Duration::from_secs(10))
    }

    #[test]
    fn small_errors_are_no_matter() {
        let scheduling = judge(latency(10_000, 5, 400), latency(10_000, 10, 900));
        assert_eq!((scheduling.verdict, scheduling.warning), (Verdict::default(), None));
    }

    #[test]
    fn late_sends_taint_from_the_first_percentile_they_reach() {
        let mut lateness = latency(9_800, 2, 3);
        lateness.merge(&latency(200, 50, 50));
        let scheduling = judge(lateness, Latency::new());
        assert!(scheduling.verdict.generator_was_the_bottleneck);
        assert_eq!(scheduling.verdict.tainted_from.as_deref(), Some("p99"));
        let tainted: Vec<_> = COLUMNS.iter().filter(|one| scheduling.verdict.taints(one.0)).collect();
        assert_eq!(tainted.len(), 5, "p99 and what lies beyond");
        let warning = scheduling.warning.unwrap();
        assert!(warning.starts_with("the generator itself was late: p99 50.0 µs, 25 % of the publish p99."));
    }

    #[test]
    fn a_stall_taints_although_no_send_was_late() {
        // 50 ms of 10 s: half a percent of all replies.
        let scheduling = judge(latency(10_000, 2, 3), latency(10_000, 2, 50_000));
        assert_eq!(scheduling.verdict.tainted_from.as_deref(), Some("p99.9"));
        assert!(scheduling.verdict.generator_was_the_bottleneck);
        let warning = scheduling.warning.unwrap();
        assert!(warning.contains("noticed replies late: p99.9 40"), "{warning}");
    }

    #[test]
    fn the_maximum_alone_is_marked_but_refuses_no_verdict() {
        let verdict = |late_max| judge(latency(10_000, 2, late_max), Latency::new()).verdict;
        assert_eq!(verdict(2_400), Verdict::default());
        let tainted = Verdict { generator_was_the_bottleneck: false, tainted_from: Some("max".to_owned()) };
        assert_eq!(verdict(2_600), tainted);
    }

    #[test]
    fn what_nobody_acknowledges_is_judged_by_its_receipt() {
        let mut measured = Measurements { lateness: latency(10_000, 90, 90), ..Measurements::default() };
        measured.end_to_end.from_due = latency(10_000, 200, 5_000);
        let scheduling = Scheduling::judge(&measured, Duration::ZERO);
        assert_eq!(scheduling.objection(), scheduling.warning);
        assert!(scheduling.warning.unwrap().contains("45 % of the end to end p50"));
    }

    #[test]
    fn preemption_is_named_as_the_likely_cause() {
        let threads = vec![ThreadUse { preempted: 1_234, ..ThreadUse::default() }];
        let mut measured =
            Measurements { lateness: latency(10_000, 90, 90), threads, ..Measurements::default() };
        measured.publish.from_due = latency(10_000, 200, 5_000);
        let warning = Scheduling::judge(&measured, Duration::ZERO).warning.unwrap();
        assert!(warning.contains("preempted 1,234 times"), "{warning}");
    }

    #[test]
    fn what_was_not_measured_is_not_compared() {
        let scheduling = Scheduling::judge(&Measurements::default(), Duration::from_secs(1));
        assert_eq!(scheduling.verdict, Verdict::default());
    }
}
