use std::borrow::Cow;

headers! {
    /// END_TRANSACTION (37): what became of a half message. Oneway from clients.
    EndTransactionRequest<'a> {
        producer_group: &'a str = "producerGroup",
        /// Of the half message, in the half queue.
        tran_state_table_offset: i64 = "tranStateTableOffset",
        /// Of the half message.
        commit_log_offset: i64 = "commitLogOffset",
        /// A transaction value of `MessageSysFlag`: commit, rollback, or none for "not known yet".
        commit_or_rollback: i32 = "commitOrRollback",
        /// The answer to a CHECK_TRANSACTION_STATE.
        from_check: bool = "fromTransactionCheck" else false,
        /// The message's unique key.
        msg_id: &'a str = "msgId",
        transaction_id: Option<&'a str> = "transactionId",
    }

    /// CHECK_TRANSACTION_STATE (39), broker to producer, oneway: what became of this half message? The body is the
    /// message, under its real topic and queue.
    CheckTransactionStateRequest<'a> {
        topic: Cow<'a, str> = "topic",
        tran_state_table_offset: i64 = "tranStateTableOffset",
        commit_log_offset: i64 = "commitLogOffset",
        /// The message's unique key.
        msg_id: Option<Cow<'a, str>> = "msgId",
        /// The same.
        transaction_id: Option<Cow<'a, str>> = "transactionId",
        offset_msg_id: Option<Cow<'a, str>> = "offsetMsgId",
        broker_name: Option<Cow<'a, str>> = "bname",
    }

    /// RESUME_CHECK_HALF_MESSAGE (323): a half message that was checked too often is pending once more.
    ResumeCheckHalfMessageRequest<'a> {
        topic: Option<&'a str> = "topic",
        /// Offset message id of the message in the topic of those checked too often.
        msg_id: Option<&'a str> = "msgId",
    }
}
