//! A group of nodes, as one of its nodes sees it. Apogee's own; in the form of RocketMQ's bodies.

use super::fastjson::{body, body_enum};

body_enum! {
    /// What a node is in its group just now.
    pub enum GroupRole {
        /// Follower, learner or candidate.
        Follower = "FOLLOWER",
        /// Elected, and does not know yet all that was committed before: clients do not see it as master.
        BecomingLeader = "BECOMING_LEADER",
        Leader = "LEADER",
        /// It met a state that cannot be, and takes part in nothing any more.
        Stopped = "STOPPED",
    }
}

body! {
    /// Reply to APOGEE_GROUP_STATUS (760001).
    ///
    /// Indexes count batches of the log.
    #[derive(Eq)]
    pub struct GroupStatus {
        "brokerName" => broker_name: String,
        /// A change of the group's nodes that is not done, in words.
        "changing" => changing: Option<String>,
        "clusterName" => cluster_name: String,
        "committedIndex" => committed_index: i64,
        /// What is wrong with the node's disk, if anything is.
        "diskTrouble" => disk_trouble: Option<String>,
        "firstIndex" => first_index: i64,
        "lastIndex" => last_index: i64,
        "leader" => leader: Option<i64>,
        /// What is left of the time in which nobody else can lead, in milliseconds.
        "leaseMs" => lease_ms: i64,
        "node" => node: i64,
        /// All nodes of the group, this one among them if it belongs to it.
        "nodes" => nodes: Vec<GroupNode>,
        "persistedIndex" => persisted_index: i64,
        /// The node that is to lead this shard.
        "preferred" => preferred: Option<i64>,
        /// It lost data and is catching up: it neither votes nor leads until then.
        "recovering" => recovering: bool,
        "role" => role: GroupRole,
        "shard" => shard: i64,
        /// How many shards every node of the group has.
        "shards" => shards: i64,
        "term" => term: i64,
        "uncommittedBytes" => uncommitted_bytes: i64,
        /// Why the node leads or does not, in words.
        "why" => why: String,
    }
}

body! {
    /// A node of the group; what only the leader knows is missing in the answers of others.
    #[derive(Eq)]
    pub struct GroupNode {
        /// Where its replica of the shard listens for other nodes, `ip:port`; the port below is for clients.
        "address" => address: String,
        "committedIndex" => committed_index: Option<i64>,
        "connected" => connected: bool,
        "heardMsAgo" => heard_ms_ago: Option<i64>,
        "inFlightBytes" => in_flight_bytes: i64,
        "lagBatches" => lag_batches: Option<i64>,
        "matchedIndex" => matched_index: Option<i64>,
        /// "voter", "learner", or what it is on the way to.
        "member" => member: String,
        "node" => node: i64,
        "recovering" => recovering: bool,
        "why" => why: String,
    }
}
