//! The report as one HTML file: what a run was, what it found, and whether to believe it.
//!
//! `document` and the charts know nothing of runs; here a report becomes their input.

pub(crate) mod document;
mod frame;
mod heat;
mod lines;
pub(crate) mod ratios;
mod scale;
pub(crate) mod spectrum;

use std::collections::BTreeMap;

use self::document::{Block, Document, Level, Section, Tile};
use self::heat::Slice;
use self::lines::{Line, Lines};
use self::scale::Unit;
use self::spectrum::Curve;
use super::usage::ProcessUsage;
use super::{Interval, Report, hgrm};
use crate::figures::{count, micros};
use crate::latency::{Latency, SAMPLES_BEYOND_MIN, SparseLatency, Summary};
use crate::stages::{BrokerStages, StageSizes, StageTimes};

/// Columns of a heat map; of longer runs each stands for several intervals.
const SLICES_MAX: usize = 200;
/// Kinds of errors with a line of their own; of more, the most frequent.
const ERROR_LINES_MAX: usize = 6;

/// Over what `row` makes of a distribution.
const LATENCY_HEAD: [&str; 9] = ["µs", "p50", "p90", "p99", "p99.9", "p99.99", "p99.999", "max", "samples"];

/// The whole page.
pub fn page(report: &Report) -> String {
    let run = &report.configuration;
    let (level, verdict, reasons) = verdict(report);
    let mut sections = vec![latency(report), over_time(report), messages(report)];
    sections.extend(errors(report));
    sections.extend(brokers(report));
    sections.extend(report.stages.iter().map(stages));
    sections.push(surroundings(report));
    let title = match run.scenario.name.as_str() {
        "" => format!("Latency of {}", run.brokers.first().map_or("no broker", String::as_str)),
        name => name.to_owned(),
    };
    let document = Document {
        title: if run.brokers.len() > 1 && run.scenario.name.is_empty() {
            format!("{title} and {} more", run.brokers.len() - 1)
        } else {
            title
        },
        subtitle: format!(
            "{}, {}, {:?} after {:?} of warm-up. {}",
            run.load, run.sizes, run.duration, run.warmup, run.scenario.description
        ),
        level,
        verdict,
        reasons,
        tiles: tiles(report),
        sections,
        footer: format!("apogee-loadgen {}, run {}", run.version, run.run_id),
    };
    document.render()
}

fn verdict(report: &Report) -> (Level, String, Vec<String>) {
    let mut doubts = Vec::new();
    doubts.extend(report.scheduling.warning.clone());
    if report.interrupted {
        doubts.push("Ended early by the user.".to_owned());
    }
    if report.errors.total > 0 {
        let unsent = match report.errors.unsent {
            0 => String::new(),
            unsent => format!(", among them {} planned messages that were never sent", count(unsent)),
        };
        doubts.push(format!("{} errors{unsent}; no distribution has them.", count(report.errors.total)));
    }
    let mut notes = Vec::new();
    if report.ledger.out_of_order > 0 {
        notes.push(format!("{} messages came out of order.", count(report.ledger.out_of_order)));
    }
    if !report.faults.is_empty() {
        let reasons = report.faults.iter().cloned().chain(doubts).chain(notes);
        return (Level::Bad, "The broker broke its word, or gave none.".to_owned(), reasons.collect());
    }
    if report.scheduling.verdict.generator_was_the_bottleneck {
        let reasons = doubts.into_iter().chain(notes);
        return (
            Level::Doubtful,
            "No verdict: the generator was the bottleneck.".to_owned(),
            reasons.collect(),
        );
    }
    let kept = match report.configuration.consume {
        true if report.ledger.unread > 0 => {
            "What was read came back once and unharmed; slow groups have not read all"
        }
        true => "Every acknowledged message came back, once and unharmed",
        false => "Messages were acknowledged; nothing was received, so nothing is known of losses",
    };
    match doubts.is_empty() {
        true => (Level::Good, format!("{kept}."), notes),
        false => {
            (Level::Doubtful, format!("{kept}, but read on."), doubts.into_iter().chain(notes).collect())
        }
    }
}

