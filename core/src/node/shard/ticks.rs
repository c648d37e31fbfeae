//! What falls due by time alone.

use std::rc::Rc;
use std::time::Duration;

use apogee_net::io::drain;
use futures_lite::future;

use super::ShardDriver;
use crate::node::clock::now_ms;

/// How often a shard looks at what falls due by time alone.
const TICK: Duration = Duration::from_millis(100);

/// What falls due sooner waits this long, so that much that falls due little by little is done together.
const TICK_MIN: Duration = Duration::from_millis(5);

/// How often the free space of the file system is asked for.
const SPACE_PERIOD: Duration = Duration::from_secs(1);

/// A tick that comes later than this says that this thread was held up, not that others are silent.
const LATE: Duration = Duration::from_millis(20);

impl ShardDriver {
    pub(super) async fn tick(self: Rc<Self>) {
        loop {
            let late_ms = self.sleep_until_due().await;
            if self.peers.is_some() && late_ms > LATE.as_millis() as i64 {
                // What peers said meanwhile lies in the sockets: it is heard before anything follows from the time.
                drain().await;
            }
            self.shard.borrow_mut().on_tick(now_ms());
            self.pump();
            self.write_events();
        }
    }

    /// Until the shard has something due, but at least [`TICK_MIN`] and at most [`TICK`]. Gives by how much longer it was.
    pub(super) async fn sleep_until_due(&self) -> i64 {
        let begun = now_ms();
        glommio::timer::sleep(TICK_MIN).await;
        loop {
            let tick_at_ms = begun + TICK.as_millis() as i64;
            let wake_at_ms = self.shard.borrow().wake_at_ms().map_or(tick_at_ms, |due| due.min(tick_at_ms));
            self.planned_wake_ms.set(wake_at_ms);
            let Ok(wait_ms @ 1..) = u64::try_from(wake_at_ms - now_ms()) else {
                return now_ms() - wake_at_ms.max(begun + TICK_MIN.as_millis() as i64);
            };
            let asleep = async {
                glommio::timer::sleep(Duration::from_millis(wait_ms)).await;
            };
            future::or(asleep, self.wake_earlier.wait()).await;
        }
    }

    /// Tells the shard what the file system has left, so that it makes room before there is none.
    pub(super) async fn watch_space(self: Rc<Self>) {
        let mut is_failing = false;
        loop {
            match self.disk.space().await {
                Ok(space) => {
                    is_failing = false;
                    self.shard.borrow_mut().on_space(space);
                    self.pump();
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::error!(shard = self.number, %error, "the free space of the disk is not known");
                    }
                }
            }
            glommio::timer::sleep(SPACE_PERIOD).await;
        }
    }
}
