//! What was promised to clients, and whether it was kept. Everything here is told by clients only, so that it holds for
//! any broker; `world.rs` adds what only the inside of a broker shows.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use apogee_net::message::RETRY_PREFIX;

use super::audit::Audit;
use super::executor::{Sim, Us};

/// Names one message that a producer wanted to send, whatever became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MessageId(pub(super) u64);

/// A queue of a topic at one broker name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Queue {
    pub(super) topic: String,
    pub(super) broker: String,
    pub(super) id: i32,
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.broker, self.id)
    }
}

/// What kind of promise an acknowledgement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    /// In a series of its own: each is sent when the one before it was acknowledged.
    InOrder {
        series: u64,
        number: u64,
    },
    /// Not to be seen before.
    Delayed {
        not_before: Us,
    },
    /// Half: what the producer has decided, once it has.
    Half(Option<Verdict>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Commit,
    Rollback,
}

#[derive(Debug)]
struct Entry {
    topic: String,
    kind: Kind,
    acknowledged: bool,
    /// How often each group got it.
    delivered: BTreeMap<String, u64>,
}

#[derive(Default)]
struct Books {
    next: u64,
    messages: BTreeMap<MessageId, Entry>,
    /// What stands where, as soon as anybody was told.
    places: BTreeMap<(Queue, u64), MessageId>,
    /// One past the last place of each queue that anybody was told of.
    tails: BTreeMap<Queue, u64>,
    /// Where the last message of each series stands.
    stored: BTreeMap<u64, (Queue, u64)>,
    /// Up to where each group got each series.
    series: BTreeMap<(String, u64), u64>,
    /// Groups that shall get all of a topic.
    groups: BTreeMap<String, BTreeSet<String>>,
    /// A consumer came too late for what it wanted next.
    has_gaps: bool,
    acknowledged: u64,
    delivered: u64,
    again: u64,
    /// Places of messages that were handed out and are done with, since when.
    done: BTreeMap<(Queue, u64), Us>,
    /// Messages that a consumer gave back to come again later.
    given_back: BTreeSet<MessageId>,
    failed: u64,
    /// Why sends failed, for people.
    whys: BTreeMap<String, u64>,
}

/// Clones are the same.
#[derive(Clone)]
pub(super) struct Ledger {
    sim: Sim,
    books: Rc<RefCell<Books>>,
    audit: Rc<Audit>,
    /// Retention may take messages that were not consumed.
    may_lose_old: bool,
}

impl Ledger {
    pub(super) fn new(sim: &Sim, audit: &Rc<Audit>, may_lose_old: bool) -> Ledger {
        Ledger { sim: sim.clone(), books: Rc::default(), audit: audit.clone(), may_lose_old }
    }

    /// `group` shall get every message of `topic`.
    pub(super) fn subscribe(&self, group: &str, topic: &str) {
        self.books.borrow_mut().groups.entry(topic.to_owned()).or_default().insert(group.to_owned());
    }

    /// A message that is about to be sent.
    pub(super) fn begin(&self, topic: &str, kind: Kind) -> MessageId {
        let books = &mut *self.books.borrow_mut();
        books.next += 1;
        let id = MessageId(books.next);
        let entry = Entry { topic: topic.to_owned(), kind, acknowledged: false, delivered: BTreeMap::new() };
        books.messages.insert(id, entry);
        id
    }

    /// The producer was told that the message is stored; where, if that is a place that consumers see.
    pub(super) fn acknowledged(&self, id: MessageId, place: Option<(Queue, u64)>, at: (&str, i64)) {
        self.sim.note(id.0);
        self.audit.is_acknowledged(at.0, at.1, id);
        {
            let books = &mut *self.books.borrow_mut();
            books.acknowledged += 1;
            let entry = books.messages.get_mut(&id).expect("it was begun");
            entry.acknowledged = true;
            if let (Kind::InOrder { series, .. }, Some(place)) = (entry.kind, &place) {
                let before = books.stored.insert(series, place.clone());
                let is_behind =
                    before.as_ref().is_none_or(|before| before.0 != place.0 || before.1 < place.1);
                assert!(is_behind, "series {series} is stored at {place:?} behind {before:?}");
            }
        }
        if let Some((queue, offset)) = place {
            self.stands_at(queue, offset, id);
        }
    }

