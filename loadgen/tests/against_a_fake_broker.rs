//! Whole runs against a broker whose misdeeds are known: what it does wrong must be in the report, and nothing else.

mod fake;

use std::time::Duration;

use apogee_loadgen::clock::RunTime;
use apogee_loadgen::driver::SetupError;
use apogee_loadgen::driver::run::{Observer, RunError, View, run};
use apogee_loadgen::ledger::LedgerTotals;
use apogee_loadgen::report::{Interval, Report};
use apogee_loadgen::scenario::{Load, Scenario, Sizes};
use apogee_loadgen::schedule::StreamId;
use apogee_loadgen::stop::{Fault, StopFlag};
use fake::Misdeeds;

fn scenario(misdeeds: Misdeeds) -> Scenario {
    let mut scenario = Scenario { load: Load::Constant { rate: 200 }, ..Scenario::default() };
    scenario.target.namesrv = vec![fake::start(misdeeds).to_string()];
    scenario.messages.size = Sizes::Fixed(200);
    scenario.topics.queues = 2;
    scenario.run.duration = Duration::from_millis(300);
    scenario.run.warmup = Duration::from_millis(100);
    scenario.run.threads = Some(1);
    // Generous: other builds may have the machine's cores.
    scenario.producers.timeout = Duration::from_secs(20);
    scenario.run.drain = Duration::from_secs(30);
    scenario
}

fn report(scenario: &Scenario) -> Report {
    apogee_loadgen::run(scenario).unwrap()
}

fn report_of(misdeeds: Misdeeds) -> Report {
    report(&scenario(misdeeds))
}

/// For misdeeds whose proof is that nothing comes.
fn impatient(misdeeds: Misdeeds) -> Report {
    let mut scenario = scenario(misdeeds);
    scenario.run.drain = Duration::from_secs(3);
    report(&scenario)
}

fn error_of(scenario: &Scenario) -> RunError {
    apogee_loadgen::run(scenario).expect_err("a run that cannot begin")
}

/// What `report_of` finds when all is well.
fn clean() -> LedgerTotals {
    LedgerTotals { sent: 80, acked: 80, received: 80, ..LedgerTotals::default() }
}

#[test]
fn a_clean_run_has_a_clean_ledger_and_counts_only_the_measured_part() {
    let report = report_of(Misdeeds::default());
    assert_eq!((report.ledger, report.errors.total, report.faults.len()), (clean(), 0, 0));
    assert_eq!(
        (report.publish.count(), report.e2e.count(), report.scheduling.lateness.count()),
        (60, 60, 60)
    );
    assert_eq!((report.configuration.queues, report.configuration.connections), (2, 1));
}

#[test]
fn several_threads_and_connections_divide_the_work_and_add_up() {
    let mut scenario = scenario(Misdeeds::default());
    (scenario.run.threads, scenario.producers.connections, scenario.topics.queues) = (Some(3), 2, 8);
    let report = report(&scenario);
    assert_eq!((report.ledger, report.errors.total), (clean(), 0));
    assert_eq!((report.configuration.threads, report.configuration.connections), (3, 6));
}

#[test]
fn a_forgotten_message_is_lost() {
    let report = impatient(Misdeeds { forget: Some(40), ..Misdeeds::default() });
    assert_eq!(report.ledger, LedgerTotals { received: 79, lost: 1, ..clean() });
    assert_eq!(report.faults, [Fault::Lost(1).to_string()]);
}

#[test]
fn a_message_stored_twice_is_a_duplicate_even_at_the_very_end() {
    for at in [0, 40, 79] {
        let report = report_of(Misdeeds { double: Some(at), ..Misdeeds::default() });
        assert_eq!(report.ledger, LedgerTotals { duplicated: 1, ..clean() }, "message {at}");
        assert_eq!(report.faults, [Fault::Duplicated(1).to_string()]);
    }
}

#[test]
fn a_damaged_message_is_corrupted_and_therefore_not_received() {
    let report = impatient(Misdeeds { damage: Some(40), ..Misdeeds::default() });
    assert_eq!(report.ledger, LedgerTotals { received: 79, lost: 1, corrupted: 1, ..clean() });
}

