//! The knobs of a machine: what each is set to, what it should be for the broker, why, and what it costs otherwise.
//!
//! One file per tuner. A tuner looks at the machine and says what it found, target by target; it changes nothing.
//! What to change is data ([`Change`]): [`apply`](crate::change) writes it, journals the old value and takes it back.

mod place;

mod block_affinity;
mod block_merges;
mod block_read_ahead;
mod block_scheduler;
mod block_write_cache;
mod block_writeback_throttle;
mod boot;
mod clock;
mod cpu_frequency;
mod cpu_idle;
mod cpu_turbo;
mod irq_affinity;
mod irq_balance;
mod ksm;
mod limits;
mod memory_maps;
mod mount;
mod network_backlog;
mod network_buffers;
mod network_busy_poll;
mod nic_coalescing;
mod nic_flow_rules;
mod nic_queues;
mod nic_spread;
mod numa;
mod scheduler;
mod stat_interval;
mod swap;
mod transparent_hugepages;
mod trim;
mod uring;
mod watchdogs;
mod workqueues;

#[cfg(test)]
mod tests;

pub(crate) use place::{FLOW_RULE_ABSENT, FLOW_RULE_SET, script_line};
pub use place::{NicOption, Place, PlaceError, Settings};

use std::path::PathBuf;

use serde::Serialize;

use crate::facts::Facts;
use crate::nics::Nic;
use crate::profile::{Goal, Profile};

/// All that tuners look at.
#[derive(Debug)]
pub struct Machine<'a> {
    pub settings: &'a Settings,
    pub facts: &'a Facts,
    pub nics: &'a [Nic],
    /// Which cpu does what, and for what the machine is to be good.
    pub profile: &'a Profile,
}

/// One knob, or several that make sense together only.
pub trait Tuner: Sync {
    /// As `--only` takes it: lower case, words joined by dashes.
    fn name(&self) -> &'static str;
    /// What happens when it is set otherwise, in one sentence.
    fn why(&self) -> &'static str;
    /// What that typically costs a broker; a rule of thumb where nobody measured here.
    fn cost(&self) -> &'static str;
    /// Each target of the machine that has this knob; none where the machine has none.
    fn look(&self, machine: &Machine<'_>) -> Vec<Finding>;
}

/// What a tuner says of one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `vda`, `eth0 queue 3`, `cpu 0-15`; empty for the kernel as a whole.
    pub target: String,
    pub found: String,
    pub wanted: String,
    pub verdict: Verdict,
    /// Of what is right: the setting to be kept, for a profile to remember.
    #[serde(skip)]
    pub keep: Option<Change>,
}

/// How what was found stands to what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Right,
    /// `apply` makes these changes, in order; all or none of a finding.
    Change(Vec<Change>),
    /// Only a person can: a boot parameter, a unit file, firmware.
    Advice(String),
    /// It cannot be judged, or means nothing, on this machine; why.
    NotHere(String),
}

/// A setting and its new value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    pub place: Place,
    pub value: String,
}

/// Every tuner, in the order in which they are shown and applied: cpus, interrupts and network, disk, memory, kernel.
pub fn tuners() -> &'static [&'static dyn Tuner] {
    &[
        &cpu_frequency::Governor,
        &cpu_frequency::EnergyPreference,
        &cpu_turbo::Turbo,
        &cpu_idle::IdleStates,
        &clock::ClockSource,
        &boot::IsolatedCpus,
        &irq_balance::IrqBalance,
        &irq_affinity::NicInterrupts,
        &irq_affinity::DefaultAffinity,
        &nic_queues::Queues,
        &nic_flow_rules::FlowRules,
        &nic_coalescing::Coalescing,
        &nic_spread::ReceiveSteering,
        &nic_spread::TransmitSteering,
        &network_backlog::ListenBacklog,
        &network_backlog::DeviceBacklog,
        &network_buffers::Buffers,
        &network_buffers::IdleRestart,
        &network_busy_poll::BusyPoll,
        &block_scheduler::Scheduler,
        &block_merges::Merges,
        &block_affinity::CompletionCpu,
        &block_read_ahead::ReadAhead,
        &block_writeback_throttle::WritebackThrottle,
        &block_write_cache::WriteCacheKind,
        &mount::Options,
        &trim::PeriodicTrim,
        &swap::Swappiness,
        &transparent_hugepages::Enabled,
        &transparent_hugepages::Defrag,
        &ksm::SamePageMerging,
        &memory_maps::MapCount,
        &numa::Balancing,
        &numa::ZoneReclaim,
        &scheduler::Autogroup,
        &stat_interval::StatInterval,
        &watchdogs::NmiWatchdog,
        &watchdogs::SoftWatchdog,
        &workqueues::UnboundCpus,
        &uring::Enabled,
        &limits::LockedMemory,
        &limits::OpenFiles,
    ]
}

