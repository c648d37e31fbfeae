//! Producers: sends with a stock client's retries.
//!
//! Source: `DefaultMQProducerImpl`, `MQClientAPIImpl`.

use std::cell::Cell;
use std::rc::Rc;

use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::flags::MessageSysFlag;
use apogee_net::message::{append_property, property};
use apogee_net::request::SendMessageRequest;

use super::super::executor::{MS, Us};
use super::super::ledger::{Ledger, MessageId, Queue};
use super::super::wire::Answer;
use super::instance::Instance;

/// `sendMsgTimeout`, `retryTimesWhenSendFailed`
const SEND_WAIT: Us = 3_000 * MS;
const TRIES: usize = 3;

/// `DefaultMQProducer#retryResponseCodes`
const RETRIED: [ResponseCode; 8] = [
    ResponseCode::TOPIC_NOT_EXIST,
    ResponseCode::SERVICE_NOT_AVAILABLE,
    ResponseCode::SYSTEM_ERROR,
    ResponseCode::SYSTEM_BUSY,
    ResponseCode::NO_PERMISSION,
    ResponseCode::NO_BUYER_ID,
    ResponseCode::NOT_IN_CURRENT_UNIT,
    ResponseCode::GO_AWAY,
];

/// What a message carries besides its body.
#[derive(Clone, Debug, Default)]
pub(in crate::sim) struct Extra {
    pub(in crate::sim) properties: Vec<(&'static str, String)>,
    pub(in crate::sim) sys_flag: i32,
}

/// Why a send ended without an acknowledgement, in a form for people.
#[derive(Clone, Debug)]
pub(in crate::sim) struct NotSent(pub(in crate::sim) String);

pub(in crate::sim) struct Sent {
    pub(in crate::sim) queue: Queue,
    pub(in crate::sim) answer: Answer,
}

impl Sent {
    pub(in crate::sim) fn offset(&self) -> u64 {
        self.answer.int("queueOffset") as u64
    }

    /// Broker and place in its log.
    pub(in crate::sim) fn stored_at(&self) -> (&str, i64) {
        (&self.queue.broker, physical_offset(&self.answer.ext["msgId"]))
    }

    pub(in crate::sim) fn place(&self) -> (Queue, u64) {
        (self.queue.clone(), self.offset())
    }
}

pub(in crate::sim) struct Producer {
    pub(in crate::sim) instance: Rc<Instance>,
    group: String,
    pub(in crate::sim) ledger: Ledger,
    /// Queues are taken in turn, from anywhere on.
    turn: Cell<u64>,
}

/// A message's body: its number, and something behind it.
pub(in crate::sim) fn body_of(id: MessageId, bytes: usize) -> Vec<u8> {
    let mut body = format!("m{};", id.0).into_bytes();
    body.resize(body.len().max(bytes), b'.');
    body
}

/// Which message a body is of; none if it is not one of ours.
pub(in crate::sim) fn id_of(body: &[u8]) -> Option<MessageId> {
    let text = std::str::from_utf8(body).ok()?;
    let (number, _) = text.strip_prefix('m')?.split_once(';')?;
    number.parse().ok().map(MessageId)
}

impl Producer {
    pub(in crate::sim) fn new(instance: &Rc<Instance>, group: &str, ledger: &Ledger) -> Producer {
        instance.add_producer(group);
        Producer {
            instance: instance.clone(),
            group: group.to_owned(),
            ledger: ledger.clone(),
            turn: Cell::new(instance.sim.below(1000)),
        }
    }

    async fn queues(&self, topic: &str) -> Vec<(String, i32)> {
        if self.instance.write_queues(topic).is_empty() {
            self.instance.update_route(topic, true).await;
        }
        self.instance.write_queues(topic)
    }

    fn next_queue(&self, queues: &[(String, i32)], not_on: Option<&str>) -> (String, i32) {
        for _ in 0..queues.len() {
            self.turn.set(self.turn.get() + 1);
            let queue = &queues[(self.turn.get() % queues.len() as u64) as usize];
            if not_on != Some(queue.0.as_str()) {
                return queue.clone();
            }
        }
        self.turn.set(self.turn.get() + 1);
        queues[(self.turn.get() % queues.len() as u64) as usize].clone()
    }

