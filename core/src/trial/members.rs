//! The processes of the cluster.

// A control thread: no executor runs here that a sleep could block.
#![allow(clippy::disallowed_methods)]

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::console::Action;
use super::plan::{Plan, Process};

/// How long an orderly stop of one process may take.
const STOP_WAIT: Duration = Duration::from_secs(15);

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is shown of the log of a process that ended right away.
const LOG_END_BYTES: i64 = 2000;

pub(super) struct Members(Vec<Member>);

pub(super) struct Member {
    name: String,
    key: String,
    command: &'static str,
    config: PathBuf,
    log: PathBuf,
    ports: (u16, usize),
    process: Option<Child>,
    is_paused: bool,
    ended: Option<ExitStatus>,
}

impl Members {
    /// Starts all of them.
    pub(super) fn start(plan: &Plan) -> anyhow::Result<Members> {
        let mut members = Members(plan.processes().map(Member::new).collect());
        for number in 0..members.0.len() {
            if let Err(error) = members.0[number].start() {
                members.stop_all(|| false);
                return Err(error);
            }
        }
        Ok(members)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.0.iter()
    }

    pub(super) fn get(&mut self, key: &str) -> Option<&mut Member> {
        self.0.iter_mut().find(|member| member.key == key || member.name == key)
    }

    /// Those that have ended since last asked.
    pub(super) fn reap(&mut self) -> Vec<&Member> {
        let reaped = self.0.iter_mut().filter_map(|member| member.reap().then_some(&*member));
        reaped.collect()
    }

    /// Stops nodes, then NameServers, one after the other; all at once when `hurry` says so.
    pub(super) fn stop_all(&mut self, mut hurry: impl FnMut() -> bool) {
        for member in self.0.iter_mut().rev() {
            member.end(&mut hurry);
        }
    }
}

impl Drop for Members {
    /// Whatever went wrong, no process stays behind.
    fn drop(&mut self) {
        for member in &mut self.0 {
            member.kill();
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Member {
    fn new(process: &Process) -> Member {
        Member {
            name: process.name.clone(),
            key: process.key.clone(),
            command: process.command(),
            config: process.config.clone(),
            log: process.log.clone(),
            ports: (process.ports[0], process.ports.len()),
            process: None,
            is_paused: false,
            ended: None,
        }
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// For the list of all.
    pub(super) fn line(&self) -> String {
        let pid = self.pid().map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let (first, count) = self.ports;
        let ports = if count > 1 { format!("ports from {first}") } else { format!("port {first}") };
        format!("{:<10} pid {pid:<8} {ports:<17} log {}", self.name, self.log.display())
    }

    /// How it ended.
    pub(super) fn ended(&self) -> String {
        match self.ended {
            None => "it runs".into(),
            Some(status) => match (status.signal(), status.code()) {
                (Some(signal), _) => format!("killed by signal {signal}"),
                (None, Some(code)) => format!("exit code {code}"),
                (None, None) => "for an unknown reason".into(),
            },
        }
    }

    pub(super) fn log_end(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            let len = i64::try_from(file.metadata()?.len()).unwrap_or(i64::MAX);
            file.seek(SeekFrom::End(-len.min(LOG_END_BYTES)))?;
            let mut end = Vec::new();
            file.read_to_end(&mut end)?;
            Ok(String::from_utf8_lossy(&end).into_owned())
        };
        read().unwrap_or_else(|error| format!("(it cannot be read: {error})"))
    }

    /// Does what is typed, and says what has been done.
    pub(super) fn act(&mut self, action: Action) -> anyhow::Result<String> {
        let runs = self.process.is_some();
        ensure!(runs || action == Action::Start, "{self} does not run");
        Ok(match action {
            Action::Kill => {
                self.kill();
                format!("{self} is dead")
            }
            Action::Stop => {
                let begun = Instant::now();
                self.end(&mut || false);
                format!("{self} has stopped within {} ms", begun.elapsed().as_millis())
            }
            Action::Pause => {
                self.signal(libc::SIGSTOP);
                self.is_paused = true;
                format!("{self} hangs")
            }
            Action::Resume => {
                self.signal(libc::SIGCONT);
                self.is_paused = false;
                format!("{self} goes on")
            }
            Action::Start => {
                ensure!(!runs, "{self} runs already");
                self.start()?;
                format!("{self} is started, pid {}", self.pid().unwrap_or_default())
            }
        })
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot write {}", self.log.display()))?;
        let program = std::env::current_exe().context("cannot find the own program")?;
        let mut command = Command::new(program);
        command.arg(self.command).arg("--config").arg(&self.config);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Of a group of its own: Ctrl-C reaches this process only, which stops the others in order.
        command.process_group(0);
        // SAFETY: the closure makes one system call, which may be made between fork and exec.
        unsafe {
            command.pre_exec(|| {
                // Should this process be killed, the others end in order by themselves.
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        self.process = Some(command.spawn().with_context(|| format!("cannot start {self}"))?);
        (self.is_paused, self.ended) = (false, None);
        Ok(())
    }

    /// True if it has ended since last asked.
    fn reap(&mut self) -> bool {
        let Some(process) = &mut self.process else { return false };
        let Ok(Some(status)) = process.try_wait() else { return false };
        (self.process, self.ended) = (None, Some(status));
        true
    }

    fn signal(&self, signal: libc::c_int) {
        let Some(pid) = self.pid().and_then(|pid| libc::pid_t::try_from(pid).ok()) else { return };
        // SAFETY: a plain system call; the process is our child and was not waited for, so the number is its.
        unsafe { libc::kill(pid, signal) };
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Ended already, perhaps.
            let _ = process.kill();
            self.ended = process.wait().ok();
        }
    }

    /// Stops it in order, or at once if it takes too long or there is a hurry.
    fn end(&mut self, hurry: &mut impl FnMut() -> bool) {
        if self.is_paused {
            self.signal(libc::SIGCONT);
        }
        self.signal(libc::SIGTERM);
        let until = Instant::now() + STOP_WAIT;
        while self.process.is_some() && !self.reap() {
            if hurry() || Instant::now() > until {
                self.kill();
            } else {
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }
}
