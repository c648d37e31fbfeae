//! The report for people.

use std::fmt::Write;

use super::{ConsumerReport, Report, Verdict};
use crate::failure::FailuresByName;
use crate::figures::{count, latency, micros, per_second};
use crate::gap::Gaps;
use crate::latency::{Latency, Summary};
use crate::stages::BrokerStages;

/// A column of the table of latencies.
type Column = (&'static str, fn(&Summary) -> Option<f64>);

const COLUMNS: [Column; 7] = [
    ("p50", |summary| summary.p50_us),
    ("p90", |summary| summary.p90_us),
    ("p99", |summary| summary.p99_us),
    ("p99.9", |summary| summary.p999_us),
    ("p99.99", |summary| summary.p9999_us),
    FIVE_NINES,
    ("max", |summary| summary.max_us),
];
/// Needs a million samples; shown only where there are some.
const FIVE_NINES: Column = ("p99.999", |summary| summary.p99999_us);
const LABEL_CHARS: usize = 20;
const COLUMN_CHARS: usize = 9;
const SAMPLES_CHARS: usize = 11;

pub(super) fn render(report: &Report) -> String {
    let mut out = String::from("\n");
    heading(&mut out, report);
    out.push('\n');
    latencies(&mut out, report);
    report.stages.iter().for_each(|stages| broker_stages(&mut out, stages));
    out.push('\n');
    outcome(&mut out, report);
    out
}

fn heading(out: &mut String, report: &Report) {
    let run = &report.configuration;
    line(
        out,
        "load",
        format_args!("{}, {}, {:?} after {:?} of warm-up", run.load, run.sizes, run.duration, run.warmup),
    );
    if run.messages != "normal" {
        line(out, "messages", format_args!("{}", run.messages));
    }
    let brokers = match &run.brokers[..] {
        [first, .., last] if run.brokers.len() > 4 => {
            format!("{} brokers, {first} to {last}", run.brokers.len())
        }
        brokers => brokers.join(", "),
    };
    line(
        out,
        "target",
        format_args!("topic {}, {} queues on {brokers} (NameServer {})", run.topic, run.queues, run.namesrv),
    );
    let cpus = match &run.cpus {
        Some(cpus) => format!(
            " on CPU {}",
            cpus[..run.threads].iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
        ),
        None => String::new(),
    };
    line(
        out,
        "generator",
        format_args!(
            "apogee-loadgen {}, run {}, {} thread{}{cpus}, {} connection{}",
            run.version,
            run.run_id,
            run.threads,
            plural(run.threads),
            run.connections,
            plural(run.connections),
        ),
    );
    if report.interrupted {
        line(out, "", format_args!("ended early by the user"));
    }
}

fn latencies(out: &mut String, report: &Report) {
    // A closed loop has no plan: a message is due when it is sent.
    let is_planned = report.configuration.scenario.load.is_open();
    let consume = report.configuration.consume;
    let rows: [(&str, &Latency, bool); 5] = [
        ("publish", &report.publish, true),
        ("  from actual send", &report.publish_from_sent, is_planned),
        ("end to end", &report.e2e, consume),
        ("  from actual send", &report.e2e_from_sent, consume && is_planned),
        ("consumer's ack", &report.consume_ack, report.consume_ack.count() > 0),
    ];
    let verdict = &report.scheduling.verdict;
    let broker = rows.into_iter().filter(|row| row.2).map(|row| (row.0, row.1.summary(), Some(verdict)));
    let scheduling = &report.scheduling;
    let lateness = is_planned.then(|| ("generator's lateness", scheduling.lateness.summary(), None));
    let noticing = ("replies noticed late", scheduling.noticing, None);
    table(out, "latency, µs", broker.chain(lateness).chain([noticing]));
    if verdict.generator_was_the_bottleneck {
        line(out, "NO VERDICT", format_args!("the generator was the bottleneck"));
    }
    if let Some(warning) = &report.scheduling.warning {
        for (at, part) in warning.split_inclusive(". ").enumerate() {
            line(out, if at == 0 { "note" } else { "" }, format_args!("{}", part.trim_end()));
        }
    }
}

/// Rows of a label and its figures; those that the verdict, where one is given, taints get a mark.
fn table<'a>(
    out: &mut String,
    title: &str,
    rows: impl Iterator<Item = (&'a str, Summary, Option<&'a Verdict>)>,
) {
    let rows: Vec<_> = rows.collect();
    let has_five_nines = rows.iter().any(|(_, summary, _)| summary.p99999_us.is_some());
    let columns: Vec<_> = COLUMNS.into_iter().filter(|one| has_five_nines || one.0 != FIVE_NINES.0).collect();

    let _ = write!(out, "{title:<LABEL_CHARS$}");
    for (column, _) in &columns {
        let _ = write!(out, "{column:>COLUMN_CHARS$}");
    }
    let _ = writeln!(out, "{:>SAMPLES_CHARS$}", "samples");
    for (label, summary, verdict) in &rows {
        let _ = write!(out, "{label:<LABEL_CHARS$}");
        for (column, value) in &columns {
            let value = value(summary);
            let is_tainted = value.is_some() && verdict.is_some_and(|verdict| verdict.taints(column));
            let mark = if is_tainted { "*" } else { "" };
            let _ = write!(out, "{:>COLUMN_CHARS$}", micros(value) + mark);
        }
        let _ = writeln!(out, "{:>SAMPLES_CHARS$}", count(summary.count));
    }
}

