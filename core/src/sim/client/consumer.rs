//! Push consumers: rebalance, pulls, consumption, offsets, queue locks.
//!
//! Source: `DefaultMQPushConsumerImpl`, `RebalanceImpl`, `RebalancePushImpl`, `ConsumeMessageConcurrentlyService`,
//! `ConsumeMessageOrderlyService`, `RemoteBrokerOffsetStore`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;

use apogee_net::body::{
    ConsumeFromWhere, ConsumeType, ConsumerData, GetConsumerListByGroupResponseBody, LockBatchRequestBody,
    LockBatchResponseBody, MessageModel, MessageQueue, SubscriptionData, parse, to_fastjson,
};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::flags::PullSysFlag;
use apogee_net::header::NoExt;
use apogee_net::message::{RETRY_PREFIX, StoredMessages, property};
use apogee_net::request::{
    ConsumerSendMsgBackRequest, GetConsumerListByGroupRequest, PullMessageRequest,
    QueryConsumerOffsetRequest, UpdateConsumerOffsetRequest,
};

use super::super::executor::{MS, SECOND, Signal, Us};
use super::super::ledger::{Ledger, MessageId, Queue};
use super::super::network::{HostId, Network};
use super::super::wire::Answer;
use super::super::world::NODES;
use super::instance::{Instance, MASTER};
use super::producer::{Extra, Producer, id_of};
use crate::sim::executor::Sim;

const REBALANCE_EVERY: Us = 20 * SECOND;
const REBALANCE_PAUSE: Us = SECOND;
const PERSIST_EVERY: Us = 5 * SECOND;
const LOCK_EVERY: Us = 20 * SECOND;
/// How long a client believes in a lock (`REBALANCE_LOCK_MAX_LIVE_TIME`).
const LOCK_LIVES: Us = 30 * SECOND;
/// A queue that was not pulled for so long is given up and taken anew (`PULL_MAX_IDLE_TIME`).
const PULL_IDLE_MAX: Us = 120 * SECOND;
const PULL_WAIT: Us = 30 * SECOND;
const PULL_HOLD_MS: i64 = 15_000;
const PULL_AFTER_ERROR: Us = SECOND;
const PULL_BATCH: i32 = 32;
const CACHED_MAX: usize = 1000;
const CALL_WAIT: Us = 3 * SECOND;
const LOCK_WAIT: Us = SECOND;
const SEND_BACK_WAIT: Us = 5 * SECOND;

/// So many of a hundred pulls go to whichever broker id, as a client's own choice or an older suggestion would have it.
const ANYWHERE_PERCENT: u64 = 10;

/// So many of a hundred messages are not consumed the first time.
const FAILED_PERCENT: u64 = 3;

#[derive(Clone, Debug)]
pub(in crate::sim) struct ConsumerSetup {
    pub(in crate::sim) group: String,
    pub(in crate::sim) topics: Vec<String>,
    pub(in crate::sim) is_orderly: bool,
}

#[derive(Clone, Debug)]
struct Cached {
    id: Option<MessageId>,
    physical_offset: i64,
    reconsume_times: i32,
}

/// One queue as long as this consumer has it (`ProcessQueue`).
struct Held {
    queue: Queue,
    is_dropped: Cell<bool>,
    next: Cell<u64>,
    cached: RefCell<BTreeMap<u64, Cached>>,
    /// Everything below is consumed.
    done: Cell<u64>,
    /// What the broker was told last.
    told: Cell<Option<u64>>,
    pulled_at: Cell<Us>,
    locked_at: Cell<Option<Us>>,
    suggested: Cell<i64>,
    arrived: Signal,
}

pub(in crate::sim) struct Consumer {
    pub(in crate::sim) instance: Rc<Instance>,
    setup: ConsumerSetup,
    ledger: Ledger,
    held: RefCell<BTreeMap<Queue, Rc<Held>>>,
    sub_version: Cell<i64>,
    /// Sends messages back that the broker did not take back.
    fallback: Producer,
}