    /// What the producer's side decides about a half message, now and whenever it is asked again.
    pub(super) fn decide(&self, id: MessageId) -> Verdict {
        let drawn = if self.sim.chance(70) { Verdict::Commit } else { Verdict::Rollback };
        let books = &mut *self.books.borrow_mut();
        let entry = books.messages.get_mut(&id).expect("it was begun");
        // Whoever is asked about a message has stored it, even if its sender was never told.
        entry.acknowledged = true;
        match &mut entry.kind {
            Kind::Half(decided) => *decided.get_or_insert(drawn),
            other => panic!("{id:?} is {other:?}"),
        }
    }

    /// The producer gave up.
    pub(super) fn failed(&self, id: MessageId, why: &str) {
        self.sim.note(id.0 ^ 0xfa11);
        let books = &mut *self.books.borrow_mut();
        books.failed += 1;
        *books.whys.entry(why.to_owned()).or_default() += 1;
    }

    /// A consumer read a message.
    pub(super) fn seen(&self, queue: Queue, offset: u64, physical_offset: i64, id: MessageId) {
        self.sim.note(id.0 ^ offset << 32);
        if !self.books.borrow().places.contains_key(&(queue.clone(), offset)) {
            self.audit.is_seen(&queue.broker, physical_offset, id);
        }
        self.stands_at(queue, offset, id);
        let books = self.books.borrow();
        match books.messages[&id].kind {
            Kind::Plain | Kind::InOrder { .. } => {}
            Kind::Delayed { not_before } => {
                let now = self.sim.now();
                assert!(now >= not_before, "{id:?} came {} us too early", not_before - now);
            }
            Kind::Half(verdict) => assert_eq!(verdict, Some(Verdict::Commit), "{id:?} can be seen"),
        }
    }

    /// A pull found nothing from `from` on, and is told to go on at `next`.
    pub(super) fn empty_answer(&self, queue: &Queue, from: u64, next: u64) {
        assert_eq!(next, from, "nothing was found in {queue} at {from}, and the offset moved to {next}");
    }

    /// A pull was told that its offset is none of the queue's.
    pub(super) fn offset_moved(&self, queue: &Queue, from: u64, next: u64, min: u64) {
        let tail = self.tail(queue);
        if from < min {
            assert!(self.may_lose_old, "nothing is taken from {queue}, and it begins at {min}");
            self.books.borrow_mut().has_gaps = true;
        }
        assert!(
            from < min || from > tail,
            "a pull of {queue} at {from} was moved to {next}, and the queue goes from {min} to {tail}"
        );
    }

    fn stands_at(&self, queue: Queue, offset: u64, id: MessageId) {
        let books = &mut *self.books.borrow_mut();
        let topic = &books.messages.get(&id).unwrap_or_else(|| panic!("{id:?} was never sent")).topic;
        let is_retry = queue.topic.starts_with(RETRY_PREFIX);
        assert!(is_retry || queue.topic == *topic, "{id:?} was sent to {topic} and stands in {queue}");
        let tail = books.tails.entry(queue.clone()).or_default();
        *tail = (*tail).max(offset + 1);
        let stands = *books.places.entry((queue.clone(), offset)).or_insert(id);
        assert_eq!(stands, id, "two messages stand at {offset} of {queue}");
    }

    /// One past the last message of a queue that anybody was told of.
    pub(super) fn tail(&self, queue: &Queue) -> u64 {
        self.books.borrow().tails.get(queue).copied().unwrap_or(0)
    }

