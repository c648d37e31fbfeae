//! Whether a waiting socket polls its interface instead of sleeping.

use super::{Finding, Machine, Tuner, Verdict};
use crate::profile::Goal;

/// Microseconds; the kernel's documentation suggests 50 for `busy_read` and `busy_poll`.
const POLL_US: &str = "50";

pub(super) struct BusyPoll;

impl Tuner for BusyPoll {
    fn name(&self) -> &'static str {
        "busy-poll"
    }

    fn why(&self) -> &'static str {
        "A core that polls its queue takes a packet without waiting for an interrupt."
    }

    fn cost(&self) -> &'static str {
        "5 to 15 µs of each message at low rates; polling costs the core's idle time instead"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        if machine.profile.goal != Goal::Latency {
            return Vec::new();
        }
        let can_poll = machine.nics().any(|nic| !nic.is_paravirtual());
        let look = |name: &str| {
            let finding = machine.file(name, &format!("proc/sys/net/core/{name}"), POLL_US)?;
            if matches!(finding.verdict, Verdict::Change(_)) && !can_poll {
                let why = "no interface here has a driver that gains by it".to_owned();
                return Some(Finding { verdict: Verdict::NotHere(why), ..finding });
            }
            Some(finding)
        };
        ["busy_poll", "busy_read"].into_iter().filter_map(look).collect()
    }
}
