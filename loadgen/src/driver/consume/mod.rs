//! Receives what was sent: readers of queues, each for one group.

mod pop;
mod pull;

use std::rc::Rc;
use std::time::Duration;

use apogee_net::client::RemotingClient;

use super::books::Books;
use super::link::Link;
use super::setup::SetupError;
use crate::assignment::QueueTarget;
use crate::content::Content;
use crate::scenario::{By, Consumer, Scenario};
use crate::schedule::StreamId;

use self::pop::PopReader;
use self::pull::PullReader;

/// How long a queue must have given nothing before it is taken as read to its end, where positions do not tell:
/// messages that a filter holds back stay between the reader and the end.
pub(super) const QUIET: Duration = Duration::from_millis(300);

/// One group of the run, as its readers see it.
pub(super) struct Subscription {
    /// Index into the run's groups.
    pub(super) group: usize,
    pub(super) name: String,
    pub(super) consumer: Consumer,
}

impl Subscription {
    /// The groups of the scenario.
    pub(super) fn all(content: &Content, scenario: &Scenario) -> Vec<Rc<Subscription>> {
        let groups = content.groups().iter().enumerate();
        groups
            .map(|(at, group)| {
                let (name, consumer) = (group.name.clone(), scenario.consumers[group.consumer].clone());
                Rc::new(Subscription { group: at, name, consumer })
            })
            .collect()
    }

    /// The filter and the name of its language.
    fn expression(&self) -> (&str, &'static str) {
        self.consumer.filter.as_ref().map_or(("*", "TAG"), |filter| filter.expression())
    }
}

/// The queue that a reader reads.
pub(super) struct Queue {
    pub(super) target: QueueTarget,
    pub(super) topic: Rc<str>,
    pub(super) broker: Rc<str>,
    pub(super) link: Rc<Link>,
}

impl Queue {
    /// The connection during the setup, where it must not be broken.
    fn client(&self) -> Result<Rc<RemotingClient>, SetupError> {
        self.link.client().ok_or_else(|| self.unreachable("the connection broke".to_owned()))
    }

    fn unreachable(&self, reason: String) -> SetupError {
        let (name, address) = (self.broker.to_string(), self.link.address().to_string());
        SetupError::BrokerUnreachable { name, address, reason }
    }
}

/// Whatever reads one queue for one group.
#[derive(Clone)]
pub(super) enum Reader {
    Pull(Rc<PullReader>),
    Pop(Rc<PopReader>),
}

impl Reader {
    /// Finds out where to begin: at the end that the queue has now.
    pub(super) async fn open(queue: Queue, subscription: Rc<Subscription>) -> Result<Reader, SetupError> {
        Ok(match subscription.consumer.by {
            By::Pull => Reader::Pull(PullReader::open(queue, subscription).await?),
            By::Pop => Reader::Pop(PopReader::open(queue, subscription).await?),
        })
    }

    /// Tasks that read for ever, to be dropped when the run is over.
    pub(super) fn start(&self, books: &Rc<Books>) -> Vec<glommio::Task<()>> {
        let books = books.clone();
        match self {
            Reader::Pull(reader) => {
                let mut tasks = vec![glommio::spawn_local(reader.clone().follow(books.clone()))];
                if let Some(every) = reader.subscription.consumer.commit {
                    tasks.push(glommio::spawn_local(reader.clone().keep_committed(books, every)));
                }
                tasks
            }
            Reader::Pop(reader) => vec![glommio::spawn_local(reader.clone().follow(books))],
        }
    }

    /// Whether only a silence tells that the queue is read to its end.
    pub(super) fn needs_quiet(&self) -> bool {
        match self {
            Reader::Pull(reader) => reader.subscription.consumer.filter.is_some(),
            Reader::Pop(_) => true,
        }
    }

    /// The silence begins now.
    pub(super) fn listen(&self) {
        match self {
            Reader::Pull(reader) => reader.listen(),
            Reader::Pop(reader) => reader.listen(),
        }
    }

    /// Asks where the queue ends now, or, after a silence, whether it was one; says whether there is an answer.
    pub(super) async fn find_end(&self) -> bool {
        match self {
            Reader::Pull(reader) => reader.find_end().await,
            Reader::Pop(reader) => reader.find_end(),
        }
    }

    /// Whether the queue has been read to the end that was found; `None` if none was.
    pub(super) fn is_behind(&self) -> Option<bool> {
        match self {
            Reader::Pull(reader) => reader.is_behind(),
            Reader::Pop(reader) => reader.is_behind(),
        }
    }

    pub(super) fn group(&self) -> usize {
        match self {
            Reader::Pull(reader) => reader.subscription.group,
            Reader::Pop(reader) => reader.subscription.group,
        }
    }

    pub(super) fn stream(&self) -> StreamId {
        match self {
            Reader::Pull(reader) => reader.queue.target.stream,
            Reader::Pop(reader) => reader.queue.target.stream,
        }
    }
}
