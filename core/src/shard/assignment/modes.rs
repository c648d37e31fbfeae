//! How groups get the messages of topics: by pull or by pop (`MessageRequestModeManager`).

use std::collections::BTreeMap;

use apogee_net::body::{MessageRequestMode, SetMessageRequestModeRequestBody};

use super::super::control::codec::{Fields, put_signed, put_text};
use super::super::control::{ControlError, ControlRecord};

/// Groups and topics with a mode of their own. At the limit only known ones can be changed.
pub const REQUEST_MODES_MAX: usize = 65_536;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestModeError {
    #[error("{REQUEST_MODES_MAX} groups and topics have a request mode on this broker already")]
    TableFull,
}

/// A group gets the messages of a topic in this way from now on.
///
/// Fields: topic, group, mode (0 pull, 1 pop), shared queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestModeRecord {
    pub topic: String,
    pub group: String,
    pub mode: MessageRequestMode,
    pub pop_share_queue_num: i32,
}

impl RequestModeRecord {
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_text(out, &self.topic);
        put_text(out, &self.group);
        out.push(match self.mode {
            MessageRequestMode::Pull => 0,
            MessageRequestMode::Pop => 1,
        });
        put_signed(out, self.pop_share_queue_num.into());
    }

    pub(in crate::shard) fn decode(fields: &mut Fields<'_>) -> Result<Self, ControlError> {
        Ok(Self {
            topic: fields.text("topic")?.to_owned(),
            group: fields.text("group")?.to_owned(),
            mode: match fields.byte("mode")? {
                0 => MessageRequestMode::Pull,
                1 => MessageRequestMode::Pop,
                _ => return Err(fields.bad("mode", "neither 0 nor 1")),
            },
            pop_share_queue_num: fields.i32("shared queues")?,
        })
    }
}

/// By topic, then group. Kept when either is deleted, as RocketMQ does.
#[derive(Debug, Default, PartialEq)]
pub struct RequestModeTable {
    topics: BTreeMap<String, BTreeMap<String, (MessageRequestMode, i32)>>,
    len: usize,
}

impl RequestModeTable {
    pub fn get(&self, topic: &str, group: &str) -> Option<(MessageRequestMode, i32)> {
        self.topics.get(topic)?.get(group).copied()
    }

    pub fn set(
        &mut self,
        wanted: &SetMessageRequestModeRequestBody,
    ) -> Result<ControlRecord, RequestModeError> {
        if self.len >= REQUEST_MODES_MAX && self.get(&wanted.topic, &wanted.consumer_group).is_none() {
            return Err(RequestModeError::TableFull);
        }
        let record = ControlRecord::RequestMode(RequestModeRecord {
            topic: wanted.topic.clone(),
            group: wanted.consumer_group.clone(),
            mode: wanted.mode,
            pop_share_queue_num: wanted.pop_share_queue_num,
        });
        self.apply(&record);
        Ok(record)
    }

    /// All modes, by topic and group.
    pub fn iter(&self) -> impl Iterator<Item = RequestModeRecord> {
        self.topics.iter().flat_map(|(topic, groups)| {
            groups.iter().map(|(group, &(mode, pop_share_queue_num))| RequestModeRecord {
                topic: topic.clone(),
                group: group.clone(),
                mode,
                pop_share_queue_num,
            })
        })
    }

    /// Records that rebuild the whole table, for a snapshot.
    pub fn snapshot(&self) -> impl Iterator<Item = ControlRecord> {
        self.iter().map(ControlRecord::RequestMode)
    }

    /// Repeats a logged change.
    pub fn apply(&mut self, record: &ControlRecord) {
        let ControlRecord::RequestMode(set) = record else { return };
        let groups = self.topics.entry(set.topic.clone()).or_default();
        let is_new = groups.insert(set.group.clone(), (set.mode, set.pop_share_queue_num)).is_none();
        self.len += usize::from(is_new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(topic: &str, group: &str, share: i32) -> SetMessageRequestModeRequestBody {
        SetMessageRequestModeRequestBody {
            topic: topic.into(),
            consumer_group: group.into(),
            mode: MessageRequestMode::Pop,
            pop_share_queue_num: share,
        }
    }

    #[test]
    fn modes_are_rebuilt_from_their_records() {
        let mut table = RequestModeTable::default();
        let mut rebuilt = RequestModeTable::default();
        for wanted in [wanted("T", "g", 8), wanted("T", "h", -1), wanted("T", "g", 0)] {
            let record = table.set(&wanted).unwrap();
            rebuilt.apply(&ControlRecord::decode(&record.encode()).unwrap());
        }
        assert_eq!(table.get("T", "g"), Some((MessageRequestMode::Pop, 0)));
        assert_eq!(rebuilt, table);
        let mut restored = RequestModeTable::default();
        table.snapshot().for_each(|record| restored.apply(&record));
        assert_eq!(restored, table);
    }

    #[test]
    fn known_modes_change_when_the_table_is_full() {
        let mut table = RequestModeTable::default();
        for group in 0..REQUEST_MODES_MAX {
            table.set(&wanted("T", &group.to_string(), 0)).unwrap();
        }
        assert_eq!(table.set(&wanted("U", "g", 0)), Err(RequestModeError::TableFull));
        assert!(table.set(&wanted("T", "7", 1)).is_ok());
    }
}
