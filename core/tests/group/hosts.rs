//! The machines of a cluster: each a network and a mount namespace of its own, or, where these cannot be had, a loopback
//! address.
//!
//! Nothing has a name in the system: a namespace lives as long as the process that holds it, and that one dies with the
//! thread that started it. So however these tests end, nothing stays behind.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::fabric::{self, Fabric};
use crate::sys;

const HOLDER_TIME_MAX: Duration = Duration::from_secs(5);
/// What a host does all day.
const HOLDER: &str = "sleep";

/// Where the clients live.
pub(crate) const CLIENTS: usize = 0;

pub(crate) struct Hosts {
    /// Before the hosts, so that it is dropped first.
    fabric: Option<Fabric>,
    hosts: Vec<Host>,
}

/// A machine: programs run in it, files are mounted in it.
pub(crate) struct Host {
    pub(crate) ip: IpAddr,
    holder: Option<Child>,
}

impl Hosts {
    /// The clients' host, number [`CLIENTS`], and `nodes` others from number 1 on.
    pub(crate) fn new(nodes: usize) -> Hosts {
        match Hosts::in_namespaces(nodes + 1) {
            Ok(hosts) => hosts,
            Err(reason) => {
                println!(
                    "  no network namespaces ({reason}): loopback addresses instead, without faults of network and disk"
                );
                assert!(std::env::var("CI").as_deref() != Ok("true"), "in CI that is a failure");
                Hosts::on_loopback(nodes + 1)
            }
        }
    }

    /// Without namespaces and what they cost: for figures.
    pub(crate) fn on_loopback(count: usize) -> Hosts {
        // Other runs on this machine have other addresses.
        let third = 1 + (std::process::id() % 250) as u8;
        let host = |host: usize| Host {
            ip: IpAddr::V4(Ipv4Addr::new(127, 91, third, host as u8 + 1)),
            holder: None,
        };
        Hosts { fabric: None, hosts: (0..count).map(host).collect() }
    }

    fn in_namespaces(count: usize) -> Result<Hosts, String> {
        let hosts = (0..count).map(Host::in_namespace).collect::<Result<Vec<_>, _>>()?;
        let namespaces = hosts.iter().filter_map(Host::network).collect::<Vec<_>>();
        Ok(Hosts { fabric: Some(Fabric::join(&namespaces)?), hosts })
    }

    /// The network between them, if it can have faults.
    pub(crate) fn fabric(&self) -> Option<&Fabric> {
        self.fabric.as_ref()
    }

    pub(crate) fn host(&self, number: usize) -> &Host {
        &self.hosts[number]
    }
}

impl Host {
    fn in_namespace(number: usize) -> Result<Host, String> {
        let mut holder = tied_to_this_thread("unshare")
            .args(["--net", "--mount", "--propagation", "private", "--", HOLDER, "infinity"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("run setpriv: {e}"))?;
        let begun = Instant::now();
        let comm = PathBuf::from(format!("/proc/{}/comm", holder.id()));
        while std::fs::read_to_string(&comm).unwrap_or_default().trim() != HOLDER {
            if let Some(status) = holder.try_wait().map_err(|e| e.to_string())? {
                let mut said = String::new();
                if let Some(mut stderr) = holder.stderr.take() {
                    let _ = std::io::Read::read_to_string(&mut stderr, &mut said);
                }
                return Err(format!("unshare: {status}, {}", said.trim()));
            }
            if begun.elapsed() > HOLDER_TIME_MAX {
                let _ = holder.kill();
                return Err("unshare does not start".to_owned());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(Host { ip: fabric::address(number).into(), holder: Some(holder) })
    }

    /// The words before a command that make it run on this host, and die with the thread that starts it.
    pub(crate) fn prefix(&self) -> Vec<String> {
        let mut words = ["setpriv", "--pdeathsig", "KILL", "--"].map(str::to_owned).to_vec();
        if let Some(holder) = &self.holder {
            words.extend(["nsenter", "--target"].map(str::to_owned));
            words.extend([holder.id().to_string(), "--net".into(), "--mount".into(), "--".into()]);
        }
        words
    }

    /// A program on this host. Its folder may be another, so paths are whole.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let prefix = self.prefix();
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).arg(program);
        command
    }

    /// Moves the calling thread to this host's network.
    pub(crate) fn enter(&self) {
        if let Some(network) = self.network() {
            sys::enter_network(&network).expect("enter a host's network");
        }
    }

    pub(crate) fn network(&self) -> Option<PathBuf> {
        self.holder.as_ref().map(|holder| PathBuf::from(format!("/proc/{}/ns/net", holder.id())))
    }

    /// Whether file systems can be mounted here that nobody else sees.
    pub(crate) fn has_mounts(&self) -> bool {
        self.holder.is_some()
    }

    /// A path of this host as this process sees it.
    pub(crate) fn path(&self, inside: &Path) -> PathBuf {
        match &self.holder {
            Some(holder) => PathBuf::from(format!("/proc/{}/root", holder.id()))
                .join(inside.strip_prefix("/").expect("a whole path")),
            None => inside.to_owned(),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(holder) = &mut self.holder {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

fn tied_to_this_thread(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}
