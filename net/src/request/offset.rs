use crate::header::ExtWriter;

use super::Field;

headers! {
    /// QUERY_CONSUMER_OFFSET (14): how far a group has got in a queue.
    QueryConsumerOffsetRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// Absent means true.
        set_zero_if_not_found: bool = "setZeroIfNotFound" else true,
    }

    QueryConsumerOffsetReply {
        offset: i64 = "offset",
    }

    /// UPDATE_CONSUMER_OFFSET (15): oneway from clients, answered to tools.
    UpdateConsumerOffsetRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// May go backwards.
        commit_offset: i64 = "commitOffset",
    }

    /// GET_MAX_OFFSET (30): one past a queue's last message.
    GetMaxOffsetRequest<'a> {
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        committed: bool = "committed" else true,
    }

    GetMaxOffsetReply {
        offset: i64 = "offset",
    }

    /// GET_MIN_OFFSET (31): a queue's first message.
    GetMinOffsetRequest<'a> {
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
    }

    GetMinOffsetReply {
        offset: i64 = "offset",
    }

    /// SEARCH_OFFSET_BY_TIMESTAMP (29), by store time.
    SearchOffsetRequest<'a> {
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        timestamp: i64 = "timestamp",
        boundary: Boundary = "boundaryType" else Boundary::Lower,
    }

    SearchOffsetReply {
        offset: i64 = "offset",
    }

    /// GET_EARLIEST_MSG_STORETIME (32).
    GetEarliestMsgStoretimeRequest<'a> {
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
    }

    GetEarliestMsgStoretimeReply {
        /// In ms; −1 if there is no message.
        timestamp: i64 = "timestamp",
    }
}

/// Which of several messages around a time is meant (`BoundaryType`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Boundary {
    /// The first at or after the time.
    #[default]
    Lower,
    /// The last at or before the time.
    Upper,
}

impl Field<'_> for Boundary {
    const EXPECTED: &'static str = "LOWER or UPPER";

    /// `BoundaryType#getType`: UPPER in any case, everything else is LOWER.
    fn parse(text: &str) -> Option<Self> {
        Some(if text.eq_ignore_ascii_case("UPPER") { Self::Upper } else { Self::Lower })
    }

    fn write(&self, name: &str, fields: &mut ExtWriter<'_>) {
        fields.str(
            name,
            match self {
                Self::Lower => "LOWER",
                Self::Upper => "UPPER",
            },
        );
    }
}