fn tiles(report: &Report) -> Vec<Tile> {
    let tile = |label: &str, value: String, note: String| Tile { label: label.to_owned(), value, note };
    let samples = |summary: &Summary| format!("{} samples", count(summary.count));
    let latency =
        |value: Option<f64>| value.map_or_else(|| "n/a".to_owned(), |value| Unit::Latency.write(value));
    let (publish, e2e) = (report.publish.summary(), report.e2e.summary());
    let mut tiles = vec![
        tile("publish p50", latency(publish.p50_us), samples(&publish)),
        tile("publish p99.9", latency(publish.p999_us), samples(&publish)),
    ];
    if report.configuration.consume {
        tiles.push(tile("end to end p99.9", latency(e2e.p999_us), samples(&e2e)));
    }
    let through = &report.throughput;
    let rate = |per_s: f64| format!("{}/s", count(per_s.round().max(0.0) as u64));
    tiles.push(tile(
        "published",
        rate(through.published_per_s),
        format!("{:.1} MiB/s", through.published_mib_per_s),
    ));
    if report.configuration.consume {
        tiles.push(tile(
            "received",
            rate(through.received_per_s),
            format!("{:.1} MiB/s", through.received_mib_per_s),
        ));
    }
    let unsent = format!("{} never sent", count(report.errors.unsent));
    tiles.push(tile("errors", count(report.errors.total), unsent));
    tiles
}

fn latency(report: &Report) -> Section {
    let is_planned = report.configuration.scenario.load.is_open();
    let consume = report.configuration.consume;
    let rows: [(&str, &Latency, bool); 6] = [
        ("publish", &report.publish, true),
        ("publish, from actual send", &report.publish_from_sent, is_planned),
        ("end to end", &report.e2e, consume),
        ("end to end, from actual send", &report.e2e_from_sent, consume && is_planned),
        ("consumer's acknowledgement", &report.consume_ack, report.consume_ack.count() > 0),
        ("generator's lateness", &report.scheduling.lateness, is_planned),
    ];
    let shown: Vec<_> = rows.iter().filter(|(_, _, is_shown)| *is_shown).collect();
    let table = Block::Table {
        head: LATENCY_HEAD.map(str::to_owned).to_vec(),
        rows: shown.iter().map(|(name, latency, _)| row(name, &latency.summary())).collect(),
    };
    let curves = shown.iter().filter(|(_, latency, _)| latency.count() > 0).enumerate();
    let curve = |(style, (name, latency, _)): (usize, &&(&str, &Latency, bool))| Curve {
        style,
        // Microseconds of the generator must not press milliseconds of the broker against the upper edge.
        is_aside: std::ptr::eq(*latency, &report.scheduling.lateness),
        ..curve_of(name, latency)
    };
    let curves: Vec<Curve> = curves.map(curve).collect();
    let caption = match is_planned {
        true => "From the planned time of each message; beside it from the actual send.",
        false => {
            "A closed loop has no plan: a stalled broker is asked less, and its stalls are seen too little."
        }
    };
    let mut charts = vec![spectrum::draw("Percentile spectrum", caption, &curves)];
    charts.push(heat("Publish latency over time", report, |interval| &interval.publish));
    if consume {
        charts.push(heat("End-to-end latency over time", report, |interval| &interval.e2e));
    }
    Section {
        heading: "Latency".to_owned(),
        intro: match is_planned {
            true => {
                "From when a message was due, not from when it could be sent: a stall is felt by every message that \
                 was due in it. Percentiles with fewer than ten samples beyond them are not given."
            }
            false => "From each send. Percentiles with fewer than ten samples beyond them are not given.",
        }
        .to_owned(),
        blocks: vec![table, Block::Charts(charts)],
    }
}

