use std::time::Duration;

use super::document::tests::assert_well_formed;
use super::*;
use crate::failure::Failure;
use crate::latency::GatheredLatency;
use crate::ledger::LedgerTotals;
use crate::report::Surroundings;
use crate::report::usage::UsageSample;
use crate::scenario::{Load, Scenario};
use crate::series;
use crate::tally::Measurements;

/// A run of so many seconds at 1,000 messages a second that take from `fastest_us` on, one percent ten times as long.
pub(crate) fn report(seconds: u64, fastest_us: u64) -> Report {
    let mut scenario = Scenario { load: Load::Constant { rate: 1_000 }, ..Scenario::default() };
    scenario.run.duration = Duration::from_secs(seconds);
    scenario.run.warmup = Duration::ZERO;
    let mut measured = Measurements::default();
    for second in 0..seconds {
        let mut interval = GatheredLatency::default();
        for message in 0..1_000 {
            let slow = if message % 100 == 0 { 10 } else { 1 };
            let latency = Duration::from_micros((fastest_us + message % 50) * slow);
            interval.record(latency);
            measured.publish.from_due.record(latency);
            measured.publish.from_sent.record(latency);
            measured.end_to_end.from_due.record(latency * 2);
            measured.end_to_end.from_sent.record(latency * 2);
        }
        measured.series.add(series::Interval {
            first: second,
            end: second + 1,
            sent: 1_000,
            acked: 1_000,
            received: 1_000,
            publish: interval.take(),
            ..series::Interval::default()
        });
    }
    let all = seconds * 1_000;
    (measured.acked_in_window, measured.received_in_window) = (all, all);
    measured.ledger = LedgerTotals { sent: all, acked: all, received: all, ..LedgerTotals::default() };
    let surroundings = Surroundings {
        run_id: "4d2".into(),
        brokers: vec!["broker-a-0".into()],
        queues: 4,
        threads: 1,
        connections: 1,
    };
    let mut report = Report::new(&scenario, &surroundings, &measured, Duration::from_secs(seconds), false);
    let sample = |at: u64| UsageSample { at_s: at as f64, cpu_s: at as f64 / 2.0, resident_mib: 100.0 };
    report.usage.brokers =
        vec![ProcessUsage { pid: 77, name: "broker".into(), samples: (0..=seconds).map(sample).collect() }];
    report
}

#[test]
fn the_page_says_what_was_measured_and_what_to_think_of_it() {
    let page = page(&report(20, 100));
    assert_well_formed(&page);
    for part in [
        "Latency of broker-a-0",
        "open loop, 1,000 msg/s planned",
        "Every acknowledged message came back, once and unharmed.",
        "20,000 samples",
        "<td>publish</td><td>125",
        "at least as fast: ",
        "publish, from actual send: ",
        "0 s: 1000 messages",
        "broker: broker (77): 50 %",
        "broker: broker (77): 100 MiB",
        "10.00 s of CPU in the measured part",
        "no errors",
    ] {
        assert!(page.contains(part), "'{part}' is missing");
    }
}

#[test]
fn what_a_broker_tells_of_itself_is_shown() {
    let mut report = report(3, 100);
    let stage = |name: &str, micros: u64| {
        let mut latency = Latency::new();
        (0..1_000).for_each(|_| latency.record(Duration::from_micros(micros)));
        StageTimes { name: name.into(), latency }
    };
    report.stages = vec![BrokerStages {
        broker: "broker-a-0".into(),
        since_restart: true,
        times: vec![stage("durable", 75), stage("total", 100)],
        sizes: vec![StageSizes {
            name: "batchMessages".into(),
            mean: 2.5,
            p50: Some(2),
            p99: None,
            max: 9,
            count: 400,
        }],
        slowest: vec!["12 ms: <slow>".into()],
    }];
    let page = page(&report);
    assert_well_formed(&page);
    for part in [
        "Inside broker-a-0",
        "started anew",
        "<td>durable</td><td>75.0</td><td>75 %</td>",
        "<td>batchMessages</td><td>2.5</td><td>2</td><td>n/a</td>",
        "12 ms: &lt;slow&gt;",
    ] {
        assert!(page.contains(part), "'{part}' is missing");
    }
}

#[test]
fn a_run_without_a_single_sample_has_a_page() {
    let page = page(&report(0, 100));
    assert_well_formed(&page);
    assert!(page.contains("The broker broke its word, or gave none.") && page.contains(">no samples<"));
}

#[test]
fn a_long_run_stays_a_small_page() {
    let page = page(&report(450, 100));
    assert_well_formed(&page);
    assert!(page.contains("Each column is 3 s of replies") && page.len() < 1_000_000, "{} bytes", page.len());
}

#[test]
fn what_a_broker_says_stays_text() {
    let hostile = "</script><img src=x onerror=alert(1)>";
    let mut measured = Measurements::default();
    measured.publish_failures.record(Failure::TimedOut, Some(hostile));
    let mut report = report(3, 100);
    report.errors = crate::report::Errors::new(&measured.publish_failures, &measured.consume_failures, 2);
    report.configuration.brokers = vec![hostile.into(), hostile.into()];
    report.configuration.scenario.name = hostile.into();
    report.configuration.scenario.description = hostile.into();
    report.brokers[0].name = hostile.into();
    report.brokers.push(report.brokers[0].clone());
    report.faults = vec![hostile.into()];
    report.usage.brokers[0].name = hostile.into();
    report.machine.cpu = Some(hostile.into());
    let page = page(&report);
    assert_well_formed(&page);
    assert!(!page.contains("<img"));
    assert!(page.contains("<td>publish: timed out</td><td>1</td><td>&lt;/script&gt;&lt;img"));
    assert!(page.contains("among them 2 planned messages"));
}

#[test]
fn a_late_generator_and_an_early_end_are_doubts() {
    let mut report = report(3, 100);
    report.scheduling.warning = Some("the generator itself was late".to_owned());
    report.interrupted = true;
    let (level, verdict, reasons) = verdict(&report);
    assert_eq!((level, reasons.len()), (Level::Doubtful, 2));
    assert!(verdict.ends_with("unharmed, but read on."), "{verdict}");
}

#[test]
fn the_slowest_message_ends_the_curve_at_its_exact_latency() {
    let mut latency = Latency::new();
    (1..=1_000).for_each(|micros| latency.record(Duration::from_micros(micros)));
    let curve = curve_of("publish", &latency);
    assert_eq!(curve.points.last(), Some(&(1_000.0, 1_000.0)));
    assert!(curve.points.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1));
    assert_eq!(curve.trusted_to, 100.0);
    assert!(curve_of("publish", &Latency::new()).points.is_empty());
}

#[test]
fn every_interval_of_a_report_is_in_its_log_and_every_distribution_has_a_file() {
    let report = report(20, 100);
    let log = crate::report::hlog::of_report(&report);
    assert_eq!(log.matches("Tag=publish,").count(), 20);
    assert_eq!(log.matches("Tag=e2e,").count(), 20);
    assert!(log.contains("Tag=publish,19.000,1.000,1.000,"), "{log}");
    let files: Vec<_> = hgrm::of_report(&report).into_iter().map(|(suffix, _)| suffix).collect();
    assert_eq!(files, ["", "publish-from-sent", "e2e", "e2e-from-sent"]);
}
