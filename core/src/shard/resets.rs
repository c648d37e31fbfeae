//! Resets of consumer offsets that the consumers have yet to hear of.
//!
//! Who resets a group's offset in a queue sets it in [`offsets`](super::offsets) and leaves it here. The group's next
//! pull of the queue is answered with it, once, whatever offset it asks for; until then the group goes on from there
//! for whoever asks, and what it commits is ignored, for it has not heard (`ConsumerOffsetManager#assignResetOffset`,
//! `#queryThenEraseResetOffset`). Groups that are offline hear when they come back.

use std::collections::BTreeMap;

use apogee_storage::{QueueKey, QueueOffset};

use super::control::codec::{Fields, put_text, put_unsigned};
use super::control::{ControlError, ControlRecord, GroupOffsets, group_offsets, put_group_offsets};
use super::topics::TopicNumber;

/// Resets that wait for their consumers, over all groups. At the limit no more are taken.
pub const RESETS_MAX: usize = 262_144;

/// Queues of one record.
const RECORD_QUEUES_MAX: usize = 2048;

/// A group was told to go on elsewhere, or has heard of it. First field: which, 0 to 2. Then the group's offsets as in
/// a record of offsets; or group and queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OffsetReset {
    /// Sets the offsets as well.
    Set(GroupOffsets),
    Done {
        group: String,
        queue: QueueKey,
    },
    /// In snapshots: resets that pend, with the offsets among all others.
    Pending(GroupOffsets),
}

