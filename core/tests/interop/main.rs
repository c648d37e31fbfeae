//! Stock RocketMQ clients, unmodified, against the real `apogee` binary.
//!
//! Each test is one suite: it starts a server of its own, builds the suite's client program if its sources changed,
//! lets it run its scenarios and prints what passed as a table of features and clients. `README.md` beside this file
//! has the commands. The tests are ignored by default, for they need a JDK with Maven, or Go.

// No shard runs here: these threads start programs and wait for them.
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, reason = "the group suite starts clients elsewhere")]
mod client;
mod matrix;
mod ports;
mod server;
#[allow(dead_code, reason = "the group suite asks for counts")]
mod session;
mod sources;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client::{Client, Codec, GO, JAVA4, JAVA5, NODE, PYTHON, Toolchain};
use server::Server;
use session::Session;

/// What every client is asked to do, in this order. A client that has no such feature says so.
const SCENARIOS: &[&str] = &[
    "sync",
    "async",
    "oneway",
    "batch",
    "clustering",
    "broadcast",
    "tag_filter",
    "ordered",
    "resume",
    "start_from",
    "search_offset",
    "long_poll",
    "pull",
    "lite_pull",
    "assign_seek",
    "create_topic",
    "auto_create",
    "large",
    "properties",
    "limits",
    "admin",
    "unsupported",
];

/// Those that mostly wait for a time to come: a client runs several of them at once, after all others.
const TOGETHER: &[&str] = &[
    "delay_level",
    "tx_limit",
    "transaction",
    "tx_check",
    "retry",
    "send_back",
    "retry_orderly",
    "timer",
    "recall",
    "pop_retry",
    "pop_revive",
    "reset_live",
    "reset_offline",
    "skip_live",
    "clone_offset",
    "request_reply",
    "trace",
    "notified",
    "unregister",
    "pop",
    "sql_filter",
    "sql_error",
    "compressed",
    "auto_batch",
    "inner_batch",
    "query",
    "consumers",
    "remove",
    "namesrv_list",
];

/// The scenario that the harness takes part in, by killing the server under it.
const CRASH: &str = "crash";
/// Likewise, when the program asks for it.
const SURVIVE: &str = "survive";
const CRASH_KILLS: u32 = 5;
/// Acknowledged messages wanted between two kills: the producer is back for good, not for one lucky send.
const CRASH_ACKED_BETWEEN_KILLS: u64 = 200;
const CRASH_UPTIME_MS: RangeInclusive<u64> = 50..=1_500;
/// As many as the program asks for.
const SURVIVE_KILLS: u32 = 3;
const CRASH_DOWNTIME_MS: RangeInclusive<u64> = 0..=700;

#[test]
#[ignore = "needs a JDK and Maven"]
fn java5() {
    run_suite("java5", &JAVA5, Codec::Json);
}

#[test]
#[ignore = "needs a JDK and Maven"]
fn java5_binary() {
    run_suite("java5_binary", &JAVA5, Codec::Binary);
}

#[test]
#[ignore = "needs a JDK and Maven"]
fn java4() {
    run_suite("java4", &JAVA4, Codec::Json);
}

#[test]
#[ignore = "needs Go"]
fn go() {
    run_suite("go", &GO, Codec::Json);
}

#[test]
#[ignore = "needs Python"]
fn python() {
    run_suite("python", &PYTHON, Codec::Json);
}

#[test]
#[ignore = "needs Node"]
fn node() {
    run_suite("node", &NODE, Codec::Json);
}

/// `kill -9` at random moments under synchronous sends: every acknowledged message is there afterwards, at the queue
/// offset that was acknowledged, and a consumer that lived through it all has seen each. Then once more, when the
/// consumer group is at the end: it goes on there.
#[test]
#[ignore = "needs a JDK and Maven"]
fn crash() {
    suite("crash", &JAVA5, |work, client| {
        let mut server = Server::start(&work);
        let mut session = Session::start(client, &server.namesrv().to_string(), &work, &[CRASH], &[]);
        let mut dice = Dice::new();
        for kill in 1..=CRASH_KILLS {
            if !session.wait_for_acked(CRASH_ACKED_BETWEEN_KILLS) {
                break;
            }
            let uptime = dice.millis(CRASH_UPTIME_MS);
            let downtime = dice.millis(CRASH_DOWNTIME_MS);
            std::thread::sleep(uptime);
            server.kill();
            println!("  kill -9 number {kill} at {} acknowledged messages", session.acked());
            std::thread::sleep(downtime);
            server.restart();
        }
        session.wait_for_acked(CRASH_ACKED_BETWEEN_KILLS);
        session.say("stop");
        if session.wait_for_wish("restart") {
            server.kill();
            server.restart();
            session.say("restarted");
        }
        session.run_to_end(|scenario, cell| matrix::record("crash", scenario, cell));
        server.stop();
    });
}

