//! `kill -9` at random moments of a process that appends, seals, takes snapshots, recycles and lets segments go: whatever it
//! acknowledged is there afterwards, in order, and can be read.
//!
//! `APOGEE_KILLS=n` kills so often.

use std::collections::VecDeque;
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use apogee_storage::driver::{DiskConfig, ShardDirectory};
use apogee_storage::{DerivedState, LogConfig, LogEvent, LogOffset, NodeId, QueueKey, Retention};

use super::harness::{Numbered, Shard, append, identity, on_executor};
use super::reading::{bytes_of, read_all};

/// In CI, at about a second each; in two directories at a time.
const KILLS: u64 = 100;
const DIRECTORIES: u64 = 2;

/// A slow machine does less between two kills. It gets more rounds of them, each with twice the time, until everything has happened.
const ROUNDS_MAX: u64 = 6;

/// The last one's records are control records.
const QUEUES: [QueueKey; 4] = [QueueKey(0), QueueKey(1), QueueKey(2), QueueKey::CONTROL];

/// Appends that may be on their way.
const ON_THE_WAY: usize = 64;

const KEPT_BYTES: u64 = 512 << 10;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 128 << 10,
        batch_bytes_target: 16 << 10,
        batch_bytes_max: 32 << 10,
        staged_bytes_max: 1 << 20,
        tail_cache_bytes: 64 << 10,
        reserve_bytes: 0,
        retry_ms: 10,
        snapshot_pause_ms: 0,
        retention: Retention { age_ms: None, bytes: Some(KEPT_BYTES), may_reclaim: true },
        ..LogConfig::new(identity().group_id(), NodeId(1))
    }
}

/// Record `nth` of a queue.
fn record(queue: usize, nth: u64) -> Numbered {
    Numbered { id: nth << 2 | queue as u64, len: (1 + nth * 131 % 10_000) as u32 }
}

/// How many control records there were; each must be the one that comes next.
#[derive(Clone, Copy, Default)]
struct Control(u64);

impl DerivedState for Control {
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.0 = u64::from_le_bytes(snapshot.try_into().map_err(|_| "no state of ours")?);
        Ok(())
    }

    fn apply(&mut self, at: LogOffset, control_record: &[u8]) -> Result<(), String> {
        if control_record != bytes_of(record(QUEUES.len() - 1, self.0)) {
            return Err(format!("at {at} is not control record {}", self.0));
        }
        self.0 += 1;
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }
}

async fn open(directory: &Path) -> (Shard, Control) {
    Shard::open_with(
        directory,
        config(),
        DiskConfig { open_files_max: 4, ..DiskConfig::default() },
        Control(0),
    )
    .await
}

const CHILD: &str = "APOGEE_TEST_APPEND_UNTIL_KILLED_IN";

/// Not a test of its own: what the next one runs as a process and kills. Says what it acknowledged and what the log did.
#[test]
fn append_until_killed() {
    let Ok(directory) = std::env::var(CHILD) else { return };
    let directory = PathBuf::from(directory);
    on_executor(async {
        let (mut shard, _) = open(&directory).await;
        say("open\n");
        let mut next = QUEUES.map(|queue| shard.log.tail_offset(queue).0);
        let mut waiting = VecDeque::new();
        for turn in 0.. {
            while waiting.len() < ON_THE_WAY {
                let queue = (turn + waiting.len()) % QUEUES.len();
                let Numbered { id, len } = record(queue, next[queue]);
                if shard.log.stage([append(QUEUES[queue].0, id, len)]).is_err() {
                    break;
                }
                next[queue] += 1;
                waiting.push_back(queue);
            }
            shard.submit();
            shard.complete_one().await;
            shard.log.on_tick();
            let mut said = String::new();
            while let Some(committed) = shard.log.take_committed() {
                for place in &committed.places {
                    let queue = waiting.pop_front().expect("only what was staged is committed");
                    said += &format!("acknowledged {queue} {}\n", place.queue_offset);
                }
            }
            while let Some(event) = shard.log.take_event() {
                said += match event {
                    LogEvent::Sealed { .. } => "sealed\n",
                    LogEvent::SnapshotTaken { .. } => "snapshot\n",
                    LogEvent::Left { .. } => "left\n",
                    LogEvent::Space { .. } => "space\n",
                    event => panic!("{event:?}"),
                };
            }
            say(&said);
        }
    });
}

fn say(lines: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(lines.as_bytes()).and_then(|()| out.flush()).expect("somebody listens");
}