fn row(name: &str, summary: &Summary) -> Vec<String> {
    let values = [
        summary.p50_us,
        summary.p90_us,
        summary.p99_us,
        summary.p999_us,
        summary.p9999_us,
        summary.p99999_us,
        summary.max_us,
    ];
    let cells = values.into_iter().map(micros);
    std::iter::once(name.to_owned()).chain(cells).chain([count(summary.count)]).collect()
}

/// A distribution as the spectrum draws it.
pub(crate) fn curve_of(name: &str, latency: &Latency) -> Curve {
    let samples = latency.count() as f64;
    let max_us = latency.max().map_or(0.0, |max| max.as_nanos() as f64 / 1e3);
    let steps = latency.histogram().iter_quantiles(hgrm::TICKS_PER_HALF_DISTANCE);
    let point = |quantile: f64, nanos: u64| {
        // The slowest of n samples stands where one in n is slower.
        let inverse = if quantile < 1.0 { (1.0 / (1.0 - quantile)).min(samples) } else { samples };
        (inverse, (nanos as f64 / 1e3).min(max_us))
    };
    let mut points: Vec<_> = steps
        .filter(|_| samples > 0.0)
        .map(|step| point(step.quantile_iterated_to(), step.value_iterated_to()))
        .collect();
    let trusted_to = samples / SAMPLES_BEYOND_MIN;
    if trusted_to > 1.0 {
        // The steps jump over what has one value; the line is to end exactly where trust ends.
        let quantile = 1.0 - 1.0 / trusted_to;
        let at = points.partition_point(|(inverse, _)| *inverse <= trusted_to);
        points.insert(at, (trusted_to, point(quantile, latency.histogram().value_at_quantile(quantile)).1));
    }
    Curve { name: name.to_owned(), points, trusted_to, ..Curve::default() }
}

fn heat(heading: &str, report: &Report, latency: fn(&Interval) -> &SparseLatency) -> String {
    let intervals = &report.series.intervals;
    let together = intervals.len().div_ceil(SLICES_MAX).max(1);
    let slices: Vec<Slice> = intervals.chunks(together).map(|some| slice(some, latency)).collect();
    let length_s = slices.first().map_or(report.series.interval_s, |slice| slice.length_s);
    let caption = format!(
        "Each column is {length_s} s of replies; the stronger the shade, the more messages (logarithmic). A single \
         message is visible."
    );
    heat::draw(heading, &caption, total_s(report), &slices)
}

fn slice(intervals: &[Interval], latency: fn(&Interval) -> &SparseLatency) -> Slice {
    let mut all = SparseLatency::default();
    intervals.iter().for_each(|interval| all.merge(latency(interval)));
    let middle_us = |range: std::ops::Range<std::time::Duration>| {
        (range.start.as_nanos() + range.end.as_nanos()) as f64 / 2e3
    };
    let summary = all.summary();
    Slice {
        from_s: intervals[0].start_s,
        length_s: intervals.iter().map(|interval| interval.length_s).sum(),
        cells: all.ranges().map(|(range, count)| (middle_us(range), count)).collect(),
        p50_us: summary.p50_us,
        p99_us: summary.p99_us,
        max_us: summary.max_us,
    }
}

/// Until the end of the last interval.
fn total_s(report: &Report) -> f64 {
    let run = &report.configuration;
    let planned = (run.warmup + run.duration).as_secs_f64();
    report.series.intervals.last().map_or(planned, |last| last.start_s + last.length_s)
}

