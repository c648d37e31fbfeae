//! Which thread and which connection serves which queue.
//!
//! Streams are numbered queue by queue over the brokers, so that consecutive messages of the plan go to different
//! brokers, as a stock producer's do. A queue has one thread and one connection for the whole run: messages of one
//! queue keep their order, and its consumer lives on the same thread as its producer.

use crate::schedule::StreamId;

/// One queue of the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueTarget {
    pub stream: StreamId,
    /// Index into the run's list of topics.
    pub topic: usize,
    /// Index into the run's list of brokers.
    pub broker: usize,
    pub queue_id: i32,
}

/// All queues of a run, in the order of their streams: every topic has `queues` on each broker.
pub fn number_streams(topics: usize, brokers: usize, queues: u32) -> Vec<QueueTarget> {
    let places = (0..queues).flat_map(|queue| {
        (0..topics).flat_map(move |topic| (0..brokers).map(move |broker| (queue, topic, broker)))
    });
    places
        .enumerate()
        .map(|(stream, (queue, topic, broker))| QueueTarget {
            stream: StreamId(u32::try_from(stream).expect("queues of a run")),
            topic,
            broker,
            queue_id: i32::try_from(queue).expect("bounded by QUEUES_PER_BROKER_MAX"),
        })
        .collect()
}

/// Deals the queues to threads; a thread without any is left out.
///
/// Whole brokers go to one thread where there are enough of them (a connection fewer); otherwise a broker's queues are
/// divided among the threads that serve it, one by one or, with `whole_topics`, all of a topic together: a popped
/// message that comes again may come through any queue of its topic.
pub fn deal_to_threads(
    targets: &[QueueTarget],
    brokers: usize,
    threads: usize,
    whole_topics: bool,
) -> Vec<Vec<QueueTarget>> {
    assert!(threads > 0);
    let mut dealt = vec![Vec::new(); threads];
    for target in targets {
        // Threads serving this broker: broker, broker + brokers, broker + 2 * brokers, … below `threads`.
        let serving = threads.saturating_sub(target.broker).div_ceil(brokers).max(1);
        let queue = if whole_topics { 0 } else { target.queue_id as usize };
        let turn = (queue + target.topic) % serving;
        dealt[(target.broker + turn * brokers) % threads].push(*target);
    }
    dealt.retain(|part| !part.is_empty());
    dealt
}

/// Deals whole rows of queues, those that differ in their broker only, to threads: so every thread has every broker, and
/// whatever one broker does not take can go to the next one's queue. A thread without any is left out.
pub fn deal_rows_to_threads(
    targets: &[QueueTarget],
    brokers: usize,
    threads: usize,
) -> Vec<Vec<QueueTarget>> {
    assert!(threads > 0);
    let mut dealt = vec![Vec::new(); threads];
    for (row, targets) in targets.chunks(brokers).enumerate() {
        dealt[row % threads].extend_from_slice(targets);
    }
    dealt.retain(|part| !part.is_empty());
    dealt
}

/// The queue that a message goes to when `stream`'s broker did not take it: the same queue of the next broker.
pub fn next_in_row(stream: StreamId, brokers: usize) -> StreamId {
    let brokers = u32::try_from(brokers).expect("brokers of a run");
    let row = stream.0 / brokers * brokers;
    StreamId(row + (stream.0 - row + 1) % brokers)
}

/// Deals one thread's queues of one broker to its connections there. Of more connections than queues, several share one.
pub fn deal_to_connections(queues: &[QueueTarget], connections: usize) -> Vec<Vec<QueueTarget>> {
    if connections >= queues.len() {
        return queues
            .iter()
            .cycle()
            .take(if queues.is_empty() { 0 } else { connections })
            .map(|queue| vec![*queue])
            .collect();
    }
    let mut dealt = vec![Vec::new(); connections];
    for (at, target) in queues.iter().enumerate() {
        dealt[at % connections].push(*target);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn brokers_of(part: &[QueueTarget]) -> Vec<usize> {
        let mut brokers: Vec<_> = part.iter().map(|target| target.broker).collect();
        brokers.sort_unstable();
        brokers.dedup();
        brokers
    }

    #[test]
    fn consecutive_streams_are_on_different_brokers() {
        let targets = number_streams(1, 2, 2);
        let placed: Vec<_> = targets.iter().map(|t| (t.stream.0, t.broker, t.queue_id)).collect();
        assert_eq!(placed, [(0, 0, 0), (1, 1, 0), (2, 0, 1), (3, 1, 1)]);
    }

    #[test]
    fn with_enough_brokers_each_has_one_thread() {
        let dealt = deal_to_threads(&number_streams(1, 4, 8), 4, 2, false);
        assert_eq!(dealt.iter().map(|part| brokers_of(part)).collect::<Vec<_>>(), [vec![0, 2], vec![1, 3]]);
    }

    #[test]
    fn with_few_brokers_their_queues_are_divided() {
        let dealt = deal_to_threads(&number_streams(1, 1, 8), 1, 4, false);
        assert_eq!(dealt.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2, 2]);
    }

    #[test]
    fn connections_share_the_queues_and_none_is_idle() {
        let queues = number_streams(1, 1, 3);
        assert_eq!(deal_to_connections(&queues, 2).iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
        let many = deal_to_connections(&queues, 7);
        assert_eq!(many.iter().map(|part| part[0].queue_id).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(deal_to_connections(&[], 7).len(), 0);
    }

    #[test]
    fn a_whole_topic_has_one_thread_if_that_is_asked() {
        let dealt = deal_to_threads(&number_streams(2, 1, 4), 1, 2, true);
        let topics: Vec<Vec<usize>> =
            dealt.iter().map(|part| part.iter().map(|target| target.topic).collect()).collect();
        assert_eq!(topics, [vec![0; 4], vec![1; 4]]);
    }

    #[test]
    fn a_thread_with_whole_rows_has_every_broker() {
        let targets = number_streams(2, 3, 2);
        let dealt = deal_rows_to_threads(&targets, 3, 3);
        assert_eq!(dealt.iter().map(|part| brokers_of(part)).collect::<Vec<_>>(), vec![vec![0, 1, 2]; 3]);
        for part in &dealt {
            for target in part {
                let next = next_in_row(target.stream, 3);
                let next = part.iter().find(|other| other.stream == next).expect("on the same thread");
                assert_eq!((next.topic, next.queue_id), (target.topic, target.queue_id));
                assert_eq!(next.broker, (target.broker + 1) % 3);
            }
        }
    }

    proptest! {
        #[test]
        fn every_queue_is_dealt_once_and_in_stream_order(
            topics in 1usize..4, brokers in 1usize..6, queues in 1u32..9, threads in 1usize..12, connections in 1usize..5,
            whole_topics: bool,
        ) {
            let targets = number_streams(topics, brokers, queues);
            let dealt = deal_to_threads(&targets, brokers, threads, whole_topics);
            prop_assert!(dealt.len() <= threads);
            for part in &dealt {
                prop_assert!(part.windows(2).all(|pair| pair[0].stream < pair[1].stream));
                let connected: usize = deal_to_connections(part, connections).iter().map(Vec::len).sum();
                prop_assert_eq!(connected, part.len().max(connections));
            }
            let mut all: Vec<_> = dealt.concat();
            all.sort_by_key(|target| target.stream);
            prop_assert_eq!(all, targets);
        }
    }
}
