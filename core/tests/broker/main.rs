//! The real binary on a real disk: what clients see of old messages, and what it leaves behind.

mod client;
mod server;

use std::os::fd::AsRawFd;
use std::path::Path;

use apogee_net::code::ResponseCode;
use apogee_net::message::StoredMessages;
use apogee_storage::driver::check_direct_io;

use client::Client;
use server::Server;

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
        let file = std::fs::File::open(entry.unwrap().path()).unwrap();
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