    /// Sends to any queue, up to three times (`sendDefaultImpl`).
    pub(in crate::sim) async fn send(
        &self,
        topic: &str,
        id: MessageId,
        extra: &Extra,
    ) -> Result<Sent, NotSent> {
        let sim = &self.instance.sim;
        let began = sim.now();
        let queues = self.queues(topic).await;
        if queues.is_empty() {
            return Err(NotSent("no route".into()));
        }
        let (mut last, mut why) = (None, String::new());
        for _ in 0..TRIES {
            let queue = self.next_queue(&queues, last.as_deref());
            last = Some(queue.0.clone());
            let spent = sim.now() - began;
            if spent > SEND_WAIT {
                break;
            }
            match self.send_once(topic, &queue, id, extra, SEND_WAIT - spent).await {
                Ok(sent) => return Ok(sent),
                Err((NotSent(reason), may_retry)) => {
                    why = reason;
                    if !may_retry {
                        break;
                    }
                }
            }
        }
        Err(NotSent(why))
    }

    /// Sends to this queue, once (`sendSelectImpl`).
    pub(in crate::sim) async fn send_to(
        &self,
        topic: &str,
        queue: &(String, i32),
        id: MessageId,
        extra: &Extra,
    ) -> Result<Sent, NotSent> {
        self.send_once(topic, queue, id, extra, SEND_WAIT).await.map_err(|(why, _)| why)
    }

    /// The reason of a failure, and whether a stock client tries another broker then.
    async fn send_once(
        &self,
        topic: &str,
        (broker, queue_id): &(String, i32),
        id: MessageId,
        extra: &Extra,
        timeout: Us,
    ) -> Result<Sent, (NotSent, bool)> {
        let instance = &self.instance;
        let mut address = instance.master(broker);
        if address.is_none() {
            instance.update_route(topic, true).await;
            address = instance.master(broker);
        }
        let Some(address) = address else { return Err((NotSent(format!("{broker} has no master")), true)) };
        let mut properties = Vec::new();
        append_property(&mut properties, property::UNIQUE_KEY, &unique_key(id));
        for (name, value) in &extra.properties {
            append_property(&mut properties, name, value);
        }
        let header = SendMessageRequest {
            producer_group: &self.group,
            topic,
            default_topic: "TBW102",
            default_topic_queues: 4,
            queue_id: *queue_id,
            sys_flag: MessageSysFlag(extra.sys_flag),
            born_timestamp: instance.now_ms(),
            flag: 0,
            properties: std::str::from_utf8(&properties).expect("texts"),
            reconsume_times: 0,
            unit_mode: false,
            max_reconsume_times: None,
            batch: false,
            broker_name: Some(broker),
        };
        let bytes = 1 << instance.sim.below(11);
        let body = body_of(id, bytes as usize);
        let call = instance.remoting.call(address, RequestCode::SEND_MESSAGE_V2, &header, &body, timeout);
        match call.await {
            Ok(answer) if answer.is_success() => {
                let queue = Queue {
                    topic: topic.to_owned(),
                    broker: broker.clone(),
                    id: answer.int("queueId") as i32,
                };
                Ok(Sent { queue, answer })
            }
            Ok(answer) => {
                let may_retry = RETRIED.contains(&answer.code);
                Err((NotSent(format!("{}: {}", answer.code, answer.remark)), may_retry))
            }
            Err(error) => Err((NotSent(format!("{error:?} at {address}")), true)),
        }
    }
}

/// The place in the log that an offset message id names: its last eight bytes.
fn physical_offset(message_id: &str) -> i64 {
    let digits = message_id.len().checked_sub(16).expect("an id of at least eight bytes");
    i64::from_str_radix(&message_id[digits..], 16).expect("hexadecimal digits")
}

pub(in crate::sim) fn unique_key(id: MessageId) -> String {
    format!("{:032X}", id.0)
}
