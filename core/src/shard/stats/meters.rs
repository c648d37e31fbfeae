use rustc_hash::FxHashMap;

use super::meter::{Figures, Meter, Period, Totals};
use crate::shard::topics::TopicNumber;

/// Meters of one shard. Each takes about 1 KiB once it has run for a day, so all together up to 64 MiB. At the limit what
/// is new is counted in the broker's totals only; a meter that was idle for a day makes room.
pub const METERS_MAX: usize = 65_536;

/// Meters sampled per tick: a twentieth of a millisecond. A hundred ticks, the pause between two samples, reach all.
const SAMPLED_PER_TICK: usize = 1024;

/// How often every meter is sampled.
const SAMPLE_PAUSE_MS: i64 = 10_000;

/// A meter; it outlives the meter, whose place may have been given to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeterId {
    slot: u32,
    /// Of the slot: how many meters it had before.
    generation: u32,
}

/// What is measured of one group in one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GroupMeasure {
    /// Messages that pulls and pops gave.
    Got,
    /// Messages that consumers sent back.
    SentBack,
}

/// What is measured of the whole broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerMeasure {
    Put,
    Get,
}

const BROKER_MEASURES: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct OfGroup {
    topic: TopicNumber,
    measure: GroupMeasure,
}

#[derive(Debug)]
enum Owner {
    Topic(TopicNumber),
    Group(Box<str>, OfGroup),
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    used: Option<Used>,
}

#[derive(Debug)]
struct Used {
    owner: Owner,
    /// Its topic is one of the system's own.
    is_of_system: bool,
    meter: Meter,
}

/// Meters by what they measure. A meter stands in one slot and one of the maps.
#[derive(Debug)]
pub struct Meters {
    slots: Vec<Slot>,
    free: Vec<u32>,
    topics: FxHashMap<TopicNumber, u32>,
    groups: FxHashMap<Box<str>, FxHashMap<OfGroup, u32>>,
    broker: [Meter; BROKER_MEASURES],
    /// The slot that is sampled next; at the end until the next sweep.
    next: usize,
    sweep_ms: i64,
}

impl Meters {
    pub(super) fn new(now_ms: i64) -> Self {
        Meters {
            slots: Vec::new(),
            free: Vec::new(),
            topics: FxHashMap::default(),
            groups: FxHashMap::default(),
            broker: std::array::from_fn(|_| Meter::new(now_ms)),
            next: 0,
            sweep_ms: now_ms,
        }
    }

    /// What is put into a topic. Says whether the topic is of the system; `is_system` is asked when its meter is made.
    pub(super) fn count_topic(
        &mut self,
        topic: TopicNumber,
        put: Totals,
        is_system: impl FnOnce() -> bool,
    ) -> bool {
        let slot = match self.topics.get(&topic) {
            Some(&slot) => slot,
            None => {
                let is_of_system = is_system();
                let Some(slot) = self.make(Owner::Topic(topic), is_of_system) else { return is_of_system };
                self.topics.insert(topic, slot);
                slot
            }
        };
        let used = self.slots[slot as usize].used.as_mut().expect("a map names used slots");
        used.meter.totals.add(put);
        used.is_of_system
    }

    /// The meter of a group in a topic, made if it was not there; none when there are too many.
    pub fn of_group(
        &mut self,
        group: &str,
        topic: TopicNumber,
        measure: GroupMeasure,
        is_system: impl FnOnce() -> bool,
    ) -> Option<MeterId> {
        let of_group = OfGroup { topic, measure };
        let known = self.groups.get(group).and_then(|meters| meters.get(&of_group));
        let slot = match known {
            Some(&slot) => slot,
            None => {
                let slot = self.make(Owner::Group(group.into(), of_group), is_system())?;
                self.groups.entry(group.into()).or_default().insert(of_group, slot);
                slot
            }
        };
        Some(MeterId { slot, generation: self.slots[slot as usize].generation })
    }

