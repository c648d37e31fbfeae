//! An index answers as a plain search would, or says why it cannot; it never answers wrongly.

mod build;
mod damage;
mod paged;
mod questions;
pub(crate) mod shelf;
pub(crate) mod world;

use std::sync::Arc;

use proptest::prelude::*;

use self::paged::Paged;
use self::questions::ask_everything;
use self::world::{New, World};
use super::layout::{EntryRow, PAGE_LEN, Row as _};
use super::{Access, IndexFault, SealedIndex, read_ends};
use crate::index::TimeBound;
use crate::sim::Rng;
use crate::source::IndexBytes as _;
use crate::types::{QueueKey, QueueOffset};

/// What a random log is made of; its content follows from the seed.
#[derive(Clone, Copy, Debug)]
struct Shape {
    segments: u64,
    batches: u64,
    records: u64,
    queues: u64,
    hashes: u64,
    record_bytes: u64,
    seed: u64,
}

impl Shape {
    fn build(self) -> World {
        let mut rng = Rng::new(self.seed);
        let mut world = World::new();
        for _ in 0..self.segments {
            world.begin_segment();
            for _ in 0..self.batches {
                world.term.0 += rng.below(2);
                world.time_ms += [0, 1, 5, 1000][rng.below(4) as usize];
                let mut records: Vec<New> =
                    (0..rng.below(self.records + 1)).map(|_| self.record(&mut rng)).collect();
                // As the log writes them: each queue's records together.
                records.sort_by_key(|record| record.queue);
                world.batch(&records);
            }
            world.leave_gap(rng.below(3) as usize);
        }
        world
    }

    fn record(self, rng: &mut Rng) -> New {
        // One queue has half of all records.
        let queue = if rng.chance(50) { 0 } else { rng.below(self.queues + 1) };
        New {
            queue: if queue == self.queues { QueueKey::CONTROL.0 } else { queue * 3 },
            tag_hash: rng.below(100) as i32 - 50,
            keys: (0..rng.below(4))
                .map(|_| (rng.below(self.hashes) as u32).wrapping_mul(0x6789_abcd))
                .collect(),
            bytes: vec![rng.below(256) as u8; 1 + rng.below(self.record_bytes) as usize],
        }
    }
}

fn shape() -> impl Strategy<Value = Shape> {
    (1..4u64, 1..12u64, 0..40u64, 1..300u64, 1..50u64, 1..300u64, any::<u64>()).prop_map(
        |(segments, batches, records, queues, hashes, record_bytes, seed)| Shape {
            segments,
            batches,
            records,
            queues,
            hashes,
            record_bytes,
            seed,
        },
    )
}

/// Sections of several pages each.
const LARGE: Shape =
    Shape { segments: 2, batches: 700, records: 6, queues: 400, hashes: 9, record_bytes: 10, seed: 1 };

fn assert_answers(world: &World) {
    for (segment, index) in world.segments.iter().zip(world.seal()) {
        let summary = index.summary();
        assert_eq!((summary.group, summary.segment), (segment.job.group, segment.job.segment));
        assert_eq!((summary.end, summary.prev_term), (segment.job.end, segment.job.prev_term));
        assert_eq!((summary.first_index, summary.last_index), (segment.job.first_index, segment.last_index));
        assert_eq!(summary.last_term, segment.last_term);
        let times = (segment.times_ms.first(), segment.times_ms.last());
        assert_eq!((Some(&summary.first_time_ms), Some(&summary.last_time_ms)), times);
        for access in [Access::Resident, Access::Blocking] {
            let view = index.view(access);
            ask_everything(segment, view, &mut |fault| panic!("{fault}"));
            view.verify_all().unwrap();
        }
        let mut used: Vec<QueueKey> = segment.records.iter().map(|record| record.queue).collect();
        used.sort();
        used.dedup();
        let ends: Vec<(QueueKey, QueueOffset)> =
            used.into_iter().map(|queue| (queue, segment.next_of(queue))).collect();
        assert_eq!(read_ends(&index).unwrap(), ends);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn index_answers_as_a_plain_search_does(shape in shape()) {
        assert_answers(&shape.build());
    }
}

#[test]
fn sections_of_many_pages_are_searched_as_one() {
    let world = LARGE.build();
    let index = world.seal().pop().unwrap();
    let sections = index.sections();
    let pages = [
        sections.queues.pages().len(),
        sections.entries.pages().len(),
        sections.keys.pages().len(),
        sections.batches.pages().len(),
    ];
    assert!(pages.iter().all(|pages| *pages > 1), "{pages:?}");
    assert_answers(&world);
}

#[test]
fn queue_of_many_pages_is_searched_by_time() {
    let mut world = World::new();
    world.begin_segment();
    // The queues in front of and behind the long one begin in the middle of its first and last page.
    for nth in 0..60 {
        world.time_ms += 1 + nth % 3;
        let mut records = vec![New::of(1, 3); 3];
        records.extend(vec![New::of(2, 1); 30]);
        records.push(New::of(3, 2));
        world.batch(&records);
    }
    assert_answers(&world);
}

#[test]
fn segment_without_records_has_an_index() {
    let mut world = World::new();
    world.begin_segment();
    world.batch(&[]);
    world.begin_segment();
    world.batch(&[New::of(1, 1)]);
    world.begin_segment();
    world.batch(&[]);
    assert_answers(&world);
    let last = world.seal().pop().unwrap();
    let span = last.view(Access::Resident).queue(QueueKey(1)).unwrap().unwrap();
    assert_eq!((span.begin, span.count), (QueueOffset(1), 0), "queues without records are known");
    assert!(read_ends(&last).unwrap().is_empty());
}

#[test]
fn index_goes_to_the_pool_and_back() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<SealedIndex>();
}

