//! Answers that take longer to make than one turn of the shard may last.
//!
//! What is asked about ten thousand groups is looked up and written in steps of some [`STEP_UNITS`] units, one step a
//! turn, with everybody else's requests in between. Such an answer is no picture of one moment: what changes while
//! it is made stands in it before or after the change. RocketMQ's are not either, it goes through tables that others
//! change meanwhile.

use std::collections::VecDeque;
use std::fmt;

use apogee_net::body::BodyInPieces;
use apogee_net::code::ResponseCode;
use apogee_net::io::ConnectionId;
use apogee_storage::Buffer;

use super::handlers::{Answer, Handled, Unanswered};
use super::load::LoadError;
use super::refusal::Refusal;
use super::state::Shard;
use crate::service::{Reply, ReplyTo, Request};

/// Units of one step: a queue looked up, a member or an offset written, each about a microsecond.
pub(super) const STEP_UNITS: usize = 256;

/// Answers that are being made at once; one more is refused as busy.
pub const LONG_ANSWERS_MAX: usize = 64;

/// Longest body; more is refused, for clients take no frames above 16 MiB.
pub const ANSWER_BYTES_MAX: usize = 12 * 1024 * 1024;

/// Times that one answer waits for index pages.
const PAGE_LOADS_MAX: u32 = 65_536;

/// What a step comes to.
pub(super) enum Progress {
    More,
    Done(Reply),
    /// Somebody else answers: a change that is being logged.
    Elsewhere,
}

/// Makes the next part. With a fault it is called again once the pages are there, so it must have changed nothing since
/// the last part that it finished.
pub(super) type Step<B> = Box<dyn FnMut(&mut Shard<B>, i64) -> Result<Progress, Unanswered>>;

struct LongAnswer<B> {
    to: Option<ReplyTo>,
    connection: ConnectionId,
    step: Step<B>,
    page_loads: u32,
}

/// Answers that are not complete.
pub(super) struct LongAnswers<B> {
    /// The next step of each, in turn.
    waiting: VecDeque<LongAnswer<B>>,
    /// Those that wait for pages too.
    count: usize,
}

impl<B> Default for LongAnswers<B> {
    fn default() -> Self {
        LongAnswers { waiting: VecDeque::new(), count: 0 }
    }
}

impl<B> fmt::Debug for LongAnswers<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LongAnswers({})", self.count)
    }
}

impl<B> LongAnswers<B> {
    pub(super) fn has_work(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Nobody is left to answer.
    pub(super) fn on_connection_closed(&mut self, connection: ConnectionId) {
        let before = self.waiting.len();
        self.waiting.retain(|answer| answer.connection != connection);
        self.count -= before - self.waiting.len();
    }
}

impl<B: Buffer + 'static> Shard<B> {
    /// Answers a request by as many steps as it takes, the first at once.
    pub(super) fn answer_in_steps(&mut self, request: &Request<'_>, step: Step<B>, now_ms: i64) -> Handled {
        if self.long_answers.count >= LONG_ANSWERS_MAX {
            let remark = format!("{LONG_ANSWERS_MAX} long answers are being made already");
            return Err(Refusal::new(ResponseCode::SYSTEM_BUSY, remark).into());
        }
        self.long_answers.count += 1;
        let (to, connection) = (request.reply_to(), request.connection);
        self.take_step(LongAnswer { to, connection, step, page_loads: 0 }, now_ms);
        Ok(Answer::Later)
    }

    /// One step of the answer whose turn it is.
    pub(super) fn continue_long_answers(&mut self, now_ms: i64) {
        if let Some(answer) = self.long_answers.waiting.pop_front() {
            self.take_step(answer, now_ms);
        }
    }

    fn take_step(&mut self, mut answer: LongAnswer<B>, now_ms: i64) {
        let reply = match (answer.step)(self, now_ms) {
            Ok(Progress::More) => return self.long_answers.waiting.push_back(answer),
            Ok(Progress::Done(reply)) => Some(reply),
            Ok(Progress::Elsewhere) => None,
            Err(Unanswered::Refused(refusal)) => Some(refusal.into()),
            Err(Unanswered::Fault(_)) if answer.page_loads >= PAGE_LOADS_MAX => {
                Some(pages_missing(&LoadError::TooLittleMemory).into())
            }
            Err(Unanswered::Fault(fault)) => {
                answer.page_loads += 1;
                let again = move |shard: &mut Self, loaded: Result<_, LoadError>, now_ms| match loaded {
                    Ok(_) => shard.take_step(answer, now_ms),
                    Err(error) => shard.finish(answer.to, Some(pages_missing(&error).into())),
                };
                return self.load_pages(fault, now_ms, Box::new(again));
            }
        };
        self.finish(answer.to, reply);
    }

    fn finish(&mut self, to: Option<ReplyTo>, reply: Option<Reply>) {
        self.long_answers.count -= 1;
        if let Some(reply) = reply {
            self.reply(to, reply);
        }
    }
}

fn pages_missing(error: &LoadError) -> Refusal {
    Refusal::new(ResponseCode::SYSTEM_BUSY, format!("cannot look into the index: {error}"))
}

/// A body that is complete, if it is not too long to be sent.
pub(super) fn done(body: BodyInPieces) -> Result<Progress, Unanswered> {
    check_len(&body)?;
    let reply = body.into_pieces().into_iter().fold(Reply::success(), Reply::with_body);
    Ok(Progress::Done(reply))
}

/// A body of two parts, of which the first could be written last only.
pub(super) fn done_behind(head: BodyInPieces, body: BodyInPieces) -> Result<Progress, Unanswered> {
    check_len(&body)?;
    let pieces = head.into_pieces().into_iter().chain(body.into_pieces());
    Ok(Progress::Done(pieces.fold(Reply::success(), Reply::with_body)))
}

/// A body of which more follows, if it is not too long already.
pub(super) fn more(body: &BodyInPieces) -> Result<Progress, Unanswered> {
    check_len(body)?;
    Ok(Progress::More)
}

fn check_len(body: &BodyInPieces) -> Result<(), Refusal> {
    if body.len() > ANSWER_BYTES_MAX {
        let remark = format!("the answer is longer than {ANSWER_BYTES_MAX} bytes; ask for less at once");
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    }
    Ok(())
}
