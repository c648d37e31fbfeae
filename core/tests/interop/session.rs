//! One run of a client program: scenarios in, one JSON line per result out.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::client::Client;
use crate::matrix::Cell;

/// Longest silence of a client program. Its scenarios have deadlines of their own, below this.
const SILENCE_MAX: Duration = Duration::from_secs(180);
/// Time for a producer to be back after a restart of the server.
const ACKED_TIME_MAX: Duration = Duration::from_secs(90);

/// What a client program prints on stdout; lines that are no JSON object are left to its log.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Result {
        scenario: String,
        ok: bool,
        seconds: f64,
        detail: String,
    },
    Lacks {
        scenario: String,
        lacks: String,
    },
    /// How many messages have been acknowledged so far, and what else is counted (scenarios `crash` and `steady`).
    Progress {
        acked: u64,
        #[serde(default)]
        counts: BTreeMap<String, u64>,
    },
    /// Something that the harness is to do and to confirm (scenario `crash`).
    Waiting {
        waiting: String,
    },
}

/// A running client program. Killed when dropped.
pub(crate) struct Session {
    child: Child,
    lines: Receiver<Line>,
    asked: Vec<&'static str>,
    acked: u64,
    counts: BTreeMap<String, u64>,
    waiting: Option<String>,
    results: Vec<(String, Cell)>,
}

impl Session {
    pub(crate) fn start(
        client: Client,
        namesrvs: &str,
        work: &Path,
        one_by_one: &[&'static str],
        together: &[&'static str],
    ) -> Session {
        let log_path = work.join("client.log");
        let mut log = OpenOptions::new().create(true).append(true).open(&log_path).expect("open client.log");
        let mut child = client
            .command(work)
            .arg("--namesrv")
            .arg(namesrvs)
            .args(one_by_one)
            .args(if together.is_empty() { &[][..] } else { &["--together"][..] })
            .args(together)
            .current_dir(work)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.try_clone().expect("a second handle of the log"))
            .spawn()
            .unwrap_or_else(|e| panic!("start {}: {e}", client.description));
        let stdout = child.stdout.take().expect("stdout is piped");
        let (tx, lines) = mpsc::channel();
        // Ends with the program, for its end closes the pipe.
        std::thread::spawn(move || {
            for text in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = writeln!(log, "{text}");
                if let Ok(line) = serde_json::from_str(&text) {
                    let _ = tx.send(line);
                }
            }
        });
        let asked = [one_by_one, together].concat();
        Session { child, lines, asked, acked: 0, counts: BTreeMap::new(), waiting: None, results: Vec::new() }
    }

    pub(crate) fn acked(&self) -> u64 {
        self.acked
    }

    /// What the program has counted so far.
    pub(crate) fn counts(&mut self) -> &BTreeMap<String, u64> {
        while let Ok(line) = self.lines.try_recv() {
            self.take(line);
        }
        &self.counts
    }

    /// Waits until `more` messages have been acknowledged from now on; false if they have not been in time.
    pub(crate) fn wait_for_acked(&mut self, more: u64) -> bool {
        while let Ok(line) = self.lines.try_recv() {
            self.take(line);
        }
        let goal = self.acked + more;
        self.take_until(ACKED_TIME_MAX, &format!("{goal} acknowledged messages"), |s| s.acked >= goal)
    }

    /// Waits until the program asks for `what`; false if it does not.
    pub(crate) fn wait_for_wish(&mut self, what: &str) -> bool {
        let wished = self.take_until(SILENCE_MAX, what, |s| s.waiting.as_deref() == Some(what));
        self.waiting = None;
        wished
    }

    fn take_until(&mut self, limit: Duration, what: &str, done: impl Fn(&Session) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        while !done(self) {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.take(line),
                Err(e) => {
                    println!("  waiting for {what}, at {} acknowledged messages: {e}", self.acked);
                    return false;
                }
            }
        }
        true
    }

    pub(crate) fn say(&mut self, word: &str) {
        let stdin = self.child.stdin.as_mut().expect("stdin is piped");
        // A program that has ended shows as missing results.
        let _ = writeln!(stdin, "{word}");
    }

    /// Waits for the program's end and reports every scenario asked for, also those it never came to.
    pub(crate) fn run_to_end(mut self, mut report: impl FnMut(&'static str, Cell)) {
        loop {
            match self.lines.recv_timeout(SILENCE_MAX) {
                Ok(line) => self.take(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    println!("  nothing from the client program for {SILENCE_MAX:?}: ended");
                    break;
                }
            }
        }
        for scenario in std::mem::take(&mut self.asked) {
            let found = self.results.iter().find(|(name, _)| name == scenario);
            if found.is_none() {
                println!("  {scenario:<14} FAIL          no result");
            }
            report(scenario, found.map_or(Cell::Fail, |(_, cell)| cell.clone()));
        }
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Progress { acked, counts } => {
                self.acked = acked;
                self.counts = counts;
            }
            Line::Waiting { waiting } => self.waiting = Some(waiting),
            Line::Result { scenario, ok, seconds, detail } => {
                let word = if ok { "pass" } else { "FAIL" };
                println!("  {scenario:<14} {word} {seconds:6.1} s  {detail}");
                self.results.push((scenario, if ok { Cell::Pass } else { Cell::Fail }));
            }
            Line::Lacks { scenario, lacks } => {
                println!("  {scenario:<14} lacks          {lacks}");
                self.results.push((scenario, Cell::Lacks));
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Both fail only when the program is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