// Pages that are not in memory

/// An open index of which nothing is in memory any more.
fn cold(world: &World) -> (Arc<Paged>, SealedIndex) {
    let bytes = world.shelf.indexes.borrow()[&world.last().job.segment.base].clone();
    let paged = Arc::new(Paged::new(&bytes));
    let index = SealedIndex::open(paged.clone()).unwrap();
    paged.set_resident(0..bytes.len() / PAGE_LEN, false);
    (paged, index)
}

#[test]
fn cold_pages_are_told_and_never_touched() {
    let world = LARGE.build();
    world.seal();
    let (paged, index) = cold(&world);
    let base = world.last().job.segment.base;
    let mut faults = 0;
    ask_everything(world.last(), index.view(Access::Resident), &mut |fault| {
        assert!(matches!(fault, IndexFault::Cold { segment, .. } if segment == base), "{fault}");
        faults += 1;
    });
    assert!(faults > 1000, "{faults}");
    assert_eq!(paged.resident(), 0);
}

#[test]
fn cold_pages_answer_once_they_are_loaded() {
    let world = LARGE.build();
    world.seal();
    let (paged, index) = cold(&world);
    let segment = world.last();
    let view = index.view(Access::Resident);
    let file_pages = paged.bytes().len() / PAGE_LEN;
    for record in segment.records.iter().step_by(97) {
        paged.set_resident(0..file_pages, false);
        // One question for the queue, one for the entries.
        for expected in 1..=2 {
            let answer = view.queue(record.queue).and_then(|span| {
                let mut entries = view.entries(span.unwrap(), record.queue_offset, 1)?;
                Ok(entries.next())
            });
            let Err(IndexFault::Cold { range, .. }) = answer else { panic!("{answer:?}") };
            assert_eq!(range.end - range.start, PAGE_LEN as u64);
            index.load(range).unwrap();
            assert_eq!(paged.resident(), expected);
        }
        let span = view.queue(record.queue).unwrap().unwrap();
        assert_eq!(view.entries(span, record.queue_offset, 1).unwrap().next(), Some(record.entry));
    }
}

#[test]
fn each_look_up_needs_few_pages() {
    let world = LARGE.build();
    world.seal();
    let (paged, index) = cold(&world);
    let segment = world.last();
    let view = index.view(Access::Resident);
    let file_pages = paged.bytes().len() / PAGE_LEN;
    paged.set_resident(0..file_pages, true);
    let longest = view.rows().map(|row| row.unwrap().1).max_by_key(|span| span.count).unwrap();
    assert!(longest.count > 2 * EntryRow::PER_PAGE, "{longest:?}");
    let hash = segment.records.iter().find_map(|record| record.keys.first().copied()).unwrap();
    type Question<'a> = &'a dyn Fn() -> Result<(), IndexFault>;
    let questions: [(&str, usize, Question<'_>); 4] = [
        ("queue", 1, &|| view.queue(QueueKey(300)).map(drop)),
        ("batch", 1, &|| view.batch_covering(segment.batches[segment.batches.len() / 2].0).map(drop)),
        ("time", 1, &|| {
            view.count_before(longest, segment.times_ms[segment.times_ms.len() / 2], TimeBound::Lower)
                .map(drop)
        }),
        // The keys' page and that of the record.
        ("key", 2, &|| view.find_key(hash, 1).map(drop)),
    ];
    for (name, pages_max, question) in questions {
        paged.set_resident(0..file_pages, false);
        while let Err(fault) = question() {
            let IndexFault::Cold { range, .. } = fault else { panic!("{name}: {fault}") };
            index.load(range).unwrap();
        }
        assert!(paged.resident() <= pages_max, "{name} needs {} pages", paged.resident());
    }
}