impl Consumer {
    pub(in crate::sim) fn start(
        sim: &Sim,
        network: &Rc<Network>,
        host: HostId,
        client_id: String,
        namesrvs: &[SocketAddr],
        setup: ConsumerSetup,
        ledger: &Ledger,
    ) -> Rc<Consumer> {
        let instance = Instance::start(sim, network, host, client_id, namesrvs);
        let consumer = Rc::new(Consumer {
            fallback: Producer::new(&instance, "CLIENT_INNER_PRODUCER", ledger),
            sub_version: Cell::new(instance.now_ms()),
            instance,
            setup,
            ledger: ledger.clone(),
            held: RefCell::default(),
        });
        consumer.tell_subscriptions();
        consumer.spawn(|this| async move { this.run().await });
        consumer.spawn(|this| async move {
            loop {
                this.instance.sim.sleep(PERSIST_EVERY).await;
                this.persist_all().await;
            }
        });
        if consumer.setup.is_orderly {
            consumer.spawn(|this| async move {
                loop {
                    this.instance.sim.sleep(LOCK_EVERY).await;
                    this.lock_all().await;
                }
            });
        }
        consumer
    }

    fn spawn<F: Future<Output = ()> + 'static>(self: &Rc<Self>, task: impl FnOnce(Rc<Consumer>) -> F) {
        self.instance.scope.spawn(task(self.clone()));
    }

    fn sim(&self) -> &Sim {
        &self.instance.sim
    }

    fn retry_topic(&self) -> String {
        format!("{RETRY_PREFIX}{}", self.setup.group)
    }

    fn topics(&self) -> Vec<String> {
        let mut topics = self.setup.topics.clone();
        topics.push(self.retry_topic());
        topics
    }

    fn tell_subscriptions(&self) {
        let version = self.sub_version.get();
        let subscriptions =
            self.topics().iter().map(|topic| SubscriptionData::of_tags(topic, "*", version)).collect();
        self.instance.set_consumer(ConsumerData {
            group_name: self.setup.group.clone(),
            consume_type: ConsumeType::Passively,
            message_model: MessageModel::Clustering,
            consume_from_where: ConsumeFromWhere::FirstOffset,
            subscription_data_set: subscriptions,
            unit_mode: false,
        });
    }

    async fn run(self: Rc<Self>) {
        for topic in self.topics() {
            self.instance.update_route(&topic, false).await;
        }
        self.instance.heartbeat().await;
        loop {
            self.rebalance().await;
            self.sim().sleep(REBALANCE_PAUSE).await;
            self.sim().within(REBALANCE_EVERY, self.instance.rebalance.wait()).await;
        }
    }

    async fn rebalance(self: &Rc<Self>) {
        for topic in self.topics() {
            let mut queues = self.instance.read_queues(&topic);
            if queues.is_empty() {
                self.instance.update_route(&topic, false).await;
                queues = self.instance.read_queues(&topic);
            }
            let Some(members) = self.members(&topic).await else { continue };
            if queues.is_empty() {
                continue;
            }
            let mine = allocate(&self.instance.client_id, members, &queues);
            let mine = mine.iter().map(|(broker, id)| Queue {
                topic: topic.clone(),
                broker: broker.clone(),
                id: *id,
            });
            if self.take(&topic, mine.collect()).await {
                // Members that disagree about subscriptions are found out by their versions.
                self.sub_version.set(self.instance.now_ms().max(self.sub_version.get() + 1));
                self.tell_subscriptions();
                self.instance.heartbeat().await;
            }
        }
    }

    async fn members(&self, topic: &str) -> Option<Vec<String>> {
        let mut broker = self.instance.some_broker_of(topic);
        if broker.is_none() {
            self.instance.update_route(topic, false).await;
            broker = self.instance.some_broker_of(topic);
        }
        let header = GetConsumerListByGroupRequest { consumer_group: &self.setup.group };
        let code = RequestCode::GET_CONSUMER_LIST_BY_GROUP;
        let answer = self.instance.remoting.call(broker?, code, &header, b"", CALL_WAIT).await.ok()?;
        let body: GetConsumerListByGroupResponseBody =
            answer.is_success().then(|| parse(&answer.body))?.ok()?;
        Some(body.consumer_id_list)
    }

    /// Gives up queues and takes others; true if anything changed.
    async fn take(self: &Rc<Self>, topic: &str, mine: BTreeSet<Queue>) -> bool {
        let now = self.sim().now();
        let held: Vec<_> =
            self.held.borrow().values().filter(|held| held.queue.topic == topic).cloned().collect();
        let mut is_changed = false;
        for held in held {
            let is_idle = now.saturating_sub(held.pulled_at.get()) > PULL_IDLE_MAX;
            if !mine.contains(&held.queue) || is_idle {
                self.give_up(&held).await;
                is_changed = true;
            }
        }
        for queue in mine {
            if self.held.borrow().contains_key(&queue) {
                continue;
            }
            let is_ordered = self.setup.is_orderly && !queue.topic.starts_with(RETRY_PREFIX);
            let locked = if is_ordered { self.lock(&queue.broker, vec![queue.clone()]).await } else { None };
            if is_ordered && !locked.is_some_and(|locked| locked.contains(&queue)) {
                continue;
            }
            let Some(from) = self.first_offset(&queue).await else { continue };
            let held = Rc::new(Held {
                queue: queue.clone(),
                is_dropped: Cell::new(false),
                next: Cell::new(from),
                cached: RefCell::default(),
                done: Cell::new(from),
                told: Cell::new(None),
                pulled_at: Cell::new(self.sim().now()),
                locked_at: Cell::new(Some(self.sim().now())),
                suggested: Cell::new(MASTER),
                arrived: Signal::default(),
            });
            self.held.borrow_mut().insert(queue, held.clone());
            is_changed = true;
            let pulling = held.clone();
            self.spawn(|this| async move { this.pull_all(pulling).await });
            if is_ordered {
                self.spawn(|this| async move { this.consume_in_order(held).await });
            }
        }
        is_changed
    }

    async fn give_up(&self, held: &Rc<Held>) {
        held.is_dropped.set(true);
        self.held.borrow_mut().remove(&held.queue);
        self.persist(held).await;
        if self.setup.is_orderly {
            let body = self.lock_body(vec![held.queue.clone()]);
            if let Some((to, _)) = self.instance.address(&held.queue.broker, MASTER, true) {
                let _ = self.instance.remoting.oneway(to, RequestCode::UNLOCK_BATCH_MQ, &NoExt, &body).await;
            }
        }
    }

    fn lock_body(&self, queues: Vec<Queue>) -> Vec<u8> {
        let mq_set = queues.into_iter().map(|Queue { topic, broker, id }| MessageQueue {
            broker_name: broker,
            queue_id: id,
            topic,
        });
        to_fastjson(&LockBatchRequestBody {
            client_id: self.instance.client_id.clone(),
            consumer_group: self.setup.group.clone(),
            mq_set: mq_set.collect(),
            only_this_broker: false,
        })
        .to_vec()
    }

    /// Which of a broker's queues this client has locked now; none if the broker did not say.
    async fn lock(&self, broker: &str, queues: Vec<Queue>) -> Option<BTreeSet<Queue>> {
        let (to, _) = self.instance.address(broker, MASTER, true)?;
        let body = self.lock_body(queues);
        let call = self.instance.remoting.call(to, RequestCode::LOCK_BATCH_MQ, &NoExt, &body, LOCK_WAIT);
        let answer = call.await.ok().filter(Answer::is_success)?;
        let locked: LockBatchResponseBody = parse(&answer.body).expect("a broker's answer");
        let locked = locked.lock_ok_mq_set.into_iter().map(|queue| Queue {
            topic: queue.topic,
            broker: queue.broker_name,
            id: queue.queue_id,
        });
        Some(locked.collect())
    }

    async fn lock_all(&self) {
        let mut by_broker: BTreeMap<String, Vec<Queue>> = BTreeMap::new();
        for queue in self.held.borrow().keys().filter(|queue| !queue.topic.starts_with(RETRY_PREFIX)) {
            by_broker.entry(queue.broker.clone()).or_default().push(queue.clone());
        }
        for (broker, queues) in by_broker {
            let Some(locked) = self.lock(&broker, queues.clone()).await else { continue };
            for queue in queues {
                if let Some(held) = self.held.borrow().get(&queue) {
                    held.locked_at.set(locked.contains(&queue).then(|| self.sim().now()));
                }
            }
        }
    }

    /// Where to begin (`computePullFromWhere`); none if that cannot be known now.
    async fn first_offset(&self, queue: &Queue) -> Option<u64> {
        let mut address = self.instance.address(&queue.broker, MASTER, true);
        if address.is_none() {
            self.instance.update_route(&queue.topic, false).await;
            address = self.instance.address(&queue.broker, MASTER, false);
        }
        let (to, _) = address?;
        let header = QueryConsumerOffsetRequest {
            consumer_group: &self.setup.group,
            topic: &queue.topic,
            queue_id: queue.id,
            set_zero_if_not_found: true,
        };
        let code = RequestCode::QUERY_CONSUMER_OFFSET;
        let answer = self.instance.remoting.call(to, code, &header, b"", CALL_WAIT).await.ok()?;
        self.sim().say(|| {
            format!("{} of {}: {queue} begins at {answer:?}", self.instance.client_id, self.setup.group)
        });
        match answer.code {
            ResponseCode::SUCCESS => Some(answer.int("offset") as u64),
            // FIRST_OFFSET: whatever is there.
            ResponseCode::QUERY_NOT_FOUND => Some(0),
            _ => None,
        }
    }

    async fn pull_all(self: Rc<Self>, held: Rc<Held>) {
        while !held.is_dropped.get() {
            held.pulled_at.set(self.sim().now());
            if held.cached.borrow().len() >= CACHED_MAX {
                self.sim().sleep(50 * MS).await;
                continue;
            }
            let from = held.next.get();
            let answer = self.pull(&held).await;
            self.sim().say(|| {
                let code = answer.as_ref().map(|answer| (answer.code, answer.ext.get("nextBeginOffset")));
                format!(
                    "{} of {}: {} pulled at {from}: {code:?}",
                    self.instance.client_id, self.setup.group, held.queue
                )
            });
            if held.is_dropped.get() {
                return;
            }
            match answer {
                Some(answer) => self.on_pulled(&held, &answer).await,
                None => self.sim().sleep(PULL_AFTER_ERROR).await,
            }
        }
    }

    async fn pull(&self, held: &Held) -> Option<Answer> {
        let Queue { topic, broker, id } = &held.queue;
        let wanted = match self.sim().chance(ANYWHERE_PERCENT) {
            true => self.sim().below(u64::from(NODES) + 1) as i64,
            false => held.suggested.get(),
        };
        let mut address = self.instance.address(broker, wanted, false);
        if address.is_none() {
            self.instance.update_route(topic, false).await;
            address = self.instance.address(broker, wanted, false);
        }
        let (to, is_slave) = address?;
        let done = held.done.get();
        let mut sys_flag = PullSysFlag::SUSPEND;
        if done > 0 && !is_slave {
            sys_flag = sys_flag.with(PullSysFlag::COMMIT_OFFSET);
        }
        let header = PullMessageRequest {
            consumer_group: &self.setup.group,
            topic,
            queue_id: *id,
            queue_offset: held.next.get() as i64,
            messages_max: PULL_BATCH,
            sys_flag,
            commit_offset: done as i64,
            suspend_timeout_ms: PULL_HOLD_MS,
            subscription: None,
            sub_version: self.sub_version.get(),
            expression_type: Some("TAG"),
            message_bytes_max: None,
        };
        let call = self.instance.remoting.call_async(to, RequestCode::PULL_MESSAGE, &header, b"", PULL_WAIT);
        call.await.ok()
    }

    async fn on_pulled(self: &Rc<Self>, held: &Rc<Held>, answer: &Answer) {
        let from = held.next.get();
        match answer.code {
            ResponseCode::SUCCESS => {
                held.suggested.set(answer.int("suggestWhichBrokerId"));
                let mut expected = from;
                for message in StoredMessages::new(&answer.body) {
                    let message = message.expect("brokers send whole messages");
                    let offset = message.queue_offset as u64;
                    assert_eq!(offset, expected, "a hole in {} read from {from}", held.queue);
                    assert!(message.is_body_intact(), "a damaged message at {offset} of {}", held.queue);
                    expected = offset + 1;
                    let id = id_of(message.body);
                    if let Some(id) = id {
                        self.ledger.seen(held.queue.clone(), offset, message.physical_offset, id);
                    }
                    let cached = Cached {
                        id,
                        physical_offset: message.physical_offset,
                        reconsume_times: message.reconsume_times,
                    };
                    self.cache(held, offset, cached);
                }
                let next = answer.int("nextBeginOffset") as u64;
                assert_eq!(next, expected, "{} read from {from}", held.queue);
                held.next.set(next);
                held.arrived.raise();
            }
            ResponseCode::PULL_NOT_FOUND | ResponseCode::PULL_RETRY_IMMEDIATELY => {
                held.suggested.set(answer.int("suggestWhichBrokerId"));
                let next = answer.int("nextBeginOffset") as u64;
                self.ledger.empty_answer(&held.queue, from, next);
                held.next.set(next);
                if held.cached.borrow().is_empty() {
                    held.done.set(next);
                }
            }
            ResponseCode::PULL_OFFSET_MOVED => {
                let next = answer.int("nextBeginOffset") as u64;
                self.ledger.offset_moved(&held.queue, from, next, answer.int("minOffset") as u64);
                held.is_dropped.set(true);
                held.done.set(next);
                held.told.set(None);
                self.held.borrow_mut().remove(&held.queue);
                self.persist(held).await;
                self.instance.rebalance.raise();
            }
            _ => self.sim().sleep(PULL_AFTER_ERROR).await,
        }
    }

    fn cache(self: &Rc<Self>, held: &Rc<Held>, offset: u64, cached: Cached) {
        held.cached.borrow_mut().insert(offset, cached.clone());
        if !self.setup.is_orderly || held.queue.topic.starts_with(RETRY_PREFIX) {
            let held = held.clone();
            self.spawn(|this| async move { this.consume(held, offset, cached).await });
        }
    }

    /// Consumes one message, at the same time as others.
    async fn consume(self: Rc<Self>, held: Rc<Held>, offset: u64, message: Cached) {
        self.sim().sleep(self.sim().below(20 * MS)).await;
        let is_failing = message.reconsume_times == 0 && self.sim().chance(FAILED_PERCENT);
        if is_failing && !held.is_dropped.get() {
            while !self.send_back(&held, &message).await {
                self.sim().sleep(5 * SECOND).await;
                if held.is_dropped.get() {
                    return;
                }
            }
        } else if let Some(id) = message.id
            && !held.is_dropped.get()
        {
            self.ledger.delivered(&self.setup.group, held.queue.clone(), offset, id, false);
        }
        let mut cached = held.cached.borrow_mut();
        cached.remove(&offset);
        let done = cached.keys().next().copied().unwrap_or(held.next.get());
        if !held.is_dropped.get() {
            held.done.set(done.max(held.done.get()));
        }
    }

    /// Gives a message back, to come again later; true if somebody took it.
    async fn send_back(&self, held: &Held, message: &Cached) -> bool {
        let delay_level = self.sim().between(1, 3) as i32;
        message.id.inspect(|id| self.ledger.is_given_back(*id));
        let header = ConsumerSendMsgBackRequest {
            offset: message.physical_offset,
            group: &self.setup.group,
            delay_level,
            origin_message_id: None,
            origin_topic: Some(&held.queue.topic),
            unit_mode: false,
            max_reconsume_times: Some(16),
        };
        if let Some(to) = self.instance.master(&held.queue.broker) {
            let code = RequestCode::CONSUMER_SEND_MSG_BACK;
            let call = self.instance.remoting.call(to, code, &header, b"", SEND_BACK_WAIT);
            let is_taken = call.await.is_ok_and(|answer| answer.is_success());
            let (id, at) = (message.id, message.physical_offset);
            self.sim().say(|| {
                format!("{id:?} at {at} is given back to {to}, delay level {delay_level}: {is_taken}")
            });
            if is_taken {
                return true;
            }
        }
        let Some(id) = message.id else { return true };
        let properties = vec![
            (property::RETRY_TOPIC, held.queue.topic.clone()),
            (property::DELAY, (3 + message.reconsume_times).to_string()),
        ];
        let extra = Extra { properties, sys_flag: 0 };
        let sent = self.fallback.send(&self.retry_topic(), id, &extra).await;
        self.sim()
            .say(|| format!("{id:?} is sent to {}: {:?}", self.retry_topic(), sent.as_ref().map(|_| ())));
        sent.is_ok()
    }

    async fn consume_in_order(self: Rc<Self>, held: Rc<Held>) {
        while !held.is_dropped.get() {
            let is_locked =
                held.locked_at.get().is_some_and(|locked_at| self.sim().now() - locked_at < LOCK_LIVES);
            let next = held.cached.borrow().iter().next().map(|(offset, cached)| (*offset, cached.clone()));
            let Some((offset, message)) = next.filter(|_| is_locked) else {
                self.sim().within(SECOND, held.arrived.wait()).await;
                continue;
            };
            self.sim().sleep(self.sim().below(10 * MS)).await;
            if held.is_dropped.get() {
                return;
            }
            if let Some(id) = message.id {
                self.ledger.delivered(&self.setup.group, held.queue.clone(), offset, id, true);
            }
            held.cached.borrow_mut().remove(&offset);
            held.done.set(offset + 1);
        }
    }

    async fn persist_all(&self) {
        let all: Vec<_> = self.held.borrow().values().cloned().collect();
        for held in all {
            self.persist(&held).await;
        }
    }

    async fn persist(&self, held: &Held) {
        let done = held.done.get();
        if held.told.get() == Some(done) {
            return;
        }
        let Queue { topic, broker, id } = &held.queue;
        let mut address = self.instance.address(broker, MASTER, false);
        if address.is_none() {
            self.instance.update_route(topic, false).await;
            address = self.instance.address(broker, MASTER, false);
        }
        let Some((to, _)) = address else { return };
        let header = UpdateConsumerOffsetRequest {
            consumer_group: &self.setup.group,
            topic,
            queue_id: *id,
            commit_offset: done as i64,
        };
        let code = RequestCode::UPDATE_CONSUMER_OFFSET;
        self.sim().say(|| {
            format!("{} of {}: {} is done to {done}", self.instance.client_id, self.setup.group, held.queue)
        });
        if self.instance.remoting.oneway(to, code, &header, b"").await.is_ok() {
            held.told.set(Some(done));
        }
    }

    /// Ends in order: says how far it came, and gives its queues back.
    pub(in crate::sim) async fn stop(&self) {
        let all: Vec<_> = self.held.borrow().values().cloned().collect();
        for held in all {
            self.give_up(&held).await;
        }
        self.instance.kill();
    }
}

/// `AllocateMessageQueueAveragely`
fn allocate(me: &str, mut members: Vec<String>, queues: &[(String, i32)]) -> Vec<(String, i32)> {
    members.sort();
    let Some(index) = members.iter().position(|member| member == me) else { return Vec::new() };
    let (count, all) = (members.len(), queues.len());
    let rest = all % count;
    let size = if all <= count { 1 } else { all / count + usize::from(rest > 0 && index < rest) };
    let start = if rest > 0 && index < rest { index * size } else { index * size + rest };
    queues.iter().skip(start).take(size.min(all.saturating_sub(start))).cloned().collect()
}
