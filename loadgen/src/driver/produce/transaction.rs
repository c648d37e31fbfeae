//! The second phase of transactions: commit or rollback, at once or when the broker asks.
//!
//! Source: `DefaultMQProducerImpl.sendMessageInTransaction`, `endTransaction`, `checkTransactionState`.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use apogee_net::client::{OnRequest, RemotingClient, ReplyFrame};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::flags::MessageSysFlag;
use apogee_net::frame::RawFrame;
use apogee_net::header::Header;
use apogee_net::message::{OffsetMessageId, StoredMessage};
use apogee_net::request::{
    CheckTransactionStateRequest, EndTransactionRequest, SendMessageReply, TypedHeader,
};

use super::Publisher;
use crate::content::{Content, Fate};
use crate::driver::link::Link;
use crate::failure::Failure;
use crate::payload::{self, Stamp};
use crate::scenario::Kind;

impl Publisher {
    /// The half message is stored: its transaction ends as its fate wants it.
    pub(super) fn end_transaction(
        &self,
        client: &RemotingClient,
        stamp: &Stamp,
        half: &ReplyFrame,
        unique_key: &str,
    ) {
        let state = match self.content.fate(stamp.sequence) {
            Fate::Commit => MessageSysFlag::TRANSACTION_COMMIT,
            Fate::Rollback => MessageSysFlag::TRANSACTION_ROLLBACK,
            Fate::CommitWhenAsked => return,
        };
        let stream = stamp.stream;
        let failed = |failure, remark: Option<&str>| {
            self.books.tally.borrow_mut().on_publish_failed(stream, self.books.now(), failure, remark);
        };
        let header = half.header();
        let reply = match SendMessageReply::decode(&header.ext) {
            Ok(reply) => reply,
            Err(error) => return failed(Failure::Malformed, Some(&error.to_string())),
        };
        let id = match OffsetMessageId::parse(&reply.msg_id) {
            Ok(id) => id,
            Err(error) => return failed(Failure::Malformed, Some(&error.to_string())),
        };
        let request = EndTransactionRequest {
            producer_group: &self.group,
            tran_state_table_offset: reply.queue_offset,
            commit_log_offset: id.physical_offset,
            commit_or_rollback: state.0,
            from_check: false,
            msg_id: unique_key,
            transaction_id: reply.transaction_id.as_deref(),
        };
        if !matches!(self.kind, Kind::Transactional { reply: true, .. }) {
            if let Err(error) = client.oneway(RequestCode::END_TRANSACTION, &request, []) {
                failed(error.into(), None);
            }
            return;
        }
        let books = self.books.clone();
        client.start(RequestCode::END_TRANSACTION, &request, [], self.timeout, move |result| {
            let mut tally = books.tally.borrow_mut();
            match result {
                Ok(reply) if reply.code() == ResponseCode::SUCCESS => {}
                Ok(reply) => {
                    let remark = reply.header().remark.map(String::from);
                    let failure = Failure::Answered(reply.code());
                    tally.on_publish_failed(stream, books.now(), failure, remark.as_deref());
                }
                Err(error) => tally.on_publish_failed(stream, books.now(), error.into(), None),
            }
        });
    }
}

/// Answers a broker that asks what became of a half message, over the connection on which it asks.
pub(in crate::driver) struct Answerer {
    content: Arc<Content>,
    group: Rc<str>,
    link: RefCell<Weak<Link>>,
}

impl Answerer {
    pub(in crate::driver) fn new(content: Arc<Content>, group: Rc<str>) -> Rc<Answerer> {
        Rc::new(Answerer { content, group, link: RefCell::default() })
    }

    /// What a connection does with the broker's own requests.
    pub(in crate::driver) fn on_request(self: &Rc<Self>) -> OnRequest {
        let this = self.clone();
        Rc::new(move |frame| this.answer(&frame))
    }

    /// The connection to answer over, known once it is there.
    pub(in crate::driver) fn answer_over(&self, link: &Rc<Link>) {
        *self.link.borrow_mut() = Rc::downgrade(link);
    }

    fn answer(&self, frame: &RawFrame) {
        let Ok(header) = Header::decode(frame.encoding, &frame.header) else { return };
        if RequestCode(header.code) != RequestCode::CHECK_TRANSACTION_STATE {
            return;
        }
        let Ok(question) = CheckTransactionStateRequest::decode(&header.ext) else { return };
        let Some(client) = self.link.borrow().upgrade().and_then(|link| link.client()) else { return };
        let state = match fate_of(&self.content, &frame.body) {
            Some(Fate::Commit | Fate::CommitWhenAsked) => MessageSysFlag::TRANSACTION_COMMIT,
            Some(Fate::Rollback) => MessageSysFlag::TRANSACTION_ROLLBACK,
            // Not of this run, though of its group: nothing is known.
            None => MessageSysFlag(0),
        };
        let request = EndTransactionRequest {
            producer_group: &self.group,
            tran_state_table_offset: question.tran_state_table_offset,
            commit_log_offset: question.commit_log_offset,
            commit_or_rollback: state.0,
            from_check: true,
            msg_id: question.msg_id.as_deref().unwrap_or_default(),
            transaction_id: question.transaction_id.as_deref(),
        };
        if let Err(error) = client.oneway(RequestCode::END_TRANSACTION, &request, []) {
            tracing::warn!(%error, "the broker's question about a transaction was not answered; it will ask again");
        }
    }
}

fn fate_of(content: &Content, message: &[u8]) -> Option<Fate> {
    let message = StoredMessage::decode(message).ok()?;
    let stamp = payload::read(content.run(), message.body).ok()?;
    Some(content.fate(stamp.sequence))
}
