//! What a message is, as far as it follows from its place: its size, its tag, its fate, and which groups are owed it.
//!
//! Nothing of this is remembered. Whoever sends a message and whoever receives it asks the same function, so the
//! ledger needs no table of expectations, and a message that comes back with another size than it was sent with is
//! found out.

use std::time::Duration;

use crate::payload::{RunId, Stamp};
use crate::scenario::{Consumer, Filter, From, Kind, NUMBERS, Scenario, Sizes};

/// What becomes of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Commit,
    Rollback,
    /// Its producer says nothing until the broker asks, and then commits.
    CommitWhenAsked,
}

/// How soon a message may be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// From its planned time until it is due at the consumer.
    pub length: Duration,
    /// A delivery before that is early, unless by no more than this.
    pub early_max: Duration,
    /// The broker counts from when it stored the message, not from the planned time.
    pub from_sent: bool,
}

/// Brokers keep time in whole milliseconds, cut off.
const BROKER_CLOCK_STEP: Duration = Duration::from_millis(1);

/// The contents of all messages of one run.
#[derive(Clone, Debug)]
pub struct Content {
    run: RunId,
    size: Sizes,
    tags: Vec<String>,
    /// Of a hundred messages, how many are rolled back and how many wait for the broker's question.
    rollback: u32,
    check: u32,
    delay: Option<Delay>,
    lanes: u32,
    acknowledged: bool,
    groups: Vec<Group>,
    has_filters: bool,
    has_numbers: bool,
}

/// One consumer group, as the ledger sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    /// Index into the scenario's consumers.
    pub consumer: usize,
    filter: Option<Filter>,
    /// It is owed the prefill.
    from_start: bool,
    /// It reads as fast as it can, from the beginning of the run on.
    pub is_live: bool,
    /// It works on each message, so that what it has not read at the end is unread, not lost.
    pub is_slow: bool,
}

impl Content {
    pub fn new(run: RunId, scenario: &Scenario) -> Content {
        let messages = &scenario.messages;
        let groups: Vec<Group> = scenario
            .consumers
            .iter()
            .enumerate()
            .flat_map(|(at, consumer)| {
                consumer.names().into_iter().map(move |name| group(at, consumer, name))
            })
            .collect();
        let (rollback, check) = match messages.kind {
            Kind::Transactional { rollback, check, .. } => (rollback, check),
            _ => (0, 0),
        };
        let length = messages.kind.delay();
        let delay = match messages.kind {
            Kind::Delayed { .. } => Some(Delay { length, early_max: BROKER_CLOCK_STEP, from_sent: true }),
            Kind::Timed { relative, early_max, .. } => {
                Some(Delay { length, early_max: early_max + BROKER_CLOCK_STEP, from_sent: relative })
            }
            _ => None,
        };
        let is_sql = |group: &Group| matches!(group.filter, Some(Filter::Sql { .. }));
        Content {
            run,
            size: messages.size.clone(),
            tags: messages.tags.clone(),
            rollback,
            check,
            delay,
            lanes: messages.kind.lanes(),
            acknowledged: messages.kind.is_acknowledged(),
            has_filters: rollback > 0 || groups.iter().any(|group| group.filter.is_some()),
            has_numbers: groups.iter().any(is_sql),
            groups,
        }
    }

    pub fn run(&self) -> RunId {
        self.run
    }

    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Parts of a queue that each keep an order of their own.
    pub fn lanes(&self) -> u32 {
        self.lanes
    }

    /// Whether the broker is asked to answer.
    pub fn is_acknowledged(&self) -> bool {
        self.acknowledged
    }

    pub fn delay(&self) -> Option<Delay> {
        self.delay
    }

    /// Bytes of the body.
    pub fn size(&self, stamp: &Stamp) -> usize {
        match self.size {
            Sizes::Fixed(size) => size,
            _ => {
                let place = u64::from(stamp.stream.0) << 32 ^ u64::from(stamp.lane) << 48 ^ stamp.sequence;
                self.size.pick(mix(self.run.0 ^ mix(place)))
            }
        }
    }

    /// Largest and smallest body.
    pub fn size_max(&self) -> usize {
        self.size.largest()
    }

    pub fn tag(&self, sequence: u64) -> Option<&str> {
        let tags = self.tags.len() as u64;
        (tags > 0).then(|| self.tags[(sequence % tags) as usize].as_str())
    }

    /// The property `n`, if any filter asks for it.
    pub fn number(&self, sequence: u64) -> Option<u32> {
        self.has_numbers.then(|| number(sequence))
    }