#[test]
fn an_overtaken_message_is_out_of_order() {
    let report = report_of(Misdeeds { overtake: Some(20), ..Misdeeds::default() });
    assert_eq!(report.ledger, LedgerTotals { out_of_order: 1, ..clean() });
    assert!(report.faults.is_empty());
}

#[test]
fn an_unanswered_message_that_was_stored_is_counted_apart() {
    let report = impatient(Misdeeds { keep_silent: Some(40), ..Misdeeds::default() });
    assert_eq!(report.ledger, LedgerTotals { acked: 79, received_unacked: 1, ..clean() });
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["errors"]["publish"]["timed out"]["count"], 1);
}

/// Two brokers, of which one does wrong, and producers that try the other one then.
fn retrying(misdeeds: Misdeeds) -> Report {
    let beside = Some(fake::start(Misdeeds::default()));
    let mut scenario = scenario(Misdeeds { beside, ..misdeeds });
    scenario.producers.retry = 2;
    report(&scenario)
}

#[test]
fn what_one_broker_refuses_the_next_one_takes() {
    let report = retrying(Misdeeds { refuse: Some(20), ..Misdeeds::default() });
    assert_eq!(report.ledger, LedgerTotals { resent: 1, ..clean() });
    assert_eq!((report.errors.total, report.faults.len()), (0, 0));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["errors"]["retried"]["SYSTEM_BUSY (2)"], serde_json::json!({"count": 1}));
}

#[test]
fn what_a_broker_stored_without_saying_so_comes_twice_and_that_is_no_fault() {
    let report = retrying(Misdeeds { hang_up: Some(20), ..Misdeeds::default() });
    let ledger = report.ledger;
    assert_eq!((ledger.acked, ledger.received, ledger.lost, ledger.duplicated), (80, 80, 0, 0));
    assert!(ledger.resent >= 1 && ledger.duplicated_resent >= 1, "{ledger:?}");
    assert_eq!((report.errors.publish.len(), report.faults.len()), (0, 0), "{:?}", report.errors);
}

#[test]
fn while_one_broker_is_away_every_message_goes_to_the_other() {
    let report = retrying(Misdeeds { die: Some((20, Duration::from_millis(150))), ..Misdeeds::default() });
    let ledger = report.ledger;
    assert_eq!((ledger.sent, ledger.acked, ledger.received, ledger.lost), (80, 80, 80, 0));
    assert!(ledger.resent > 1, "{ledger:?}");
    assert_eq!((report.errors.publish.len(), report.errors.unsent), (0, 0), "{:?}", report.errors);
}

#[test]
fn a_refused_message_is_an_error_with_its_code_and_remark() {
    let report = report_of(Misdeeds { refuse: Some(40), ..Misdeeds::default() });
    assert_eq!(report.ledger, LedgerTotals { acked: 79, received: 79, unacked: 1, ..clean() });
    let json = serde_json::to_value(&report).unwrap();
    let expected = serde_json::json!({"count": 1, "remark": "not now"});
    assert_eq!(json["errors"]["publish"]["SYSTEM_BUSY (2)"], expected);
}

#[test]
fn stored_but_flushed_late_is_an_acknowledgement_with_a_note() {
    let report = report_of(Misdeeds { flush_late: Some(40), ..Misdeeds::default() });
    assert_eq!((report.ledger, report.errors.total), (clean(), 1));
}

#[test]
fn a_broken_connection_is_made_anew() {
    let report = report_of(Misdeeds { hang_up: Some(20), ..Misdeeds::default() });
    assert!(report.errors.total > 0, "{:?}", report.errors);
    assert!(report.ledger.acked > 20, "{:?}", report.ledger);
    assert!(report.faults.is_empty());
}

