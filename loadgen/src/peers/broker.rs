//! A running peer: its NameServer and its broker, on the CPUs it was given.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::apogee::Apogee;
use super::peer::{Flush, Product};
use super::process::{Launch, Process};
use super::rocketmq::RocketMq;
use super::rocketmq_rust::RocketMqRust;
use super::tools;
use super::usage::{CpuTime, Memory};

/// Longest wait for a program to listen. A JVM that touches its whole heap on a busy machine needs its time.
const LISTEN_WAIT_MAX: Duration = Duration::from_secs(120);
const LISTEN_POLL: Duration = Duration::from_millis(50);

/// Where a peer runs and what it may use.
#[derive(Clone, Debug)]
pub struct Place {
    /// For its configuration, logs and data.
    pub folder: PathBuf,
    pub ports: Ports,
    /// For all of its threads.
    pub cpus: Vec<usize>,
    /// RAM of the machine.
    pub memory_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub namesrv: u16,
    /// RocketMQ also takes the port two below and the one above it.
    pub broker: u16,
}

impl Ports {
    /// Offset of the broker's port from the NameServer's.
    const BROKER: u16 = 10;

    pub fn from_base(base: u16) -> Option<Ports> {
        Some(Ports { namesrv: base, broker: base.checked_add(Ports::BROKER)? })
            .filter(|ports| ports.broker < u16::MAX)
    }
}

/// A product that is on this machine.
#[derive(Clone, Debug)]
pub enum Obtained {
    Apogee(Apogee),
    RocketMq(RocketMq),
    RocketMqRust(RocketMqRust),
}

impl Obtained {
    pub fn product(&self) -> Product {
        match self {
            Obtained::Apogee(_) => Product::Apogee,
            Obtained::RocketMq(_) => Product::RocketMq,
            Obtained::RocketMqRust(_) => Product::RocketMqRust,
        }
    }

    /// The version and what else decides how fast it is.
    pub fn version(&self) -> String {
        match self {
            Obtained::Apogee(apogee) => apogee.version.clone(),
            Obtained::RocketMq(rocketmq) => {
                let further = rocketmq.further.iter().map(|line| format!(", {line}")).collect::<String>();
                format!("{} on {}{further}", rocketmq.version, rocketmq.java)
            }
            Obtained::RocketMqRust(rust) => format!("{}, built with {}", rust.version, rust.compiler),
        }
    }

    /// Writes its configuration and says what to start, in order: NameServer, broker, or one program that is both.
    pub fn prepare(&self, flush: Flush, place: &Place) -> io::Result<Vec<Launch>> {
        match self {
            Obtained::Apogee(apogee) => Ok(apogee.prepare(flush, place)),
            Obtained::RocketMq(rocketmq) => rocketmq.prepare(flush, place),
            Obtained::RocketMqRust(rust) => rust.prepare(flush, place),
        }
    }
}

/// Why a peer does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
    #[error("its {role} ended at once, {status}: {log}")]
    Ended { role: &'static str, status: String, log: String },
    #[error("its {role} does not listen on port {port} after {waited:?}: {log}")]
    Deaf { role: &'static str, port: u16, waited: Duration, log: String },
}

/// A running peer; its programs end with it and its folder is removed.
#[derive(Debug)]
pub struct Broker {
    // The order matters: the last started is dropped first.
    processes: Vec<Process>,
    place: Place,
    /// How it was started, for the report.
    pub commands: Vec<String>,
}

impl Broker {
    /// Starts a peer in a folder that is emptied before, and waits until both of its ports are open.
    pub fn start(obtained: &Obtained, flush: Flush, place: Place) -> Result<Broker, StartError> {
        match std::fs::remove_dir_all(&place.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => std::fs::create_dir_all(&place.folder)?,
        }
        let launches = obtained.prepare(flush, &place)?;
        let mut broker = Broker { processes: vec![], commands: vec![], place };
        for launch in launches {
            broker.commands.push(launch.line());
            let process = Process::start(&launch, &broker.place.cpus)?;
            broker.processes.insert(0, process);
            // A broker that starts before its NameServer registers late.
            let port =
                if launch.role == "namesrv" { broker.place.ports.namesrv } else { broker.place.ports.broker };
            broker.await_listening(port)?;
        }
        Ok(broker)
    }

    pub fn namesrv(&self) -> String {
        format!("127.0.0.1:{}", self.place.ports.namesrv)
    }

    pub fn cpu_time(&self) -> io::Result<CpuTime> {
        self.processes.iter().try_fold(CpuTime::default(), |sum, process| Ok(sum + process.cpu_time()?))
    }

    pub fn memory(&self) -> io::Result<Memory> {
        self.processes.iter().try_fold(Memory::default(), |sum, process| Ok(sum + process.memory()?))
    }

    /// Whether all of its programs still run.
    pub fn check(&mut self) -> Result<(), StartError> {
        for process in &mut self.processes {
            if let Some(status) = process.ended()? {
                return Err(StartError::Ended {
                    role: process.role(),
                    status: status.to_string(),
                    log: process.log_tail(),
                });
            }
        }
        Ok(())
    }

    /// What its programs have printed last.
    pub fn log_tails(&self) -> String {
        let tails =
            self.processes.iter().map(|process| format!("{}: {}", process.role(), process.log_tail()));
        tails.collect::<Vec<_>>().join("\n")
    }

    fn await_listening(&mut self, port: u16) -> Result<(), StartError> {
        let since = Instant::now();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        while TcpStream::connect_timeout(&address, LISTEN_POLL).is_err() {
            self.check()?;
            if since.elapsed() > LISTEN_WAIT_MAX {
                let newest = &self.processes[0];
                let (role, log) = (newest.role(), newest.log_tail());
                return Err(StartError::Deaf { role, port, waited: LISTEN_WAIT_MAX, log });
            }
            tools::pause(LISTEN_POLL);
        }
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.processes.clear();
        // What stays behind is found and removed by the next start.
        let _ = std::fs::remove_dir_all(&self.place.folder);
    }
}
