//! What of a broker's configuration can be changed while it runs (UPDATE_BROKER_CONFIG), and its changes.
//!
//! A change is in force at once and is logged, so it outlives the process: what was changed by request counts more
//! than the configuration file, until it is changed back to what the file says.

mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use apogee_net::body::{DataVersion, perm};

pub use self::record::SettingsRecord;
use super::control::ControlRecord;
use super::timers::TIMER_DELAY_SEC;

/// Keys that may not be changed by a request (`BrokerConfig.configBlackList`).
const BLACK_LIST: [&str; 3] = ["configBlackList", "brokerConfigPath", "rocketmqHome"];

/// Hours that messages may be kept: a hundred years.
const FILE_RESERVED_HOURS: std::ops::RangeInclusive<u32> = 1..=876_000;

/// Up to a day.
const CHECK_INTERVAL_MS: std::ops::RangeInclusive<u32> = 100..=86_400_000;

const CHECKS_MAX: std::ops::RangeInclusive<u32> = 1..=1_000_000;

/// Declares the settings once: fields, RocketMQ's names, and which values they may have.
macro_rules! settings {
    ($( $(#[$note:meta])* $name:literal => $field:ident: $type:ty = $default:expr, if $legal:expr, $expected:literal; )*) => {
        /// What can be changed while the broker runs.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Settings {
            $( $(#[$note])* pub $field: $type, )*
        }

        impl Default for Settings {
            fn default() -> Self {
                Settings { $( $field: $default, )* }
            }
        }

        impl Settings {
            /// RocketMQ's names with the values in force.
            pub fn properties(&self) -> impl Iterator<Item = (&'static str, String)> {
                [$( ($name, self.$field.to_string()) ),*].into_iter()
            }

            /// The setting's own spelling of `value`; none if there is no such setting.
            fn set(&mut self, name: &str, value: &str) -> Option<Result<(), SettingsError>> {
                match name {
                    $( $name => {
                        let legal: fn(&$type) -> bool = $legal;
                        let parsed = value.parse().ok().filter(legal);
                        Some(parsed.map(|parsed| self.$field = parsed).ok_or_else(|| SettingsError::Invalid {
                            name: $name,
                            value: value.to_owned(),
                            expected: $expected,
                        }))
                    } )*
                    _ => None,
                }
            }
        }
    };
}

settings! {
    /// Bits of what clients may do at this broker: registered topics have no more than these.
    "brokerPermission" => broker_perm: i32 = perm::READ | perm::WRITE, if |bits| (0..=7).contains(bits), "0 to 7";
    /// Sending to a topic that does not exist makes it.
    "autoCreateTopicEnable" => auto_create_topic: bool = true, if |_| true, "true or false";
    /// Consuming as a group that does not exist makes it.
    "autoCreateSubscriptionGroup" => auto_create_group: bool = true, if |_| true, "true or false";
    /// Clients are told to trace their messages.
    "traceOn" => trace_on: bool = true, if |_| true, "true or false";
    /// Hours that messages are kept.
    "fileReservedTime" => file_reserved_hours: u32 = 72, if |hours| FILE_RESERVED_HOURS.contains(hours),
        "1 to 876000 hours";
    /// Messages leave before their time when the disk is full.
    "cleanFileForciblyEnable" => reclaim_early: bool = true, if |_| true, "true or false";
    /// Half messages are refused.
    "rejectTransactionMessage" => reject_transactions: bool = false, if |_| true, "true or false";
    /// A half message that does not say so itself is not checked before this, in ms.
    "transactionTimeOut" => transaction_timeout_ms: u32 = 6_000, if |_| true, "0 to 4294967295 ms";
    /// From one check of a transaction to the next, in ms.
    "transactionCheckInterval" => transaction_check_interval_ms: u32 = 30_000,
        if |ms| CHECK_INTERVAL_MS.contains(ms), "100 to 86400000 ms";
    /// Checks after which a transaction is given up.
    "transactionCheckMax" => transaction_checks_max: u32 = 15, if |max| CHECKS_MAX.contains(max), "1 to 1000000";
    /// Replies of request-reply are stored as well as handed over.
    "storeReplyMessageEnable" => store_replies: bool = true, if |_| true, "true or false";
    /// Messages may ask for a time of their own.
    "timerWheelEnable" => timer_enable: bool = true, if |_| true, "true or false";
    /// The longest such time from now, in seconds.
    "timerMaxDelaySec" => timer_delay_max_sec: u64 = 259_200, if |sec| TIMER_DELAY_SEC.contains(sec),
        "1 to 31622400 s";
    /// Producers may take back a message that waits for its time.
    "recallMessageEnable" => recall_enable: bool = false, if |_| true, "true or false";
}

/// Why UPDATE_BROKER_CONFIG changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("Can not update config in black list.")]
    BlackList,
    #[error("{name} = {value:?}: expected {expected}")]
    Invalid { name: &'static str, value: String, expected: &'static str },
    #[error("{0} cannot be changed while the broker runs")]
    Fixed(String),
}

/// A wanted change of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    pub settings: Settings,
    /// Names that mean nothing here, ignored.
    pub unknown: Vec<String>,
}

impl Settings {
    /// These settings with what `wanted` changes. `fixed` gives the value of what is set and cannot be changed.
    pub fn updated(
        &self,
        wanted: &[(String, String)],
        fixed: impl Fn(&str) -> Option<String>,
    ) -> Result<Update, SettingsError> {
        let mut update = Update { settings: self.clone(), unknown: Vec::new() };
        if wanted.iter().any(|(name, _)| BLACK_LIST.contains(&&**name)) {
            return Err(SettingsError::BlackList);
        }
        for (name, value) in wanted {
            match (update.settings.set(name, value), fixed(name)) {
                (Some(set), _) => set?,
                (None, Some(known)) if known == *value => {}
                (None, Some(_)) => return Err(SettingsError::Fixed(name.clone())),
                (None, None) => update.unknown.push(name.clone()),
            }
        }
        Ok(update)
    }
}

/// What was changed by request: names with values that differ from the configuration file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SettingsTable {
    changed: BTreeMap<String, String>,
    version: DataVersion,
}

