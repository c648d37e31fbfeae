//! Apogee beside Apache RocketMQ: the same questions to both, the answers compared.
//!
//! `README.md` beside this file has the commands. The tests are ignored by default, for they need a JDK and Maven.

// No shard runs here: these threads start programs and wait for them.
#![allow(clippy::disallowed_methods)]

mod commands;
mod differences;
mod examples;
mod java;
mod keys;
mod normal;
#[path = "../interop/ports.rs"]
mod ports;
mod requests;
#[allow(dead_code, reason = "the interop suites also kill and restart")]
#[path = "../interop/server.rs"]
mod server;
mod side;
#[path = "../interop/sources.rs"]
mod sources;
mod tool;
mod wire;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

use commands::Commands;
use differences::Comparison;
use java::Java;
use requests::Request;
use server::Ports;
use side::Side;
use wire::Asker;

/// `mqadmin` prints the same.
#[test]
#[ignore = "needs a JDK and Maven"]
fn mqadmin() {
    suite("mqadmin", |java, work| {
        let (rocketmq, other) = sides(java, work);
        let commands = Commands::read();
        let (one, two) = std::thread::scope(|scope| {
            let one = scope.spawn(|| commands::run_all(&commands, java, &rocketmq));
            let two = scope.spawn(|| commands::run_all(&commands, java, &other));
            (one.join().expect("RocketMQ's run"), two.join().expect("Apogee's run"))
        });
        let mut comparison = Comparison::new("mqadmin", !against_itself());
        for (step, (one, two)) in commands.steps.iter().zip(one.into_iter().zip(two)) {
            comparison.step(step.text, one, two);
        }
        rocketmq.stop();
        other.stop();
        comparison.finish();
    });
}

/// Requests, right ones and wrong ones, are answered with the same code, fields and members of bodies.
#[test]
#[ignore = "needs a JDK and Maven"]
fn wire() {
    suite("wire", |java, work| {
        let (rocketmq, other) = sides(java, work);
        let requests = requests::all();
        let answers = |side: &Side| {
            let mut asker = Asker::new(side);
            let mut log = File::create(side.work.join("answers.log")).expect("make answers.log");
            let mut ask = |request: &Request| {
                let lines = asker.ask(request);
                writeln!(log, "=== {}\n{}", request.title, lines.join("\n")).expect("write answers.log");
                lines
            };
            requests.iter().map(&mut ask).collect::<Vec<_>>()
        };
        let (one, two) = std::thread::scope(|scope| {
            let one = scope.spawn(|| answers(&rocketmq));
            let two = scope.spawn(|| answers(&other));
            (one.join().expect("RocketMQ's answers"), two.join().expect("Apogee's answers"))
        });
        let mut comparison = Comparison::new("wire", !against_itself());
        for (request, (mut one, mut two)) in requests.iter().zip(one.into_iter().zip(two)) {
            // The code comes first; what follows it follows from it.
            if one[0] != two[0] {
                one.truncate(1);
                two.truncate(1);
            }
            comparison.step(&request.title, one, two);
        }
        rocketmq.stop();
        other.stop();
        comparison.finish();
    });
}

/// RocketMQ's examples and benchmarks find what they expect.
#[test]
#[ignore = "needs a JDK and Maven"]
fn examples() {
    suite("examples", |java, work| {
        let ports = Ports { namesrv: examples::namesrv(), ..Ports::free(1) };
        let side =
            if against_itself() { Side::rocketmq(java, work, ports) } else { Side::apogee(work, ports) };
        let failed = examples::run_all(java, &side);
        side.stop();
        assert!(failed == 0, "{failed} examples failed");
    });
}

/// RocketMQ, and what is compared with it.
fn sides(java: &Java, work: &Path) -> (Side, Side) {
    let rocketmq = Side::rocketmq(java, work, Ports::free(1));
    // Looked for now, so that they are others.
    let ports = Ports::free(1);
    let other = if against_itself() { Side::rocketmq(java, work, ports) } else { Side::apogee(work, ports) };
    (rocketmq, other)
}

/// With `APOGEE_TWIN_ITSELF=1` RocketMQ is compared with RocketMQ: whatever differs then is a fault of the comparison.
fn against_itself() -> bool {
    std::env::var("APOGEE_TWIN_ITSELF").as_deref() == Ok("1")
}

/// What is around each suite: tools looked for, programs built. The folder with data and logs is kept if something
/// failed. Suites run at the same time, for most of their time is spent waiting.
fn suite(name: &'static str, run: impl FnOnce(&Java, &Path)) {
    static JAVA: OnceLock<Java> = OnceLock::new();

    if let Some(missing) = Java::missing() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "{name}: no `{missing}`; in CI that is a failure"
        );
        println!("{name}: skipped: no `{missing}` in PATH");
        return;
    }
    let java = JAVA.get_or_init(Java::build);
    let work = tempfile::Builder::new()
        .prefix(&format!("twin-{name}-"))
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("a folder for data and logs");
    let path = work.keep();
    println!("{name}: data and logs in {} until it has passed", path.display());
    run(java, &path);
    std::fs::remove_dir_all(&path).expect("remove the folder of a suite that passed");
}
