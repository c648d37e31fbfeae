use std::collections::BTreeMap;

use apogee_net::body::{KvTable, parse};
use apogee_net::code::RequestCode;
use apogee_net::header::{ExtWriter, NoExt, WriteExt};
use apogee_storage::{Durability, LogConfig};

use super::Moment;
use crate::shard::tests::world::{CONSUMER, PRODUCER, World, log_config, send_to};

impl World {
    fn at(&mut self, ms: u64, catch_up_reads: u32) {
        self.shard.at(Moment { ns: ms * 1_000_000, catch_up_reads });
    }

    fn runtime_table(&mut self, ext: &dyn WriteExt) -> BTreeMap<String, String> {
        let reply = self.asked(CONSUMER, RequestCode::GET_BROKER_RUNTIME_INFO, ext, b"");
        parse::<KvTable>(&reply.body).unwrap().table
    }

    fn ask_to_send(&mut self, body: &[u8]) {
        self.ask(PRODUCER, RequestCode::SEND_MESSAGE, &send_to("T"), body);
    }
}

#[test]
fn each_stage_counts_from_the_one_before() {
    let mut world = World::new();
    world.send("T", "makes the topic");
    world.at(100, 0);
    world.ask_to_send(b"a message");
    world.at(110, 3);
    assert!(world.step(), "the write");
    world.at(150, 1);
    world.settle();
    let table = world.runtime_table(&NoExt);
    for (stage, max_ms) in
        [("sealed", "0.0"), ("written", "10."), ("durable", "40."), ("answered", "0.0"), ("total", "50.")]
    {
        let text = &table[&format!("apogeeStage.{stage}")];
        assert!(text.starts_with(&format!("count 2, max {max_ms}")), "{stage}: {text}");
    }
    let slow = &table["apogeeSlow.0"];
    let stages =
        " 50.000 ms: sealed after 0.000, written 10.000, durable 40.000, answered 0.000; at log offset ";
    assert!(slow.contains(stages), "{slow}");
    assert!(slow.ends_with("bytes behind 0 others, catch-up reads: 3"), "{slow}");
    assert!(table.contains_key("apogeeSlow.1") && !table.contains_key("apogeeSlow.2"));
}

#[test]
fn what_waits_for_a_place_on_the_way_is_sealed_late() {
    let mut world = World::new();
    world.send("T", "makes the topic");
    world.at(100, 0);
    for _ in 0..=log_config().batches_in_flight_max {
        world.ask_to_send(b"one more than there are places");
    }
    world.at(130, 0);
    world.settle();
    let table = world.runtime_table(&NoExt);
    assert!(table["apogeeStage.sealed"].contains("max 30.0"), "{}", table["apogeeStage.sealed"]);
    let mut slow = table.iter().filter(|(name, _)| name.starts_with("apogeeSlow."));
    assert!(slow.any(|(_, text)| text.contains("sealed after 30.000")), "{table:?}");
}

#[test]
fn what_is_answered_before_it_is_durable_says_so() {
    let durability = Durability::Async { sync_interval_ms: 100 };
    let mut world = World::with(1, LogConfig { durability, ..log_config() });
    world.send("T", "makes the topic");
    world.ask_to_send(b"first");
    world.at(7, 0);
    world.settle();
    let told = world.runtime_table(&NoExt);
    assert!(told["apogeeStage.total"].contains("max 7.0"), "{}", told["apogeeStage.total"]);
    assert!(!told.contains_key("apogeeStage.durable"));
    assert!(!told["apogeeSlow.0"].contains("durable"), "{}", told["apogeeSlow.0"]);
}

#[test]
fn histograms_are_for_those_who_ask_for_them() {
    struct Asking;
    impl WriteExt for Asking {
        fn write_ext(&self, fields: &mut ExtWriter<'_>) {
            fields.str("apogeeHistograms", "true");
        }
    }
    let mut world = World::new();
    world.send("T", "one");
    assert!(!world.runtime_table(&NoExt).keys().any(|name| name.starts_with("apogeeHistogram.")));
    let told = world.runtime_table(&Asking);
    let histograms: Vec<_> = told.iter().filter(|(name, _)| name.starts_with("apogeeHistogram.")).collect();
    assert_eq!(histograms.len(), 10);
    assert!(histograms.iter().all(|(_, text)| (40..400).contains(&text.len())), "{histograms:?}");
}