impl OffsetReset {
    pub(in crate::shard) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            OffsetReset::Set(offsets) => {
                out.push(0);
                put_group_offsets(out, offsets);
            }
            OffsetReset::Done { group, queue } => {
                out.push(1);
                put_text(out, group);
                put_unsigned(out, queue.0);
            }
            OffsetReset::Pending(offsets) => {
                out.push(2);
                put_group_offsets(out, offsets);
            }
        }
    }

    pub(in crate::shard) fn decode(fields: &mut Fields<'_>) -> Result<Self, ControlError> {
        match fields.byte("which")? {
            0 => group_offsets(fields).map(OffsetReset::Set),
            1 => {
                let group = fields.text("group")?.to_owned();
                let queue = QueueKey(fields.unsigned("queue")?);
                match queue == QueueKey::CONTROL {
                    false => Ok(OffsetReset::Done { group, queue }),
                    true => Err(fields.bad("queue", "no message queue")),
                }
            }
            2 => group_offsets(fields).map(OffsetReset::Pending),
            _ => Err(fields.bad("which", "none of 0 to 2")),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResetError {
    #[error("{RESETS_MAX} resets of offsets wait for their consumers on this broker already")]
    TableFull,
}

/// A group without resets has no entry.
#[derive(Debug, Default, PartialEq)]
pub struct ResetTable {
    groups: BTreeMap<Box<str>, BTreeMap<QueueKey, QueueOffset>>,
    len: usize,
}

impl ResetTable {
    /// Leaves resets for a group; queues in ascending order. The offsets themselves are set by whoever calls.
    pub fn set(
        &mut self,
        group: &str,
        offsets: &[(QueueKey, QueueOffset)],
    ) -> Result<Vec<ControlRecord>, ResetError> {
        if self.len + offsets.len() > RESETS_MAX {
            return Err(ResetError::TableFull);
        }
        let records = records(group, offsets.iter().copied(), OffsetReset::Set);
        records.iter().for_each(|record| self.apply(record));
        Ok(records)
    }

    /// Where the group goes on in a queue once it has heard of it.
    pub fn pending(&self, group: &str, queue: QueueKey) -> Option<QueueOffset> {
        self.groups.get(group)?.get(&queue).copied()
    }

    /// A queue of the topic in which the group has yet to hear of a reset.
    pub fn first_of(&self, group: &str, topic: TopicNumber) -> Option<QueueKey> {
        self.groups.get(group)?.range(topic.queues()).next().map(|(queue, _)| *queue)
    }

    /// The group hears of its reset.
    pub fn take(&mut self, group: &str, queue: QueueKey) -> Option<(QueueOffset, ControlRecord)> {
        let offset = self.pending(group, queue)?;
        let record = ControlRecord::OffsetReset(OffsetReset::Done { group: group.to_owned(), queue });
        self.apply(&record);
        Some((offset, record))
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Records that rebuild the whole table, for a snapshot.
    pub fn snapshot(&self) -> impl Iterator<Item = ControlRecord> {
        self.groups.iter().flat_map(|(group, offsets)| {
            let offsets = offsets.iter().map(|(queue, offset)| (*queue, *offset));
            records(group, offsets, OffsetReset::Pending)
        })
    }

    /// Repeats a logged change, or a record of a snapshot.
    pub fn apply(&mut self, record: &ControlRecord) {
        match record {
            ControlRecord::OffsetReset(OffsetReset::Set(of_group) | OffsetReset::Pending(of_group))
                if !of_group.offsets.is_empty() =>
            {
                let GroupOffsets { group, offsets } = of_group;
                let pending = self.groups.entry(group.as_str().into()).or_default();
                let before = pending.len();
                pending.extend(offsets.iter().copied());
                self.len += pending.len() - before;
            }
            ControlRecord::OffsetReset(OffsetReset::Done { group, queue }) => {
                if let Some(of_group) = self.groups.get_mut(group.as_str()) {
                    self.len -= usize::from(of_group.remove(queue).is_some());
                    if of_group.is_empty() {
                        self.groups.remove(group.as_str());
                    }
                }
            }
            ControlRecord::GroupDelete { group, forget_offsets: true, .. } => {
                self.len -= self.groups.remove(group.as_str()).map_or(0, |of_group| of_group.len());
            }
            ControlRecord::TopicDelete { number, .. } => self.remove_topic(*number),
            _ => {}
        }
    }

    /// Looks at every group that has resets.
    fn remove_topic(&mut self, topic: TopicNumber) {
        let mut removed = 0;
        self.groups.retain(|_, of_group| {
            removed += of_group.extract_if(topic.queues(), |_, _| true).count();
            !of_group.is_empty()
        });
        self.len -= removed;
    }
}

fn records(
    group: &str,
    offsets: impl Iterator<Item = (QueueKey, QueueOffset)>,
    kind: fn(GroupOffsets) -> OffsetReset,
) -> Vec<ControlRecord> {
    let offsets: Vec<_> = offsets.collect();
    let of_group = |offsets: &[_]| GroupOffsets { group: group.to_owned(), offsets: offsets.to_vec() };
    let parts = offsets.chunks(RECORD_QUEUES_MAX);
    parts.map(|part| ControlRecord::OffsetReset(kind(of_group(part)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEA: TopicNumber = TopicNumber(7);
    const RUM: TopicNumber = TopicNumber(8);

    fn rebuilt_from(records: impl IntoIterator<Item = ControlRecord>) -> ResetTable {
        let mut table = ResetTable::default();
        for record in records {
            table.apply(&ControlRecord::decode(&record.encode()).unwrap());
        }
        table
    }

    #[test]
    fn a_group_hears_of_a_reset_once() {
        let mut table = ResetTable::default();
        let offsets = [(TEA.queue(0), QueueOffset(5)), (TEA.queue(1), QueueOffset(6))];
        let mut log = table.set("g", &offsets).unwrap();
        assert_eq!(table.pending("g", TEA.queue(1)), Some(QueueOffset(6)));
        assert_eq!(table.pending("h", TEA.queue(1)), None);
        let (offset, record) = table.take("g", TEA.queue(1)).unwrap();
        log.push(record);
        assert_eq!((offset, table.len()), (QueueOffset(6), 1));
        assert_eq!((table.first_of("g", TEA), table.first_of("g", RUM)), (Some(TEA.queue(0)), None));
        assert_eq!(table.take("g", TEA.queue(1)), None);
        assert_eq!(rebuilt_from(log), table);
        assert_eq!(rebuilt_from(table.snapshot()), table);
    }

    #[test]
    fn resets_go_with_their_topic_and_group() {
        let mut table = ResetTable::default();
        table.set("f", &[(RUM.queue(0), QueueOffset(1))]).unwrap();
        table.set("g", &[(TEA.queue(0), QueueOffset(1)), (RUM.queue(0), QueueOffset(1))]).unwrap();
        table.apply(&ControlRecord::TopicDelete { number: RUM, version: Default::default() });
        assert_eq!((table.len(), table.groups.len()), (1, 1));
        let delete = |forget_offsets| ControlRecord::GroupDelete {
            version: Default::default(),
            group: "g".into(),
            forget_offsets,
        };
        table.apply(&delete(false));
        assert_eq!(table.len(), 1);
        table.apply(&delete(true));
        assert!(table.is_empty() && table.groups.is_empty());
    }

    #[test]
    fn many_queues_take_several_records_and_a_full_table_none() {
        let mut table = ResetTable::default();
        let offsets: Vec<_> = (0..5000).map(|queue| (TEA.queue(queue), QueueOffset(1))).collect();
        let log = table.set("g", &offsets).unwrap();
        assert_eq!(log.len(), 3);
        assert_eq!(rebuilt_from(log), table);
        let mut full = ResetTable { len: RESETS_MAX, ..ResetTable::default() };
        assert_eq!(full.set("g", &offsets), Err(ResetError::TableFull));
        assert!(full.groups.is_empty());
    }
}