    /// Spread evenly: of any hundred consecutive messages as many have one fate as the scenario says.
    pub fn fate(&self, sequence: u64) -> Fate {
        // 37 has no divisor in common with 100: multiplying by it only reorders the hundred.
        let place = number(sequence) * 37 % NUMBERS;
        if place < self.rollback {
            Fate::Rollback
        } else if place < self.rollback + self.check {
            Fate::CommitWhenAsked
        } else {
            Fate::Commit
        }
    }

    /// Whether each message goes to every group.
    pub fn is_for_all(&self) -> bool {
        !self.has_filters
    }

    /// Whether the group is owed this message.
    pub fn is_for(&self, group: usize, sequence: u64) -> bool {
        if !self.has_filters {
            return true;
        }
        let wants = |filter: &Filter| filter.wants(self.tag(sequence), number(sequence));
        self.fate(sequence) != Fate::Rollback && self.groups[group].filter.as_ref().is_none_or(wants)
    }

    /// Whether the group is owed what was written before the run.
    pub fn is_for_prefill(&self, group: usize) -> bool {
        self.groups[group].from_start
    }
}

fn group(consumer_at: usize, consumer: &Consumer, name: String) -> Group {
    Group {
        name,
        consumer: consumer_at,
        filter: consumer.filter.clone(),
        from_start: consumer.from == From::Start,
        is_live: consumer.is_live(),
        is_slow: !consumer.pause.is_zero(),
    }
}

fn number(sequence: u64) -> u32 {
    (sequence % u64::from(NUMBERS)) as u32
}

/// The finishing step of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
fn mix(seed: u64) -> u64 {
    let mut word = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::RunTime;
    use crate::schedule::StreamId;

    const RUN: RunId = RunId(9);

    fn content(change: impl FnOnce(&mut Scenario)) -> Content {
        let mut scenario = Scenario::default();
        change(&mut scenario);
        Content::new(RUN, &scenario)
    }

    fn stamp(sequence: u64) -> Stamp {
        Stamp { stream: StreamId(3), lane: 0, sequence, due: RunTime::START, sent: RunTime::START }
    }

    #[test]
    fn of_each_hundred_messages_the_asked_share_has_each_fate() {
        let kind = Kind::Transactional { rollback: 10, check: 5, reply: false };
        let content = content(|scenario| scenario.messages.kind = kind);
        for start in [0, 7, 1_000_000] {
            let count =
                |fate| (start..start + 100).filter(|sequence| content.fate(*sequence) == fate).count();
            assert_eq!(
                (count(Fate::Rollback), count(Fate::CommitWhenAsked), count(Fate::Commit)),
                (10, 5, 85)
            );
        }
        assert!(
            (0..100)
                .all(|sequence| content.is_for(0, sequence) == (content.fate(sequence) != Fate::Rollback))
        );
    }

    #[test]
    fn groups_are_owed_what_their_filter_wants() {
        let by = |group: &str, filter| Consumer { group: group.into(), filter, ..Consumer::default() };
        let content = content(|scenario| {
            scenario.messages.tags = ["A", "B", "A"].map(String::from).to_vec();
            let sql = Filter::Sql { expression: "n < 10".into(), expect_below: 10 };
            scenario.consumers =
                vec![by("all", None), by("b", Some(Filter::Tags("B || C".into()))), by("ten", Some(sql))];
        });
        let owed = |group| (0..300).filter(|sequence| content.is_for(group, *sequence)).count();
        assert_eq!([owed(0), owed(1), owed(2)], [300, 100, 30]);
        assert_eq!((content.tag(4), content.number(104)), (Some("B"), Some(4)));
        assert!(!content.is_for_all());
    }

    #[test]
    fn several_groups_alike_have_names_of_their_own() {
        let content = content(|scenario| scenario.consumers[0].groups = 3);
        let names: Vec<_> = content.groups().iter().map(|group| group.name.as_str()).collect();
        assert_eq!(names, ["apogee-loadgen-0", "apogee-loadgen-1", "apogee-loadgen-2"]);
        assert!(content.is_for_all() && content.number(3).is_none());
    }

    #[test]
    fn sizes_follow_from_the_place_and_fill_their_range() {
        let content = content(|scenario| scenario.messages.size = Sizes::Uniform { min: 100, max: 199 });
        let sizes: Vec<_> = (0..10_000).map(|sequence| content.size(&stamp(sequence))).collect();
        assert_eq!(sizes, (0..10_000).map(|sequence| content.size(&stamp(sequence))).collect::<Vec<_>>());
        let mean = sizes.iter().sum::<usize>() as f64 / 10_000.0;
        assert!((mean - 149.5).abs() < 2.0, "{mean}");
        assert!(sizes.contains(&100) && sizes.contains(&199));
    }
}
