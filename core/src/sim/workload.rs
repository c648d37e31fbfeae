//! What producers send: plain messages to any queue, series in order to one queue, messages for later, transactions.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use apogee_net::code::RequestCode;
use apogee_net::flags::MessageSysFlag;
use apogee_net::message::property;
use apogee_net::request::EndTransactionRequest;

use super::client::instance::Instance;
use super::client::producer::{Extra, Producer, Sent, id_of, unique_key};
use super::executor::{MS, SECOND, Us};
use super::ledger::{Kind, Ledger, MessageId, Verdict};
use super::wire::Asked;

pub(super) const PLAIN: &str = "Plain";
pub(super) const ORDERED: &str = "Ordered";
pub(super) const LATER: &str = "Later";
pub(super) const BARGAIN: &str = "Bargain";
/// Is popped.
pub(super) const HANDED: &str = "Handed";

/// The level of delay that is used, and what it means.
const LEVEL: (i32, Us) = (3, 10 * SECOND);

/// How long producers wait between two messages.
const PAUSE: (Us, Us) = (20 * MS, 250 * MS);

/// Shared by all producers: until when they send.
#[derive(Clone)]
pub(super) struct Sending {
    pub(super) is_over: Rc<Cell<bool>>,
    /// By how much the clocks of two brokers may differ.
    pub(super) skew: Us,
    pub(super) next_series: Rc<Cell<u64>>,
}

impl Sending {
    pub(super) fn new(skew: Us) -> Sending {
        Sending { is_over: Rc::default(), skew, next_series: Rc::default() }
    }
}

/// Starts the threads of one producing process.
pub(super) fn produce(instance: &Rc<Instance>, ledger: &Ledger, sending: &Sending) {
    let producer = Rc::new(Producer::new(instance, "PG", ledger));
    let threads: [(u64, NewThread); 4] = [
        (2, |producer, sending| Box::pin(plain(PLAIN, producer, sending))),
        (1, |producer, sending| Box::pin(plain(HANDED, producer, sending))),
        (2, |producer, sending| Box::pin(series(producer, sending))),
        (1, |producer, sending| Box::pin(later(producer, sending))),
    ];
    for (count, thread) in threads {
        for _ in 0..count {
            instance.scope.spawn(thread(producer.clone(), sending.clone()));
        }
    }
    let bargainer = Rc::new(Producer::new(instance, "Bargainers", ledger));
    instance.scope.spawn(transactions(bargainer, sending.clone()));
}

type Thread = std::pin::Pin<Box<dyn Future<Output = ()>>>;

type NewThread = fn(Rc<Producer>, Sending) -> Thread;

async fn pause(producer: &Producer) {
    let sim = &producer.instance.sim;
    sim.sleep(sim.between(PAUSE.0, PAUSE.1)).await;
}

async fn plain(topic: &'static str, producer: Rc<Producer>, sending: Sending) {
    while !sending.is_over.get() {
        let id = producer.ledger.begin(topic, Kind::Plain);
        match producer.send(topic, id, &Extra::default()).await {
            Ok(sent) => producer.ledger.acknowledged(id, Some(sent.place()), sent.stored_at()),
            Err(why) => producer.ledger.failed(id, &why.0),
        }
        pause(&producer).await;
    }
}

/// One message after the other into one queue, each until it is acknowledged.
async fn series(producer: Rc<Producer>, sending: Sending) {
    let sim = producer.instance.sim.clone();
    let queue = loop {
        producer.instance.update_route(ORDERED, true).await;
        let queues = producer.instance.write_queues(ORDERED);
        if !queues.is_empty() {
            break sim.pick(&queues).clone();
        }
        sim.sleep(SECOND).await;
        if sending.is_over.get() {
            return;
        }
    };
    let series = sending.next_series.get();
    sending.next_series.set(series + 1);
    for number in 0.. {
        let id = producer.ledger.begin(ORDERED, Kind::InOrder { series, number });
        loop {
            if sending.is_over.get() {
                return;
            }
            match producer.send_to(ORDERED, &queue, id, &Extra::default()).await {
                Ok(sent) => {
                    sim.say(|| format!("number {number} of series {series} is {id:?} at {:?}", sent.place()));
                    producer.ledger.acknowledged(id, Some(sent.place()), sent.stored_at());
                    break;
                }
                Err(why) => producer.ledger.failed(id, &why.0),
            }
            sim.sleep(100 * MS).await;
        }
        pause(&producer).await;
    }
}

