//! Pop consumers: messages are asked for one by one, hidden for a while, and acknowledged or left to come again.
//!
//! Source: `DefaultMQPushConsumerImpl#popMessage`, `MQClientAPIImpl#processPopResponse`, `ConsumeMessagePopConcurrentlyService`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::message::{StoredMessage, StoredMessages, property};
use apogee_net::request::{AckMessageRequest, ChangeInvisibleTimeRequest, PopMessageRequest};

use super::super::executor::{MS, SECOND, Sim, Us};
use super::super::ledger::{Ledger, MessageId, Queue};
use super::super::network::{HostId, Network};
use super::super::wire::Answer;
use super::instance::{Instance, MASTER};
use super::producer::id_of;

pub(in crate::sim) const GROUP: &str = "Poppers";

/// How long messages are hidden, which is drawn for each pop. An acknowledgement long before the end of the longer time
/// is in time whatever the clocks of two successive leaders say.
const HIDDEN_MS: [i64; 2] = [5_000, 40_000];
const IN_TIME: Us = 10 * SECOND;

const POLL_MS: i64 = 5_000;
const POP_WAIT: Us = 15 * SECOND;
const CALL_WAIT: Us = 3 * SECOND;
const PAUSE: Us = 200 * MS;
const MESSAGES_MAX: i32 = 16;

/// So many of a hundred messages are not acknowledged, and so many are asked to come again sooner.
const FAILED_PERCENT: u64 = 4;
const HURRIED_PERCENT: u64 = 3;
const HURRIED_MS: i64 = 2_000;

pub(in crate::sim) struct Popper {
    pub(in crate::sim) instance: Rc<Instance>,
    topic: &'static str,
    ledger: Ledger,
}

/// A message that was handed out.
struct Handed {
    /// Where it stands, by which it is acknowledged as well.
    place: (Queue, u64),
    id: MessageId,
    handle: String,
    /// When it was asked for.
    asked_at: Us,
    hidden_ms: i64,
}

impl Popper {
    pub(in crate::sim) fn start(
        sim: &Sim,
        network: &Rc<Network>,
        host: HostId,
        client_id: String,
        namesrvs: &[SocketAddr],
        topic: &'static str,
        ledger: &Ledger,
    ) -> Rc<Popper> {
        let instance = Instance::start(sim, network, host, client_id, namesrvs);
        let popper = Rc::new(Popper { instance, topic, ledger: ledger.clone() });
        let this = popper.clone();
        popper.instance.scope.spawn(async move { this.run().await });
        popper
    }

    /// Pops from each broker that has the topic.
    async fn run(self: Rc<Self>) {
        let mut brokers: Vec<String> = Vec::new();
        loop {
            self.instance.update_route(self.topic, false).await;
            for (broker, _) in self.instance.read_queues(self.topic) {
                if !brokers.contains(&broker) {
                    brokers.push(broker.clone());
                    let this = self.clone();
                    self.instance.scope.spawn(async move { this.pop_all(broker).await });
                }
            }
            self.instance.sim.sleep(20 * SECOND).await;
        }
    }

    async fn pop_all(self: Rc<Self>, broker: String) {
        let sim = &self.instance.sim;
        loop {
            let (asked_at, hidden_ms) = (sim.now(), *sim.pick(&HIDDEN_MS));
            match self.pop(&broker, hidden_ms).await {
                Some(answer) if answer.is_success() => {
                    for message in StoredMessages::new(&answer.body) {
                        let message = message.expect("brokers send whole messages");
                        self.take(&broker, &answer, &message, asked_at, hidden_ms);
                    }
                }
                Some(answer) if answer.code == ResponseCode::POLLING_TIMEOUT => sim.sleep(20 * MS).await,
                _ => sim.sleep(PAUSE).await,
            }
        }
    }

    async fn pop(&self, broker: &str, invisible_ms: i64) -> Option<Answer> {
        let mut address = self.instance.address(broker, MASTER, true);
        if address.is_none() {
            self.instance.update_route(self.topic, false).await;
            address = self.instance.address(broker, MASTER, true);
        }
        let header = PopMessageRequest {
            consumer_group: GROUP,
            topic: self.topic,
            queue_id: -1,
            messages_max: MESSAGES_MAX,
            invisible_ms,
            poll_ms: POLL_MS,
            born_ms: self.instance.now_ms(),
            init_mode: 0,
            expression_type: Some("TAG"),
            expression: Some("*"),
            order: false,
            attempt_id: None,
        };
        let (to, _) = address?;
        self.instance.remoting.call_async(to, RequestCode::POP_MESSAGE, &header, b"", POP_WAIT).await.ok()
    }

