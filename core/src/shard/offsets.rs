//! How far each consumer group has come in each queue.
//!
//! Clients commit several times a minute and queue, in requests of their own and with every pull. A commit is visible
//! at once and changes this table only; about once a second the shard takes what has changed and puts it in its log
//! ([`OffsetTable::take_changes`]), so ten commits to a queue cost one entry. After a crash a group may begin up to
//! that second earlier and see messages again, which RocketMQ's clients must expect anyway (a broker of RocketMQ
//! writes its `consumerOffset.json` every 5 s).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use apogee_storage::{QueueKey, QueueOffset};
use rustc_hash::FxHashMap;

use super::control::{ControlRecord, GroupOffsets};
use super::resets::OffsetReset;
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

/// A group without offsets has no entry. Names are shared by the maps.
#[derive(Debug, Default, PartialEq)]
pub struct OffsetTable {
    groups: FxHashMap<Arc<str>, Group>,
    /// The keys of `groups` in order, so that whoever goes through all of them can pause between two.
    names: BTreeSet<Arc<str>>,
    /// Which groups have offsets in a topic.
    by_topic: FxHashMap<TopicNumber, BTreeSet<Arc<str>>>,
    /// Topics that are gone, and the groups that have yet to forget them.
    leaving: BTreeMap<TopicNumber, BTreeSet<Arc<str>>>,
    len: usize,
    /// Groups with `changed` queues, in the order of their first change; may name groups that are gone.
    changed: VecDeque<Arc<str>>,
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
    /// Where the group's last pull ended; zero before the first. Not logged: only tools are shown it.
    pulled: QueueOffset,
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

    /// A pull of the group ended before `next` (`ConsumerOffsetManager#commitPullOffset`). Kept for queues that have
    /// an offset; a group that consumes commits its first within seconds.
    pub fn note_pulled(&mut self, group: &str, queue: QueueKey, next: QueueOffset) {
        let of_group = self.groups.get_mut(group);
        if let Some(committed) = of_group.and_then(|of_group| of_group.offsets.get_mut(&queue)) {
            committed.pulled = next;
        }
    }

    /// Where the group's last pull ended, if anything is known of it; zero if it was not since the start.
    pub fn pulled(&self, group: &str, queue: QueueKey) -> Option<QueueOffset> {
        self.groups.get(group)?.offsets.get(&queue).map(|committed| committed.pulled)
    }

    /// All offsets of a group, ordered by topic number and queue. Those of deleted topics may be among them for a
    /// while.
    pub fn of_group(&self, group: &str) -> impl Iterator<Item = (QueueKey, QueueOffset)> {
        self.of_group_after(group, None)
    }

