//! The consumer groups of a shard: their configuration. Who consumes just now is in [`clients`](super::clients).
//!
//! Each method that changes something returns the [`ControlRecord`] to be logged, or `None` if all was so already.
//! The change is in force at once; whoever asked for it is answered when the record is durable.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use apogee_net::body::{DataVersion, RawValue, SubscriptionGroupConfig};
use apogee_net::message::{NameError, check_group};
use rustc_hash::FxHashMap;

use super::attributes::{self, AttributeError, GROUP_ATTRIBUTES};
use super::control::ControlRecord;
use super::topics::QUEUES_PER_TOPIC_MAX;

/// Consumer groups of one shard. At the limit none is made.
pub const GROUPS_MAX: usize = 65_536;

/// Bytes of a configuration's retry policies and static subscriptions, which are kept as their JSON.
pub const GROUP_JSON_BYTES_MAX: usize = 64 * 1024;

/// Of all groups together: a snapshot holds them, and must not outgrow what can be read back.
pub const GROUPS_JSON_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Groups that tools and the broker itself consume with, made at start (`SubscriptionGroupManager#init`, and the other
/// consumer groups of `MixAll`).
const SYSTEM_GROUPS: &[&str] = &[
    "TOOLS_CONSUMER",
    "SCHEDULE_CONSUMER",
    "FILTERSRV_CONSUMER",
    "__MONITOR_CONSUMER",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_ONSAPI_PULL",
    "CID_RMQ_SYS_TRANS",
];

/// Groups with this prefix are made when they are used, whatever the configuration (`MixAll#isSysConsumerGroup`).
const SYSTEM_PREFIX: &str = "CID_RMQ_SYS_";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    #[error("subscription group {0:?} not exist")]
    Unknown(String),
    #[error("subscription group {group:?}: {problem}")]
    Name { group: String, problem: NameError },
    #[error("{0} retry queues; allowed are up to {QUEUES_PER_TOPIC_MAX}")]
    RetryQueues(i32),
    #[error("policies and subscriptions of {0} bytes are longer than {GROUP_JSON_BYTES_MAX}")]
    TooMuchJson(usize),
    #[error(
        "this broker's subscription groups have policies and subscriptions of {GROUPS_JSON_BYTES_MAX} bytes already"
    )]
    TooMuchJsonInAll,
    #[error(transparent)]
    Attribute(#[from] AttributeError),
    #[error("this broker has {GROUPS_MAX} subscription groups already")]
    TableFull,
}

#[derive(Debug, PartialEq)]
pub struct GroupTable {
    /// `autoCreateSubscriptionGroup`
    auto_create: bool,
    groups: FxHashMap<Arc<str>, SubscriptionGroupConfig>,
    /// The keys of `groups` in order, so that whoever goes through all of them can pause between two.
    names: BTreeSet<Arc<str>>,
    /// Bytes of retry policies and static subscriptions over all groups.
    json_bytes: usize,
    version: DataVersion,
}

impl GroupTable {
    /// An empty table; first [`apply`](Self::apply) what the log has, then
    /// [`ensure_system_groups`](Self::ensure_system_groups).
    pub fn new(auto_create: bool) -> Self {
        Self {
            auto_create,
            groups: FxHashMap::default(),
            names: BTreeSet::new(),
            json_bytes: 0,
            version: DataVersion::default(),
        }
    }

