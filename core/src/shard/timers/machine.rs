//! What a shard knows of its delayed messages.

use apogee_net::body::DataVersion;
use apogee_storage::QueueKey;
use rustc_hash::FxHashMap;

use super::levels::{DELAY_LEVELS_MAX, DelayLevel, LevelQueue};
use super::record::TimerRecord;
use super::table::TimerTable;
use super::window::Window;
use crate::shard::topics::{SCHEDULE, TIMER, TopicNumber, TopicTable};

/// The table is what the log says; everything else is begun anew when a shard starts.
#[derive(Debug)]
pub(in crate::shard) struct Timers {
    pub(in crate::shard) table: TimerTable,
    pub(super) window: Window,
    pub(super) levels: [LevelQueue; DELAY_LEVELS_MAX],
    /// Batches of timers on their way to the log.
    pub(super) deliveries: usize,
    /// Reads that end at once must not begin the next from within themselves.
    pub(super) is_advancing: bool,
    /// What is under way ends, nothing else begins.
    is_stopping: bool,
    /// The queue of the timer topic.
    pub(super) wheel: QueueKey,
    /// The topic of the levels' queues.
    schedule: TopicNumber,
    /// When the number of a topic's timers changed last, and how often any did.
    changed_at_ms: FxHashMap<TopicNumber, i64>,
    version: DataVersion,
    /// Of the last tick, for these statistics.
    now_ms: i64,
}

impl Timers {
    pub(in crate::shard) fn new(table: TimerTable, topics: &TopicTable, now_ms: i64) -> Self {
        let mut timers = Timers {
            table,
            window: Window::default(),
            levels: [LevelQueue::default(); DELAY_LEVELS_MAX],
            deliveries: 0,
            is_advancing: false,
            is_stopping: false,
            wheel: QueueKey::CONTROL,
            schedule: TopicNumber(0),
            changed_at_ms: FxHashMap::default(),
            version: DataVersion { timestamp: now_ms, ..DataVersion::default() },
            now_ms,
        };
        timers.locate(topics);
        timers
    }

    /// Finds the topics of the system in which messages wait. A slave that has heard nothing of its group has none, and
    /// answers nothing either.
    pub(in crate::shard) fn locate(&mut self, topics: &TopicTable) {
        if let (Some(timer), Some(schedule)) = (topics.get(TIMER), topics.get(SCHEDULE)) {
            self.wheel = timer.number().queue(0);
            self.schedule = schedule.number();
        }
    }

    /// Changes the table by a record that is durable.
    pub(in crate::shard) fn apply(&mut self, record: &TimerRecord) {
        match record {
            TimerRecord::Put(timers) => {
                for timer in timers {
                    self.window.on_put(timer.id);
                    self.changed_at_ms.insert(timer.topic, self.now_ms);
                }
            }
            TimerRecord::Done(timers) => {
                for topic in timers.iter().filter_map(|id| self.table.topic_of(*id)) {
                    self.changed_at_ms.insert(topic, self.now_ms);
                }
            }
            TimerRecord::Level { .. } => {}
        }
        self.version = self.version.next(self.now_ms);
        self.table.apply(record);
    }

    /// Lets the shard come to rest.
    pub(in crate::shard) fn stop(&mut self) {
        self.is_stopping = true;
    }

    pub(in crate::shard) fn resume(&mut self) {
        self.is_stopping = false;
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    pub(super) fn on_tick(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
    }

    /// The queue of the timer topic.
    pub(in crate::shard) fn wheel(&self) -> QueueKey {
        self.wheel
    }

    pub(super) fn level_queue(&self, level: DelayLevel) -> QueueKey {
        self.schedule.queue(level.queue_id())
    }

    /// Changes so far, in this life of the shard.
    pub(in crate::shard) fn version(&self) -> DataVersion {
        self.version
    }

    /// When the number of messages that wait for a topic changed last; the shard's start if it did not since.
    pub(in crate::shard) fn changed_at_ms(&self, topic: TopicNumber) -> i64 {
        self.changed_at_ms.get(&topic).copied().unwrap_or(self.version.timestamp)
    }

    /// Timers that wait.
    pub(in crate::shard) fn pending(&self) -> usize {
        self.table.len()
    }

    /// When something is to be read or delivered.
    pub(in crate::shard) fn wake_at_ms(&self) -> Option<i64> {
        let levels = self.levels.iter().filter_map(LevelQueue::wake_at_ms);
        levels.chain(self.window.wake_at_ms(&self.table)).min()
    }
}