async fn later(producer: Rc<Producer>, sending: Sending) {
    let sim = producer.instance.sim.clone();
    while !sending.is_over.get() {
        let (extra, delay) = if sim.chance(50) {
            let (level, delay) = LEVEL;
            (vec![(property::DELAY, level.to_string())], delay)
        } else {
            let ms = sim.between(8_000, 15_000);
            (vec![(property::TIMER_DELAY_MS, ms.to_string())], ms * MS)
        };
        // Clocks that run fast, and one second to which timers are rounded.
        let not_before = sim.now() + (delay - delay / 20).saturating_sub(sending.skew + SECOND);
        let id = producer.ledger.begin(LATER, Kind::Delayed { not_before });
        let extra = Extra { properties: extra, sys_flag: 0 };
        match producer.send(LATER, id, &extra).await {
            Ok(sent) => producer.ledger.acknowledged(id, None, sent.stored_at()),
            Err(why) => producer.ledger.failed(id, &why.0),
        }
        pause(&producer).await;
    }
}

/// Half messages, decided at once, later, when asked, or never by whoever sent them.
async fn transactions(producer: Rc<Producer>, sending: Sending) {
    let sim = producer.instance.sim.clone();
    let asking = Rc::downgrade(&producer);
    producer.instance.on_check(move |from, asked| {
        if let Some(producer) = asking.upgrade() {
            let instance = producer.instance.clone();
            instance.scope.spawn(async move { checked(&producer, from, &asked).await });
        }
    });
    while !sending.is_over.get() {
        let id = producer.ledger.begin(BARGAIN, Kind::Half(None));
        let properties = vec![
            (property::TRANSACTION_PREPARED, "true".to_owned()),
            (property::PRODUCER_GROUP, "Bargainers".to_owned()),
        ];
        let extra = Extra { properties, sys_flag: MessageSysFlag::TRANSACTION_PREPARED.0 };
        match producer.send(BARGAIN, id, &extra).await {
            Ok(sent) => {
                producer.ledger.acknowledged(id, None, sent.stored_at());
                let verdict = producer.ledger.decide(id);
                // Some are left for the broker to ask about.
                if sim.chance(80) {
                    end(&producer, id, &sent, verdict).await;
                }
            }
            Err(why) => producer.ledger.failed(id, &why.0),
        }
        pause(&producer).await;
    }
    // To be asked about what was left.
    std::future::pending().await
}

/// Tells the broker what became of a half message; it is not asked to answer.
async fn end(producer: &Producer, id: MessageId, sent: &Sent, verdict: Verdict) {
    let Some(to) = producer.instance.master(&sent.queue.broker) else { return };
    let key = unique_key(id);
    let header = EndTransactionRequest {
        producer_group: "Bargainers",
        tran_state_table_offset: sent.answer.int("queueOffset"),
        commit_log_offset: sent.stored_at().1,
        commit_or_rollback: bits(verdict),
        from_check: false,
        msg_id: &key,
        transaction_id: Some(&key),
    };
    let _ = producer.instance.remoting.oneway(to, RequestCode::END_TRANSACTION, &header, b"").await;
}

async fn checked(producer: &Producer, from: SocketAddr, asked: &Asked) {
    let message = apogee_net::message::StoredMessage::decode(&asked.body).expect("a whole message");
    let Some(id) = id_of(message.body) else { return };
    let verdict = producer.ledger.decide(id);
    let int = |field: &str| asked.ext[field].parse().expect("a number");
    let header = EndTransactionRequest {
        producer_group: "Bargainers",
        tran_state_table_offset: int("tranStateTableOffset"),
        commit_log_offset: int("commitLogOffset"),
        commit_or_rollback: bits(verdict),
        from_check: true,
        msg_id: &asked.ext["msgId"],
        transaction_id: asked.ext.get("transactionId").map(String::as_str),
    };
    let _ = producer.instance.remoting.oneway(from, RequestCode::END_TRANSACTION, &header, b"").await;
}

fn bits(verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Commit => MessageSysFlag::TRANSACTION_COMMIT.0,
        Verdict::Rollback => MessageSysFlag::TRANSACTION_ROLLBACK.0,
    }
}
