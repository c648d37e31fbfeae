//! Lists of names.

use super::fastjson::body;

body! {
    /// Reply to the topic list requests (206, 224, 304, 305, 311 to 313, 343).
    #[derive(Eq)]
    pub struct TopicList {
        /// Only in the system topic lists: a broker that can be asked for its own.
        "brokerAddr" => broker_addr: Option<String>,
        "topicList" => topic_list: Vec<String>,
    }
}

body! {
    /// Reply to QUERY_TOPIC_CONSUME_BY_WHO (300).
    #[derive(Eq)]
    pub struct GroupList {
        "groupList" => group_list: Vec<String>,
    }
}
