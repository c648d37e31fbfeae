//! The machine under the broker: which profile it runs by, and whether the machine still is what the profile says.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use apogee_tuning::{CpuList, Facts, Nic, Profile, ProfileRequest, Settings, derive, drift, nics};

use super::NodeEvent;
use crate::config::{BrokerConfig, PORT_STRIDE};
use crate::shard::DriftGauge;

/// How often the machine is compared with its profile: a knob that somebody turns is seen within a minute, at the price of a
/// hundred small files read off the shards' cores.
const DRIFT_PERIOD: Duration = Duration::from_secs(60);

/// Differences that are logged each; of more only how many there are.
const DRIFT_LOGGED_MAX: usize = 16;

/// The profile that a broker runs by.
#[derive(Debug)]
pub(super) struct Machine {
    settings: Settings,
    facts: Facts,
    profile: Profile,
    /// The profile is a file that somebody made; one that was derived at start says nothing of knobs.
    is_given: bool,
    /// As they were last told.
    drift: Vec<String>,
    looked_at: Instant,
}

impl Machine {
    /// Reads the profile that the configuration names, or derives one.
    pub(super) fn new(facts: Facts, config: &BrokerConfig) -> anyhow::Result<Machine> {
        let settings = Settings::machine();
        let profile = match &config.profile {
            Some(path) => Profile::read(path, &facts.cpus.allowed)?,
            None => {
                let nics: Vec<Nic> = nics(settings.roots());
                let request = ProfileRequest {
                    goal: None,
                    shards: config.shards,
                    base_port: config.base_port,
                    port_stride: PORT_STRIDE,
                    disk: None,
                };
                derive(&settings, &facts, &nics, &request)?
            }
        };
        let is_given = config.profile.is_some();
        Ok(Machine { settings, facts, profile, is_given, drift: Vec::new(), looked_at: Instant::now() })
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The configuration with what it leaves open filled in from the profile, and a line for people about each value.
    pub(super) fn complete(&self, config: &BrokerConfig) -> (BrokerConfig, Vec<String>) {
        let defaults = BrokerConfig::default();
        let profile = &self.profile;
        let mut complete = config.clone();
        let mut taken = Vec::new();
        let source = match &config.profile {
            Some(path) => format!("profile {}", path.display()),
            None => "derived from the machine".to_owned(),
        };
        let mut take = |what: &str, value: String| taken.push(format!("{what} = {value} ({source})"));
        if config.cpus.is_empty() {
            complete.cpus = profile.shard_cpus();
            take("cpus", complete.cpus.to_string());
        }
        if config.spin_us == defaults.spin_us && profile.spin_us > 0 {
            complete.spin_us = profile.spin_us.into();
            take("spin_us", complete.spin_us.to_string());
        }
        // What costs memory, or follows from measurements, is taken from a profile that somebody made, not from a guess.
        if !self.is_given {
            return (complete, taken);
        }
        if config.tail_cache_bytes == defaults.tail_cache_bytes {
            complete.tail_cache_bytes = profile.memory.tail_cache_bytes;
            take("tail_cache_bytes", complete.tail_cache_bytes.to_string());
        }
        if config.index_entries_max.is_none() {
            complete.index_entries_max = Some(profile.memory.index_entries_max);
            take("index_entries_max", profile.memory.index_entries_max.to_string());
        }
        if config.batches_in_flight_max.is_none() {
            complete.batches_in_flight_max = Some(profile.disk.batches_in_flight_max);
            take("batches_in_flight_max", profile.disk.batches_in_flight_max.to_string());
        }
        if config.batch_bytes_target.is_none() {
            complete.batch_bytes_target = Some(profile.disk.batch_bytes_target);
            take("batch_bytes_target", profile.disk.batch_bytes_target.to_string());
        }
        if let (None, Some(bytes)) = (config.catch_up_bytes_max, profile.disk.catch_up_bytes_max) {
            complete.catch_up_bytes_max = Some(bytes);
            take("catch_up_bytes_max", bytes.to_string());
        }
        (complete, taken)
    }

    /// Shards of a new data directory on the cpus that `config` asks for, unless it says how many: as many as the profile
    /// has, or one per cpu if the cpus are not the profile's.
    pub(super) fn shards(&self, config: &BrokerConfig, cpus: usize) -> usize {
        if self.is_given && config.cpus.is_empty() { self.profile.shards.len() } else { cpus }
    }

    /// Where everything runs that is no shard, if the profile sets cpus aside for it.
    pub(super) fn control_cpus(&self) -> Option<&CpuList> {
        let shards = self.profile.shard_cpus();
        let control = &self.profile.control_cpus;
        let is_apart = !control.is_empty() && control.iter().all(|cpu| !shards.contains(cpu));
        (self.is_given && is_apart).then_some(control)
    }

    /// Compares the machine with a profile that was given, and logs what is different from the last time.
    pub(super) fn watch(&mut self, gauge: &DriftGauge) {
        self.looked_at = Instant::now();
        if !self.is_given {
            return;
        }
        let found: Vec<String> =
            drift(&self.settings, &self.facts, &self.profile).iter().map(ToString::to_string).collect();
        if found != self.drift {
            for difference in
                found.iter().filter(|difference| !self.drift.contains(difference)).take(DRIFT_LOGGED_MAX)
            {
                tracing::warn!(drift = difference, "the machine differs from its profile");
            }
            tracing::info!(differences = found.len(), "the machine was compared with its profile");
            self.drift = found;
        }
        gauge.set(self.drift.len());
    }

    /// Waits for an event, and watches the machine meanwhile.
    pub(super) fn next_event(
        &mut self,
        events: &Receiver<NodeEvent>,
        gauge: &DriftGauge,
    ) -> Option<NodeEvent> {
        loop {
            let wait = DRIFT_PERIOD.saturating_sub(self.looked_at.elapsed());
            match events.recv_timeout(wait) {
                Ok(event) => return Some(event),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.watch(gauge),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use apogee_tuning::{MemoryPerShard, WriteDepth};

    use super::*;

    fn machine(config: &mut BrokerConfig, dir: &Path) -> Machine {
        let facts = || Facts::collect(Settings::machine().roots(), dir).expect("facts");
        let derived = Machine::new(facts(), &BrokerConfig::default()).expect("a profile is derived");
        let profile = Profile {
            spin_us: 77,
            memory: MemoryPerShard { tail_cache_bytes: 99 << 20, index_entries_max: 1234 },
            disk: WriteDepth {
                batches_in_flight_max: 3,
                batch_bytes_target: 65_536,
                catch_up_bytes_max: Some(1 << 20),
            },
            ..derived.profile
        };
        let path = dir.join("profile.toml");
        std::fs::write(&path, profile.to_toml()).expect("write it");
        config.profile = Some(path);
        Machine::new(facts(), config).expect("it is read back")
    }

    #[test]
    fn a_profile_fills_in_what_the_configuration_leaves_open() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config =
            BrokerConfig { listen: std::net::Ipv4Addr::LOCALHOST.into(), ..BrokerConfig::default() };
        let machine = machine(&mut config, dir.path());
        let (complete, taken) = machine.complete(&config);
        complete.validate().expect("it is a configuration");
        assert_eq!((complete.spin_us, complete.tail_cache_bytes), (77, 99 << 20));
        assert_eq!((complete.index_entries_max, complete.batches_in_flight_max), (Some(1234), Some(3)));
        assert_eq!((complete.batch_bytes_target, complete.catch_up_bytes_max), (Some(65_536), Some(1 << 20)));
        assert!(!complete.cpus.is_empty());
        assert_eq!(taken.len(), 7, "{taken:?}");
        assert!(taken.iter().all(|value| value.contains("profile.toml")), "{taken:?}");
    }

    #[test]
    fn what_the_configuration_says_wins_over_the_profile() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config =
            BrokerConfig { batches_in_flight_max: Some(9), spin_us: 5, ..BrokerConfig::default() };
        let machine = machine(&mut config, dir.path());
        let (complete, taken) = machine.complete(&config);
        assert_eq!((complete.batches_in_flight_max, complete.spin_us), (Some(9), 5));
        assert_eq!(taken.len(), 5, "{taken:?}");

        // Shards for two cpus on a cpu that is asked for alone would get in each other's way.
        assert_eq!(machine.shards(&config, 7), machine.profile.shards.len());
        config.cpus = "0".parse().expect("a list");
        assert_eq!(machine.shards(&config, 1), 1);
    }

    #[test]
    fn without_a_profile_memory_and_depth_stay_as_they_are() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = BrokerConfig::default();
        let facts = Facts::collect(Settings::machine().roots(), dir.path()).expect("facts");
        let (complete, taken) = Machine::new(facts, &config).expect("derived").complete(&config);
        assert_eq!(complete.tail_cache_bytes, config.tail_cache_bytes);
        assert_eq!(complete.batches_in_flight_max, None);
        assert!(taken.iter().all(|value| value.contains("derived from the machine")), "{taken:?}");
    }

    #[test]
    fn drift_is_counted_and_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = BrokerConfig::default();
        let mut machine = machine(&mut config, dir.path());
        machine.profile.made_for.memory_bytes = 1 << 50;
        let gauge = DriftGauge::default();
        machine.watch(&gauge);
        assert!(gauge.get() >= 1, "memory differs at least");
        assert!(
            machine.drift.iter().any(|difference| difference.starts_with("memory")),
            "{:?}",
            machine.drift
        );
    }
}
