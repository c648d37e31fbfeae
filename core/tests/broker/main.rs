//! The real binary on a real disk: what clients see of old messages, and what it leaves behind.

mod client;
mod cluster;
mod group;
mod nameservers;
#[path = "../interop/ports.rs"]
mod ports;
mod scale;
mod server;
mod timers;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use apogee_net::code::ResponseCode;
use apogee_net::message::StoredMessages;
use apogee_storage::driver::check_direct_io;

use client::Client;
use server::{APOGEE, Server};

/// Segments of 16 MiB, and next to nothing kept in memory.
const SMALL: &str = "segment_bytes = 16777216\ntail_cache_bytes = 1048576\n";

/// A directory for one test, or nothing if the machine will not do.
fn place() -> Option<tempfile::TempDir> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    match check_direct_io(directory.path()) {
        Ok(()) => Some(directory),
        Err(why) if std::env::var("CI").is_ok_and(|ci| ci == "true") => {
            panic!("cannot be skipped under CI: {why}")
        }
        Err(why) => {
            eprintln!("SKIPPED: {why}");
            None
        }
    }
}

/// A body that tells which message it belongs to at every place.
fn body(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number.wrapping_mul(31) + at / 7) as u8).collect()
}

/// Takes the files of a directory out of the page cache.
fn evict(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let file = File::open(entry.unwrap().path()).unwrap();
        // SAFETY: a plain system call on a descriptor that `file` keeps open.
        let done = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        assert_eq!(done, 0);
    }
}

/// The bodies of a queue's messages from the first on, pulled until there are none.
fn pull_all(client: &mut Client, topic: &str, queue_id: i32, bytes_max: i32) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    loop {
        let answer = client.pull(topic, queue_id, bodies.len() as i64, bytes_max);
        if answer.code == ResponseCode::PULL_NOT_FOUND {
            return bodies;
        }
        assert_eq!(answer.code, ResponseCode::SUCCESS, "at {}: {}", bodies.len(), answer.remark);
        for message in StoredMessages::new(&answer.body) {
            let message = message.unwrap();
            assert_eq!(message.queue_offset as usize, bodies.len());
            assert!(message.is_body_intact());
            bodies.push(message.body.to_vec());
        }
        assert_eq!(answer.int("nextBeginOffset") as usize, bodies.len());
    }
}

/// Long runs leave by `sendfile`, short ones are read; neither is cut, mixed up or taken for the other.
#[test]
fn old_messages_come_from_their_segments_as_they_were_sent() {
    let Some(dir) = place() else { return };
    let server = Server::start(dir.path(), SMALL);
    let mut client = Client::connect(&server);
    // One queue whose neighbours in the log are its own, and two that take turns.
    let long: Vec<_> = (0..60).map(|number| body(number, 700_000 + number)).collect();
    let short: Vec<_> = (0..80).map(|number| body(number, 3_000 + number)).collect();
    for (number, sent) in long.iter().enumerate() {
        client.send("Long", 0, sent, "");
        for queue_id in [0, 1] {
            client.send("Short", queue_id, &short[number % short.len()], "");
        }
    }
    for _ in 0..2 {
        evict(&server.shard().join("log"));
        assert!(pull_all(&mut client, "Long", 0, 8 << 20) == long, "other bytes than were sent");
        let short = &short[..long.len()];
        assert!(pull_all(&mut client, "Short", 1, 8 << 20) == short, "other bytes than were sent");
        assert!(pull_all(&mut client, "Short", 0, 20_000) == short, "other bytes than were sent");
    }
    server.stop();

    let server = Server::start(dir.path(), SMALL);
    let mut client = Client::connect(&server);
    assert!(pull_all(&mut client, "Long", 0, 1 << 20) == long, "other bytes after a restart");
    let sealed = std::fs::read_dir(server.shard().join("log"))
        .unwrap()
        .filter(|entry| {
            entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "idx")
        })
        .count();
    assert!(sealed >= 2, "{sealed} segments are sealed");
    server.stop();
}

/// Exit code, and what was printed.
fn apogee_log(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(APOGEE).arg("log").args(arguments).output().unwrap();
    let code = output.status.code().expect("it was not killed");
    let text = String::from_utf8(output.stdout).unwrap() + std::str::from_utf8(&output.stderr).unwrap();
    (code, text)
}