    /// Counts in a meter, if it is still there. Says whether its topic is of the system.
    pub(super) fn count(&mut self, id: Option<MeterId>, more: Totals) -> bool {
        let Some(id) = id else { return false };
        let slot = &mut self.slots[id.slot as usize];
        match &mut slot.used {
            Some(used) if slot.generation == id.generation => {
                used.meter.totals.add(more);
                used.is_of_system
            }
            Some(_) | None => false,
        }
    }

    /// Counts something else than messages got of a group in a topic.
    pub fn count_group(&mut self, group: &str, topic: TopicNumber, measure: GroupMeasure, messages: u64) {
        let meter = self.of_group(group, topic, measure, || false);
        self.count(meter, Totals { messages, bytes: 0 });
    }

    pub fn count_broker(&mut self, measure: BrokerMeasure, more: Totals) {
        self.broker[measure as usize].totals.add(more);
    }

    pub fn broker_totals(&self, measure: BrokerMeasure) -> Totals {
        self.broker[measure as usize].totals
    }

    pub fn topic_figures(&self, topic: TopicNumber, period: Period) -> Option<Figures> {
        self.figures(*self.topics.get(&topic)?, period)
    }

    pub fn group_figures(
        &self,
        group: &str,
        topic: TopicNumber,
        measure: GroupMeasure,
        period: Period,
    ) -> Option<Figures> {
        self.figures(*self.groups.get(group)?.get(&OfGroup { topic, measure })?, period)
    }

    pub fn broker_figures(&self, measure: BrokerMeasure, period: Period) -> Figures {
        self.broker[measure as usize].figures(period)
    }

    fn figures(&self, slot: u32, period: Period) -> Option<Figures> {
        self.slots[slot as usize].used.as_ref().map(|used| used.meter.figures(period))
    }

    /// The topic is gone. Meters of groups in it go when they were idle for a day: looking for them would take long.
    pub fn on_topic_deleted(&mut self, topic: TopicNumber) {
        if let Some(slot) = self.topics.remove(&topic) {
            self.give_back(slot);
        }
    }

    pub fn on_group_deleted(&mut self, group: &str) {
        for slot in self.groups.remove(group).into_iter().flat_map(FxHashMap::into_values) {
            self.give_back(slot);
        }
    }

    pub(super) fn on_tick(&mut self, now_ms: i64) {
        if now_ms - self.sweep_ms >= SAMPLE_PAUSE_MS {
            self.sweep_ms = now_ms;
            self.next = 0;
            self.broker.iter_mut().for_each(|meter| meter.sample(now_ms));
        }
        let end = self.slots.len().min(self.next + SAMPLED_PER_TICK);
        for slot in self.next..end {
            let Some(used) = &mut self.slots[slot].used else { continue };
            used.meter.sample(now_ms);
            if used.meter.is_idle(now_ms) {
                self.remove(slot as u32);
            }
        }
        self.next = end;
    }

