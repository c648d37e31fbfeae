//! The network between the hosts, as a program: every packet of a host comes here and goes on to another, unless the
//! way between the two is cut, or loses it, or delays it.
//!
//!     host 1 ── tun ──┐                       ┌── tun ── host 3
//!                     ├─ way[from][to] ───────┤
//!     host 2 ── tun ──┘   cut, loss, delay    └── tun ── host 0, the clients'
//!
//! A way is one direction, so what is cut one way still flows the other. It needs neither packet filters nor traffic
//! control of the kernel, which differ from machine to machine, only its tunnel devices.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::dice::Dice;
use crate::sys;

/// Large, for the fewer packets the less of the machine the network takes.
const MTU: usize = 65_000;
const DEVICE: &str = "net0";
/// How soon a thread notices that the fabric is no longer wanted.
const ATTENTION: Duration = Duration::from_millis(200);
/// Packets that wait for their time; beyond it they are lost, as in a real queue.
const DELAYED_PACKETS_MAX: usize = 4_096;

/// What happens to packets in one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Way {
    pub(crate) cut: bool,
    /// Part of the packets that get lost, 0 to 1.
    pub(crate) loss: f64,
    pub(crate) delay: Duration,
    /// Up to so much more, evenly spread; packets overtake each other.
    pub(crate) jitter: Duration,
}

/// The hosts' addresses are `198.18.0.1` and up: the network that RFC 2544 sets apart for tests. It exists only between
/// namespaces of this process.
pub(crate) fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, u8::try_from(host + 1).expect("few hosts"))
}

pub(crate) struct Fabric {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    devices: Vec<File>,
    ways: Mutex<Vec<Vec<Way>>>,
    delayed: Mutex<BinaryHeap<Reverse<Delayed>>>,
    more_delayed: Condvar,
    stopping: AtomicBool,
    dropped: AtomicU64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Delayed {
    due: Instant,
    to: usize,
    packet: Vec<u8>,
}

impl Fabric {
    /// Joins the hosts whose network namespaces these are.
    pub(crate) fn join(namespaces: &[PathBuf]) -> Result<Fabric, String> {
        let devices = namespaces.iter().enumerate().map(|(host, namespace)| attach(host, namespace.clone()));
        let devices = devices.collect::<Result<Vec<_>, _>>()?;
        let shared = Arc::new(Shared {
            ways: Mutex::new(vec![vec![Way::default(); devices.len()]; devices.len()]),
            devices,
            delayed: Mutex::default(),
            more_delayed: Condvar::new(),
            stopping: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        });
        let mut threads = Vec::new();
        for host in 0..shared.devices.len() {
            let shared = Arc::clone(&shared);
            threads.push(std::thread::spawn(move || shared.carry_from(host)));
        }
        let late = Arc::clone(&shared);
        threads.push(std::thread::spawn(move || late.carry_delayed()));
        Ok(Fabric { shared, threads })
    }

    /// What happens from now on to packets from one host to another; the other direction stays as it is.
    pub(crate) fn set(&self, from: usize, to: usize, way: Way) {
        self.shared.ways.lock().expect("the ways")[from][to] = way;
    }

    /// Both directions between two hosts.
    pub(crate) fn set_between(&self, one: usize, other: usize, way: Way) {
        self.set(one, other, way);
        self.set(other, one, way);
    }

    /// Every way to and from a host.
    pub(crate) fn set_around(&self, host: usize, way: Way) {
        for other in (0..self.shared.devices.len()).filter(|other| *other != host) {
            self.set_between(host, other, way);
        }
    }

    /// No fault anywhere. Packets that wait come when they are due.
    pub(crate) fn heal(&self) {
        for row in self.shared.ways.lock().expect("the ways").iter_mut() {
            row.fill(Way::default());
        }
    }

    /// Packets that were lost on purpose so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.shared.more_delayed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Gives a host its device and address. A namespace belongs to a thread, so a thread of its own does it.
fn attach(host: usize, namespace: PathBuf) -> Result<File, String> {
    let (done, result) = mpsc::channel();
    std::thread::spawn(move || {
        let attached = || {
            sys::enter_network(&namespace).map_err(|e| format!("enter {}: {e}", namespace.display()))?;
            let device = sys::open_tun(DEVICE).map_err(|e| format!("make a tunnel device: {e}"))?;
            ip(&["link", "set", "lo", "up"])?;
            ip(&["addr", "add", &format!("{}/24", address(host)), "dev", DEVICE])?;
            ip(&["link", "set", DEVICE, "mtu", &MTU.to_string(), "up"])?;
            Ok(device)
        };
        let _ = done.send(attached());
    });
    result.recv().map_err(|_| "the thread that makes a device panicked".to_owned())?
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|e| format!("run ip: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

impl Shared {
    fn carry_from(&self, from: usize) {
        let mut dice = Dice::seeded(from as u64);
        let mut packet = vec![0; MTU + 100];
        while !self.stopping.load(Ordering::Relaxed) {
            match (&self.devices[from]).read(&mut packet) {
                Ok(length) => self.carry(from, &packet[..length], &mut dice),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    sys::readable_within(&self.devices[from], ATTENTION);
                }
                // The host's last process is gone, and its device with it.
                Err(_) => return,
            }
        }
    }

    fn carry(&self, from: usize, packet: &[u8], dice: &mut Dice) {
        let Some(to) = destination(packet, self.devices.len()) else { return };
        let way = self.ways.lock().expect("the ways")[from][to];
        if way.cut || way.loss > 0.0 && dice.chance(way.loss) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        } else if way.delay.is_zero() && way.jitter.is_zero() {
            self.deliver(to, packet);
        } else {
            let due = Instant::now() + way.delay + way.jitter.mul_f64(dice.unit());
            let mut delayed = self.delayed.lock().expect("the delayed packets");
            if delayed.len() < DELAYED_PACKETS_MAX {
                delayed.push(Reverse(Delayed { due, to, packet: packet.to_vec() }));
                self.more_delayed.notify_one();
            }
        }
    }

    /// A packet that the host does not take is lost: its end notices.
    fn deliver(&self, to: usize, packet: &[u8]) {
        let _ = (&self.devices[to]).write(packet);
    }

    fn carry_delayed(&self) {
        let mut delayed = self.delayed.lock().expect("the delayed packets");
        while !self.stopping.load(Ordering::Relaxed) {
            let now = Instant::now();
            let wait = delayed.peek().map_or(ATTENTION, |next| next.0.due.saturating_duration_since(now));
            if wait.is_zero() {
                let Reverse(next) = delayed.pop().expect("one was seen");
                self.deliver(next.to, &next.packet);
            } else {
                delayed = self.more_delayed.wait_timeout(delayed, wait).expect("the delayed packets").0;
            }
        }
    }
}

/// The host that an IPv4 packet is for; none for others, such as IPv6's search for routers.
fn destination(packet: &[u8], hosts: usize) -> Option<usize> {
    let header = packet.get(..20)?;
    (header[0] >> 4 == 4).then_some(())?;
    let to = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
    (0..hosts).find(|host| address(*host) == to)
}
