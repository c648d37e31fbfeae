//! How deep the shards' cores may sleep.

use super::{Change, Finding, Machine, Place, Tuner, Verdict};
use crate::profile::Goal;

/// States that take longer than this to leave are too deep for low latency: about what a wake-up costs anyway.
const EXIT_US_MAX: u32 = 10;

/// States of one cpu looked at; Linux has no more (`CPUIDLE_STATE_MAX`).
const STATES_MAX: u32 = 10;

pub(super) struct IdleStates;

impl Tuner for IdleStates {
    fn name(&self) -> &'static str {
        "cpu-idle"
    }

    fn why(&self) -> &'static str {
        "A core that sleeps deeply needs up to hundreds of µs until it runs again, and a message that arrives waits for it."
    }

    fn cost(&self) -> &'static str {
        "50 to 200 µs at p99 at low rates"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        if machine.profile.goal != Goal::Latency {
            return Vec::new();
        }
        let cpus = machine.profile.shard_cpus();
        let (mut deepest, mut changes) = (None, Vec::new());
        let mut has_states = false;
        for cpu in cpus.iter() {
            for state in 0..STATES_MAX {
                let dir = format!("sys/devices/system/cpu/cpu{cpu}/cpuidle/state{state}");
                let Some(exit_us) =
                    machine.read(&format!("{dir}/latency")).and_then(|us| us.parse::<u32>().ok())
                else {
                    break;
                };
                has_states = true;
                let disable = format!("{dir}/disable");
                if exit_us > EXIT_US_MAX && machine.read(&disable).as_deref() == Some("0") {
                    deepest = deepest.max(Some(exit_us));
                    changes.push(Change { place: Place::File(disable.into()), value: "1".to_owned() });
                }
            }
        }
        let wanted = format!("awake within {EXIT_US_MAX} µs");
        let target = format!("cpu {cpus}");
        match deepest {
            Some(exit_us) => {
                vec![Finding::new(
                    target,
                    format!("awake within {exit_us} µs"),
                    wanted,
                    Verdict::Change(changes),
                )]
            }
            None if has_states => vec![Finding::right(target, wanted)],
            None if machine.is_virtual() => {
                let why = "how deep a virtual cpu sleeps is decided by its host".to_owned();
                vec![Finding::new(target, "not shown", wanted, Verdict::NotHere(why))]
            }
            None => Vec::new(),
        }
    }
}
