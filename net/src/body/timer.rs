//! How many messages wait for their time.

use std::collections::BTreeMap;

use bytes::BufMut;

use super::data_version::DataVersion;
use super::fastjson::body;

body! {
    /// Reply to GET_TIMER_METRICS (61): `TimerMetrics.TimerMetricsSerializeWrapper`.
    #[derive(Eq)]
    pub struct TimerMetrics {
        "dataVersion" => data_version: DataVersion,
        /// By the topic that the messages will be delivered to.
        "timingCount" => timing_count: BTreeMap<String, TimerMetric>,
    }
}

body! {
    #[derive(Eq)]
    pub struct TimerMetric {
        "count" => count: i64,
        /// When the count changed last.
        "timeStamp" => time_stamp: i64,
    }
}

/// Reply to GET_TIMER_CHECK_POINT (60), the only body that is no JSON: seven integers (`TimerCheckpoint#encode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerCheckpoint {
    /// Everything due before was delivered, in ms.
    pub last_read_time_ms: i64,
    /// Place in the timer log, a file that RocketMQ's wheel points into.
    pub last_timer_log_flush_pos: i64,
    /// Messages of the timer topic that were taken in.
    pub last_timer_queue_offset: i64,
    /// The same of the master, for a slave.
    pub master_timer_queue_offset: i64,
    pub data_version: DataVersion,
}

pub const TIMER_CHECKPOINT_BYTES: usize = 7 * size_of::<i64>();

impl TimerCheckpoint {
    pub fn encode(&self) -> [u8; TIMER_CHECKPOINT_BYTES] {
        let mut bytes = [0; TIMER_CHECKPOINT_BYTES];
        let mut rest = &mut bytes[..];
        for field in [
            self.last_read_time_ms,
            self.last_timer_log_flush_pos,
            self.last_timer_queue_offset,
            self.master_timer_queue_offset,
            self.data_version.state_version,
            self.data_version.timestamp,
            self.data_version.counter,
        ] {
            rest.put_i64(field);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_seven_integers() {
        let data_version = DataVersion { counter: 7, state_version: 5, timestamp: 6 };
        let checkpoint = TimerCheckpoint {
            last_read_time_ms: 1,
            last_timer_log_flush_pos: 2,
            last_timer_queue_offset: 3,
            master_timer_queue_offset: 4,
            data_version,
        };
        let expected: Vec<u8> = (1..=7_i64).flat_map(i64::to_be_bytes).collect();
        assert_eq!(checkpoint.encode().as_slice(), expected);
    }
}
