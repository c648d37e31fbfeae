//! Whether each shard takes messages, all the time: one thread per shard that sends to its leader, one message after the
//! other, and finds the leader again when that fails.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, broker_name};
use crate::hosts::Host;
use crate::probe::{self, Asker};

const TOPIC: &str = "watch";
const BODY: &[u8] = &[7; 128];
/// Between two messages while all is well.
const PAUSE: Duration = Duration::from_millis(2);
/// Between two looks for a leader: the error of what is measured.
const SEARCH_PAUSE: Duration = Duration::from_millis(3);
const POLL: Duration = Duration::from_millis(1);

/// An acknowledged message of a shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack {
    pub(crate) sent: Instant,
    pub(crate) acked: Instant,
}

struct Seen {
    last: Mutex<Option<Ack>>,
    /// Longest time between two acknowledgements since it was last asked for.
    longest_gap: Mutex<Duration>,
}

pub(crate) struct Watch {
    shards: Vec<Arc<Seen>>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Returns when every shard has taken a message.
    pub(crate) fn start(cluster: &Cluster, shards: u16) -> Watch {
        let stopping = Arc::new(AtomicBool::new(false));
        let mut watch = Watch { shards: Vec::new(), stopping: Arc::clone(&stopping), threads: Vec::new() };
        let namesrvs = cluster.namesrvs();
        for shard in 0..shards {
            let seen = Arc::new(Seen { last: Mutex::new(None), longest_gap: Mutex::new(Duration::ZERO) });
            watch.shards.push(Arc::clone(&seen));
            let stopping = Arc::clone(&stopping);
            let enter = entrance(cluster.clients());
            watch.threads.push(std::thread::spawn(move || {
                enter();
                while !stopping.load(Ordering::Relaxed) {
                    send_while_possible(&namesrvs, &broker_name(shard), &seen, &stopping);
                    std::thread::sleep(SEARCH_PAUSE);
                }
            }));
        }
        let begun = Instant::now();
        for shard in 0..shards {
            watch
                .await_taken_since(shard, begun, Duration::from_secs(30))
                .expect("a shard that takes messages");
        }
        watch
    }

    /// When the first message was acknowledged that was sent to the shard after `since`.
    pub(crate) fn await_taken_since(&self, shard: u16, since: Instant, limit: Duration) -> Option<Instant> {
        // The last acknowledgement is the first one only if one looks often enough; the threads pause longer.
        loop {
            let last = *self.shards[usize::from(shard)].last.lock().expect("the last acknowledgement");
            if let Some(ack) = last.filter(|ack| ack.sent >= since) {
                return Some(ack.acked);
            }
            if since.elapsed() > limit {
                return None;
            }
            std::thread::sleep(POLL);
        }
    }

    /// The longest time without an acknowledgement of each shard, since the last call.
    pub(crate) fn take_longest_gaps(&self) -> Vec<Duration> {
        self.shards
            .iter()
            .map(|seen| std::mem::take(&mut *seen.longest_gap.lock().expect("the gap")))
            .collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn entrance(host: &Host) -> impl FnOnce() + Send + use<> {
    let network = host.network();
    move || {
        if let Some(network) = network {
            crate::sys::enter_network(&network).expect("enter a host's network");
        }
    }
}

/// Finds the leader and sends to it until something fails.
fn send_while_possible(namesrvs: &[SocketAddr], broker: &str, seen: &Seen, stopping: &AtomicBool) {
    let Some(routes) = probe::routes(namesrvs, crate::cluster::TOPIC_OF_ALL) else { return };
    let Some(leader) = routes.get(broker).and_then(|ids| ids.get(&0)) else { return };
    let Ok(mut asker) = Asker::connect(*leader) else { return };
    let mut known = false;
    while !stopping.load(Ordering::Relaxed) {
        let sent = Instant::now();
        match asker.send(TOPIC, BODY) {
            Ok(()) => {
                let ack = Ack { sent, acked: Instant::now() };
                let before = seen.last.lock().expect("the last acknowledgement").replace(ack);
                if let Some(before) = before {
                    let mut gap = seen.longest_gap.lock().expect("the gap");
                    *gap = (*gap).max(ack.acked.duration_since(before.acked));
                }
                std::thread::sleep(PAUSE);
            }
            // Its topic is made here, for it is made on each broker by itself.
            Err(_) if !known && asker.create_topic(TOPIC).is_ok() => known = true,
            Err(_) => return,
        }
    }
}
