//! How often each cpu folds its memory counters.

use super::{Finding, Machine, Tuner};
use crate::profile::Goal;

const SECONDS: u64 = 10;

pub(super) struct StatInterval;

impl Tuner for StatInterval {
    fn name(&self) -> &'static str {
        "vm-stat-interval"
    }

    fn why(&self) -> &'static str {
        "Every interval a kernel thread runs on each core, the shards' among them, to add up counters."
    }

    fn cost(&self) -> &'static str {
        "5 to 20 µs once a second on each core"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        if machine.profile.goal != Goal::Latency {
            return Vec::new();
        }
        machine.file_at_least("proc/sys/vm/stat_interval", SECONDS).into_iter().collect()
    }
}