/// `kill -9` while much is under way: delayed messages, half messages, retries, popped messages. Everything goes on
/// after the restarts, once.
#[test]
#[ignore = "needs a JDK and Maven"]
fn survive() {
    suite("survive", &JAVA5, |work, client| {
        let mut server = Server::start(&work);
        let mut session = Session::start(client, &server.namesrv().to_string(), &work, &[SURVIVE], &[]);
        for kill in 1..=SURVIVE_KILLS {
            if !session.wait_for_wish("restart") {
                break;
            }
            server.kill();
            println!("  kill -9 number {kill}");
            server.restart();
            session.say("restarted");
        }
        session.run_to_end(|scenario, cell| matrix::record("survive", scenario, cell));
        server.stop();
    });
}

fn run_suite(name: &'static str, toolchain: &Toolchain, codec: Codec) {
    suite(name, toolchain, |work, client| {
        let server = Server::start(&work);
        let client = client.with_codec(codec);
        let [one_by_one, together] = chosen_scenarios();
        let session = Session::start(client, &server.namesrv().to_string(), &work, &one_by_one, &together);
        session.run_to_end(|scenario, cell| matrix::record(name, scenario, cell));
        server.stop();
    });
}

/// All of them, or those that `APOGEE_INTEROP_ONLY` names, separated by commas.
fn chosen_scenarios() -> [Vec<&'static str>; 2] {
    let Ok(only) = std::env::var("APOGEE_INTEROP_ONLY") else {
        return [SCENARIOS.to_vec(), TOGETHER.to_vec()];
    };
    let chosen = [SCENARIOS, TOGETHER].map(|list| {
        list.iter().copied().filter(|name| only.split(',').any(|wanted| wanted == *name)).collect::<Vec<_>>()
    });
    assert!(
        chosen.iter().any(|list| !list.is_empty()),
        "APOGEE_INTEROP_ONLY={only} names none of {SCENARIOS:?}, {TOGETHER:?}"
    );
    chosen
}

/// What is around each suite: one at a time, tools looked for, sources built, results printed and judged. The folder
/// with data and logs is kept if something failed.
fn suite(name: &'static str, toolchain: &Toolchain, run: impl FnOnce(PathBuf, Client)) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);

    if let Some(missing) = toolchain.missing() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{name}: {missing}; in CI that is a failure");
        println!("{name}: skipped: {missing}");
        return;
    }
    let client = toolchain.build();
    let work = tempfile::Builder::new()
        .prefix(&format!("interop-{name}-"))
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("a folder for data and logs");
    println!("{name}: {}", client.description);
    let path = work.keep();
    run(path.clone(), client);
    let failed = matrix::print_and_count_failures(name);
    assert!(failed == 0, "{name}: {failed} scenarios failed; data and logs are in {}", path.display());
    std::fs::remove_dir_all(&path).expect("remove the folder of a suite that passed");
}

/// Moments to kill at. The seed is printed, so that a run's schedule can be asked for again.
struct Dice(u64);

impl Dice {
    fn new() -> Dice {
        let seed = match std::env::var("APOGEE_INTEROP_SEED") {
            Ok(seed) => seed.parse().expect("APOGEE_INTEROP_SEED is a number"),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |t| t.as_nanos() as u64),
        };
        println!("  APOGEE_INTEROP_SEED={seed}");
        Dice(seed)
    }

    /// Steele, Lea and Flood's SplitMix64.
    fn millis(&mut self, range: RangeInclusive<u64>) -> Duration {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        Duration::from_millis(range.start() + z % (range.end() - range.start() + 1))
    }
}