impl SettingsTable {
    pub fn version(&self) -> DataVersion {
        self.version
    }

    /// What is in force, given what the file says. Names that an older or newer version knew are passed over.
    pub fn in_force(&self, of_file: &Settings) -> Settings {
        let mut settings = of_file.clone();
        for (name, value) in &self.changed {
            if let Some(Err(error)) = settings.set(name, value) {
                tracing::warn!(%error, "a setting changed by request is no longer possible; the file's counts");
            }
        }
        settings
    }

    /// Keeps `wanted` as what is in force; none if it is already.
    pub fn update(&mut self, of_file: &Settings, wanted: &Settings, now_ms: i64) -> Option<ControlRecord> {
        if self.in_force(of_file) == *wanted {
            return None;
        }
        let differing = of_file.properties().zip(wanted.properties()).filter(|(file, wanted)| file != wanted);
        let record = SettingsRecord {
            version: self.version.next(now_ms),
            changed: differing.map(|(_, (name, value))| (name.to_owned(), value)).collect(),
        };
        let record = ControlRecord::BrokerSettings(record);
        self.apply(&record);
        Some(record)
    }

    /// What would make this table anew, for a snapshot: nothing if nothing was ever changed.
    pub fn snapshot(&self) -> impl Iterator<Item = ControlRecord> {
        let SettingsTable { changed, version } = self.clone();
        (version != DataVersion::default())
            .then_some(ControlRecord::BrokerSettings(SettingsRecord { version, changed }))
            .into_iter()
    }

    /// Repeats a logged change, or a record of a snapshot.
    pub fn apply(&mut self, record: &ControlRecord) {
        if let ControlRecord::BrokerSettings(SettingsRecord { version, changed }) = record {
            self.version = *version;
            self.changed.clone_from(changed);
        }
    }
}