    fn make(&mut self, owner: Owner, is_of_system: bool) -> Option<u32> {
        let used = Used { owner, is_of_system, meter: Meter::new(self.sweep_ms) };
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize].used = Some(used);
            return Some(slot);
        }
        if self.slots.len() >= METERS_MAX {
            return None;
        }
        self.slots.push(Slot { generation: 0, used: Some(used) });
        Some(self.slots.len() as u32 - 1)
    }

    /// Takes an idle meter out of its map as well.
    fn remove(&mut self, slot: u32) {
        let used = self.slots[slot as usize].used.as_ref().expect("it was looked at just now");
        match &used.owner {
            Owner::Topic(topic) => {
                self.topics.remove(topic);
            }
            Owner::Group(group, of_group) => {
                if let Some(meters) = self.groups.get_mut(group) {
                    meters.remove(of_group);
                    if meters.is_empty() {
                        self.groups.remove(group);
                    }
                }
            }
        }
        self.give_back(slot);
    }

    fn give_back(&mut self, slot: u32) {
        let freed = &mut self.slots[slot as usize];
        assert!(freed.used.take().is_some(), "slot {slot} given back twice");
        freed.generation = freed.generation.wrapping_add(1);
        self.free.push(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEA: TopicNumber = TopicNumber(7);
    const DAY_MS: i64 = 24 * 3_600_000;

    fn one(bytes: u64) -> Totals {
        Totals { messages: 1, bytes }
    }

    #[test]
    fn topics_groups_and_the_broker_are_measured_apart() {
        let mut meters = Meters::new(0);
        meters.count_topic(TEA, one(10), || false);
        let got = meters.of_group("g", TEA, GroupMeasure::Got, || false);
        meters.count(got, Totals { messages: 4, bytes: 40 });
        meters.count_group("g", TEA, GroupMeasure::SentBack, 2);
        meters.count_broker(BrokerMeasure::Get, one(1));
        meters.on_tick(10_000);
        let totals = |figures: Option<Figures>| figures.unwrap().totals;
        assert_eq!(totals(meters.topic_figures(TEA, Period::Minute)), one(10));
        let of_group = |measure| meters.group_figures("g", TEA, measure, Period::Day);
        assert_eq!(totals(of_group(GroupMeasure::Got)).messages, 4);
        assert_eq!(totals(of_group(GroupMeasure::SentBack)).messages, 2);
        assert_eq!(meters.group_figures("h", TEA, GroupMeasure::SentBack, Period::Day), None);
        assert_eq!(meters.topic_figures(TopicNumber(8), Period::Hour), None);
        assert_eq!(meters.broker_figures(BrokerMeasure::Get, Period::Hour).totals, one(1));
        assert_eq!(meters.broker_figures(BrokerMeasure::Put, Period::Hour).totals, Totals::default());
    }

    #[test]
    fn an_id_of_a_meter_that_is_gone_counts_nowhere() {
        let mut meters = Meters::new(0);
        let old = meters.of_group("g", TEA, GroupMeasure::Got, || false);
        meters.on_group_deleted("g");
        let new = meters.of_group("h", TEA, GroupMeasure::Got, || true);
        assert_eq!(old.unwrap().slot, new.unwrap().slot);
        assert!(!meters.count(old, one(1)));
        assert!(meters.count(new, one(2)), "of the system");
        meters.on_tick(10_000);
        let of_new = meters.group_figures("h", TEA, GroupMeasure::Got, Period::Minute);
        assert_eq!(of_new.unwrap().totals, one(2));
    }

    #[test]
    fn meters_have_a_limit_and_idle_ones_make_room() {
        let mut meters = Meters::new(0);
        for topic in 0..METERS_MAX as u32 {
            meters.count_topic(TopicNumber(topic), one(1), || false);
        }
        let new = TopicNumber(METERS_MAX as u32);
        assert!(meters.count_topic(new, one(1), || true), "counted nowhere, and known to be the system's");
        assert_eq!(meters.topic_figures(new, Period::Minute), None);
        assert_eq!(meters.of_group("g", TEA, GroupMeasure::Got, || false), None);
        meters.on_topic_deleted(TopicNumber(5));
        meters.count_topic(new, one(1), || false);
        assert!(meters.topic_figures(new, Period::Minute).is_some());

        let mut now_ms = 0;
        while now_ms < 2 * DAY_MS {
            now_ms += 3_600_000;
            meters.count_topic(TEA, one(1), || false);
            for tick in 0..=METERS_MAX.div_ceil(SAMPLED_PER_TICK) {
                meters.on_tick(now_ms + tick as i64);
            }
            if meters.topics.len() == 1 {
                break;
            }
        }
        assert_eq!((meters.topics.len(), meters.free.len()), (1, METERS_MAX - 1));
        assert!(now_ms > DAY_MS, "{now_ms}");
    }
}
