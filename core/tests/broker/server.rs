//! The broker as a process.

// No executor runs here that a sleep could block.
#![allow(clippy::disallowed_methods)]

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::ports::free_ports;

/// Starts and stops take well below a second, but for a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const APOGEE: &str = env!("CARGO_BIN_EXE_apogee");

/// A broker with one shard, or a NameServer. Killed when dropped.
pub(crate) struct Server {
    process: Child,
    address: SocketAddr,
    namesrv: SocketAddr,
    log: PathBuf,
    pub(crate) data: PathBuf,
}

impl Server {
    /// Starts a broker with its data in `dir`; `settings` are lines of its configuration file. It is known to no
    /// NameServer, which clients that have its address do not miss.
    pub(crate) fn start(dir: &Path, settings: &str) -> Server {
        Server::start_registered(dir, settings, &["127.0.0.1:9".parse().unwrap()])
    }

    /// Starts a broker that registers with these NameServers.
    pub(crate) fn start_registered(dir: &Path, settings: &str, namesrv: &[SocketAddr]) -> Server {
        let address = free_address();
        let data = dir.join("data");
        let config = dir.join("broker.toml");
        let addresses: Vec<String> = namesrv.iter().map(SocketAddr::to_string).collect();
        let text = format!(
            "listen = \"127.0.0.1\"\nbase_port = {}\nnamesrv = {:?}\ndata_dir = {data:?}\nshards = 1\n\
             disk_reserve_bytes = 0\n{settings}",
            address.port(),
            addresses.join(";")
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(APOGEE);
        command.args(["broker", "--config"]).arg(&config);
        Server::run(command, dir, data, address, namesrv[0])
    }

    /// Starts a NameServer and a broker in one process, with the stall detector on.
    pub(crate) fn start_standalone(dir: &Path) -> Server {
        let (address, namesrv) = (free_address(), free_address());
        let data = dir.join("data");
        let mut command = Command::new(APOGEE);
        command.args(["standalone", "--shards", "1", "--disk-reserve-mib", "0", "--data"]).arg(&data);
        command.args(["--base-port", &address.port().to_string()]);
        command.args(["--namesrv-port", &namesrv.port().to_string()]);
        command.env("APOGEE_STALL_DETECTOR", "1");
        Server::run(command, dir, data, address, namesrv)
    }

    /// Starts a NameServer with its data in `dir`, at this address.
    pub(crate) fn start_namesrv(dir: &Path, address: SocketAddr) -> Server {
        std::fs::create_dir_all(dir).unwrap();
        let data = dir.join("data");
        let mut command = Command::new(APOGEE);
        command.args(["namesrv", "--listen", "127.0.0.1", "--port", &address.port().to_string(), "--data"]);
        command.arg(&data);
        Server::run(command, dir, data, address, address)
    }

    pub(crate) fn run(
        mut command: Command,
        dir: &Path,
        data: PathBuf,
        address: SocketAddr,
        namesrv: SocketAddr,
    ) -> Server {
        let log = dir.join("broker.log");
        let output = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let process =
            command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
        let mut server = Server { process, address, namesrv, log, data };
        server.await_listening();
        server
    }

    pub(crate) fn namesrv(&self) -> SocketAddr {
        self.namesrv
    }

    /// What the process has said so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.log.clone()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The shard's directory.
    pub(crate) fn shard(&self) -> PathBuf {
        self.data.join("shard-0")
    }

    fn await_listening(&mut self) {
        let started = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none(), "the broker ended with {ended:?}:\n{}", self.log());
            assert!(started.elapsed() < PATIENCE, "the broker does not listen:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks for an orderly stop and waits for it.
    pub(crate) fn stop(mut self) {
        let pid = libc::pid_t::try_from(self.process.id()).unwrap();
        // SAFETY: a plain system call; the process is our child and was not waited for, so the number is its.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
        let started = Instant::now();
        while self.process.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < PATIENCE, "the broker does not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ended already, as a rule.
        let _ = self.process.kill();
        let ended = self.process.wait();
        if std::thread::panicking() {
            eprintln!("the broker ended with {ended:?} and said:\n{}", self.log());
        }
    }
}

/// Where a broker of one shard may listen: on this port and the two around it.
pub(crate) fn free_address() -> SocketAddr {
    ([127, 0, 0, 1], free_ports(5) + 2).into()
}
