//! The server under test as a process: started, killed, restarted on the same data, stopped.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::ports::free_ports;

/// From the start of the process to its `ready` line. Generous: the first start prepares segments on a slow disk.
const READY_TIME_MAX: Duration = Duration::from_secs(240);
/// From SIGTERM to exit.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);
/// More than one, so that clients see more than one broker.
const SHARDS: u16 = 2;
/// Shard `k` listens on `base + SHARD_PORT_STRIDE * k`, see design §1.
const SHARD_PORT_STRIDE: u16 = 10;
const LOG_LINES_SHOWN: usize = 40;
/// What is off by default; and checks of transactions that come round while a scenario waits for them, three of each:
/// the clients know how many.
const SETTINGS: &str = "\
    enable_property_filter = true\n\
    recall_enable = true\n\
    trace_topic = true\n\
    transaction_timeout_ms = 2000\n\
    transaction_check_interval_ms = 3000\n\
    transaction_checks_max = 3\n";

/// `apogee standalone` on a data folder of its own. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    program: OsString,
    args: Vec<OsString>,
    namesrv: SocketAddr,
    log: PathBuf,
}

/// Where a server listens, all of it on loopback.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) namesrv: SocketAddr,
    /// Of the first broker.
    pub(crate) broker: SocketAddr,
}

impl Ports {
    /// Ports that are free now, enough for so many brokers.
    pub(crate) fn free(brokers: u16) -> Ports {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let namesrv = free_ports(1);
        let base = free_ports(SHARD_PORT_STRIDE * brokers);
        // The VIP port of the first shard is base + 2 - 2: inside the run of free ports.
        Ports { namesrv: at(namesrv), broker: at(base + 2) }
    }
}

impl Server {
    /// Returns when the server has said that it is ready. `APOGEE_INTEROP_SERVER` names another program to test, one
    /// that takes the same arguments.
    pub(crate) fn start(work: &Path) -> Server {
        let settings = work.join("settings.toml");
        std::fs::write(&settings, SETTINGS).expect("write the server's settings");
        let more = vec!["--config".into(), settings.into_os_string()];
        Server::start_shards(work, SHARDS, Ports::free(SHARDS), more)
    }

    /// With arguments beyond those of every run.
    pub(crate) fn start_shards(work: &Path, shards: u16, ports: Ports, more: Vec<OsString>) -> Server {
        let program = std::env::var_os("APOGEE_INTEROP_SERVER")
            .unwrap_or_else(|| OsString::from(env!("CARGO_BIN_EXE_apogee")));
        let args = ["standalone".into(), "--data".into(), work.join("data").into_os_string()]
            .into_iter()
            .chain(more)
            .chain(["--shards", &shards.to_string(), "--listen", "127.0.0.1"].map(OsString::from))
            .chain(["--namesrv-port", &ports.namesrv.port().to_string()].map(OsString::from))
            .chain(["--base-port", &ports.broker.port().to_string()].map(OsString::from))
            .collect::<Vec<_>>();
        Server::start_program(program, args, ports.namesrv, work.join("server.log"))
    }

    /// Any program that prints `ready`.
    pub(crate) fn start_program(
        program: OsString,
        args: Vec<OsString>,
        namesrv: SocketAddr,
        log: PathBuf,
    ) -> Server {
        let child = spawn_and_wait_until_ready(&program, &args, &log);
        Server { child, program, args, namesrv, log }
    }

    pub(crate) fn namesrv(&self) -> SocketAddr {
        self.namesrv
    }

    /// SIGKILL; nothing of the process is left when this returns.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("kill the server");
        let status = self.child.wait().expect("wait for the killed server");
        assert!(status.code().is_none(), "the server had exited by itself before it was killed: {status}");
    }

    /// Starts the server again after [`Server::kill`], on the same data and ports.
    pub(crate) fn restart(&mut self) {
        self.child = spawn_and_wait_until_ready(&self.program, &self.args, &self.log);
    }

    /// SIGTERM, which must end the server in good order.
    pub(crate) fn stop(mut self) {
        if let Some(status) = self.child.try_wait().expect("look at the server") {
            panic!("the server ended by itself: {status}\n{}", tail(&self.log));
        }
        let pid = libc::pid_t::try_from(self.child.id()).expect("a process id");
        // SAFETY: kill(2) touches no memory of ours; the process is our child and not yet waited for, so that its id
        // cannot belong to another process.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0, "SIGTERM");
        let deadline = Instant::now() + STOP_TIME_MAX;
        let status = loop {
            match self.child.try_wait().expect("wait for the server") {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    panic!("the server runs {STOP_TIME_MAX:?} after SIGTERM\n{}", tail(&self.log))
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        // Exit by the handler, or death by the signal for a server that leaves it at its default after cleaning up.
        assert!(status.success() || status.code() == Some(128 + libc::SIGTERM), "stopped with {status}");
        let log = std::fs::read_to_string(&self.log).expect("read the server's log");
        assert!(!log.contains("panicked at"), "something panicked on the way, see {}", self.log.display());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", tail(&self.log));
        }
        // Both fail only when the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn_and_wait_until_ready(program: &OsString, args: &[OsString], log: &Path) -> Child {
    let mut file = OpenOptions::new().create(true).append(true).open(log).expect("open the server's log");
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file.try_clone().expect("a second handle of the log"))
        .spawn()
        .unwrap_or_else(|e| panic!("start {program:?}: {e}"));
    let stdout = child.stdout.take().expect("stdout is piped");
    let (ready_tx, ready) = mpsc::channel();
    // Ends with the process, for its end closes the pipe.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = writeln!(file, "{line}");
            if line.starts_with("ready") {
                let _ = ready_tx.send(());
            }
        }
    });
    match ready.recv_timeout(READY_TIME_MAX) {
        Ok(()) => child,
        Err(e) => {
            let _ = child.kill();
            let _ = child.wait();
            panic!("no `ready` line from {program:?} {args:?}: {e}\n{}", tail(log));
        }
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines().collect::<Vec<_>>();
    let shown = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
    format!("--- end of {} ---\n{shown}", log.display())
}