    /// An empty table of the same broker.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self::new(self.auto_create)
    }

    pub fn get(&self, group: &str) -> Option<&SubscriptionGroupConfig> {
        self.groups.get(group)
    }

    /// All groups, in no order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &SubscriptionGroupConfig> {
        self.groups.values()
    }

    /// Groups ordered by name, from one on or behind it.
    pub fn range<'a>(&'a self, from: Bound<&'a str>) -> impl Iterator<Item = &'a SubscriptionGroupConfig> {
        self.names.range::<str, _>((from, Bound::Unbounded)).map(|name| &self.groups[name])
    }

    pub fn len(&self) -> usize {
        self.groups.len()
    }

    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Consuming as a group that does not exist makes it from now on, or does not.
    pub fn set_auto_create(&mut self, auto_create: bool) {
        self.auto_create = auto_create;
    }

    /// Advances with every change.
    pub fn version(&self) -> DataVersion {
        self.version
    }

    /// Makes the groups every broker has, unless they exist.
    pub fn ensure_system_groups(&mut self, now_ms: i64) -> Result<Vec<ControlRecord>, GroupError> {
        let mut records = Vec::new();
        for group in SYSTEM_GROUPS {
            if self.get(group).is_none() {
                records.push(self.make(group, now_ms)?);
            }
        }
        Ok(records)
    }

    /// To be called when somebody consumes as `group`: makes it with the default configuration, if it does not exist
    /// and may be made so (`SubscriptionGroupManager#findSubscriptionGroupConfig`).
    pub fn ensure(&mut self, group: &str, now_ms: i64) -> Result<Option<ControlRecord>, GroupError> {
        if self.get(group).is_some() {
            return Ok(None);
        }
        if !self.auto_create && !group.starts_with(SYSTEM_PREFIX) {
            return Err(GroupError::Unknown(group.to_owned()));
        }
        self.make(group, now_ms).map(Some)
    }

    /// Makes or changes a group on request (`SubscriptionGroupManager#updateSubscriptionGroupConfig`). The attributes of
    /// `wanted` are changes, with signs before their names.
    pub fn update(
        &mut self,
        wanted: SubscriptionGroupConfig,
        now_ms: i64,
    ) -> Result<Option<ControlRecord>, GroupError> {
        let known = self.get(&wanted.group_name);
        let current = known.map(|group| &group.attributes);
        let attributes = attributes::change(GROUP_ATTRIBUTES, current, &wanted.attributes)?;
        let config = SubscriptionGroupConfig { attributes, ..wanted };
        if known == Some(&config) {
            return Ok(None);
        }
        self.put(config, now_ms).map(Some)
    }

    /// Deletes a group on request, and with `forget_offsets` what it had consumed; the offsets are not in this table,
    /// but in [`offsets`](super::offsets).
    pub fn delete(&mut self, group: &str, forget_offsets: bool, now_ms: i64) -> Option<ControlRecord> {
        self.get(group)?;
        let version = self.version.next(now_ms);
        let record = ControlRecord::GroupDelete { version, group: group.to_owned(), forget_offsets };
        self.apply(&record);
        Some(record)
    }

    /// Records that rebuild the whole table, for a snapshot: the groups in the order of their names, then the
    /// version of them all.
    pub fn snapshot(&self) -> impl Iterator<Item = ControlRecord> {
        let puts = self.range(Bound::Unbounded).map(|config| ControlRecord::GroupPut {
            version: DataVersion::default(),
            config: Box::new(config.clone()),
        });
        puts.chain([ControlRecord::GroupTableState { version: self.version }])
    }

    /// Repeats a logged change, or a record of a snapshot.
    pub fn apply(&mut self, record: &ControlRecord) {
        match record {
            ControlRecord::GroupPut { version, config } => {
                let name: Arc<str> = config.group_name.as_str().into();
                let before = self.groups.insert(Arc::clone(&name), SubscriptionGroupConfig::clone(config));
                if before.is_none() {
                    self.names.insert(name);
                }
                self.json_bytes += json_bytes(config);
                self.json_bytes -= before.as_ref().map_or(0, json_bytes);
                self.version = *version;
            }
            ControlRecord::GroupDelete { version, group, .. } => {
                let before = self.groups.remove(group.as_str());
                self.names.remove(group.as_str());
                self.json_bytes -= before.as_ref().map_or(0, json_bytes);
                self.version = *version;
            }
            ControlRecord::GroupTableState { version } => self.version = *version,
            ControlRecord::TopicPut { .. }
            | ControlRecord::TopicDelete { .. }
            | ControlRecord::TopicTableState { .. }
            | ControlRecord::BrokerSettings(_)
            | ControlRecord::Offsets(_)
            | ControlRecord::Timer(_)
            | ControlRecord::Transaction(_)
            | ControlRecord::Pop(_)
            | ControlRecord::RequestMode(_)
            | ControlRecord::Forbidden(_)
            | ControlRecord::OffsetReset(_) => {}
        }
    }

    fn make(&mut self, group: &str, now_ms: i64) -> Result<ControlRecord, GroupError> {
        let config =
            SubscriptionGroupConfig { group_name: group.to_owned(), ..SubscriptionGroupConfig::default() };
        self.put(config, now_ms)
    }

    fn put(&mut self, config: SubscriptionGroupConfig, now_ms: i64) -> Result<ControlRecord, GroupError> {
        check_config(&config)?;
        let known = self.get(&config.group_name);
        if self.len() >= GROUPS_MAX && known.is_none() {
            return Err(GroupError::TableFull);
        }
        let (before, after) = (known.map_or(0, json_bytes), json_bytes(&config));
        if after > before && self.json_bytes - before + after > GROUPS_JSON_BYTES_MAX {
            return Err(GroupError::TooMuchJsonInAll);
        }
        let version = self.version.next(now_ms);
        let record = ControlRecord::GroupPut { version, config: Box::new(config) };
        self.apply(&record);
        Ok(record)
    }
}