// --- what tuners share --------------------------------------------------------------------------------------

impl Finding {
    fn right(target: impl Into<String>, found: impl Into<String>) -> Self {
        let found = found.into();
        Finding { target: target.into(), wanted: found.clone(), found, verdict: Verdict::Right, keep: None }
    }

    fn new(
        target: impl Into<String>,
        found: impl Into<String>,
        wanted: impl Into<String>,
        verdict: Verdict,
    ) -> Self {
        Finding { target: target.into(), found: found.into(), wanted: wanted.into(), verdict, keep: None }
    }
}

impl Machine<'_> {
    fn read(&self, path: &str) -> Option<String> {
        self.settings.read(&Place::File(PathBuf::from(path)))
    }

    /// One file that should hold `value`; nothing where the machine has no such file.
    fn file(&self, target: impl Into<String>, path: &str, value: &str) -> Option<Finding> {
        self.file_if(target, path, |found| found == value, value)
    }

    /// One file whose value `is_right`, or is to become `value`.
    fn file_if(
        &self,
        target: impl Into<String>,
        path: &str,
        is_right: impl FnOnce(&str) -> bool,
        value: &str,
    ) -> Option<Finding> {
        let found = self.read(path)?;
        let place = Place::File(PathBuf::from(path));
        if is_right(&found) {
            let keep = Change { place, value: found.clone() };
            return Some(Finding { keep: Some(keep), ..Finding::right(target, found) });
        }
        let change = Change { place, value: value.to_owned() };
        Some(Finding::new(target, found, value, Verdict::Change(vec![change])))
    }

    /// One file that holds a number of at least `least`.
    fn file_at_least(&self, path: &str, least: u64) -> Option<Finding> {
        let is_right = |found: &str| found.parse::<u64>().is_ok_and(|found| found >= least);
        let finding = self.file_if("", path, is_right, &least.to_string())?;
        Some(match finding.verdict {
            Verdict::Right => finding,
            _ => Finding { wanted: format!("at least {least}"), ..finding },
        })
    }

    fn is_virtual(&self) -> bool {
        self.facts.kernel.virtualised_by.is_some()
    }

    /// Whole-machine knobs are left alone where others share the machine.
    fn is_shared(&self) -> bool {
        matches!(self.profile.goal, Goal::SharedHost | Goal::Dev)
    }

    /// What stands in the way of changing the machine as a whole, as a verdict.
    fn shared_verdict(&self) -> Option<Verdict> {
        let goal = self.profile.goal;
        self.is_shared().then(|| {
            Verdict::NotHere(format!("the goal {goal} leaves alone what other programs of the machine see"))
        })
    }

    /// A finding whose change is taken back where the machine is shared.
    fn unless_shared(&self, finding: Finding) -> Finding {
        match (&finding.verdict, self.shared_verdict()) {
            (Verdict::Change(_), Some(verdict)) => Finding { verdict, ..finding },
            _ => finding,
        }
    }

    /// The queue directory of the data directory's disk, and the disk's name.
    fn disk_queue(&self) -> Option<(String, String)> {
        let name = self.facts.data.device.as_ref()?.name.clone();
        let dir = format!("sys/block/{name}/queue");
        Some((name, dir))
    }

    /// Interfaces that carry the broker's traffic: those that are up.
    fn nics(&self) -> impl Iterator<Item = &Nic> {
        self.nics.iter().filter(|nic| nic.is_up)
    }
}