/// A broker's directory with messages in three segments, a topic, a group and an offset.
fn left_by_a_broker(dir: &Path) -> PathBuf {
    let server = Server::start(dir, SMALL);
    let mut client = Client::connect(&server);
    for number in 0..60 {
        client.send("Long", 0, &body(number, 700_000), "");
        client.send("Short", number as i32 % 2, format!("short {number}").as_bytes(), "TAGS\u{1}red\u{2}");
    }
    client.pull("Short", 0, 0, 1000);
    server.stop();
    dir.join("data")
}

#[test]
fn a_log_that_a_broker_left_is_good_and_can_be_read() {
    let Some(dir) = place() else { return };
    let data = left_by_a_broker(dir.path());
    let shard = data.join("shard-0");
    for place in [&data, &shard, &shard.join("log")] {
        let (code, text) = apogee_log(&["verify", place.to_str().unwrap()]);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("shard-0\n") && text.ends_with("  good\n"), "{text}");
    }
    let (code, text) = apogee_log(&["verify", "--json", data.to_str().unwrap()]);
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &found["problems"]), (0, &0.into()));
    let report = &found["shards"][0];
    assert!(
        report["records"].as_u64() > Some(120) && report["indexes_compared"].as_u64() >= Some(2),
        "{text}"
    );

    let data = data.to_str().unwrap();
    let (code, text) = apogee_log(&["dump", data, "--queue", "Short:1", "--bodies", "--limit", "2"]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((code, lines.len()), (0, 4), "{text}");
    assert!(lines[0].contains("  Short:1 offset 0  tag red  ") && lines[1] == "    short 1", "{text}");
    assert!(lines[2].contains("  Short:1 offset 1  ") && lines[3] == "    short 3", "{text}");

    let (code, text) = apogee_log(&["dump", data, "--control"]);
    assert_eq!(code, 0, "{text}");
    for said in [" Long has 4 read and 4 write queues", "  group CG may consume"] {
        assert!(text.contains(said), "{said:?} in {text}");
    }
    assert!(!text.contains("Long:0"), "messages among control records");

    let (code, text) = apogee_log(&["dump", data, "--batches", "--limit", "3"]);
    assert_eq!((code, text.lines().count()), (0, 3), "{text}");
    let third = text.lines().nth(2).unwrap();
    let offset = third.split_once(' ').unwrap().0;
    let (_, text) = apogee_log(&["dump", data, "--batches", "--from", offset, "--limit", "1"]);
    assert_eq!(text.trim_end(), third);
}

#[test]
fn damage_is_found_and_named() {
    let Some(dir) = place() else { return };
    let data = left_by_a_broker(dir.path());
    let segment = data.join("shard-0/log/00000000000000000000.seg");
    let file = File::options().read(true).write(true).open(&segment).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 5_000_000).unwrap();
    file.write_all_at(&[!byte[0]], 5_000_000).unwrap();

    let data = data.to_str().unwrap();
    let (code, text) = apogee_log(&["verify", data]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("PROBLEM: ") && text.contains(segment.to_str().unwrap()), "{text}");
    assert!(text.contains("records checksum") && text.ends_with("  1 problems\n"), "{text}");
    let (code, text) = apogee_log(&["verify", "--json", data]);
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    let problem = &found["shards"][0]["listed"][0];
    assert_eq!((code, problem["file"].as_str()), (1, segment.to_str()));
    assert!(problem["position"].as_u64() < Some(5_000_000), "{text}");

    let (code, text) = apogee_log(&["dump", data, "--queue", "Short:0"]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("PROBLEM: ") && text.contains("Short:0 offset 29"),
        "it stops at the damage: {text}"
    );
}

#[test]
fn what_is_no_log_is_said_with_another_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let (code, text) = apogee_log(&["verify", dir.path().to_str().unwrap()]);
    assert!(code == 2 && text.contains("holds no log"), "{code}: {text}");
    let (code, text) = apogee_log(&["dump", dir.path().to_str().unwrap(), "--queue", "x"]);
    assert!(code == 2 && text.contains("such as orders:3"), "{code}: {text}");
    let (code, _) = apogee_log(&["dump", dir.path().to_str().unwrap(), "--batches", "--bodies"]);
    assert_eq!(code, 2);
}
