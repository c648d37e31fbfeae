use std::cell::RefCell;

use apogee_net::client::{CallError, ReplyFrame};
use apogee_net::code::ResponseCode;
use apogee_net::io::Signal;

use crate::clock::RunClock;
use crate::failure::Failure;
use crate::payload::Stamp;
use crate::tally::Tally;

/// What the producers and consumers of one thread write into.
pub(super) struct Books {
    pub(super) tally: RefCell<Tally>,
    pub(super) clock: RunClock,
    /// Raised when something arrived: a draining thread looks again.
    pub(super) changed: Signal,
}

impl Books {
    /// The fate of a published message.
    pub(super) fn on_publish_reply(&self, stamp: &Stamp, result: Result<ReplyFrame, CallError>) {
        let now = self.clock.now();
        let mut tally = self.tally.borrow_mut();
        match result {
            Ok(reply) if reply.code() == ResponseCode::SUCCESS => tally.on_acked(stamp, now, None),
            Ok(reply) => {
                let failure = Failure::Answered(reply.code());
                let header = reply.header();
                let remark = header.remark.as_deref().unwrap_or_default();
                if failure.is_stored() {
                    tally.on_acked(stamp, now, Some((failure, remark)));
                } else {
                    tally.on_failed(stamp, now, failure, Some(remark));
                }
            }
            Err(error) => tally.on_failed(stamp, now, error.into(), None),
        }
        drop(tally);
        self.changed.raise();
    }
}
