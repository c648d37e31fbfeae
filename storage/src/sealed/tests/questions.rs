//! All questions an index can be asked, compared with a plain search through what was written.

use super::world::Segment;
use crate::index::{IndexEntry, TimeBound};
use crate::sealed::{IndexFault, IndexView, QueueSpan};
use crate::types::{LogOffset, QueueKey, QueueOffset};

/// What one question found out.
pub(super) type Answer = Result<(), IndexFault>;

/// Asks everything. A fault is passed to `on_fault` and the next question is asked; a wrong answer panics.
pub(super) fn ask_everything(segment: &Segment, view: IndexView<'_>, on_fault: &mut dyn FnMut(IndexFault)) {
    let mut ask = |answer: Answer| answer.unwrap_or_else(&mut *on_fault);
    for (queue, begin) in &segment.queues {
        ask(queue_is_found(segment, view, *queue, *begin));
        for beside in [queue.0.wrapping_sub(1), queue.0.wrapping_add(1)].map(QueueKey) {
            if !segment.queues.iter().any(|(known, _)| *known == beside) {
                ask(view.queue(beside).map(|found| assert_eq!(found, None, "queue {beside}")));
            }
        }
    }
    let mut hashes: Vec<u32> = segment.records.iter().flat_map(|record| &record.keys).copied().collect();
    hashes.sort_unstable();
    hashes.dedup();
    let beside = hashes.iter().flat_map(|hash| [hash.wrapping_sub(1), hash.wrapping_add(1)]);
    for hash in hashes.iter().copied().chain(beside).chain([0, u32::MAX]) {
        ask(key_is_found(segment, view, hash));
    }
    for nth in 0..segment.batches.len() {
        ask(batch_is_found(segment, view, nth));
    }
    for outside in [segment.job.end, segment.job.segment.end(), LogOffset(u64::MAX)] {
        ask(view.batch_covering(outside).map(|found| assert_eq!(found, None, "batch at {outside}")));
    }
    if segment.job.segment.base.0 > 0 {
        let before = LogOffset(segment.job.segment.base.0 - 1);
        ask(view.batch_covering(before).map(|found| assert_eq!(found, None, "batch at {before}")));
    }
    ask(all_queues_are_listed(segment, view));
}

fn queue_is_found(segment: &Segment, view: IndexView<'_>, queue: QueueKey, begin: QueueOffset) -> Answer {
    let wanted: Vec<IndexEntry> = segment.of_queue(queue).map(|record| record.entry).collect();
    let span = view.queue(queue)?.unwrap_or_else(|| panic!("queue {queue} is not there"));
    assert_eq!((span.begin, span.count as usize), (begin, wanted.len()), "queue {queue}");
    assert_eq!(span.end(), segment.next_of(queue));
    let count = wanted.len() as u64;
    for skipped in [0, 1, count / 2, count.saturating_sub(1), count, count + 1, count + 1000] {
        for max in [0, 1, 3, count as u32, u32::MAX] {
            let from = QueueOffset(begin.0 + skipped);
            let entries: Vec<IndexEntry> = view.entries(span, from, max)?.collect();
            let expected = wanted.iter().skip(skipped as usize).take(max as usize);
            assert!(entries.iter().eq(expected), "queue {queue} from {from}, at most {max}: {entries:?}");
        }
    }
    if begin.0 > 0 {
        assert_eq!(view.entries(span, QueueOffset(begin.0 - 1), 5)?.len(), 0, "in front of the segment");
    }
    let some = segment.times_ms.iter().step_by(1 + segment.times_ms.len() / 40);
    let times = some.flat_map(|time| [time - 1, *time, time + 1]).chain([i64::MIN, i64::MAX]);
    times.into_iter().try_for_each(|time_ms| time_is_found(view, span, &wanted, time_ms))
}

fn time_is_found(view: IndexView<'_>, span: QueueSpan, wanted: &[IndexEntry], time_ms: i64) -> Answer {
    let older = wanted.iter().filter(|entry| entry.store_time_ms < time_ms).count();
    let not_newer = wanted.iter().filter(|entry| entry.store_time_ms <= time_ms).count();
    assert_eq!(
        view.count_before(span, time_ms, TimeBound::Lower)? as usize,
        older,
        "{span:?} before {time_ms}"
    );
    assert_eq!(
        view.count_before(span, time_ms, TimeBound::Upper)? as usize,
        not_newer,
        "{span:?} to {time_ms}"
    );
    Ok(())
}

fn key_is_found(segment: &Segment, view: IndexView<'_>, hash: u32) -> Answer {
    // A record that has the hash twice is found twice.
    let hits =
        segment.records.iter().flat_map(|record| record.keys.iter().map(move |key| (key, record.entry)));
    let all: Vec<IndexEntry> = hits.filter(|(key, _)| **key == hash).map(|(_, entry)| entry).collect();
    for max in [0, 1, 2, all.len(), usize::MAX] {
        let newest = &all[all.len().saturating_sub(max)..];
        assert_eq!(view.find_key(hash, max)?, newest, "hash {hash}, at most {max}");
    }
    Ok(())
}

fn batch_is_found(segment: &Segment, view: IndexView<'_>, nth: usize) -> Answer {
    let (base, len) = segment.batches[nth];
    for within in [0, 1, u64::from(len) / 2, u64::from(len) - 1] {
        assert_eq!(view.batch_covering(base.plus(within))?, Some((base, len)));
    }
    Ok(())
}

fn all_queues_are_listed(segment: &Segment, view: IndexView<'_>) -> Answer {
    let listed: Vec<_> = view.rows().collect::<Result<_, _>>()?;
    let mut wanted = segment.queues.clone();
    wanted.sort();
    assert!(listed.iter().map(|(queue, span)| (*queue, span.begin)).eq(wanted.iter().copied()));
    for (queue, span) in listed {
        assert_eq!(Some(span), view.queue(queue)?);
    }
    Ok(())
}
