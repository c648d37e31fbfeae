//! Names of topics that mean something to a broker.

use apogee_net::message::{DLQ_PREFIX, RETRY_PREFIX};

/// Template that new topics are made from when a message is sent to a topic that does not exist.
pub const AUTO_CREATE_TEMPLATE: &str = "TBW102";
/// Holds delayed messages, one queue per delay level.
pub const SCHEDULE: &str = "SCHEDULE_TOPIC_XXXX";
/// Holds messages that wait for a time of their own.
pub const TIMER: &str = "rmq_sys_wheel_timer";
pub const TRACE: &str = "RMQ_SYS_TRACE_TOPIC";
pub const HALF: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
pub const HALF_DONE: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
pub const CHECKED_TOO_OFTEN: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
pub const SELF_TEST: &str = "SELF_TEST_TOPIC";
pub const BENCHMARK: &str = "BenchmarkTest";
pub const OFFSET_MOVED_EVENT: &str = "OFFSET_MOVED_EVENT";
pub const CHECKPOINT: &str = "CHECKPOINT_TOPIC";
const SYSTEM_PREFIX: &str = "rmq_sys_";

/// Reserved on every broker (`TopicValidator.SYSTEM_TOPIC_SET`); a broker adds names of its own, see
/// [`TopicTable::is_system`](super::TopicTable::is_system).
pub(super) const SYSTEM_NAMES: &[&str] = &[
    AUTO_CREATE_TEMPLATE,
    SCHEDULE,
    TRACE,
    HALF,
    HALF_DONE,
    CHECKED_TOO_OFTEN,
    SELF_TEST,
    BENCHMARK,
    OFFSET_MOVED_EVENT,
    CHECKPOINT,
];

pub(super) fn is_system_everywhere(name: &str) -> bool {
    name.starts_with(SYSTEM_PREFIX) || SYSTEM_NAMES.contains(&name)
}

/// False for topics that only the broker itself writes to (`TopicValidator.NOT_ALLOWED_SEND_TOPIC_SET`, and the timer
/// topic, for a message that lies there without a timer would never be delivered).
pub fn may_clients_send(name: &str) -> bool {
    !matches!(name, SCHEDULE | TIMER | HALF | HALF_DONE | CHECKED_TOO_OFTEN | SELF_TEST | OFFSET_MOVED_EVENT)
}

/// Where messages go that a client of the group could not consume.
pub fn retry_topic(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

/// Where messages go that the group could not consume after all retries.
pub fn dead_letter_topic(group: &str) -> String {
    format!("{DLQ_PREFIX}{group}")
}

/// The group of a retry topic; `None` for other topics.
pub fn group_of_retry_topic(name: &str) -> Option<&str> {
    name.strip_prefix(RETRY_PREFIX)
}

#[cfg(test)]
mod tests {
    use apogee_net::message::{GROUP_BYTES_MAX, check_topic};

    use super::*;

    #[test]
    fn every_group_has_room_for_its_topics() {
        let group = "g".repeat(GROUP_BYTES_MAX);
        assert_eq!(check_topic(&retry_topic(&group)), Ok(()));
        assert_eq!(check_topic(&dead_letter_topic(&group)), Ok(()));
        assert_eq!(group_of_retry_topic(&retry_topic(&group)), Some(&*group));
        assert_eq!(group_of_retry_topic(&group), None);
    }

    #[test]
    fn some_system_topics_are_not_for_clients() {
        assert!(is_system_everywhere("rmq_sys_anything") && is_system_everywhere(BENCHMARK));
        assert!(!is_system_everywhere("RMQ_SYS_anything") && !is_system_everywhere("Tea"));
        assert!(
            may_clients_send("Tea") && may_clients_send(BENCHMARK) && may_clients_send(AUTO_CREATE_TEMPLATE)
        );
        assert!(!may_clients_send(SCHEDULE) && !may_clients_send(SELF_TEST));
    }
}
