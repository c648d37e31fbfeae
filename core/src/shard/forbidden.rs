//! Topics that groups may not consume (`SubscriptionGroupManager#forbiddenTable`).
//!
//! Neither group nor topic need exist, so both stand here by name. What is forbidden for a group goes with it.

use std::collections::{BTreeMap, BTreeSet};

use super::control::codec::{Fields, put_flag, put_text};
use super::control::{ControlError, ControlRecord};

/// Topics forbidden over all groups. At the limit no more are taken. Small, for they are all shown at once.
pub const FORBIDDEN_MAX: usize = 4096;

/// Longest name of a group or topic; those that exist are shorter.
pub const NAME_BYTES_MAX: usize = 255;

/// The bit that is set in RocketMQ's table: 1 << `PermName.INDEX_PERM_READ`.
const READ_FORBIDDEN: i32 = 1 << 2;

/// A topic was forbidden for a group, or allowed again. Fields: group, topic, readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForbiddenRecord {
    pub group: String,
    pub topic: String,
    pub readable: bool,
}

impl ForbiddenRecord {
    pub(in crate::shard) fn encode(&self, out: &mut Vec<u8>) {
        put_text(out, &self.group);
        put_text(out, &self.topic);
        put_flag(out, self.readable);
    }

    pub(in crate::shard) fn decode(fields: &mut Fields<'_>) -> Result<Self, ControlError> {
        Ok(ForbiddenRecord {
            group: fields.text("group")?.to_owned(),
            topic: fields.text("topic")?.to_owned(),
            readable: fields.flag("readable")?,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForbiddenError {
    #[error("{what} of {len} bytes is longer than {NAME_BYTES_MAX}")]
    NameTooLong { what: &'static str, len: usize },
    #[error("{FORBIDDEN_MAX} topics are forbidden for groups on this broker already")]
    TableFull,
}

/// A group for which nothing is forbidden has no entry.
#[derive(Debug, Default, PartialEq)]
pub struct ForbiddenTable {
    groups: BTreeMap<Box<str>, BTreeSet<Box<str>>>,
    len: usize,
}

impl ForbiddenTable {
    /// Forbids a group a topic, or allows it.
    pub fn set(
        &mut self,
        group: &str,
        topic: &str,
        readable: bool,
    ) -> Result<Option<ControlRecord>, ForbiddenError> {
        for (what, name) in [("group", group), ("topic", topic)] {
            if name.len() > NAME_BYTES_MAX {
                return Err(ForbiddenError::NameTooLong { what, len: name.len() });
            }
        }
        if self.is_readable(group, topic) == readable {
            return Ok(None);
        }
        if !readable && self.len >= FORBIDDEN_MAX {
            return Err(ForbiddenError::TableFull);
        }
        let record = record(group, topic, readable);
        self.apply(&record);
        Ok(Some(record))
    }

    pub fn is_readable(&self, group: &str, topic: &str) -> bool {
        self.groups.get(group).is_none_or(|topics| !topics.contains(topic))
    }

    /// As tools are shown it: group, topic, bits.
    pub fn shown(&self) -> BTreeMap<String, BTreeMap<String, i32>> {
        let bits = |topics: &BTreeSet<Box<str>>| {
            topics.iter().map(|topic| (topic.to_string(), READ_FORBIDDEN)).collect()
        };
        self.groups.iter().map(|(group, topics)| (group.to_string(), bits(topics))).collect()
    }

    /// Records that rebuild the whole table, for a snapshot.
    pub fn snapshot(&self) -> impl Iterator<Item = ControlRecord> {
        let topics =
            self.groups.iter().flat_map(|(group, topics)| topics.iter().map(move |topic| (group, topic)));
        topics.map(|(group, topic)| record(group, topic, false))
    }

    /// Repeats a logged change, or a record of a snapshot.
    pub fn apply(&mut self, record: &ControlRecord) {
        match record {
            ControlRecord::Forbidden(ForbiddenRecord { group, topic, readable: false }) => {
                let topics = self.groups.entry(group.as_str().into()).or_default();
                self.len += usize::from(topics.insert(topic.as_str().into()));
            }
            ControlRecord::Forbidden(ForbiddenRecord { group, topic, readable: true }) => {
                let Some(topics) = self.groups.get_mut(group.as_str()) else { return };
                self.len -= usize::from(topics.remove(topic.as_str()));
                if topics.is_empty() {
                    self.groups.remove(group.as_str());
                }
            }
            ControlRecord::GroupDelete { group, .. } => {
                self.len -= self.groups.remove(group.as_str()).map_or(0, |topics| topics.len());
            }
            _ => {}
        }
    }
}

fn record(group: &str, topic: &str, readable: bool) -> ControlRecord {
    ControlRecord::Forbidden(ForbiddenRecord { group: group.into(), topic: topic.into(), readable })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rebuilt_from(records: impl IntoIterator<Item = ControlRecord>) -> ForbiddenTable {
        let mut table = ForbiddenTable::default();
        for record in records {
            table.apply(&ControlRecord::decode(&record.encode()).unwrap());
        }
        table
    }

    #[test]
    fn what_is_forbidden_can_be_allowed_again() {
        let mut table = ForbiddenTable::default();
        let mut log = Vec::new();
        for (group, topic, readable, changes) in [
            ("g", "Tea", true, false),
            ("g", "Tea", false, true),
            ("g", "Tea", false, false),
            ("g", "Rum", false, true),
            ("h", "Tea", false, true),
            ("g", "Tea", true, true),
        ] {
            let record = table.set(group, topic, readable).unwrap();
            assert_eq!(record.is_some(), changes, "{group} {topic} {readable}");
            assert_eq!(table.is_readable(group, topic), readable);
            log.extend(record);
        }
        assert!(!table.is_readable("g", "Rum"), "the group's other topics stay");
        assert_eq!(table.shown()["h"]["Tea"], 4);
        assert_eq!(rebuilt_from(log), table);
        assert_eq!(rebuilt_from(table.snapshot()), table);
        let delete = ControlRecord::GroupDelete {
            version: Default::default(),
            group: "g".into(),
            forget_offsets: false,
        };
        table.apply(&delete);
        assert_eq!((table.len, table.groups.len()), (1, 1));
    }

    #[test]
    fn names_and_table_have_their_limits() {
        let mut table = ForbiddenTable::default();
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        assert!(matches!(
            table.set("g", &long, false),
            Err(ForbiddenError::NameTooLong { what: "topic", .. })
        ));
        for n in 0..FORBIDDEN_MAX {
            table.set("g", &n.to_string(), false).unwrap();
        }
        assert_eq!(table.set("g", "more", false), Err(ForbiddenError::TableFull));
        assert_eq!(table.set("g", "more", true), Ok(None));
    }
}