fn over_time(report: &Report) -> Section {
    let chart = |heading, caption, axis, unit, lines: &[Line], none| {
        lines::draw(&Lines {
            heading,
            caption,
            axis,
            unit,
            total_s: total_s(report),
            warmup_s: report.configuration.warmup.as_secs_f64(),
            lines,
            none,
        })
    };
    let rate = |name: &str, figure: fn(&Interval) -> u64| {
        line(name, report, |interval| figure(interval) as f64 / interval.length_s)
    };
    let mut rates = Vec::new();
    if report.configuration.scenario.load.is_open() {
        rates.push(rate("due", |interval| interval.sent + interval.errors.unsent));
    }
    rates.push(rate("acknowledged", |interval| interval.acked));
    if report.configuration.consume {
        rates.push(rate("received", |interval| interval.received));
    }
    let no_broker = "the broker's process was not found on this machine (--broker-pid names it)";
    let caption = if report.usage.brokers.is_empty() { no_broker } else { "" };
    let cpu = processes(report, |process| process.cpu_percent());
    let memory = processes(report, |process| {
        process.samples.iter().map(|sample| (sample.at_s, sample.resident_mib)).collect()
    });
    Section {
        heading: "Over time".to_owned(),
        intro: "What happens counts in the interval in which it was noticed.".to_owned(),
        blocks: vec![Block::Charts(vec![
            chart("Throughput", "", "messages per second", Unit::Rate, &rates, "nothing was sent"),
            chart("Errors", "", "errors per interval", Unit::Count, &error_lines(report), "no errors"),
            chart("CPU", caption, "100 % is one CPU", Unit::Percent, &cpu, "not sampled"),
            chart("Memory", caption, "resident memory", Unit::Mebibytes, &memory, "not sampled"),
        ])],
    }
}

fn line(name: &str, report: &Report, figure: impl Fn(&Interval) -> f64) -> Line {
    let point = |interval: &Interval| (interval.start_s + interval.length_s / 2.0, Some(figure(interval)));
    Line { name: name.to_owned(), points: report.series.intervals.iter().map(point).collect() }
}