#[test]
fn a_stall_is_felt_by_every_message_that_was_due_in_it() {
    let stall = Duration::from_millis(200);
    let mut scenario = scenario(Misdeeds { stall: Some((400, stall)), ..Misdeeds::default() });
    scenario.load = Load::Constant { rate: 1_000 };
    scenario.run.duration = Duration::from_millis(2_000);
    let report = report(&scenario);
    // 200 of 2,000 messages were due during the stall; their latencies spread evenly from 200 ms down to none. A
    // generator that waited for replies would have seen one slow message, and a p99 of almost nothing.
    assert!(report.publish.summary().p99_us.unwrap() >= 175_000.0, "{:?}", report.publish.summary());
    assert!(report.publish.summary().max_us.unwrap() >= 195_000.0, "{:?}", report.publish.summary());
    assert_eq!((report.ledger.lost, report.ledger.sent, report.publish.count()), (0, 2_100, 2_000));
}

#[test]
fn the_intervals_show_a_stall_when_it_was() {
    let stall = Duration::from_millis(500);
    let mut scenario = scenario(Misdeeds { stall: Some((400, stall)), ..Misdeeds::default() });
    scenario.load = Load::Constant { rate: 1_000 };
    scenario.run.duration = Duration::from_millis(1_900);
    scenario.run.interval = Duration::from_millis(100);
    let report = report(&scenario);
    let intervals = &report.series.intervals;
    assert!(intervals.len() >= 20, "{}", intervals.len());
    let sum = |figure: fn(&Interval) -> u64| intervals.iter().map(figure).sum::<u64>();
    assert_eq!((sum(|one| one.sent), sum(|one| one.acked), sum(|one| one.received)), (2_000, 2_000, 2_000));
    assert_eq!((sum(|one| one.publish.count()), sum(|one| one.e2e.count())), (2_000, 2_000));
    // Sending goes on, nothing is acknowledged, and then everything at once. On a busy machine the broker is late to
    // begin with its stall, so that not even its intervals are certain; that there are some is.
    let is_silent = |one: &Interval| one.sent > 0 && one.acked == 0 && one.received == 0;
    let silences = intervals.split(|one| !is_silent(one)).map(<[Interval]>::len);
    assert!(silences.max() >= Some(3), "{intervals:?}");
    let longest = intervals.iter().filter_map(|one| one.publish.max()).max();
    assert!(longest >= Some(stall * 9 / 10) && longest == report.publish.max(), "{longest:?}");
    assert_eq!(report.brokers.len(), 1);
    assert_eq!(report.brokers[0].publish, report.publish);
    assert_eq!(report.brokers[0].e2e, report.e2e);
    assert_eq!(report.brokers[0].published_per_s, report.throughput.published_per_s);
}

#[test]
fn every_kind_of_plan_is_sent_as_a_whole() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let lines: Vec<String> = (0..50).map(|at| format!("{}", f64::from(at) / 125.0)).collect();
    std::fs::write(file.path(), lines.join("\n")).unwrap();
    let (on, off) = (Duration::from_millis(20), Duration::from_millis(80));
    let plans = [
        Load::Poisson { rate: 200, seed: 7 },
        Load::Bursts { rate: 200, on, off },
        Load::Ramp { from: 100, to: 300 },
        Load::Steps { rates: vec![100, 0, 300] },
        Load::Trace { file: file.path().to_owned(), speed: 1.0 },
    ];
    for load in plans {
        let mut scenario = scenario(Misdeeds::default());
        scenario.load = load;
        scenario.run.threads = Some(2);
        let streams: Vec<_> = (0..2).map(StreamId).collect();
        let planned = scenario.schedule().unwrap().unwrap().share(2, &streams).count() as u64;
        let report = report(&scenario);
        let expected = LedgerTotals { sent: planned, acked: planned, received: planned, ..clean() };
        assert_eq!((report.ledger, report.errors.total), (expected, 0), "{}", scenario.load);
        assert!(planned >= 40, "{planned} of {}", scenario.load);
    }
}