fn check_config(config: &SubscriptionGroupConfig) -> Result<(), GroupError> {
    check_group(&config.group_name)
        .map_err(|problem| GroupError::Name { group: config.group_name.clone(), problem })?;
    if config.retry_queue_nums > QUEUES_PER_TOPIC_MAX {
        return Err(GroupError::RetryQueues(config.retry_queue_nums));
    }
    match json_bytes(config) {
        bytes if bytes > GROUP_JSON_BYTES_MAX => Err(GroupError::TooMuchJson(bytes)),
        _ => Ok(()),
    }
}

fn json_bytes(config: &SubscriptionGroupConfig) -> usize {
    let policy = &config.group_retry_policy;
    let json =
        [&config.subscription_data_set, &policy.customized_retry_policy, &policy.exponential_retry_policy];
    json.into_iter().flatten().map(|value: &RawValue| value.as_str().len()).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn wanted(group: &str, retry_max_times: i32) -> SubscriptionGroupConfig {
        SubscriptionGroupConfig {
            group_name: group.into(),
            retry_max_times,
            ..SubscriptionGroupConfig::default()
        }
    }

    fn table() -> GroupTable {
        GroupTable::new(true)
    }

    #[test]
    fn system_groups_are_made_once() {
        let mut table = GroupTable::new(false);
        assert_eq!(table.ensure_system_groups(NOW).unwrap().len(), SYSTEM_GROUPS.len());
        assert_eq!(table.get("TOOLS_CONSUMER"), Some(&wanted("TOOLS_CONSUMER", 16)));
        assert_eq!(table.ensure_system_groups(NOW), Ok(vec![]));
        assert_eq!(table.version().counter, SYSTEM_GROUPS.len() as i64);
    }

    #[test]
    fn groups_are_made_when_used_if_allowed() {
        let mut table = table();
        assert!(table.ensure("g", NOW).unwrap().is_some());
        assert_eq!(table.ensure("g", NOW), Ok(None));
        assert_eq!(table.get("g"), Some(&wanted("g", 16)));
        let error = table.ensure("g!", NOW).unwrap_err();
        assert!(matches!(error, GroupError::Name { .. }), "{error}");

        let mut table = GroupTable::new(false);
        assert_eq!(table.ensure("g", NOW), Err(GroupError::Unknown("g".into())));
        assert!(table.ensure("CID_RMQ_SYS_x", NOW).unwrap().is_some());
    }

    #[test]
    fn update_makes_and_changes() {
        let mut table = table();
        assert!(table.update(wanted("g", 3), NOW).unwrap().is_some());
        assert_eq!(table.update(wanted("g", 3), NOW), Ok(None));
        assert!(table.update(wanted("g", 4), NOW + 1).unwrap().is_some());
        assert_eq!(table.get("g").unwrap().retry_max_times, 4);
        assert_eq!(table.version(), DataVersion { counter: 2, state_version: 0, timestamp: NOW + 1 });

        let attributes = attributes::parse_changes("+priority.factor=7").unwrap();
        table.update(SubscriptionGroupConfig { attributes, ..wanted("g", 4) }, NOW).unwrap();
        assert_eq!(table.get("g").unwrap().attributes["priority.factor"], "7");
        assert_eq!(table.update(wanted("g", 4), NOW), Ok(None), "attributes stay unless they are removed");
    }

    #[test]
    fn update_refuses_what_no_group_can_be() {
        let mut table = table();
        let error = table.update(wanted("", 1), NOW).unwrap_err();
        assert!(matches!(error, GroupError::Name { .. }), "{error}");
        let config = SubscriptionGroupConfig { retry_queue_nums: 65_537, ..wanted("g", 1) };
        assert_eq!(table.update(config, NOW), Err(GroupError::RetryQueues(65_537)));
        let text = format!("\"{}\"", "x".repeat(GROUP_JSON_BYTES_MAX));
        let json = Some(RawValue::parse(&text).unwrap());
        let config = SubscriptionGroupConfig { subscription_data_set: json, ..wanted("g", 1) };
        assert_eq!(table.update(config, NOW), Err(GroupError::TooMuchJson(GROUP_JSON_BYTES_MAX + 2)));
        let attributes = attributes::parse_changes("+message.type=FIFO").unwrap();
        let config = SubscriptionGroupConfig { attributes, ..wanted("g", 1) };
        let unknown = AttributeError::Unknown("message.type".into());
        assert_eq!(table.update(config, NOW), Err(GroupError::Attribute(unknown)));
        assert!(table.is_empty());
    }

    #[test]
    fn deleted_group_is_gone() {
        let mut table = table();
        table.ensure("g", NOW).unwrap();
        let record = table.delete("g", true, NOW).unwrap();
        assert!(matches!(record, ControlRecord::GroupDelete { forget_offsets: true, .. }));
        assert_eq!(table.get("g"), None);
        assert_eq!(table.delete("g", true, NOW), None);
    }

    #[test]
    fn full_table_makes_no_group_and_changes_those_it_has() {
        let mut table = table();
        for group in 0..GROUPS_MAX {
            table.ensure(&format!("g{group}"), NOW).unwrap();
        }
        assert_eq!(table.ensure("g", NOW), Err(GroupError::TableFull));
        assert_eq!(table.update(wanted("g", 1), NOW), Err(GroupError::TableFull));
        assert!(table.update(wanted("g7", 1), NOW).unwrap().is_some());
        table.delete("g7", false, NOW).unwrap();
        assert!(table.ensure("g", NOW).unwrap().is_some());
    }

    #[test]
    fn json_of_all_groups_has_a_limit() {
        let long =
            || Some(RawValue::parse(&format!("\"{}\"", "x".repeat(GROUP_JSON_BYTES_MAX - 2))).unwrap());
        let with_json =
            |group: &str| SubscriptionGroupConfig { subscription_data_set: long(), ..wanted(group, 1) };
        let mut table = table();
        table.update(with_json("g"), NOW).unwrap();
        assert_eq!(table.json_bytes, GROUP_JSON_BYTES_MAX);
        table.json_bytes = GROUPS_JSON_BYTES_MAX;
        assert_eq!(table.update(with_json("h"), NOW), Err(GroupError::TooMuchJsonInAll));
        table.ensure("h", NOW).unwrap();
        table.update(SubscriptionGroupConfig { retry_max_times: 2, ..with_json("g") }, NOW).unwrap();
        table.delete("g", false, NOW).unwrap();
        table.update(with_json("h"), NOW).unwrap();
        assert_eq!(table.json_bytes, GROUPS_JSON_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn records_rebuild_the_table(
            steps in prop::collection::vec((0..4usize, 0..4u8, 1..4i32), 0..40),
        ) {
            let mut table = table();
            let mut records = table.ensure_system_groups(NOW).unwrap();
            for (time, (group, action, times)) in (NOW..).zip(steps) {
                let group = ["f", "g", "h", "i"][group];
                records.extend(match action {
                    0 => table.delete(group, false, time),
                    1 => table.ensure(group, time).unwrap(),
                    _ => table.update(wanted(group, times), time).unwrap(),
                });
            }
            let mut rebuilt = GroupTable::new(true);
            for record in &records {
                rebuilt.apply(&ControlRecord::decode(&record.encode()).unwrap());
            }
            prop_assert_eq!(&rebuilt, &table);
        }
    }
}
