use std::cell::{Cell, RefCell};
use std::time::Duration;

use apogee_net::client::{CallError, ReplyFrame};
use apogee_net::code::ResponseCode;
use apogee_net::io::Signal;

use crate::clock::{RunClock, RunTime};
use crate::failure::Failure;
use crate::payload::Stamp;
use crate::tally::Tally;

/// What the producers and consumers of one thread write into.
pub(super) struct Books {
    pub(super) tally: RefCell<Tally>,
    /// `None` until the run begins: then it is still at its start.
    clock: Cell<Option<RunClock>>,
    /// Raised when something arrived: a draining thread looks again.
    pub(super) changed: Signal,
}

impl Books {
    pub(super) fn new(tally: Tally) -> Books {
        Books { tally: RefCell::new(tally), clock: Cell::default(), changed: Signal::default() }
    }

    /// The run begins, or will begin soon: the clock is known.
    pub(super) fn begin(&self, clock: RunClock) {
        self.clock.set(Some(clock));
    }

    pub(super) fn now(&self) -> RunTime {
        self.clock.get().map_or(RunTime::START, |clock| clock.now())
    }

    pub(super) fn until_start(&self) -> Duration {
        self.clock.get().map_or(Duration::ZERO, |clock| clock.until_start())
    }

    /// The fate of messages published by one request.
    pub(super) fn on_publish_replies(&self, stamps: &[Stamp], result: &Result<ReplyFrame, CallError>) {
        let now = self.now();
        let mut tally = self.tally.borrow_mut();
        for stamp in stamps {
            self.on_fate(&mut tally, stamp, result, now);
        }
        drop(tally);
        self.changed.raise();
    }

    /// The fate of a published message; says whether it is stored.
    pub(super) fn on_publish_reply(&self, stamp: &Stamp, result: &Result<ReplyFrame, CallError>) -> bool {
        let is_stored = self.on_fate(&mut self.tally.borrow_mut(), stamp, result, self.now());
        self.changed.raise();
        is_stored
    }

    fn on_fate(
        &self,
        tally: &mut Tally,
        stamp: &Stamp,
        result: &Result<ReplyFrame, CallError>,
        now: RunTime,
    ) -> bool {
        match result {
            Ok(reply) if reply.code() == ResponseCode::SUCCESS => tally.on_acked(stamp, now, None),
            Ok(reply) => {
                let failure = Failure::Answered(reply.code());
                let header = reply.header();
                let remark = header.remark.as_deref().unwrap_or_default();
                if !failure.is_stored() {
                    tally.on_failed(stamp, now, failure, Some(remark));
                    return false;
                }
                tally.on_acked(stamp, now, Some((failure, remark)));
            }
            Err(error) => {
                tally.on_failed(stamp, now, (*error).into(), None);
                return false;
            }
        }
        true
    }
}
