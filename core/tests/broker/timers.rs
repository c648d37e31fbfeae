//! Messages for later, on a real disk: they survive a kill, and how late they come.

// No executor runs here that a sleep could block.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use apogee_net::code::ResponseCode;
use apogee_net::message::{StoredMessages, property};

use crate::client::Client;
use crate::place;
use crate::server::Server;

fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64
}

fn due_at(due_ms: i64) -> String {
    format!("{}\u{1}{due_ms}\u{2}", property::TIMER_DELIVER_MS)
}

/// When a message came, was stored in its queue, and was due; and what it says.
struct Came {
    after_ms: i64,
    stored_after_ms: i64,
    body: Vec<u8>,
}

/// What comes to queue 0 of `topic` from `from` on, until there are `count` messages or `patience` is over.
fn await_messages(client: &mut Client, topic: &str, count: usize, patience: Duration) -> Vec<Came> {
    let started = Instant::now();
    let mut came = Vec::with_capacity(count);
    while came.len() < count && started.elapsed() < patience {
        let answer = client.pull(topic, 0, came.len() as i64, 1 << 20);
        if answer.code != ResponseCode::SUCCESS {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let now_ms = now_ms();
        for message in StoredMessages::new(&answer.body) {
            let message = message.unwrap();
            let due_ms: i64 = message.properties.get(property::TIMER_OUT_MS).unwrap().parse().unwrap();
            came.push(Came {
                after_ms: now_ms - due_ms,
                stored_after_ms: message.store_timestamp - due_ms,
                body: message.body.to_vec(),
            });
        }
    }
    came
}

#[test]
fn timers_survive_a_kill_and_come_once_and_never_early() {
    const COUNT: usize = 300;
    let Some(place) = place() else { return };
    let server = Server::start(place.path(), "");
    let mut client = Client::connect(&server);
    let begun_ms = now_ms();
    let sends = (0..COUNT).map(|n| (n.to_string().into_bytes(), due_at(begun_ms + 3_000 + 10 * n as i64)));
    client.send_many("T", sends);
    // In the middle of the deliveries.
    std::thread::sleep(Duration::from_millis(4_000));
    drop(server);
    let server = Server::start(place.path(), "");
    let mut client = Client::connect(&server);
    let came = await_messages(&mut client, "T", COUNT, Duration::from_secs(30));
    assert!(came.iter().all(|came| came.stored_after_ms >= 0), "early");
    let bodies: BTreeSet<_> = came.iter().map(|came| came.body.clone()).collect();
    assert_eq!((came.len(), bodies.len()), (COUNT, COUNT));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(
        client.pull("T", 0, COUNT as i64, 1 << 20).code,
        ResponseCode::PULL_NOT_FOUND,
        "one came twice"
    );
}

/// How late timers come when many wait: `PENDING` of them (1,000,000), of which `RATE` (10,000) come due each second, in an
/// order that has nothing to do with the one they were sent in.
#[test]
#[ignore = "takes minutes; run with --release --nocapture"]
fn lateness_with_many_pending() {
    let number = |name: &str, default: i64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (pending, rate) = (number("PENDING", 1_000_000), number("RATE", 10_000));
    let Some(place) = place() else { return };
    let server = Server::start(place.path(), "");
    let mut client = Client::connect(&server);
    let begun_ms = now_ms();
    // Time to send them all before the first is due.
    let first_due_ms = begun_ms + 15_000 + pending / 15;
    let body = vec![b'x'; 256];
    let sends = (0..pending).map(|n| {
        let nth = n * 7_919 % pending;
        (body.clone(), due_at(first_due_ms + nth * 1_000 / rate))
    });
    client.send_many("T", sends);
    let left_ms = first_due_ms - now_ms();
    println!("{pending} sent in {} ms, the first is due in {left_ms} ms", now_ms() - begun_ms);
    assert!(left_ms > 0, "sending took too long");
    let patience = Duration::from_millis((left_ms + pending * 1_000 / rate + 120_000) as u64);
    let came = await_messages(&mut client, "T", pending as usize, patience);
    assert_eq!(came.len() as i64, pending);
    for (what, of) in [
        ("in its queue", (|came| came.stored_after_ms) as fn(&Came) -> i64),
        ("at the consumer", |came| came.after_ms),
    ] {
        let mut late: Vec<i64> = came.iter().map(of).collect();
        late.sort_unstable();
        assert!(late[0] >= 0, "one came {} ms early", -late[0]);
        let at = |part: f64| late[((late.len() - 1) as f64 * part) as usize];
        println!(
            "late {what}: p50 {} ms, p99 {} ms, p99.9 {} ms, max {} ms",
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        );
    }
}