fn error_lines(report: &Report) -> Vec<Line> {
    let mut kinds: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (what, failures) in [("publish", &report.errors.publish), ("consume", &report.errors.consume)] {
        for (failure, counted) in failures {
            *kinds.entry((what, failure)).or_default() += counted.count;
        }
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let kinds = kinds.into_iter().take(ERROR_LINES_MAX);
    let line = |((what, failure), _): ((&str, &str), u64)| {
        line(&format!("{what}: {failure}"), report, |interval| {
            let failures =
                if what == "publish" { &interval.errors.publish } else { &interval.errors.consume };
            failures.get(failure).map_or(0.0, |counted| counted.count as f64)
        })
    };
    kinds.map(line).collect()
}

fn processes(report: &Report, figure: fn(&ProcessUsage) -> Vec<(f64, f64)>) -> Vec<Line> {
    let line = |name: String, process: &ProcessUsage| Line {
        name,
        points: figure(process).into_iter().map(|(at, value)| (at, Some(value))).collect(),
    };
    let brokers = report.usage.brokers.iter();
    let brokers = brokers.map(|process| line(format!("broker: {} ({})", process.name, process.pid), process));
    brokers.chain([line("generator".to_owned(), &report.usage.generator)]).collect()
}

fn messages(report: &Report) -> Section {
    let ledger = &report.ledger;
    let fact = |name: &str, number: u64| (name.to_owned(), count(number));
    let mut facts = vec![fact("sent", ledger.sent), fact("acknowledged", ledger.acked)];
    if report.configuration.consume {
        facts.extend([
            fact("received", ledger.received),
            fact("lost", ledger.lost),
            fact("duplicated", ledger.duplicated),
            fact("out of order", ledger.out_of_order),
            fact("corrupted", ledger.corrupted),
        ]);
    }
    let aside = [
        ("received, not acknowledged", ledger.received_unacked),
        ("neither acknowledged nor received", ledger.unacked),
        ("sent without asking for an answer", ledger.oneway),
        ("rolled back", ledger.rolled_back),
        ("rolled back, yet received", ledger.rolled_back_received),
        ("sent again, to another broker", ledger.resent),
        ("second copies of these", ledger.duplicated_resent),
        ("not yet read by a slow group", ledger.unread),
        ("received against the filter", ledger.unwanted),
        ("received before their time", ledger.early),
        ("of others in the topic", ledger.foreign),
    ];
    facts
        .extend(aside.into_iter().filter(|(_, number)| *number > 0).map(|(name, number)| fact(name, number)));
    if let Some(longest) = &report.gaps.longest {
        facts.push(("longest without an acknowledgement".to_owned(), longest.to_string()));
    }
    let brokers = report.gaps.brokers.iter();
    let apart = brokers.filter(|gap| gap.longest.failed > 0 && Some(gap.longest) != report.gaps.longest);
    facts.extend(apart.map(|gap| (format!("the same of {}", gap.broker), gap.longest.to_string())));
    Section {
        heading: "What became of the messages".to_owned(),
        intro: "All of the run, warm-up included. Lost is what was acknowledged and not received until every queue was \
                read to its end."
            .to_owned(),
        blocks: vec![Block::Facts(facts)],
    }
}

fn errors(report: &Report) -> Option<Section> {
    let rows = [("publish", &report.errors.publish), ("consume", &report.errors.consume)];
    let rows = rows.into_iter().flat_map(|(what, failures)| {
        failures.iter().map(move |(failure, counted)| {
            vec![
                format!("{what}: {failure}"),
                count(counted.count),
                counted.remark.clone().unwrap_or_default(),
            ]
        })
    });
    let rows: Vec<_> = rows.collect();
    (!rows.is_empty()).then(|| Section {
        heading: "Errors".to_owned(),
        intro: "With the first remark that the broker made, if it made one.".to_owned(),
        blocks: vec![Block::Table { head: ["", "count", "remark"].map(str::to_owned).to_vec(), rows }],
    })
}

fn brokers(report: &Report) -> Option<Section> {
    let cell = |summary: &Summary| [micros(summary.p50_us), micros(summary.p99_us), micros(summary.p999_us)];
    let row = |broker: &super::Broker| {
        let errors = broker.publish_errors.values().chain(broker.consume_errors.values());
        let mut row = vec![
            broker.name.clone(),
            count(broker.published_per_s.round() as u64),
            count(broker.received_per_s.round() as u64),
        ];
        row.extend(cell(&broker.publish.summary()));
        row.extend(cell(&broker.e2e.summary()));
        row.extend([count(broker.publish.count()), count(errors.map(|counted| counted.count).sum())]);
        row
    };
    (report.brokers.len() > 1).then(|| Section {
        heading: "Brokers".to_owned(),
        intro: "Latencies in microseconds from the planned time. Of Apogee, every shard is a broker."
            .to_owned(),
        blocks: vec![Block::Table {
            head: [
                "",
                "published/s",
                "received/s",
                "publish p50",
                "p99",
                "p99.9",
                "end to end p50",
                "p99",
                "p99.9",
                "samples",
                "errors",
            ]
            .map(str::to_owned)
            .to_vec(),
            rows: report.brokers.iter().map(row).collect(),
        }],
    })
}

/// Where the time went, of a broker that says so.
fn stages(inside: &BrokerStages) -> Section {
    let total: f64 = inside.times.iter().find(|stage| stage.name == "total").map_or(0.0, mean_us);
    let row_of = |stage: &StageTimes| {
        let share =
            if total > 0.0 { format!("{:.0} %", mean_us(stage) / total * 100.0) } else { String::new() };
        let mut row = row(&stage.name, &stage.latency.summary());
        row.splice(1..1, [micros(Some(mean_us(stage))), share]);
        row
    };
    let mut head: Vec<String> = LATENCY_HEAD.map(str::to_owned).to_vec();
    head.splice(1..1, ["mean".to_owned(), "of the total".to_owned()]);
    let curves = inside.times.iter().enumerate();
    let curves = curves.map(|(style, stage)| Curve { style, ..curve_of(&stage.name, &stage.latency) });
    let mut blocks = vec![
        Block::Table { head, rows: inside.times.iter().map(row_of).collect() },
        Block::Charts(vec![spectrum::draw(
            "Stages of a send",
            "As the broker itself timed them.",
            &curves.collect::<Vec<_>>(),
        )]),
    ];
    if !inside.sizes.is_empty() {
        let number = |value: Option<u64>| value.map_or_else(|| "n/a".to_owned(), count);
        let row = |size: &StageSizes| {
            vec![
                size.name.clone(),
                format!("{:.1}", size.mean),
                number(size.p50),
                number(size.p99),
                count(size.max),
                count(size.count),
            ]
        };
        blocks.push(Block::Table {
            head: ["", "mean", "p50", "p99", "max", "samples"].map(str::to_owned).to_vec(),
            rows: inside.sizes.iter().map(row).collect(),
        });
    }
    if !inside.slowest.is_empty() {
        blocks.push(Block::Folded {
            heading: "The slowest sends of the last minute or two".to_owned(),
            text: inside.slowest.join("\n"),
        });
    }
    let restarted =
        if inside.since_restart { " It was started anew during the run: this is from then on." } else { "" };
    Section {
        heading: format!("Inside {}", inside.broker),
        intro: format!(
            "Each stage runs from the end of the one before; total is all of them. Warm-up and other clients' sends are \
             included.{restarted}"
        ),
        blocks,
    }
}

fn mean_us(stage: &StageTimes) -> f64 {
    if stage.latency.count() == 0 { 0.0 } else { stage.latency.histogram().mean() / 1e3 }
}

fn surroundings(report: &Report) -> Section {
    let run = &report.configuration;
    let machine = &report.machine;
    let list = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let unknown = || "not visible".to_owned();
    let mut facts: Vec<(&str, String)> = vec![
        ("brokers", format!("{} (NameServer {})", run.brokers.join(", "), run.namesrv)),
        ("topic", format!("{}, {} queues", run.topic, run.queues)),
        ("load", format!("{}, {}", run.load, run.sizes)),
        ("length", format!("{:?} after {:?} of warm-up", run.duration, run.warmup)),
        (
            "generator",
            format!(
                "threads: {}{}; publishing connections: {}",
                run.threads,
                run.cpus.as_ref().map_or_else(String::new, |cpus| format!(" on CPU {}", list(cpus))),
                run.connections
            ),
        ),
        ("machine", format!("{} CPUs, {}", machine.cpus, machine.cpu.clone().unwrap_or_else(unknown))),
        ("memory", machine.memory_mib.map_or_else(unknown, |mib| format!("{} MiB", count(mib)))),
        ("kernel", machine.kernel.clone().unwrap_or_else(unknown)),
        ("frequency governor", machine.governor.clone().unwrap_or_else(unknown)),
        (
            "virtual",
            if machine.is_virtual { "yes: other guests of the same host are not seen here" } else { "no" }
                .to_owned(),
        ),
    ];
    let whole = |process: &ProcessUsage| {
        let (from, to) = (run.warmup.as_secs_f64(), (run.warmup + run.duration).as_secs_f64());
        let cpu = process
            .cpu_seconds(from, to)
            .map(|seconds| format!("{seconds:.2} s of CPU in the measured part"));
        let memory = process.resident_mib_max().map(|mib| format!("at most {mib:.0} MiB resident"));
        [cpu, memory].into_iter().flatten().collect::<Vec<_>>().join(", ")
    };
    facts.push(("generator's process", whole(&report.usage.generator)));
    facts.extend(report.usage.brokers.iter().map(|process| ("broker's process", whole(process))));
    let scenario = serde_json::to_string_pretty(&run.scenario).unwrap_or_else(|error| error.to_string());
    Section {
        heading: "What was run, and where".to_owned(),
        intro: String::new(),
        blocks: vec![
            Block::Facts(facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
            Block::Folded { heading: "All settings".to_owned(), text: scenario },
        ],
    }
}

#[cfg(test)]
pub(crate) mod tests;
