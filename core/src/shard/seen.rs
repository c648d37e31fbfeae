//! What a simulation looks at from the outside of a shard.

use apogee_net::code::RequestCode;
use apogee_net::flags::PullSysFlag;
use apogee_net::request::{PullMessageRequest, TypedHeader, UpdateConsumerOffsetRequest};
use apogee_storage::{BatchIndex, Buffer, LogOffset, Marks};

use super::state::Shard;
use super::topics::TopicNumber;
use crate::service::Request;

/// A group's progress in a queue: group, topic, queue.
pub(crate) type Progress = (String, String, i32);

impl<B: Buffer + 'static> Shard<B> {
    pub(crate) fn marks(&self) -> Marks {
        self.log.marks()
    }

    /// Changes wait for room in the log.
    pub(crate) fn has_unlogged(&self) -> bool {
        !self.unlogged.is_empty() || self.log.staged_bytes() > 0
    }

    /// Where a batch stands, if that is known without looking into an index file.
    pub(crate) fn base_of(&self, index: BatchIndex) -> Option<LogOffset> {
        self.log.batch_at(index).ok()?.map(|place| place.base_offset)
    }

    /// The first offset of a queue that this replica has, and the one behind the last.
    pub(crate) fn bounds_of(&self, topic: &str, queue_id: i32) -> Option<(u64, u64)> {
        let queue = self.topics.get(topic)?.queue_to_read(queue_id)?;
        Some((self.log.min_offset(queue).0, self.log.max_offset(queue).0))
    }

    /// How far each group has come, as far as `group` and `topics` go.
    pub(crate) fn progress_of(&self, group: &str, topics: &[&str]) -> Vec<(Progress, u64)> {
        let mut all = Vec::new();
        for topic in topics {
            let Some(number) = self.topics.get(topic).map(|topic| topic.number()) else { continue };
            let offsets = self.offsets.of_topic(group, number);
            all.extend(offsets.map(|(queue, offset)| {
                let (_, id) = TopicNumber::of(queue);
                ((group.to_owned(), (*topic).to_owned(), id as i32), offset.0)
            }));
        }
        all
    }
}

/// How far a client says that it has come, if it says so.
pub(crate) fn progress_told(request: &Request<'_>) -> Option<(Progress, u64)> {
    let ext = &request.header.ext;
    let (group, topic, queue, offset) = match request.code() {
        RequestCode::UPDATE_CONSUMER_OFFSET => {
            let update = UpdateConsumerOffsetRequest::decode(ext).ok()?;
            (update.consumer_group, update.topic, update.queue_id, update.commit_offset)
        }
        RequestCode::PULL_MESSAGE => {
            let pull = PullMessageRequest::decode(ext).ok()?;
            if !pull.sys_flag.contains(PullSysFlag::COMMIT_OFFSET) {
                return None;
            }
            (pull.consumer_group, pull.topic, pull.queue_id, pull.commit_offset)
        }
        _ => return None,
    };
    Some(((group.to_owned(), topic.to_owned(), queue), offset as u64))
}
