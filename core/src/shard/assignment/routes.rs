//! The queues of topics on all brokers, as a NameServer told them a moment ago.

use apogee_net::body::{QueryAssignmentRequestBody, TopicRouteData, perm};
use rustc_hash::FxHashMap;

use crate::service::ReplyTo;

/// Topics whose queues are remembered. At the limit all are forgotten, and asked for again.
pub const ROUTES_MAX: usize = 1024;

/// How long what a NameServer said is good. RocketMQ's brokers ask every 30 s; clients ask for their queues every 20 s.
const GOOD_FOR_MS: i64 = 5_000;

/// Clients that wait for a NameServer's answer. More are told to ask again.
const WAITING_MAX: usize = 4096;

/// Readable queues of one broker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::shard) struct QueueCount {
    pub broker_name: String,
    pub queues: i32,
}

/// What asking the NameServers came to.
#[derive(Debug)]
pub enum FoundRoute {
    Found(Box<TopicRouteData>),
    /// No broker has the topic.
    Unknown,
    /// None has answered.
    Unreachable,
}

/// What is known of a topic.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::shard) enum Known<'a> {
    /// By broker name; `None`: no broker has the topic.
    Queues(Option<&'a [QueueCount]>),
    /// The NameServers have to be asked.
    Ask,
}

#[derive(Debug, Default)]
pub struct RouteCache {
    topics: FxHashMap<String, Remembered>,
    waiting: FxHashMap<String, Vec<(ReplyTo, QueryAssignmentRequestBody)>>,
    waiting_count: usize,
}

#[derive(Debug)]
struct Remembered {
    queues: Option<Vec<QueueCount>>,
    told_ms: i64,
}

impl RouteCache {
    pub(in crate::shard) fn known(&self, topic: &str, now_ms: i64) -> Known<'_> {
        match self.topics.get(topic) {
            Some(remembered) if now_ms - remembered.told_ms < GOOD_FOR_MS => {
                Known::Queues(remembered.queues.as_deref())
            }
            _ => Known::Ask,
        }
    }

    /// The client waits until the NameServers have answered; `Ok(true)`: they are to be asked, nobody waited before.
    pub(in crate::shard) fn wait(
        &mut self,
        to: ReplyTo,
        wanted: QueryAssignmentRequestBody,
    ) -> Result<bool, QueryAssignmentRequestBody> {
        if self.waiting_count >= WAITING_MAX {
            return Err(wanted);
        }
        self.waiting_count += 1;
        let waiting = self.waiting.entry(wanted.topic.clone()).or_default();
        waiting.push((to, wanted));
        Ok(waiting.len() == 1)
    }

    /// The NameServers have answered, or not; returns who waited. A topic that was known stays as it was as long as no
    /// NameServer can be reached.
    pub(in crate::shard) fn on_found(
        &mut self,
        topic: &str,
        found: FoundRoute,
        now_ms: i64,
    ) -> Vec<(ReplyTo, QueryAssignmentRequestBody)> {
        let told = match found {
            FoundRoute::Found(route) => Some(Some(queue_counts(&route))),
            FoundRoute::Unknown => Some(None),
            FoundRoute::Unreachable => None,
        };
        if let Some(queues) = told {
            if self.topics.len() >= ROUTES_MAX && !self.topics.contains_key(topic) {
                self.topics.clear();
            }
            self.topics.insert(topic.to_owned(), Remembered { queues, told_ms: now_ms });
        }
        let waited = self.waiting.remove(topic).unwrap_or_default();
        self.waiting_count -= waited.len();
        waited
    }

    /// What was said last, however long ago.
    pub(in crate::shard) fn last(&self, topic: &str) -> Option<&[QueueCount]> {
        self.topics.get(topic)?.queues.as_deref()
    }
}

fn queue_counts(route: &TopicRouteData) -> Vec<QueueCount> {
    let readable = route.queue_datas.iter().filter(|data| data.perm & perm::READ != 0);
    let mut counts: Vec<_> = readable
        .map(|data| QueueCount { broker_name: data.broker_name.clone(), queues: data.read_queue_nums })
        .collect();
    counts.sort_unstable();
    counts
}

#[cfg(test)]
mod tests {
    use apogee_net::body::QueueData;
    use apogee_net::frame::HeaderEncoding;
    use apogee_net::io::ConnectionId;

    use super::*;

    fn route() -> FoundRoute {
        let queues = |broker: &str, perm, read_queue_nums| QueueData {
            broker_name: broker.into(),
            perm,
            read_queue_nums,
            ..Default::default()
        };
        let queue_datas = vec![queues("b", 6, 4), queues("a", 4, 2), queues("c", 2, 8)];
        FoundRoute::Found(Box::new(TopicRouteData { queue_datas, ..Default::default() }))
    }

    fn count(broker: &str, queues: i32) -> QueueCount {
        QueueCount { broker_name: broker.into(), queues }
    }

    fn to(opaque: i32) -> ReplyTo {
        ReplyTo { connection: ConnectionId(1), opaque, encoding: HeaderEncoding::Json }
    }

    fn about(topic: &str) -> QueryAssignmentRequestBody {
        QueryAssignmentRequestBody { topic: topic.into(), ..Default::default() }
    }

    #[test]
    fn an_answer_is_good_for_a_while_and_better_than_none() {
        let mut cache = RouteCache::default();
        assert_eq!(cache.known("T", 0), Known::Ask);
        assert_eq!(cache.wait(to(1), about("T")), Ok(true));
        assert_eq!(cache.wait(to(2), about("T")), Ok(false));
        assert_eq!(cache.on_found("T", route(), 10).len(), 2);
        let counts = [count("a", 2), count("b", 4)];
        assert_eq!(cache.known("T", 10 + GOOD_FOR_MS - 1), Known::Queues(Some(&counts)));
        assert_eq!(cache.known("T", 10 + GOOD_FOR_MS), Known::Ask);
        assert!(cache.on_found("T", FoundRoute::Unreachable, 9_999).is_empty());
        assert_eq!(cache.last("T"), Some(&counts[..]));
        cache.on_found("T", FoundRoute::Unknown, 9_999);
        assert_eq!(cache.known("T", 10_000), Known::Queues(None));
    }

    #[test]
    fn topics_and_waiting_clients_are_bounded() {
        let mut cache = RouteCache::default();
        for topic in 0..=ROUTES_MAX {
            cache.on_found(&topic.to_string(), route(), 0);
        }
        assert_eq!(cache.topics.len(), 1);
        for nth in 0..WAITING_MAX {
            assert!(cache.wait(to(nth as i32), about("U")).is_ok());
        }
        assert!(cache.wait(to(-1), about("U")).is_err());
        assert_eq!(cache.on_found("U", FoundRoute::Unknown, 0).len(), WAITING_MAX);
        assert!(cache.wait(to(-1), about("U")).is_ok());
    }
}
