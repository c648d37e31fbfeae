//! The orderly end of a shard.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::ShardDriver;
use crate::node::clock::now_ms;

/// How long a stopping shard waits for its last writes.
const IDLE_WAIT: Duration = Duration::from_secs(5);

/// How long the last replies have to leave.
const LAST_REPLIES_WAIT: Duration = Duration::from_millis(20);

/// How long a leader has to hand over before it stops all the same. Longer than requests wait for a leader: those that
/// came meanwhile have gone to the new one by then, or never will.
const LEAVE_WAIT: Duration = Duration::from_secs(3);

/// How often a shard that lingers looks whether it leads again, and whether anybody does.
const LINGER_LOOK: Duration = Duration::from_millis(500);

impl ShardDriver {
    /// Hands leadership over and says good-bye to the NameServers, then waits until everything taken is durable.
    pub(super) async fn stop(self: Rc<Self>) {
        self.leave_group().await;
        self.linger().await;
        self.unregister_everywhere().await;
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        for task in tasks {
            task.cancel().await;
        }
        self.stopping.set(true);
        self.shard.borrow_mut().leave_anyway();
        if let Some(peers) = &self.peers {
            // What they send would be written, and there would be no end.
            peers.stop();
        }
        let started = Instant::now();
        loop {
            self.shard.borrow_mut().prepare_stop(now_ms());
            self.pump();
            if self.shard.borrow().is_idle() || started.elapsed() > IDLE_WAIT {
                break;
            }
            glommio::timer::sleep(Duration::from_millis(2)).await;
        }
        self.write_events();
        // The last replies are queued now; their connections' tasks still have to write them.
        glommio::timer::sleep(LAST_REPLIES_WAIT).await;
        self.disk.stop().await;
        tracing::info!(shard = self.number, "stopped");
    }

    /// Others lead by now, and clients hear of it when they ask for the route again; until then they come here.
    async fn linger(&self) {
        if self.peers.is_none() {
            return;
        }
        let started = Instant::now();
        // Nobody is known to lead in the moment after it was handed over, but then somebody is, unless all nodes stop.
        let mut led = started;
        while started.elapsed() < self.linger && led.elapsed() < LEAVE_WAIT {
            glommio::timer::sleep(LINGER_LOOK).await;
            // It may have been given leadership all the same.
            if self.shard.borrow_mut().leave_again(now_ms()) {
                self.leave_group().await;
            }
            if self.shard.borrow().has_successor() {
                led = Instant::now();
            }
        }
    }

    /// While all goes on as before: clients are served until another node leads, and held requests forwarded to it.
    async fn leave_group(&self) {
        if self.peers.is_none() {
            return;
        }
        let started = Instant::now();
        loop {
            self.shard.borrow_mut().prepare_stop(now_ms());
            self.pump();
            if self.shard.borrow().has_left() || started.elapsed() > LEAVE_WAIT {
                return;
            }
            glommio::timer::sleep(Duration::from_millis(2)).await;
        }
    }
}