#[test]
fn planned_messages_beyond_the_in_flight_limit_are_errors_not_silence() {
    let stall = Some((20, Duration::from_millis(300)));
    let mut scenario = scenario(Misdeeds { stall, ..Misdeeds::default() });
    scenario.producers.in_flight_max = Some(10);
    let report = report(&scenario);
    // 60 messages fall due during the stall.
    assert!(report.errors.unsent >= 45, "{:?}", report.errors);
    assert_eq!(report.ledger.sent + report.errors.unsent, 80);
    assert_eq!(report.ledger.acked, report.ledger.sent);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["errors"]["publish"]["in-flight limit"]["count"], report.errors.unsent);
}

#[test]
fn a_closed_loop_keeps_the_broker_busy_and_balances() {
    let mut scenario = scenario(Misdeeds::default());
    scenario.load = Load::Closed { depth: 4 };
    let report = report(&scenario);
    let books = &report.ledger;
    assert!(books.sent > 40, "{books:?}");
    assert_eq!((books.acked, books.received, books.lost), (books.sent, books.sent, 0));
    assert_eq!(report.configuration.load, "closed loop, 4 in flight per connection");
}

#[test]
fn without_consumption_nothing_is_pulled_and_nothing_is_lost() {
    let mut scenario = scenario(Misdeeds { forget: Some(7), ..Misdeeds::default() });
    scenario.consumers.clear();
    let report = report(&scenario);
    assert_eq!(report.ledger, LedgerTotals { received: 0, ..clean() });
}

#[test]
fn a_second_run_on_the_same_topic_starts_where_the_first_ended() {
    let scenario = scenario(Misdeeds::default());
    for _ in 0..2 {
        assert_eq!(report(&scenario).ledger, clean());
    }
}

#[test]
fn an_interrupted_run_still_reports() {
    struct StopAtOnce(std::sync::Arc<std::sync::atomic::AtomicBool>);
    impl Observer for StopAtOnce {
        fn on_step(&mut self, _: &str) {}
        fn on_tick(&mut self, view: &View<'_>) {
            if view.elapsed > Duration::from_millis(200) {
                self.0.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
        fn on_end(&mut self) {}
    }
    let mut scenario = scenario(Misdeeds::default());
    scenario.run.duration = Duration::from_secs(60);
    let flag = std::sync::Arc::default();
    let stop = StopFlag::new(std::sync::Arc::clone(&flag));
    let report = run(&scenario, &stop, &mut StopAtOnce(flag)).unwrap();
    assert!(report.interrupted && report.ledger.sent > 0, "{:?}", report.ledger);
    assert_eq!((report.ledger.lost, report.ledger.received), (0, report.ledger.sent));
}

#[test]
fn what_keeps_a_run_from_beginning_is_said_clearly() {
    let mut unreachable = scenario(Misdeeds::default());
    unreachable.target.namesrv = vec!["127.0.0.1:1".into()];
    let message = error_of(&unreachable).to_string();
    assert!(message.contains("no NameServer can be reached: 127.0.0.1:1: Connection refused"), "{message}");

    let mut no_address = scenario(Misdeeds::default());
    no_address.target.namesrv = vec!["nonsense".into()];
    assert!(matches!(error_of(&no_address), RunError::Setup(SetupError::Address { .. })));

    let not_a_namesrv = scenario(Misdeeds { no_namesrv: true, ..Misdeeds::default() });
    let message = error_of(&not_a_namesrv).to_string();
    assert!(message.contains("is not a NameServer") && message.contains("not a broker"), "{message}");

    let mut stranger = scenario(Misdeeds::default());
    stranger.target.brokers = Some(vec!["other".into()]);
    let message = error_of(&stranger).to_string();
    assert!(message.contains("broker 'other' is not registered; registered are: fake-broker"), "{message}");

    let forbidden = scenario(Misdeeds { no_topics: true, ..Misdeeds::default() });
    let message = error_of(&forbidden).to_string();
    assert!(
        message.contains("refuses to create the topic: NO_PERMISSION (16), topics are made by others"),
        "{message}"
    );
}

#[test]
fn a_listener_that_speaks_another_protocol_is_no_namesrv() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::io::Write::write_all(&mut stream.unwrap(), b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        }
    });
    let mut scenario = scenario(Misdeeds::default());
    scenario.target.namesrv = vec![address.to_string()];
    let message = error_of(&scenario).to_string();
    assert!(message.contains("is not a NameServer"), "{message}");
}

