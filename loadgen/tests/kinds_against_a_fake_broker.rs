//! Every kind of message and of consumer that the fake broker knows: clean books when it behaves, and the right fault
//! when it does not.

mod fake;

use std::time::Duration;

use apogee_loadgen::driver::run::{Observer, View, run};
use apogee_loadgen::ledger::LedgerTotals;
use apogee_loadgen::report::Report;
use apogee_loadgen::scenario::{Consumer, Filter, From, Kind, Load, Scenario, Sizes};
use apogee_loadgen::stop::StopFlag;
use fake::Misdeeds;

struct Unseen;

impl Observer for Unseen {
    fn on_step(&mut self, _: &str) {}
    fn on_tick(&mut self, _: &View<'_>) {}
    fn on_end(&mut self) {}
}

/// 80 messages to two queues.
fn report_of(misdeeds: Misdeeds, change: impl FnOnce(&mut Scenario)) -> Report {
    let mut scenario = Scenario { load: Load::Constant { rate: 200 }, ..Scenario::default() };
    scenario.target.namesrv = vec![fake::start(misdeeds).to_string()];
    scenario.messages.size = Sizes::Fixed(200);
    scenario.topics.queues = 2;
    scenario.run.duration = Duration::from_millis(300);
    scenario.run.warmup = Duration::from_millis(100);
    scenario.run.threads = Some(1);
    scenario.producers.timeout = Duration::from_secs(20);
    scenario.run.drain = Duration::from_secs(30);
    change(&mut scenario);
    run(&scenario, &StopFlag::default(), &mut Unseen).unwrap()
}

fn group(name: &str) -> Consumer {
    Consumer { group: name.into(), ..Consumer::default() }
}

fn timed() -> Kind {
    Kind::Timed { after: Duration::from_millis(500), relative: false, early_max: Duration::ZERO }
}

fn transactional() -> Kind {
    Kind::Transactional { rollback: 10, check: 5, reply: false }
}

/// What 80 acknowledged messages are that every group got once.
fn clean(groups: u64) -> LedgerTotals {
    LedgerTotals { sent: 80, acked: 80, received: 80 * groups, ..LedgerTotals::default() }
}

#[test]
fn each_group_receives_everything_once() {
    let report = report_of(Misdeeds::default(), |scenario| {
        scenario.consumers = vec![Consumer { groups: 2, ..group("many") }, group("one")];
    });
    assert_eq!((report.ledger, report.errors.total, report.faults.len()), (clean(3), 0, 0));
    let received: Vec<u64> = report
        .consumers
        .iter()
        .flat_map(|consumer| consumer.groups.iter().map(|group| group.ledger.received))
        .collect();
    assert_eq!(received, [80, 80, 80]);
}

#[test]
fn a_message_kept_from_one_group_is_lost_for_that_group_alone() {
    let report = report_of(Misdeeds { hide: Some(("b", 40)), ..Misdeeds::default() }, |scenario| {
        scenario.consumers = vec![group("a"), group("b")];
        scenario.run.drain = Duration::from_secs(3);
    });
    let lost: Vec<u64> = report.consumers.iter().map(|consumer| consumer.groups[0].ledger.lost).collect();
    assert_eq!(
        (lost, &report.faults[..]),
        (vec![0, 1], &["1 acknowledged messages were not received".to_owned()][..])
    );
}

#[test]
fn a_filtered_group_is_owed_what_matches() {
    let report = report_of(Misdeeds::default(), |scenario| {
        scenario.messages.tags = ["A", "B", "C", "B"].map(String::from).to_vec();
        let filter = Some(Filter::Tags("A || C".into()));
        scenario.consumers = vec![group("all"), Consumer { filter, ..group("half") }];
    });
    assert_eq!((report.ledger, report.faults.len()), (LedgerTotals { received: 120, ..clean(1) }, 0));
}

#[test]
fn a_broker_that_filters_wrongly_delivers_what_is_unwanted() {
    // The fake compares tags only: of an SQL expression it knows nothing but the star.
    let report = report_of(Misdeeds::default(), |scenario| {
        let filter = Some(Filter::Sql { expression: "*".into(), expect_below: 10 });
        scenario.consumers = vec![Consumer { filter, ..group("sql") }];
    });
    assert_eq!((report.ledger.received, report.ledger.unwanted), (20, 60));
}

#[test]
fn messages_of_a_batch_are_counted_one_by_one_and_the_last_batch_is_not_full() {
    let report = report_of(Misdeeds::default(), |scenario| {
        (scenario.messages.batch, scenario.messages.keys) = (7, true);
        scenario.messages.size = Sizes::Uniform { min: 100, max: 300 };
    });
    assert_eq!((report.ledger, report.errors.total, report.faults.len()), (clean(1), 0, 0));
}

#[test]
fn one_way_messages_are_received_and_nobody_is_asked_about_them() {
    for batch in [1, 5] {
        let report = report_of(Misdeeds { forget: Some(40), ..Misdeeds::default() }, |scenario| {
            (scenario.messages.kind, scenario.messages.batch) = (Kind::Oneway, batch);
            scenario.run.drain = Duration::from_secs(2);
        });
        // A batch of the fake forgets nothing.
        let missing = u64::from(batch == 1);
        let expected =
            LedgerTotals { acked: 0, oneway: 80, received: 80 - missing, unacked: missing, ..clean(1) };
        assert_eq!((report.ledger, report.faults.len()), (expected, 0));
    }
}

#[test]
fn timed_messages_are_measured_from_their_time() {
    let report = report_of(Misdeeds::default(), |scenario| scenario.messages.kind = timed());
    // Those due in one millisecond have no order.
    let expected = LedgerTotals { out_of_order: report.ledger.out_of_order, ..clean(1) };
    assert_eq!((report.ledger, report.faults.len()), (expected, 0));
    assert_eq!(report.e2e.count(), 60);
}

#[test]
fn a_message_delivered_before_its_time_is_early() {
    let report = report_of(Misdeeds { hurry: Some(40), ..Misdeeds::default() }, |scenario| {
        scenario.messages.kind = timed();
    });
    assert_eq!(report.ledger.early, 1);
    assert_eq!(report.faults, ["1 messages were delivered before their time"]);
}

#[test]
fn of_transactions_the_committed_ones_arrive() {
    let report = report_of(Misdeeds::default(), |scenario| scenario.messages.kind = transactional());
    assert_eq!((report.ledger.acked, report.ledger.lost, report.faults.len()), (80, 0, 0));
    assert_eq!(report.ledger.received, 80 - report.ledger.rolled_back);
    assert!(report.ledger.rolled_back > 0, "{:?}", report.ledger);
}

#[test]
fn a_rolled_back_message_that_arrives_is_a_fault() {
    // The first message of a queue is rolled back.
    let report = report_of(Misdeeds { never_roll_back: Some(0), ..Misdeeds::default() }, |scenario| {
        scenario.messages.kind = transactional();
    });
    assert_eq!(report.ledger.rolled_back_received, 1);
    assert_eq!(report.faults, ["1 messages were delivered although they were rolled back"]);
}

#[test]
fn of_ordered_messages_each_key_keeps_its_order() {
    let kind = Kind::Ordered { keys: 4 };
    let report = report_of(Misdeeds::default(), |scenario| scenario.messages.kind = kind.clone());
    assert_eq!((report.ledger, report.faults.len()), (clean(1), 0));
    // One key per queue: whoever is overtaken is overtaken by its own key.
    let report = report_of(Misdeeds { overtake: Some(40), ..Misdeeds::default() }, |scenario| {
        scenario.messages.kind = Kind::Ordered { keys: 1 };
    });
    assert_eq!(report.ledger.out_of_order, 1);
    assert_eq!(report.faults, ["1 messages came after a later one of the same key"]);
}

#[test]
fn what_was_there_before_the_run_is_read_by_those_who_begin_there() {
    let report = report_of(Misdeeds::default(), |scenario| {
        scenario.messages.prefill = 101;
        let late = Consumer { from: From::Start, join: Duration::from_millis(200), ..group("late") };
        scenario.consumers = vec![group("live"), late];
    });
    let received: Vec<u64> =
        report.consumers.iter().map(|consumer| consumer.groups[0].ledger.received).collect();
    assert_eq!((received, report.ledger.sent, report.faults.len()), (vec![80, 181], 181, 0));
    assert_eq!(report.publish.count(), 60);
    let catch_up = report.consumers[1].catch_up.unwrap();
    assert!(catch_up.complete && catch_up.messages >= 101, "{catch_up:?}");
}

#[test]
fn more_connections_than_queues_share_them() {
    for load in [Load::Constant { rate: 200 }, Load::Closed { depth: 1 }] {
        let report = report_of(Misdeeds::default(), |scenario| {
            (scenario.load, scenario.producers.connections) = (load, 9);
        });
        assert_eq!((report.configuration.connections, report.faults.len()), (9, 0));
        assert_eq!((report.ledger.received, report.ledger.lost), (report.ledger.sent, 0));
    }
}
