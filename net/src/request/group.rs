headers! {
    /// APOGEE_TRANSFER_LEADER (760002), to the leader: begins to hand over to another node. What becomes of it is seen by
    /// asking for the group's status.
    TransferLeaderRequest {
        /// 0: whoever has the most.
        node: i64 = "node",
    }

    /// APOGEE_CHANGE_MEMBERS (760003), to the leader: begins a change of the group's nodes. What becomes of it is seen by
    /// asking for the group's status.
    ChangeMembersRequest<'a> {
        /// `ADD_LEARNER`, `PROMOTE`, `REMOVE` or `REPLACE`.
        change: &'a str = "change",
        node: i64 = "node",
        /// Of a new node: where the shard's other replicas reach it.
        address: Option<&'a str> = "address",
        /// The learner that replaces `node`.
        by: Option<i64> = "by",
    }
}