    /// As [`of_group`](Self::of_group), of the queues behind one.
    pub fn of_group_after(
        &self,
        group: &str,
        after: Option<QueueKey>,
    ) -> impl Iterator<Item = (QueueKey, QueueOffset)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let offsets = self.groups.get(group).map(|of_group| of_group.offsets.range((from, Bound::Unbounded)));
        offsets.into_iter().flatten().map(|(queue, committed)| (*queue, committed.offset))
    }

    /// Topics in which a group has offsets, in the order of their numbers; one look-up each.
    pub fn topics_of(&self, group: &str) -> impl Iterator<Item = TopicNumber> {
        self.topics_after(group, None)
    }

    /// As [`topics_of`](Self::topics_of), behind one of them.
    pub fn topics_after(&self, group: &str, after: Option<TopicNumber>) -> impl Iterator<Item = TopicNumber> {
        let offsets = self.groups.get(group).map(|of_group| &of_group.offsets);
        let mut from = after.map_or(Bound::Unbounded, |topic| Bound::Excluded(*topic.queues().end()));
        std::iter::from_fn(move || {
            let (queue, _) = offsets?.range((from, Bound::Unbounded)).next()?;
            let (topic, _) = TopicNumber::of(*queue);
            from = Bound::Excluded(*topic.queues().end());
            Some(topic)
        })
        .filter(|topic| !self.leaving.contains_key(topic))
    }

    /// Groups with offsets in a topic, ordered by name, behind one of them.
    pub fn groups_of(&self, topic: TopicNumber, after: Option<&str>) -> impl Iterator<Item = &Arc<str>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let groups = self.by_topic.get(&topic);
        groups.into_iter().flat_map(move |groups| groups.range::<str, _>((from, Bound::Unbounded)))
    }

    /// The offsets of a group in one topic, ordered by queue.
    pub fn of_topic(&self, group: &str, topic: TopicNumber) -> impl Iterator<Item = (QueueKey, QueueOffset)> {
        let offsets = self.groups.get(group).map(|of_group| of_group.offsets.range(topic.queues()));
        offsets.into_iter().flatten().map(|(queue, committed)| (*queue, committed.offset))
    }

    /// Groups that have an offset, ordered by name, from one on or behind it.
    pub fn groups_from(&self, from: Bound<&str>) -> impl Iterator<Item = &Arc<str>> {
        self.names.range::<str, _>((from, Bound::Unbounded))
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets a group. Logged as [`ControlRecord::GroupDelete`], not here.
    pub fn remove_group(&mut self, group: &str) {
        for topic in self.topics_of(group).collect::<Vec<_>>() {
            self.leave_topic(topic, group);
        }
        if let Some(of_group) = self.groups.remove(group) {
            self.names.remove(group);
            self.len -= of_group.offsets.len();
        }
    }

    /// What all groups had consumed of a topic counts no more; [`sweep`](Self::sweep) forgets it. Logged as
    /// [`ControlRecord::TopicDelete`], not here. A topic's number is never given again, so nobody asks for it.
    pub fn remove_topic(&mut self, topic: TopicNumber) {
        if let Some(groups) = self.by_topic.remove(&topic) {
            self.leaving.insert(topic, groups);
        }
    }

    /// Forgets the offsets of deleted topics, of at most `groups_max` groups. True if none are left.
    pub fn sweep(&mut self, groups_max: usize) -> bool {
        for _ in 0..groups_max {
            let Some(mut entry) = self.leaving.first_entry() else { return true };
            let topic = *entry.key();
            let Some(group) = entry.get_mut().pop_first() else {
                entry.remove();
                continue;
            };
            let Some(of_group) = self.groups.get_mut(&group) else { continue };
            self.len -= of_group.offsets.extract_if(topic.queues(), |_, _| true).count();
            if of_group.offsets.is_empty() {
                self.groups.remove(&group);
                self.names.remove(&group);
            }
        }
        self.leaving.is_empty()
    }

    /// Whether any offset changed since they were taken last.
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
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
                let offsets = of_group.take_changed(&mut budget, &self.leaving);
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
        assert!(self.leaving.is_empty(), "a snapshot of what is being forgotten");
        let mut left = self.names.iter().flat_map(|name| {
            self.groups[name].offsets.iter().map(move |(queue, committed)| (name, *queue, committed.offset))
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

    /// Repeats a logged change, or a record of a snapshot, all at once. What it changes is not taken again.
    pub fn apply(&mut self, record: &ControlRecord) {
        match record {
            ControlRecord::Offsets(groups) => {
                groups.iter().for_each(|of_group| self.put_all(of_group));
            }
            ControlRecord::OffsetReset(OffsetReset::Set(of_group)) => self.put_all(of_group),
            ControlRecord::TopicDelete { number, .. } => {
                self.remove_topic(*number);
                self.sweep(usize::MAX);
            }
            ControlRecord::Pop(change) => {
                for (queue, offset) in change.moved_offsets() {
                    self.put(change.group(), queue, QueueOffset(offset));
                }
            }
            ControlRecord::GroupDelete { group, forget_offsets: true, .. } => self.remove_group(group),
            ControlRecord::GroupDelete { forget_offsets: false, .. }
            | ControlRecord::TopicPut { .. }
            | ControlRecord::TopicTableState { .. }
            | ControlRecord::GroupPut { .. }
            | ControlRecord::GroupTableState { .. }
            | ControlRecord::BrokerSettings(_)
            | ControlRecord::Timer(_)
            | ControlRecord::Transaction(_)
            | ControlRecord::RequestMode(_)
            | ControlRecord::Forbidden(_)
            | ControlRecord::OffsetReset(OffsetReset::Done { .. } | OffsetReset::Pending(_)) => {}
        }
    }

    fn put_all(&mut self, GroupOffsets { group, offsets }: &GroupOffsets) {
        for &(queue, offset) in offsets {
            self.put(group, queue, offset);
        }
    }

    fn put(&mut self, group: &str, queue: QueueKey, offset: QueueOffset) {
        let name = match self.groups.get_key_value(group) {
            Some((name, _)) => Arc::clone(name),
            None => {
                let name: Arc<str> = group.into();
                self.groups.insert(Arc::clone(&name), Group::default());
                self.names.insert(Arc::clone(&name));
                name
            }
        };
        let of_group = self.groups.get_mut(group).expect("just made sure");
        if let Some(committed) = of_group.offsets.get_mut(&queue) {
            committed.offset = offset;
            return;
        }
        let (topic, _) = TopicNumber::of(queue);
        if of_group.offsets.range(topic.queues()).next().is_none() {
            self.by_topic.entry(topic).or_default().insert(name);
        }
        of_group.offsets.insert(queue, Committed { offset, pulled: QueueOffset(0), is_changed: false });
        self.len += 1;
    }

    fn leave_topic(&mut self, topic: TopicNumber, group: &str) {
        let Some(groups) = self.by_topic.get_mut(&topic) else { return };
        groups.remove(group);
        if groups.is_empty() {
            self.by_topic.remove(&topic);
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
    /// Takes changed offsets until none is left or `budget` bytes are used up, in ascending order of their queues. Those
    /// of topics that are `leaving` are no changes: behind the topic's deletion they would bring it back.
    fn take_changed(
        &mut self,
        budget: &mut usize,
        leaving: &BTreeMap<TopicNumber, BTreeSet<Arc<str>>>,
    ) -> Vec<(QueueKey, QueueOffset)> {
        let mut queues = Vec::new();
        while *budget > 0
            && let Some(queue) = self.changed.pop()
        {
            let Some(committed) = self.offsets.get_mut(&queue) else { continue };
            let is_leaving = leaving.contains_key(&TopicNumber::of(queue).0);
            if std::mem::take(&mut committed.is_changed) && !is_leaving {
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
        let all = table.groups_from(Bound::Unbounded).flat_map(|group| {
            table.of_group(group).map(|(queue, offset)| ((group.to_string(), queue), offset))
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
        assert_eq!(table.groups_from(Bound::Unbounded).map(|group| &**group).collect::<Vec<_>>(), ["g"]);
        assert_eq!(table.topics_of("g").collect::<Vec<_>>(), [TEA, RUM]);
        assert_eq!(table.of_group_after("g", Some(TEA.queue(1))).count(), 2);
        commit(&mut table, "h", TEA.queue(0), 1);
        assert_eq!(table.groups_of(TEA, None).map(|group| &**group).collect::<Vec<_>>(), ["g", "h"]);
        assert_eq!(table.groups_of(TEA, Some("g")).map(|group| &**group).collect::<Vec<_>>(), ["h"]);
        table.remove_group("g");
        assert_eq!(table.groups_of(RUM, None).count(), 0);
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
        assert_eq!((table.len(), table.topics_of("g").count()), (3, 1), "not swept, and gone for who asks");
        let offsets = vec![(RUM.queue(0), QueueOffset(1))];
        let expected = ControlRecord::Offsets(vec![GroupOffsets { group: "g".into(), offsets }]);
        assert_eq!(take_all(&mut table), [expected]);
        assert!(!table.sweep(1));
        assert!(table.sweep(2));
        assert_eq!((table.len(), table.groups_from(Bound::Unbounded).count()), (1, 1));
    }

    #[test]
    fn the_end_of_the_last_pull_is_known_of_queues_with_an_offset() {
        let mut table = OffsetTable::default();
        table.note_pulled("g", TEA.queue(0), QueueOffset(5));
        assert_eq!(table.pulled("g", TEA.queue(0)), None);
        commit(&mut table, "g", TEA.queue(0), 1);
        assert_eq!(table.pulled("g", TEA.queue(0)), Some(QueueOffset(0)));
        table.note_pulled("g", TEA.queue(0), QueueOffset(9));
        assert_eq!(table.pulled("g", TEA.queue(0)), Some(QueueOffset(9)));
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
        assert_eq!(table.groups_from(Bound::Unbounded).count(), 1, "a refused commit leaves nothing behind");
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
                        table.sweep(usize::MAX);
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