/// The slowest sends are in the JSON only: a line each is longer than a terminal is wide.
fn broker_stages(out: &mut String, stages: &BrokerStages) {
    let restarted = if stages.since_restart { ", since it was started anew" } else { "" };
    let _ = writeln!(out, "\ninside {}{restarted}", stages.broker);
    table(out, "stage, µs", stages.times.iter().map(|stage| (&*stage.name, stage.latency.summary(), None)));
    for size in &stages.sizes {
        let median = size.p50.map(|p50| format!(", half of them up to {}", count(p50))).unwrap_or_default();
        let _ = writeln!(
            out,
            "{:<LABEL_CHARS$}{} on average{median}, at most {}, in {} batches",
            size.name,
            count(size.mean.round() as u64),
            count(size.max),
            count(size.count),
        );
    }
}

fn outcome(out: &mut String, report: &Report) {
    let through = &report.throughput;
    let mut throughput = format!(
        "published {} ({:.1} MiB/s)",
        per_second(through.published_per_s),
        through.published_mib_per_s
    );
    if report.configuration.consume {
        let _ = write!(
            throughput,
            ", received {} ({:.1} MiB/s)",
            per_second(through.received_per_s),
            through.received_mib_per_s
        );
    }
    line(out, "throughput", format_args!("{throughput}"));

    failures(out, "tried again after", &report.errors.retried);
    if report.errors.total == 0 {
        line(out, "errors", format_args!("none"));
    } else {
        line(out, "errors", format_args!("{}", count(report.errors.total)));
        failures(out, "publish", &report.errors.publish);
        failures(out, "consume", &report.errors.consume);
        if report.errors.unsent > 0 {
            line(
                out,
                "",
                format_args!(
                    "{} planned messages were never sent; no distribution has them",
                    count(report.errors.unsent)
                ),
            );
        }
    }

    gaps(out, &report.gaps);

    let books = &report.ledger;
    line(
        out,
        "ledger",
        format_args!(
            "sent {}, acknowledged {}, received {}",
            count(books.sent),
            count(books.acked),
            count(books.received),
        ),
    );
    line(
        out,
        "",
        format_args!(
            "lost {}, duplicated {}, out of order {}, corrupted {}",
            count(books.lost),
            count(books.duplicated),
            count(books.out_of_order),
            count(books.corrupted),
        ),
    );
    let aside = [
        (books.oneway, "sent one-way, which nobody acknowledges"),
        (books.rolled_back, "rolled back"),
        (books.resent, "sent again, to another broker"),
        (books.duplicated_resent, "second copies of these"),
        (books.unread, "not read yet by slow consumers"),
        (books.unacked, "without acknowledgement and not received"),
        (books.received_unacked, "received although not acknowledged"),
        (books.foreign, "messages of others in the topic"),
    ];
    for (number, what) in aside.into_iter().filter(|(number, _)| *number > 0) {
        line(out, "", format_args!("{} {what}", count(number)));
    }
    consumers(out, &report.consumers);
    for fault in &report.faults {
        line(out, "FAULT", format_args!("{fault}"));
    }
}

/// Of single brokers only those that are not told by the first line.
fn gaps(out: &mut String, gaps: &Gaps) {
    if let Some(longest) = &gaps.longest {
        line(out, "no ack for", format_args!("{longest}"));
    }
    let apart = gaps.brokers.iter().filter(|gap| gap.longest.failed > 0 && Some(gap.longest) != gaps.longest);
    for gap in apart {
        line(out, "", format_args!("{}: {}", gap.broker, gap.longest));
    }
}

/// What the run's own figures do not say already.
fn consumers(out: &mut String, consumers: &[ConsumerReport]) {
    for consumer in consumers {
        if let Some(e2e) = consumer.e2e.as_ref().map(Latency::summary) {
            let received: u64 = consumer.groups.iter().map(|group| group.ledger.received).sum();
            let value = |value: Option<f64>| value.map_or_else(|| "n/a".to_owned(), latency);
            line(out, "consumer", format_args!("{}", consumer.consumer));
            line(
                out,
                "",
                format_args!(
                    "received {}, end to end p50 {}, p99 {}, max {}; at most {} messages behind in a queue",
                    count(received),
                    value(e2e.p50_us),
                    value(e2e.p99_us),
                    value(e2e.max_us),
                    count(consumer.lag_max),
                ),
            );
        }
        if let Some(catch_up) = &consumer.catch_up {
            line(
                out,
                "catch-up",
                format_args!(
                    "{}{} messages in {:.1} s ({})",
                    if catch_up.complete { "" } else { "not all queues: " },
                    count(catch_up.messages),
                    catch_up.seconds,
                    per_second(catch_up.per_s),
                ),
            );
        }
    }
}

fn failures(out: &mut String, what: &str, failures: &FailuresByName) {
    for (failure, counted) in failures {
        let remark = counted.remark.as_ref().map(|remark| format!(": {remark}")).unwrap_or_default();
        line(out, "", format_args!("{} x {what} {failure}{remark}", count(counted.count)));
    }
}

fn line(out: &mut String, label: &str, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{label:<12}{text}");
}

fn plural(number: usize) -> &'static str {
    if number == 1 { "" } else { "s" }
}
