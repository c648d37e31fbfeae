//! How far each consumer group has come in each queue.
//!
//! Clients commit several times a minute and queue, in requests of their own and with every pull. A commit is visible
//! at once and changes this table only; about once a second the shard takes what has changed and puts it in its log
//! ([`OffsetTable::take_changes`]), so ten commits to a queue cost one entry. After a crash a group may begin up to
//! that second earlier and see messages again, which RocketMQ's clients must expect anyway (a broker of RocketMQ
//! writes its `consumerOffset.json` every 5 s).

use std::collections::{BTreeMap, VecDeque};

use apogee_storage::{QueueKey, QueueOffset};
use rustc_hash::FxHashMap;

use super::control::{ControlRecord, GroupOffsets};
use super::topics::TopicNumber;

/// Offsets of one shard, over all groups. At the limit a group's first commit to a queue is refused; queues that
/// have an offset still move on.
pub const OFFSETS_MAX: usize = 1 << 20;

/// Bytes of one record of offsets, not counting what its last entry goes beyond it: small enough not to delay
/// the messages of its batch.
pub const RECORD_BYTES_MAX: usize = 64 * 1024;

/// Longest encoding of one offset: two numbers of ten bytes.
const OFFSET_BYTES_MAX: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffsetError {
    #[error("{OFFSETS_MAX} consumer offsets are stored on this broker already")]
    TableFull,
}

/// A group without offsets has no entry.
#[derive(Debug, Default, PartialEq)]
pub struct OffsetTable {
    groups: FxHashMap<Box<str>, Group>,
    len: usize,
    /// Groups with `changed` queues, in the order of their first change; may name groups that are gone.
    changed: VecDeque<Box<str>>,
}

#[derive(Debug, Default, PartialEq)]
struct Group {
    offsets: BTreeMap<QueueKey, Committed>,
    /// Queues whose offset is not in the log yet; may name queues that are gone.
    changed: Vec<QueueKey>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Committed {
    offset: QueueOffset,
    /// Stands in `changed`.
    is_changed: bool,
}

impl OffsetTable {
    /// Stores what the client says; an offset may go backwards (`ConsumerOffsetManager#commitOffset`).
    pub fn commit(&mut self, group: &str, queue: QueueKey, offset: QueueOffset) -> Result<(), OffsetError> {
        if let Some(of_group) = self.groups.get_mut(group)
            && let Some(committed) = of_group.offsets.get_mut(&queue)
        {
            if committed.offset != offset {
                committed.offset = offset;
                self.mark_changed(group, queue);
            }
            return Ok(());
        }
        if self.len >= OFFSETS_MAX {
            return Err(OffsetError::TableFull);
        }
        self.put(group, queue, offset);
        self.mark_changed(group, queue);
        Ok(())
    }

    /// What the group committed last; `None` if it never did.
    pub fn query(&self, group: &str, queue: QueueKey) -> Option<QueueOffset> {
        self.groups.get(group)?.offsets.get(&queue).map(|committed| committed.offset)
    }

    /// All offsets of a group, ordered by topic number and queue.
    pub fn of_group(&self, group: &str) -> impl Iterator<Item = (QueueKey, QueueOffset)> {
        let offsets = self.groups.get(group).map(|of_group| &of_group.offsets);
        offsets.into_iter().flatten().map(|(queue, committed)| (*queue, committed.offset))
    }

    /// The offsets of a group in one topic, ordered by queue.
    pub fn of_topic(&self, group: &str, topic: TopicNumber) -> impl Iterator<Item = (QueueKey, QueueOffset)> {
        let offsets = self.groups.get(group).map(|of_group| of_group.offsets.range(topic.queues()));
        offsets.into_iter().flatten().map(|(queue, committed)| (*queue, committed.offset))
    }

    /// Groups that have an offset, in no order.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(|group| &**group)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets a group. Logged as [`ControlRecord::GroupDelete`], not here.
    pub fn remove_group(&mut self, group: &str) {
        if let Some(of_group) = self.groups.remove(group) {
            self.len -= of_group.offsets.len();
        }
    }