    /// A consumer has consumed a message; `in_order`, if it consumes one after the other.
    pub(super) fn delivered(&self, group: &str, queue: Queue, offset: u64, id: MessageId, in_order: bool) {
        self.stands_at(queue, offset, id);
        let books = &mut *self.books.borrow_mut();
        let entry = books.messages.get_mut(&id).expect("it was looked up just now");
        if let (true, Kind::InOrder { series, number }) = (in_order, entry.kind) {
            let upto = books.series.entry((group.to_owned(), series)).or_default();
            assert!(
                number <= *upto || books.has_gaps,
                "{group} got number {number} of series {series} before number {upto}"
            );
            *upto = (*upto).max(number + 1);
        }
        let times = entry.delivered.entry(group.to_owned()).or_default();
        *times += 1;
        books.delivered += 1;
        books.again += u64::from(*times > 1);
    }

    /// A message is handed out to whoever asked at that time.
    pub(super) fn handed_out(&self, (queue, offset): (&Queue, u64), asked_at: Us) {
        let done_at = self.books.borrow().done.get(&(queue.clone(), offset)).copied();
        assert!(
            done_at.is_none_or(|done_at| asked_at < done_at),
            "what stands at {offset} of {queue} was acknowledged at {done_at:?} and is handed out again to whoever \
             asked at {asked_at}"
        );
    }

    /// Whoever was handed a message has acknowledged it in time: it comes to nobody else.
    pub(super) fn is_done_with(&self, (queue, offset): (&Queue, u64), id: MessageId) {
        self.sim.note(id.0 ^ 0xac4);
        self.books.borrow_mut().done.insert((queue.clone(), offset), self.sim.now());
    }

    /// How many messages were acknowledged so.
    pub(super) fn done(&self) -> BTreeMap<MessageId, u64> {
        let books = self.books.borrow();
        let mut done = BTreeMap::new();
        for place in books.done.keys() {
            *done.entry(books.places[place]).or_default() += 1;
        }
        done
    }

    /// A consumer gives a message back; it waits for another time then.
    pub(super) fn is_given_back(&self, id: MessageId) {
        self.books.borrow_mut().given_back.insert(id);
    }

    /// Acknowledged messages that a group has not got yet. What retention took, by the first offset that a queue still has,
    /// is owed to nobody; of what waits for its time, and has no place that is known, it cannot be told.
    pub(super) fn owed(&self, first_offset: impl Fn(&Queue) -> u64) -> Vec<(MessageId, String)> {
        let books = self.books.borrow();
        let nobody = BTreeSet::new();
        let mut lost = BTreeSet::new();
        if self.may_lose_old {
            let is_lost = |((queue, offset), _): &(&(Queue, u64), &MessageId)| *offset < first_offset(queue);
            lost.extend(books.places.iter().filter(is_lost).map(|(_, id)| *id));
            lost.extend(&books.given_back);
        }
        let mut owed = Vec::new();
        for (id, entry) in &books.messages {
            let is_promised = match entry.kind {
                Kind::Half(verdict) => verdict == Some(Verdict::Commit) && !self.may_lose_old,
                Kind::Delayed { .. } => !self.may_lose_old,
                Kind::Plain | Kind::InOrder { .. } => !lost.contains(id),
            };
            if !is_promised || !entry.acknowledged {
                continue;
            }
            for group in books.groups.get(&entry.topic).unwrap_or(&nobody) {
                if !entry.delivered.contains_key(group) {
                    owed.push((*id, group.clone()));
                }
            }
        }
        owed
    }

    /// All places that anybody was told of.
    pub(super) fn places(&self) -> Vec<((Queue, u64), MessageId)> {
        self.books.borrow().places.iter().map(|(place, id)| (place.clone(), *id)).collect()
    }

    pub(super) fn describe(&self, id: MessageId) -> String {
        let books = self.books.borrow();
        let places: Vec<_> =
            books.places.iter().filter(|(_, at)| **at == id).map(|(place, _)| place).collect();
        format!("{id:?} {:?} at {places:?}", books.messages.get(&id))
    }

    pub(super) fn counts(&self) -> Counts {
        let books = self.books.borrow();
        Counts {
            sent: books.next,
            acknowledged: books.acknowledged,
            failed: books.failed,
            delivered: books.delivered,
            again: books.again,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    /// Sends that ended without an acknowledgement.
    pub(super) failed: u64,
    pub(super) delivered: u64,
    /// Of those, not for the first time.
    pub(super) again: u64,
}