/// What is known of a log that is killed again and again.
#[derive(Debug, Default)]
struct Known {
    /// Records of each queue that are there for good.
    acknowledged: [u64; QUEUES.len()],
    kills_before_open: u64,
    sealed: u64,
    snapshots: u64,
    left: u64,
}

impl Known {
    fn hear(&mut self, line: &str) -> bool {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("acknowledged"), Some(queue), Some(offset)) => {
                // A line may be cut off by the kill, and is a smaller number then.
                let (Ok(queue), Ok(offset)) = (queue.parse::<usize>(), offset.parse::<u64>()) else {
                    return false;
                };
                let known = &mut self.acknowledged[queue];
                *known = (*known).max(offset + 1);
            }
            (Some("sealed"), ..) => self.sealed += 1,
            (Some("snapshot"), ..) => self.snapshots += 1,
            (Some("left"), ..) => self.left += 1,
            (Some("open"), ..) => return true,
            _ => {}
        }
        false
    }

    /// Runs the child for so long, or for so long since it opened the log, kills it, and hears it out.
    fn kill_after(&mut self, directory: &Path, time: Duration, since_open: bool) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::append_until_killed", "--nocapture"])
            .env(CHILD, directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = listen(BufReader::new(child.stdout.take().unwrap()));
        let mut deadline = Instant::now() + if since_open { Duration::from_secs(60) } else { time };
        let mut is_open = false;
        while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if self.hear(&line) {
                is_open = true;
                self.check_locked(directory, child.id());
                if since_open {
                    deadline = Instant::now() + time;
                }
            }
        }
        assert!(child.try_wait().unwrap().is_none(), "the child goes on until it is killed");
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died counts too.
        lines.into_iter().for_each(|line| {
            self.hear(&line);
        });
        self.kills_before_open += u64::from(!is_open);
    }

    fn check_locked(&self, directory: &Path, pid: u32) {
        let error = ShardDirectory::open(directory, &identity()).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by another process (pid {pid})")), "{error}");
    }

    fn has_seen_all(&self) -> bool {
        [self.kills_before_open, self.sealed, self.snapshots, self.left].iter().all(|times| *times > 0)
    }

    /// Opens the log as the next process does, and compares.
    fn check(&mut self, directory: &Path) {
        on_executor(async {
            let (shard, control) = open(directory).await;
            for (nth, queue) in QUEUES.into_iter().enumerate() {
                let (min, max) = (shard.log.min_offset(queue).0, shard.log.max_offset(queue).0);
                let acknowledged = self.acknowledged[nth];
                assert!(
                    max >= acknowledged,
                    "queue {queue}: {max} records, {acknowledged} were acknowledged"
                );
                self.acknowledged[nth] = max;
                let bytes = read_all(&shard, queue.0).await;
                let wanted: Vec<u8> = (min..max).flat_map(|offset| bytes_of(record(nth, offset))).collect();
                assert!(bytes == wanted, "queue {queue} from {min} to {max} reads other bytes");
            }
            assert_eq!(control.0, self.acknowledged[QUEUES.len() - 1], "control records");
            let (start, end) = (shard.log.start(), shard.log.marks().committed);
            assert!(
                start == LogOffset(0) || end.0 - start.0 + 2 * config().segment_bytes >= KEPT_BYTES,
                "the log goes from {start} to {end}: too much has left"
            );
        });
    }
}

/// The lines of a process, until it ends.
fn listen(out: impl std::io::BufRead + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn kill_again_and_again(kills: u64, seed: u64) -> Known {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (mut known, mut random) = (Known::default(), seed);
    for kill in 0..kills * ROUNDS_MAX {
        if kill >= kills && (kills < KILLS / DIRECTORIES || known.has_seen_all()) {
            break;
        }
        let slowness = 1 << (kill / kills);
        // Knuth's MMIX generator; the moment of a kill cannot be repeated anyway.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let time = slowness * Duration::from_micros((random >> 33) % 60_000);
        // Some in the opening too.
        let since_open = (random >> 60) > 3;
        known.kill_after(directory.path(), if since_open { time } else { time / 2 }, since_open);
        known.check(directory.path());
    }
    known
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    if super::directory().is_none() {
        return;
    }
    let kills = std::env::var("APOGEE_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"));
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let threads: Vec<_> = (0..DIRECTORIES)
        .map(|nth| std::thread::spawn(move || kill_again_and_again(kills / DIRECTORIES, seed + nth)))
        .collect();
    for thread in threads {
        let known = thread.join().expect("each says what is wrong");
        println!("{known:?}");
        assert!(kills < KILLS || known.has_seen_all(), "too little happened: {known:?}");
    }
}