    /// Forgets what all groups had consumed of a topic. Logged as [`ControlRecord::TopicDelete`], not here. Looks at
    /// every group.
    pub fn remove_topic(&mut self, topic: TopicNumber) {
        let mut removed = 0;
        self.groups.retain(|_, of_group| {
            removed += of_group.offsets.extract_if(topic.queues(), |_, _| true).count();
            !of_group.offsets.is_empty()
        });
        self.len -= removed;
    }

    /// Offsets that changed since they were taken last, about [`RECORD_BYTES_MAX`] of them, the group that waits
    /// longest first; `None` when all are taken. What is taken counts as logged: a record that the log has no
    /// room for must be kept and offered again, before later ones.
    pub fn take_changes(&mut self) -> Option<ControlRecord> {
        let mut taken = Vec::new();
        let mut budget = RECORD_BYTES_MAX;
        while budget > 0
            && let Some(name) = self.changed.front()
        {
            let mut is_done = true;
            if let Some(of_group) = self.groups.get_mut(name) {
                let offsets = of_group.take_changed(&mut budget);
                is_done = of_group.changed.is_empty();
                if !offsets.is_empty() {
                    budget = budget.saturating_sub(name.len());
                    taken.push(GroupOffsets { group: name.to_string(), offsets });
                }
            }
            if is_done {
                self.changed.pop_front();
            }
        }
        (!taken.is_empty()).then_some(ControlRecord::Offsets(taken))
    }

    /// Records that rebuild the whole table, for a snapshot, in the order of the groups' names; each about
    /// [`RECORD_BYTES_MAX`] long.
    pub fn snapshot(&self) -> impl Iterator<Item = ControlRecord> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_unstable_by_key(|(name, _)| *name);
        let mut left = groups.into_iter().flat_map(|(name, of_group)| {
            of_group.offsets.iter().map(move |(queue, committed)| (name, *queue, committed.offset))
        });
        std::iter::from_fn(move || {
            let mut groups: Vec<GroupOffsets> = Vec::new();
            let mut budget = RECORD_BYTES_MAX;
            while budget > 0
                && let Some((name, queue, offset)) = left.next()
            {
                budget = budget.saturating_sub(OFFSET_BYTES_MAX);
                match groups.last_mut() {
                    Some(of_group) if *of_group.group == **name => of_group.offsets.push((queue, offset)),
                    Some(_) | None => {
                        budget = budget.saturating_sub(name.len());
                        groups.push(GroupOffsets { group: name.to_string(), offsets: vec![(queue, offset)] });
                    }
                }
            }
            (!groups.is_empty()).then_some(ControlRecord::Offsets(groups))
        })
    }

    /// Repeats a logged change, or a record of a snapshot. What it changes is not taken again.
    pub fn apply(&mut self, record: &ControlRecord) {
        match record {
            ControlRecord::Offsets(groups) => {
                for of_group in groups {
                    for &(queue, offset) in &of_group.offsets {
                        self.put(&of_group.group, queue, offset);
                    }
                }
            }
            ControlRecord::TopicDelete { number, .. } => self.remove_topic(*number),
            ControlRecord::GroupDelete { group, forget_offsets: true, .. } => self.remove_group(group),
            ControlRecord::GroupDelete { forget_offsets: false, .. }
            | ControlRecord::TopicPut { .. }
            | ControlRecord::TopicTableState { .. }
            | ControlRecord::GroupPut { .. }
            | ControlRecord::GroupTableState { .. } => {}
        }
    }

    fn put(&mut self, group: &str, queue: QueueKey, offset: QueueOffset) {
        if !self.groups.contains_key(group) {
            self.groups.insert(group.into(), Group::default());
        }
        let of_group = self.groups.get_mut(group).expect("just made sure");
        match of_group.offsets.get_mut(&queue) {
            Some(committed) => committed.offset = offset,
            None => {
                of_group.offsets.insert(queue, Committed { offset, is_changed: false });
                self.len += 1;
            }
        }
    }

    fn mark_changed(&mut self, group: &str, queue: QueueKey) {
        let Some(of_group) = self.groups.get_mut(group) else { return };
        let Some(committed) = of_group.offsets.get_mut(&queue) else { return };
        if committed.is_changed {
            return;
        }
        committed.is_changed = true;
        if of_group.changed.is_empty() {
            self.changed.push_back(group.into());
        }
        of_group.changed.push(queue);
    }
}

