use super::*;
use crate::failure::Failure;
use crate::latency::GatheredLatency;

fn scenario() -> Scenario {
    let mut scenario = Scenario { load: Load::Constant { rate: 5_000 }, ..Scenario::default() };
    scenario.run.duration = Duration::from_secs(2);
    scenario.run.warmup = Duration::from_millis(500);
    scenario.run.cpus = Some(vec![1]);
    scenario
}

fn surroundings() -> Surroundings {
    Surroundings {
        run_id: "4d2".into(),
        brokers: vec!["broker-a-0".into(), "broker-a-1".into()],
        queues: 8,
        threads: 1,
        connections: 2,
    }
}

/// Latencies of 1, 2, 3, … µs.
fn rising(count: u64) -> Latency {
    let mut latency = Latency::new();
    (1..=count).for_each(|micros| latency.record(Duration::from_micros(micros)));
    latency
}

fn measured() -> Measurements {
    let mut measured = Measurements::default();
    measured.publish.from_due = rising(10_000);
    measured.publish.from_sent = rising(10_000);
    measured.end_to_end.from_due = rising(1_000);
    measured.acked_in_window = 10_000;
    measured.received_in_window = 1_000;
    measured.ledger =
        LedgerTotals { sent: 10_000, acked: 10_000, received: 1_000, lost: 9_000, ..Default::default() };
    measured.publish_failures.record(Failure::TimedOut, None);
    measured.brokers = vec![BrokerMeasurements::default()];
    measured.brokers[0].publish = rising(70);
    measured.brokers[0].acked_in_window = 60;
    measured.brokers[0].publish_failures.record(Failure::TimedOut, None);
    measured.series = series();
    measured
}

/// 60 acknowledgements in the second second.
fn series() -> crate::series::Series {
    let mut publish = GatheredLatency::default();
    (0..60).for_each(|_| publish.record(Duration::from_micros(250)));
    let mut series = crate::series::Series::default();
    series.add(crate::series::Interval {
        first: 1,
        end: 2,
        acked: 60,
        publish: publish.take(),
        ..Default::default()
    });
    series
}

fn report() -> Report {
    Report::new(&scenario(), &surroundings(), &measured(), Duration::from_secs(2), false)
}

#[test]
fn the_json_has_the_promised_members() {
    let json = serde_json::to_value(report()).unwrap();
    for member in ["sent", "acked", "received", "lost", "duplicated", "out_of_order", "corrupted"] {
        assert!(json["ledger"][member].is_u64(), "ledger.{member}");
    }
    for distribution in ["publish", "e2e"] {
        for member in ["p50_us", "p90_us", "p99_us", "max_us"] {
            assert!(json[distribution][member].is_f64(), "{distribution}.{member}");
        }
        assert!(json[distribution]["count"].is_u64());
    }
    assert_eq!(json["configuration"]["rate"], 5_000);
    assert_eq!(json["configuration"]["size"], 1_024.0);
    assert_eq!(json["configuration"]["duration_s"], 2.0);
    assert!(json["configuration"]["version"].is_string());
    assert_eq!(json["throughput"]["published_per_s"], 5_000.0);
    assert_eq!(json["errors"]["publish"]["timed out"]["count"], 1);
    assert_eq!(json["faults"][0], "9000 acknowledged messages were not received");
}

#[test]
fn percentiles_without_enough_samples_are_null_and_read_na() {
    let json = serde_json::to_value(report()).unwrap();
    assert!(json["publish"]["p999_us"].is_f64() && json["publish"]["p9999_us"].is_null());
    assert!(json["e2e"]["p99_us"].is_f64() && json["e2e"]["p999_us"].is_null());
    let text = report().text();
    let publish = text.lines().find(|line| line.starts_with("publish")).unwrap();
    let words: Vec<_> = publish.split_whitespace().collect();
    assert_eq!(words, ["publish", "5,001", "9,003", "9,904", "9,994", "n/a", "10,000", "10,000"]);
}

#[test]
fn figures_that_tell_of_the_generator_are_marked_and_the_verdict_refused() {
    let mut measured = measured();
    measured.lateness = rising(10_000);
    let report = Report::new(&scenario(), &surroundings(), &measured, Duration::from_secs(2), false);
    let text = report.text();
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
    assert!(line("publish").contains("5,001*   9,003*   9,904*   9,994*      n/a  10,000*"), "{text}");
    assert!(!line("generator's lateness").contains('*'), "{text}");
    assert_eq!(line("NO VERDICT"), "NO VERDICT  the generator was the bottleneck");
    assert!(report.scheduling.verdict.generator_was_the_bottleneck);
}

#[test]
fn a_report_that_was_written_can_be_read_again() {
    let report = report();
    let json = serde_json::to_string(&report).unwrap();
    let read: Report = serde_json::from_str(&json).unwrap();
    assert_eq!(read, report);
    assert_eq!(serde_json::to_string(&read).unwrap(), json);
    assert_eq!(read.text(), report.text());
}

#[test]
fn every_broker_is_reported_and_so_is_every_second() {
    let json = serde_json::to_value(report()).unwrap();
    assert_eq!(json["brokers"][0]["name"], "broker-a-0");
    assert_eq!(json["brokers"][0]["published_per_s"], 30.0);
    assert_eq!(json["brokers"][0]["publish"]["count"], 70);
    assert_eq!(json["brokers"][0]["publish_errors"]["timed out"]["count"], 1);
    // The second one did nothing, and says so.
    assert_eq!(json["brokers"][1]["published_per_s"], 0.0);
    assert_eq!(json["brokers"][1]["publish"]["count"], 0);
    let seconds: Vec<_> = json["series"]["intervals"].as_array().unwrap().iter().collect();
    let starts: Vec<_> = seconds.iter().map(|second| second["start_s"].as_f64().unwrap()).collect();
    assert_eq!(starts, [0.0, 1.0, 2.0]);
    assert_eq!(
        seconds.iter().map(|second| second["acked"].as_u64().unwrap()).collect::<Vec<_>>(),
        [0, 60, 0]
    );
    assert_eq!(seconds[1]["publish"]["max_us"], 250.0);
}

#[test]
fn the_text_names_load_target_errors_and_faults() {
    let text = report().text();
    for part in [
        "open loop, 5,000 msg/s planned, 1,024 B each, 2s after 500ms of warm-up",
        "8 queues on broker-a-0, broker-a-1",
        "1 thread on CPU 1, 2 connections",
        "published 5,000 msg/s (4.9 MiB/s), received 500 msg/s (0.5 MiB/s)",
        "1 x publish timed out",
        "lost 9,000, duplicated 0, out of order 0, corrupted 0",
        "FAULT       9000 acknowledged messages were not received",
    ] {
        assert!(text.contains(part), "'{part}' is missing in\n{text}");
    }
}

#[test]
fn a_closed_loop_is_named_and_has_no_plan_to_be_late_against() {
    let scenario = Scenario { load: Load::Closed { depth: 16 }, consumers: vec![], ..scenario() };
    let text = Report::new(&scenario, &surroundings(), &measured(), Duration::from_secs(2), false).text();
    assert!(text.contains("closed loop, 16 in flight per connection"), "{text}");
    assert!(
        !text.contains("lateness") && !text.contains("end to end") && !text.contains("from actual send"),
        "{text}"
    );
}
