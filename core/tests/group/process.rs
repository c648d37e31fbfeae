//! A program on a host: started, killed, held, let go on, stopped.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::hosts::Host;
use crate::sys;

pub(crate) const APOGEE: &str = env!("CARGO_BIN_EXE_apogee");

/// From the start of a process to its `ready` line. Generous: the first start prepares segments on a slow disk.
const READY_TIME_MAX: Duration = Duration::from_secs(120);
/// From SIGTERM to exit.
pub(crate) const STOP_TIME_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);
const LOG_LINES_SHOWN: usize = 30;

/// A running `apogee`. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    /// Where in the log this process' part begins: those before it wrote there too.
    log_begin: usize,
    stopped: bool,
}

impl Process {
    /// Does not wait until it is ready.
    pub(crate) fn start(host: &Host, args: &[&str], log: &Path) -> Process {
        let log_begin = std::fs::metadata(log).map_or(0, |facts| facts.len()) as usize;
        let output = OpenOptions::new().create(true).append(true).open(log).expect("open a log");
        let child = host
            .command(APOGEE)
            .args(args)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle of the log"))
            .stderr(output)
            .spawn()
            .expect("start a process");
        Process { child, log: log.to_owned(), log_begin, stopped: false }
    }

    pub(crate) fn await_ready(&mut self) {
        let begun = Instant::now();
        while !self.log().lines().any(|line| line.starts_with("ready")) {
            let ended = self.child.try_wait().expect("look at a process");
            assert!(ended.is_none(), "ended with {ended:?} before it was ready:\n{}", self.log_end());
            assert!(
                begun.elapsed() < READY_TIME_MAX,
                "not ready after {READY_TIME_MAX:?}:\n{}",
                self.log_end()
            );
            std::thread::sleep(POLL);
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL; nothing of the process is left when this returns.
    pub(crate) fn kill(mut self) {
        self.assert_runs();
        self.child.kill().expect("kill a process");
        self.child.wait().expect("wait for a killed process");
        self.stopped = true;
    }

    /// SIGSTOP: the process stands still, its connections stay.
    pub(crate) fn hold(&mut self) {
        self.assert_runs();
        sys::signal(&self.child, libc::SIGSTOP);
    }

    pub(crate) fn go_on(&mut self) {
        sys::signal(&self.child, libc::SIGCONT);
    }

    /// SIGTERM, which must end the process in good order. Tells how long that took.
    pub(crate) fn stop(mut self) -> Duration {
        self.assert_runs();
        sys::signal(&self.child, libc::SIGTERM);
        let begun = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("look at a process") {
                Some(status) => break status,
                None => {
                    assert!(begun.elapsed() < STOP_TIME_MAX, "runs on after SIGTERM:\n{}", self.log_end())
                }
            }
            std::thread::sleep(POLL);
        };
        self.stopped = true;
        assert!(ended_well(status), "stopped with {status}:\n{}", self.log_end());
        begun.elapsed()
    }

    /// A process that ended by itself is a fault whatever else happens.
    pub(crate) fn assert_runs(&mut self) {
        if let Some(status) = self.child.try_wait().expect("look at a process") {
            self.stopped = true;
            panic!("ended by itself with {status}:\n{}", self.log_end());
        }
    }

    /// What this process has said so far.
    pub(crate) fn log(&self) -> String {
        let whole = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(whole.get(self.log_begin..).unwrap_or_default()).into_owned()
    }

    fn log_end(&self) -> String {
        let text = self.log();
        let lines = text.lines().collect::<Vec<_>>();
        let shown = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
        format!("--- end of {} ---\n{shown}", self.log.display())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.stopped {
            if std::thread::panicking() {
                println!("{}", self.log_end());
            }
            // Both fail only when the process is gone already.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn ended_well(status: ExitStatus) -> bool {
    // By the handler, or by the signal for who leaves it at its default after cleaning up.
    status.success() || status.code() == Some(128 + libc::SIGTERM)
}
