//! Names of the topics that popped messages come again from (`KeyBuilder`): one for each group and topic.

use apogee_net::message::{RETRY_PREFIX, RetryKind};

const SEPARATOR_V1: char = '_';
const SEPARATOR_V2: char = '+';

/// The pop retry topic of a group and topic; the topic itself for [`RetryKind::Normal`].
pub(in crate::shard) fn pop_retry_topic(kind: RetryKind, group: &str, topic: &str) -> String {
    match kind {
        RetryKind::Normal => topic.to_owned(),
        RetryKind::V1 => format!("{RETRY_PREFIX}{group}{SEPARATOR_V1}{topic}"),
        RetryKind::V2 => format!("{RETRY_PREFIX}{group}{SEPARATOR_V2}{topic}"),
    }
}

/// The topic whose messages come again in `topic`; `topic` itself if it is no pop retry topic of the group.
pub(in crate::shard) fn normal_topic<'a>(topic: &'a str, group: &str) -> &'a str {
    let behind_group = topic.strip_prefix(RETRY_PREFIX).and_then(|rest| rest.strip_prefix(group));
    behind_group.and_then(|rest| rest.strip_prefix([SEPARATOR_V1, SEPARATOR_V2])).unwrap_or(topic)
}

/// As clients tell it from a name alone (`ExtraInfoUtil#getRetry`).
pub(in crate::shard) fn retry_kind(topic: &str) -> RetryKind {
    match topic.strip_prefix(RETRY_PREFIX) {
        Some(rest) if rest.contains(SEPARATOR_V2) => RetryKind::V2,
        Some(_) => RetryKind::V1,
        None => RetryKind::Normal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_there_and_back() {
        for (kind, name) in [
            (RetryKind::Normal, "Tea_time"),
            (RetryKind::V1, "%RETRY%C_G_Tea_time"),
            (RetryKind::V2, "%RETRY%C_G+Tea_time"),
        ] {
            assert_eq!(pop_retry_topic(kind, "C_G", "Tea_time"), name);
            assert_eq!(normal_topic(name, "C_G"), "Tea_time");
            assert_eq!(retry_kind(name), kind);
        }
        assert_eq!(normal_topic("%RETRY%C_G", "C_G"), "%RETRY%C_G");
    }
}