#[test]
fn a_broker_that_moves_is_followed_and_the_gap_is_what_its_clients_felt() {
    let away = Duration::from_millis(500);
    let mut scenario = scenario(Misdeeds { die: Some((300, away)), ..Misdeeds::default() });
    scenario.load = Load::Constant { rate: 500 };
    scenario.run.duration = Duration::from_secs(2);
    scenario.run.warmup = Duration::from_millis(100);
    // Only the broken connection can be the reason to ask.
    scenario.target.route_interval = Duration::from_secs(3600);
    let report = report(&scenario);

    let gap = report.gaps.longest.expect("a gap");
    // Message 300 is due after 600 ms; answers before it may be seen late, for this machine may be busy with other builds.
    // The broker is back 500 ms later; to find it takes a question (100 ms) and a connection (20 ms) more.
    let millis = |at: RunTime| at.since_start().as_millis();
    assert!((590..1_000).contains(&millis(gap.began)), "{gap:?}");
    assert!((1_100..1_800).contains(&millis(gap.ended)), "{gap:?}");
    let length = gap.length();
    let recovered = gap.recovered_in().expect("it came back");
    assert!(
        recovered <= length + Duration::from_millis(1) && recovered + Duration::from_millis(300) > length
    );
    let failed: u64 = report.errors.publish.values().map(|counted| counted.count).sum();
    assert!(gap.failed > 50 && gap.failed == failed, "{gap:?}");
    assert_eq!(report.gaps.brokers[0].longest, gap);

    // What was stored last may have died with its answer.
    let LedgerTotals { sent, acked, received, unacked, received_unacked, .. } = report.ledger;
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    assert_eq!((received, sent), (acked + received_unacked, received + unacked));
    assert!(acked > 500 && acked + gap.failed == 1_050, "{:?}", report.ledger);
}

/// The generator as a process of its own, which the kernel stops for a while.
#[test]
fn a_stall_of_the_generator_itself_is_its_own_fault_and_refuses_a_verdict() {
    let stall = Duration::from_millis(300);
    let json = tempfile::NamedTempFile::new().unwrap();
    let namesrv = fake::start(Misdeeds::default()).to_string();
    let mut generator = std::process::Command::new(env!("CARGO_BIN_EXE_apogee-loadgen"))
        .args(["run", "--namesrv", &namesrv, "--rate", "500", "--threads", "1"])
        .args(["--duration", "4s", "--warmup", "100ms", "--send-timeout", "20s", "--drain-timeout", "30s"])
        .arg("--json")
        .arg(json.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let signal = |signal| {
        // SAFETY: a signal to a child that has not been waited for: its id is still its own.
        assert_eq!(unsafe { libc::kill(generator.id() as i32, signal) }, 0);
    };
    pause(Duration::from_millis(2_500));
    signal(libc::SIGSTOP);
    pause(stall);
    signal(libc::SIGCONT);
    let mut text = String::new();
    std::io::Read::read_to_string(generator.stdout.as_mut().unwrap(), &mut text).unwrap();
    assert_eq!(generator.wait().unwrap().code(), Some(3), "{text}");
    assert!(text.contains("NO VERDICT"), "{text}");

    let report: Report = serde_json::from_reader(std::fs::File::open(json.path()).unwrap()).unwrap();
    let scheduling = &report.scheduling;
    assert!(scheduling.verdict.generator_was_the_bottleneck);
    for (what, latency) in [("lateness", &scheduling.lateness), ("gaps", &scheduling.gaps)] {
        let longest = latency.max().unwrap();
        // The kernel need not stop a thread at once that waits for its CPU.
        assert!(longest >= stall / 2, "{what} {longest:?}");
    }
    assert_eq!(scheduling.threads.len(), 1);
    assert!(report.ledger.acked == report.ledger.sent && report.ledger.lost == 0, "{:?}", report.ledger);
}

#[expect(clippy::disallowed_methods, reason = "the test only waits")]
fn pause(length: Duration) {
    std::thread::sleep(length);
}