impl Group {
    /// Takes changed offsets until none is left or `budget` bytes are used up, in ascending order of their queues.
    fn take_changed(&mut self, budget: &mut usize) -> Vec<(QueueKey, QueueOffset)> {
        let mut queues = Vec::new();
        while *budget > 0
            && let Some(queue) = self.changed.pop()
        {
            let Some(committed) = self.offsets.get_mut(&queue) else { continue };
            if std::mem::take(&mut committed.is_changed) {
                queues.push((queue, committed.offset));
                *budget = budget.saturating_sub(OFFSET_BYTES_MAX);
            }
        }
        queues.sort_unstable();
        queues
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use ControlRecord::{GroupDelete, TopicDelete};

    const TEA: TopicNumber = TopicNumber(7);
    const RUM: TopicNumber = TopicNumber(8);

    fn commit(table: &mut OffsetTable, group: &str, queue: QueueKey, offset: u64) {
        table.commit(group, queue, QueueOffset(offset)).unwrap();
    }

    fn take_all(table: &mut OffsetTable) -> Vec<ControlRecord> {
        std::iter::from_fn(|| table.take_changes()).collect()
    }

    fn rebuilt_from(records: &[ControlRecord]) -> OffsetTable {
        let mut table = OffsetTable::default();
        for record in records {
            table.apply(&ControlRecord::decode(&record.encode()).unwrap());
        }
        assert_eq!(take_all(&mut table), [], "what the log has is not logged again");
        table
    }

    fn contents(table: &OffsetTable) -> BTreeMap<(String, QueueKey), QueueOffset> {
        let all = table.groups().flat_map(|group| {
            table.of_group(group).map(|(queue, offset)| ((group.to_owned(), queue), offset))
        });
        let contents: BTreeMap<_, _> = all.collect();
        assert_eq!(contents.len(), table.len());
        contents
    }

    fn group_delete(group: &str, forget_offsets: bool) -> ControlRecord {
        GroupDelete { version: Default::default(), group: group.into(), forget_offsets }
    }

    fn topic_delete(number: TopicNumber) -> ControlRecord {
        TopicDelete { version: Default::default(), number }
    }

    #[test]
    fn last_commit_counts_forwards_and_backwards() {
        let mut table = OffsetTable::default();
        assert_eq!(table.query("g", TEA.queue(0)), None);
        for offset in [5, 9, 3] {
            commit(&mut table, "g", TEA.queue(0), offset);
            assert_eq!(table.query("g", TEA.queue(0)), Some(QueueOffset(offset)));
        }
        assert_eq!(table.query("g", TEA.queue(1)), None);
        assert_eq!(table.query("other", TEA.queue(0)), None);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn offsets_are_listed_per_group_and_topic() {
        let mut table = OffsetTable::default();
        for (queue, offset) in [(RUM.queue(0), 1), (TEA.queue(2), 2), (TEA.queue(1), 3)] {
            commit(&mut table, "g", queue, offset);
        }
        let tea = [(TEA.queue(1), QueueOffset(3)), (TEA.queue(2), QueueOffset(2))];
        assert_eq!(table.of_topic("g", TEA).collect::<Vec<_>>(), tea);
        assert_eq!(table.of_group("g").count(), 3);
        assert_eq!(table.of_group("h").count(), 0);
        assert_eq!(table.groups().collect::<Vec<_>>(), ["g"]);
    }

    #[test]
    fn many_commits_to_a_queue_are_logged_as_one() {
        let mut table = OffsetTable::default();
        for offset in 0..10 {
            commit(&mut table, "g", TEA.queue(1), offset);
            commit(&mut table, "g", TEA.queue(0), offset);
        }
        let offsets = vec![(TEA.queue(0), QueueOffset(9)), (TEA.queue(1), QueueOffset(9))];
        let expected = ControlRecord::Offsets(vec![GroupOffsets { group: "g".into(), offsets }]);
        assert_eq!(table.take_changes(), Some(expected));
        assert_eq!(table.take_changes(), None);

        commit(&mut table, "g", TEA.queue(0), 9);
        assert_eq!(table.take_changes(), None, "the same offset again is no change");
        commit(&mut table, "g", TEA.queue(0), 10);
        assert!(table.take_changes().is_some());
    }

    #[test]
    fn changes_of_removed_groups_and_topics_are_not_logged() {
        let mut table = OffsetTable::default();
        commit(&mut table, "g", TEA.queue(0), 1);
        commit(&mut table, "g", RUM.queue(0), 1);
        commit(&mut table, "h", TEA.queue(0), 1);
        commit(&mut table, "i", RUM.queue(0), 1);
        table.remove_group("i");
        table.remove_topic(TEA);
        assert_eq!(table.len(), 1);
        let offsets = vec![(RUM.queue(0), QueueOffset(1))];
        let expected = ControlRecord::Offsets(vec![GroupOffsets { group: "g".into(), offsets }]);
        assert_eq!(take_all(&mut table), [expected]);
    }

    #[test]
    fn deleted_group_keeps_its_offsets_unless_told_to_forget() {
        let mut table = OffsetTable::default();
        commit(&mut table, "g", TEA.queue(0), 1);
        table.apply(&group_delete("g", false));
        assert_eq!(table.len(), 1);
        table.apply(&group_delete("g", true));
        assert!(table.is_empty());
    }

    #[test]
    fn records_are_short_however_much_there_is() {
        let mut table = OffsetTable::default();
        for group in 0..500 {
            for queue in 0..40 {
                commit(
                    &mut table,
                    &format!("group-{group:0>100}"),
                    TopicNumber(group).queue(queue),
                    u64::MAX,
                );
            }
        }
        let snapshot: Vec<_> = table.snapshot().collect();
        let changes = take_all(&mut table);
        for records in [changes, snapshot] {
            let longest = records.iter().map(|record| record.encode().len()).max();
            assert!(longest < Some(RECORD_BYTES_MAX + 512), "{longest:?}");
            assert!(records.len() > 2);
            assert_eq!(contents(&rebuilt_from(&records)), contents(&table));
        }
    }

    #[test]
    fn full_table_moves_on_in_known_queues_only() {
        let mut table = OffsetTable { len: OFFSETS_MAX - 1, ..OffsetTable::default() };
        commit(&mut table, "g", TEA.queue(0), 1);
        assert_eq!(table.commit("g", RUM.queue(0), QueueOffset(1)), Err(OffsetError::TableFull));
        assert_eq!(table.commit("h", TEA.queue(0), QueueOffset(1)), Err(OffsetError::TableFull));
        commit(&mut table, "g", TEA.queue(0), 2);
        assert_eq!(table.query("g", TEA.queue(0)), Some(QueueOffset(2)));
        assert_eq!(table.groups().count(), 1, "a refused commit leaves nothing behind");
    }

    proptest! {
        /// Against a plain map; with a crash at the end, after everything was taken.
        #[test]
        fn table_is_a_map_and_its_records_rebuild_it(
            steps in prop::collection::vec((0..7u8, 0..3usize, 0..2u32, 0..3u32, 0..4u64), 0..60),
        ) {
            let mut table = OffsetTable::default();
            let mut model: BTreeMap<(String, QueueKey), QueueOffset> = BTreeMap::new();
            let mut log = Vec::new();
            for (action, group, topic, queue, offset) in steps {
                let group = ["f", "g", "h"][group];
                let topic = TopicNumber(topic);
                match action {
                    0 => {
                        table.remove_group(group);
                        model.retain(|(of_group, _), _| of_group != group);
                        log.push(group_delete(group, true));
                    }
                    1 => {
                        table.remove_topic(topic);
                        model.retain(|(_, queue), _| !topic.queues().contains(queue));
                        log.push(topic_delete(topic));
                    }
                    2 => log.extend(table.take_changes()),
                    _ => {
                        commit(&mut table, group, topic.queue(queue), offset);
                        model.insert((group.to_owned(), topic.queue(queue)), QueueOffset(offset));
                    }
                }
                prop_assert_eq!(&contents(&table), &model);
            }
            log.extend(take_all(&mut table));
            prop_assert_eq!(&contents(&rebuilt_from(&log)), &model);
            let snapshot: Vec<_> = table.snapshot().collect();
            prop_assert_eq!(&contents(&rebuilt_from(&snapshot)), &model);
        }
    }
}
