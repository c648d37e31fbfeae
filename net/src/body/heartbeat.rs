//! What clients tell every broker about themselves every 30 seconds.

use super::fastjson::{body, body_enum};
use crate::message::tag_hash;

body! {
    /// HEART_BEAT (34): the producer and consumer groups of one client.
    ///
    /// Java, Go and C++ write it differently; all forms read as this one.
    pub struct HeartbeatData {
        "clientID" => client_id: String,
        "consumerDataSet" => consumer_data_set: Vec<ConsumerData>,
        /// Not 0: heartbeat of the second form, see `without_sub`.
        "heartbeatFingerprint" => heartbeat_fingerprint: i32,
        "producerDataSet" => producer_data_set: Vec<ProducerData>,
        /// The subscriptions were left out because this broker has confirmed the fingerprint.
        "withoutSub" => without_sub: bool,
    }
}

body! {
    #[derive(Eq)]
    pub struct ProducerData {
        "groupName" => group_name: String,
    }
}

body! {
    pub struct ConsumerData {
        "consumeFromWhere" => consume_from_where: ConsumeFromWhere,
        "consumeType" => consume_type: ConsumeType,
        "groupName" => group_name: String,
        "messageModel" => message_model: MessageModel = MessageModel::Clustering,
        "subscriptionDataSet" => subscription_data_set: Vec<SubscriptionData>,
        "unitMode" => unit_mode: bool,
    }
}

body! {
    /// What a group wants of one topic.
    #[derive(Eq)]
    pub struct SubscriptionData {
        "classFilterMode" => class_filter_mode: bool,
        /// Hash of each tag. Computed here and never believed: C++ sends `atoi(tag)`, Go hashes bytes instead of
        /// UTF-16 units, neither of which is the tags code that brokers store.
        "codeSet" => code_set: Vec<i32>,
        /// `TAG`, `SQL92` or the name of a filter; C++ leaves it out and means tags.
        "expressionType" => expression_type: String = EXPRESSION_TYPE_TAG.to_owned(),
        /// The expression as its user wrote it: `*`, `TagA || TagB`, or SQL.
        "subString" => sub_string: String,
        /// The newer of two subscriptions has the larger one. Milliseconds since 1970, nanoseconds with Go.
        "subVersion" => sub_version: i64,
        "tagsSet" => tags_set: Vec<String>,
        "topic" => topic: String,
    }
    finished by SubscriptionData::compute_tags_and_codes
}

const EXPRESSION_TYPE_TAG: &str = "TAG";

impl SubscriptionData {
    /// A subscription of tags, parsed as `FilterAPI#buildSubscriptionData` does.
    pub fn of_tags(topic: &str, sub_string: &str, sub_version: i64) -> Self {
        let sub_string = if sub_string.is_empty() { "*" } else { sub_string };
        let mut subscription = Self {
            topic: topic.to_owned(),
            sub_string: sub_string.to_owned(),
            sub_version,
            ..Self::default()
        };
        subscription.compute_tags_and_codes();
        subscription
    }

    /// True if the expression is a list of tags rather than SQL or another filter's language.
    pub fn is_tag_expression(&self) -> bool {
        self.expression_type.is_empty() || self.expression_type == EXPRESSION_TYPE_TAG
    }

    fn compute_tags_and_codes(&mut self) {
        self.code_set.clear();
        if !self.is_tag_expression() {
            return;
        }
        if self.tags_set.is_empty() && self.sub_string != "*" {
            let tags = self.sub_string.split("||").map(str::trim).filter(|tag| !tag.is_empty());
            self.tags_set = tags.map(str::to_owned).collect();
        }
        self.code_set = self.tags_set.iter().map(|tag| tag_hash(tag)).collect();
    }
}

body_enum! {
    pub enum ConsumeType {
        /// Pull and lite pull consumers.
        Actively = "CONSUME_ACTIVELY",
        /// Push consumers.
        Passively = "CONSUME_PASSIVELY",
        Pop = "CONSUME_POP",
    }
}

body_enum! {
    pub enum MessageModel {
        /// Every client of the group receives every message.
        Broadcasting = "BROADCASTING",
        /// The clients of the group share the queues.
        Clustering = "CLUSTERING",
    }
}

body_enum! {
    /// Where a group without an offset begins.
    pub enum ConsumeFromWhere {
        LastOffset = "CONSUME_FROM_LAST_OFFSET",
        LastOffsetAndFromMinWhenBootFirst = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
        MinOffset = "CONSUME_FROM_MIN_OFFSET",
        MaxOffset = "CONSUME_FROM_MAX_OFFSET",
        FirstOffset = "CONSUME_FROM_FIRST_OFFSET",
        Timestamp = "CONSUME_FROM_TIMESTAMP",
    }
}
