//! What NameServers are told and asked.

use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use futures_lite::future;

use super::ShardDriver;
use crate::node::NodeEvent;
use crate::node::clock::now_ms;
use crate::node::registrar::Registrar;
use crate::shard::assignment::FoundRoute;

/// Longest wait for NameServers before whoever made a topic is answered all the same.
const REGISTER_WAIT: Duration = Duration::from_secs(3);

impl ShardDriver {
    /// Registers for ever, and reports the shard as ready the first time that a NameServer knows it.
    pub(super) async fn keep_registered(self: Rc<Self>, registrar: Rc<Registrar>, events: Sender<NodeEvent>) {
        let on_registered = || {
            let first = self.registrars.iter().filter(|other| other.was_registered()).count() == 1;
            if first {
                // Nobody listens only when the process is ending already.
                let _ = events.send(NodeEvent::ShardReady(self.number));
            }
        };
        registrar.run(&self.shard, on_registered).await;
    }

    /// Tells all NameServers at once; waits for those that can be reached, at most [`REGISTER_WAIT`].
    pub(super) async fn register_everywhere(self: &Rc<Self>) {
        let told: Vec<_> = self
            .registrars
            .iter()
            .map(|registrar| {
                let (this, registrar) = (self.clone(), registrar.clone());
                glommio::spawn_local(async move { registrar.register_now(&this.shard).await })
            })
            .collect();
        let all = async {
            for task in told {
                task.await;
            }
        };
        let too_late = async {
            glommio::timer::sleep(REGISTER_WAIT).await;
        };
        future::or(all, too_late).await;
    }

    /// Says good-bye to all NameServers at once.
    pub(super) async fn unregister_everywhere(self: &Rc<Self>) {
        let told: Vec<_> = self
            .registrars
            .iter()
            .map(|registrar| {
                let (this, registrar) = (self.clone(), registrar.clone());
                glommio::spawn_local(async move { registrar.unregister(&this.shard).await })
            })
            .collect();
        for task in told {
            task.await;
        }
    }

    /// Asks one NameServer after the other where a topic's queues are.
    pub(super) fn find_route(&self, topic: String) {
        let Some(this) = self.this.upgrade() else { return };
        let work = async move {
            let mut found = FoundRoute::Unreachable;
            for registrar in &this.registrars {
                found = registrar.find_route(&topic).await;
                if !matches!(found, FoundRoute::Unreachable) {
                    break;
                }
            }
            this.shard.borrow_mut().on_route(&topic, found, now_ms());
            this.pump();
        };
        glommio::spawn_local(work).detach();
    }
}
