//! END_TRANSACTION (37), RESUME_CHECK_HALF_MESSAGE (323): what becomes of half messages.
//!
//! The checks and their order are those of `EndTransactionProcessor` and `AdminBrokerProcessor#resumeCheckHalfMessage`.

use apogee_net::code::ResponseCode;
use apogee_net::flags::MessageSysFlag;
use apogee_net::message::{OffsetMessageId, PropertyEdit, StoredMessage, property};
use apogee_net::request::{EndTransactionRequest, ResumeCheckHalfMessageRequest, TypedHeader};
use apogee_storage::{Buffer, LogOffset, QueueOffset};
use bytes::Bytes;

use super::{Answer, Handled};
use crate::service::{Reply, ReplyTo, Request};
use crate::shard::commit::Then;
use crate::shard::load::{LoadError, Wanted};
use crate::shard::record::NewMessage;
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;
use crate::shard::topics;
use crate::shard::transactions::{Outcome, immunity_ms, real_place};

pub(super) fn end<B: Buffer + 'static>(shard: &mut Shard<B>, request: &Request<'_>, now_ms: i64) -> Handled {
    let end = EndTransactionRequest::decode(&request.header.ext)?;
    let outcome = match MessageSysFlag(end.commit_or_rollback) {
        MessageSysFlag::TRANSACTION_COMMIT => Outcome::Committed,
        MessageSysFlag::TRANSACTION_ROLLBACK => Outcome::RolledBack,
        // The producer does not know yet: a check will ask again. Nobody is answered, as in RocketMQ.
        MessageSysFlag(0) => return Ok(Answer::Later),
        _ => return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, "commitOrRollback field wrong").into()),
    };
    let verdict = Verdict {
        outcome,
        producer_group: end.producer_group.to_owned(),
        half_offset: end.tran_state_table_offset,
        log_offset: end.commit_log_offset,
        from_check: end.from_check,
    };
    let at = u64::try_from(end.commit_log_offset).map_err(|_| Refusal::half_not_found())?;
    let to = request.reply_to();
    let on_loaded = move |shard: &mut Shard<B>, loaded: Result<Bytes, LoadError>, now_ms: i64| {
        if let Err(refusal) = shard.take_verdict(&verdict, loaded, to, now_ms) {
            shard.reply(to, refusal.into());
        }
    };
    shard.load(Wanted::At(LogOffset(at)), now_ms, Box::new(on_loaded));
    Ok(Answer::Later)
}

pub(super) fn resume<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let resume = ResumeCheckHalfMessageRequest::decode(&request.header.ext)?;
    let id = resume.msg_id.and_then(|id| OffsetMessageId::parse(id).ok());
    let at = id.and_then(|id| u64::try_from(id.physical_offset).ok()).ok_or_else(Refusal::not_resumed)?;
    let to = request.reply_to();
    let on_loaded = move |shard: &mut Shard<B>, loaded: Result<Bytes, LoadError>, now_ms: i64| {
        if let Err(refusal) = shard.resume_checks(loaded, to, now_ms) {
            shard.reply(to, refusal.into());
        }
    };
    shard.load(Wanted::At(LogOffset(at)), now_ms, Box::new(on_loaded));
    Ok(Answer::Later)
}

/// What a producer says of a half message.
struct Verdict {
    outcome: Outcome,
    producer_group: String,
    half_offset: i64,
    log_offset: i64,
    from_check: bool,
}

impl<B: Buffer + 'static> Shard<B> {
    fn take_verdict(
        &mut self,
        verdict: &Verdict,
        loaded: Result<Bytes, LoadError>,
        to: Option<ReplyTo>,
        now_ms: i64,
    ) -> Result<(), Refusal> {
        let bytes = loaded.map_err(|_| Refusal::half_not_found())?;
        let half = StoredMessage::decode(&bytes).map_err(|_| Refusal::half_not_found())?;
        if half.topic != topics::HALF || half.queue_id != 0 {
            return Err(Refusal::half_not_found());
        }
        let timeout_ms = i64::from(self.settings.transaction_timeout_ms);
        let wrong = |remark: &'static str| Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
        let immunity = half.properties.get(property::CHECK_IMMUNITY_SEC);
        if let Some(immunity) = immunity.filter(|_| !verdict.from_check)
            && now_ms.saturating_sub(half.born_timestamp) > immunity_ms(immunity, timeout_ms).max(timeout_ms)
        {
            let remark = "the time in which no check comes is over: the verdict must follow one";
            return Err(Refusal::new(ResponseCode::ILLEGAL_OPERATION, remark));
        }
        if half.properties.get(property::PRODUCER_GROUP) != Some(&verdict.producer_group) {
            return wrong("The producer group wrong");
        }
        if half.queue_offset != verdict.half_offset {
            return wrong("The transaction state table offset wrong");
        }
        if half.physical_offset != verdict.log_offset {
            return wrong("The commit log offset wrong");
        }
        let pending = self.transactions.open(QueueOffset(half.queue_offset as u64));
        let pending = pending.ok_or_else(Refusal::half_not_found)?;
        self.end_transaction(pending, &bytes, verdict.outcome, to, now_ms)
    }

    /// Makes a half message of one that was given up.
    fn resume_checks(
        &mut self,
        loaded: Result<Bytes, LoadError>,
        to: Option<ReplyTo>,
        now_ms: i64,
    ) -> Result<(), Refusal> {
        let bytes = loaded.map_err(|_| Refusal::not_resumed())?;
        let given_up = StoredMessage::decode(&bytes).map_err(|_| Refusal::not_resumed())?;
        // RocketMQ takes any message. One that is pending, or was never half, would then be consumed twice.
        if given_up.topic != topics::CHECKED_TOO_OFTEN || real_place(&given_up).is_none() {
            return Err(Refusal::not_resumed());
        }
        self.check_transactions_flow()?;
        let queue = self.half_queue();
        let properties = PropertyEdit {
            received: given_up.properties.0,
            set: &[(property::TRANSACTION_CHECK_TIMES, "0")],
            remove: &[],
        };
        let (body, place) = (bytes.slice_ref(given_up.body), (topics::HALF, 0));
        let message = NewMessage::copy_of(&given_up, body, self.config.address, place, properties);
        let append = message.into_append(queue)?;
        let begun = self.begun(queue, given_up.properties, now_ms);
        self.stage_with([append], vec![begun], Then::Reply(to, Reply::success()), now_ms)
    }
}