    fn take(
        self: &Rc<Self>,
        broker: &str,
        answer: &Answer,
        message: &StoredMessage<'_>,
        asked_at: Us,
        hidden_ms: i64,
    ) {
        let offset = message.queue_offset as u64;
        assert!(message.is_body_intact(), "a damaged message at {offset} of {}", message.topic);
        let handle = handle_of(answer, broker, message);
        let is_again = handle.split(' ').nth(4) == Some("1");
        let topic =
            if is_again { format!("%RETRY%{GROUP}_{}", message.topic) } else { message.topic.to_owned() };
        let queue = Queue { topic, broker: broker.to_owned(), id: message.queue_id };
        let Some(id) = id_of(message.body) else { return };
        self.ledger.seen(queue.clone(), offset, message.physical_offset, id);
        self.ledger.handed_out((&queue, offset), asked_at);
        let handed = Handed { place: (queue, offset), id, handle, asked_at, hidden_ms };
        let this = self.clone();
        self.instance.scope.spawn(async move { this.consume(handed).await });
    }

    async fn consume(&self, handed: Handed) {
        let sim = &self.instance.sim;
        sim.sleep(sim.below(50 * MS)).await;
        if sim.chance(FAILED_PERCENT) {
            return;
        }
        if sim.chance(HURRIED_PERCENT) {
            return self.hurry(&handed).await;
        }
        let (queue, offset) = handed.place.clone();
        self.ledger.delivered(GROUP, queue, offset, handed.id, false);
        self.acknowledge(&handed).await;
    }

    /// Once: what is not acknowledged comes again.
    async fn acknowledge(&self, handed: &Handed) {
        let (queue, offset) = &handed.place;
        let Some((to, _)) = self.instance.address(&queue.broker, MASTER, true) else { return };
        let header = AckMessageRequest {
            consumer_group: GROUP,
            topic: &queue.topic,
            queue_id: queue.id,
            extra_info: &handed.handle,
            offset: *offset as i64,
        };
        let call = self.instance.remoting.call_async(to, RequestCode::ACK_MESSAGE, &header, b"", CALL_WAIT);
        let is_confirmed = call.await.is_ok_and(|answer| answer.is_success());
        let is_in_time = self.instance.sim.now() - handed.asked_at < IN_TIME;
        if is_confirmed && is_in_time && handed.hidden_ms == HIDDEN_MS[1] {
            self.ledger.is_done_with((queue, *offset), handed.id);
        }
    }

    /// Has it come again sooner, to whoever pops then.
    async fn hurry(&self, handed: &Handed) {
        let (queue, offset) = &handed.place;
        let Some((to, _)) = self.instance.address(&queue.broker, MASTER, true) else { return };
        let header = ChangeInvisibleTimeRequest {
            consumer_group: GROUP,
            topic: &queue.topic,
            queue_id: queue.id,
            extra_info: &handed.handle,
            offset: *offset as i64,
            invisible_ms: HURRIED_MS,
        };
        let code = RequestCode::CHANGE_MESSAGE_INVISIBLETIME;
        let _ = self.instance.remoting.call_async(to, code, &header, b"", CALL_WAIT).await;
    }
}

/// By what a message is acknowledged: it brings that itself, or it is put together from the lists of the answer.
fn handle_of(answer: &Answer, broker: &str, message: &StoredMessage<'_>) -> String {
    if let Some(handle) = message.properties.get(property::POP_CHECK_POINT) {
        return handle.to_owned();
    }
    let starts: BTreeMap<(&str, &str), &str> = answer.ext["startOffsetInfo"]
        .split(';')
        .filter_map(|entry| {
            let mut parts = entry.split(' ');
            Some(((parts.next()?, parts.next()?), parts.next()?))
        })
        .collect();
    let queue_id = message.queue_id.to_string();
    let start = starts.get(&("0", &*queue_id)).expect("a queue that messages came from is in the list");
    let [popped, hidden, revive] =
        ["popTime", "invisibleTime", "reviveQid"].map(|field| answer.ext[field].as_str());
    format!("{start} {popped} {hidden} {revive} 0 {broker} {queue_id} {}", message.queue_offset)
}
