//! A NameServer and a broker in memory, on one port, that can be told to misbehave.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use apogee_net::body::{self, BrokerData, ClusterInfo, QueueData, TopicRouteData};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::command::{ReplyHead, RequestHead, append_reply, encode_request};
use apogee_net::flags::MessageSysFlag;
use apogee_net::frame::{HeaderEncoding, RawFrame};
use apogee_net::header::{ExtFields, Header, NoExt, WriteExt};
use apogee_net::io::{
    Chunk, Connection, Driver, DriverConfig, Listener, Server, ServerLimits, Service, Signal,
};
use apogee_net::message::{
    BatchMessages, MessageRecord, OffsetMessageId, Place, Properties, PropertyEdit, property,
};
use apogee_net::request::{
    CheckTransactionStateRequest, CreateTopicRequest, EndTransactionRequest, GetMaxOffsetReply,
    GetMaxOffsetRequest, PullMessageReply, PullMessageRequest, SendMessageReply, SendMessageRequest,
    TypedHeader,
};
use bytes::Bytes;
use glommio::{LocalExecutorBuilder, Placement};

const BROKER: &str = "fake-broker";
const OTHER_BROKER: &str = "other-fake-broker";

/// When a producer is asked about a half message.
const CHECK_AFTER: Duration = Duration::from_millis(200);

/// What the broker does wrong, each to the message with that number, counted from zero over all queues.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Misdeeds {
    /// Acknowledge, but do not store.
    pub(crate) forget: Option<u64>,
    /// Store twice.
    pub(crate) double: Option<u64>,
    /// Change one bit of the body.
    pub(crate) damage: Option<u64>,
    /// Store it one place too early in its queue.
    pub(crate) overtake: Option<u64>,
    /// Store, but never answer.
    pub(crate) keep_silent: Option<u64>,
    /// Answer SYSTEM_BUSY and do not store.
    pub(crate) refuse: Option<u64>,
    /// Answer FLUSH_DISK_TIMEOUT, which means stored.
    pub(crate) flush_late: Option<u64>,
    /// Close the connection instead of answering.
    pub(crate) hang_up: Option<u64>,
    /// Do nothing at all for so long, from this message on.
    pub(crate) stall: Option<(u64, Duration)>,
    /// Die at this message, and come back elsewhere after so long with all that was stored. The NameServer lives on.
    pub(crate) die: Option<(u64, Duration)>,
    /// Keep it from this group.
    pub(crate) hide: Option<(&'static str, u64)>,
    /// Deliver it whatever the end of its transaction says.
    pub(crate) never_roll_back: Option<u64>,
    /// Deliver it at once whatever it says about its time.
    pub(crate) hurry: Option<u64>,
    /// Refuse to be a NameServer.
    pub(crate) no_namesrv: bool,
    /// Refuse to create topics.
    pub(crate) no_topics: bool,
    /// No misdeed: the NameServer knows a second broker, which is another fake.
    pub(crate) beside: Option<SocketAddr>,
}

/// Starts the fake; it lives as long as the test process.
pub(crate) fn start(misdeeds: Misdeeds) -> SocketAddr {
    let (sender, receiver) = mpsc::channel();
    let executor = LocalExecutorBuilder::new(Placement::Unbound).name("fake").io_memory(64 * 1024);
    let handle = executor.spawn(move || async move {
        Driver::start(DriverConfig::default());
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        sender.send(listener.local()).unwrap();
        let fake = Rc::new_cyclic(|this| Fake {
            misdeeds,
            address: Cell::new(listener.local()),
            state: RefCell::default(),
            sends: Cell::new(0),
            clients: RefCell::default(),
            died: Signal::default(),
            this: this.clone(),
        });
        if let Some((_, away)) = misdeeds.die {
            glommio::spawn_local(live_twice(fake.clone(), away)).detach();
        }
        Server::new(ServerLimits::default()).accept(listener, fake).await;
    });
    std::mem::forget(handle.expect("an executor can be started"));
    receiver.recv().unwrap()
}

struct Fake {
    misdeeds: Misdeeds,
    /// Where the broker is, as it is registered.
    address: Cell<SocketAddr>,
    state: RefCell<State>,
    sends: Cell<u64>,
    /// Connections of a broker that will die.
    clients: RefCell<Vec<Rc<Connection>>>,
    died: Signal,
    this: Weak<Fake>,
}

/// A broker with ports of its own: one until it dies, another one afterwards.
async fn live_twice(fake: Rc<Fake>, away: Duration) {
    let bind = || Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let live = |listener: Listener| {
        fake.address.set(listener.local());
        glommio::spawn_local(Server::new(ServerLimits::default()).accept(listener, fake.clone()))
    };
    let first = live(bind());
    fake.died.wait().await;
    first.cancel().await;
    fake.clients.take().iter().for_each(|connection| connection.close("died, as told"));
    glommio::timer::sleep(away).await;
    live(bind()).await;
}

#[derive(Default)]
struct State {
    topics: HashMap<String, i32>,
    queues: HashMap<(String, i32), Vec<Stored>>,
    /// Half messages; their place is what the end of their transaction names.
    halves: Vec<Half>,
    parked: Vec<Parked>,
}

/// A message in its queue.
struct Stored {
    number: u64,
    tag: Option<String>,
    bytes: Vec<u8>,
}

struct Half {
    sent: Sent,
    is_ended: bool,
}

/// A message as it was sent.
#[derive(Clone)]
struct Sent {
    number: u64,
    topic: String,
    queue_id: i32,
    born_timestamp: i64,
    properties: String,
    body: Vec<u8>,
}

struct Parked {
    asker: Asker,
    topic: String,
    queue_id: i32,
    offset: i64,
    group: String,
    subscription: String,
}

/// Whom a reply goes to.
#[derive(Clone)]
struct Asker {
    connection: Rc<Connection>,
    encoding: HeaderEncoding,
    opaque: i32,
}

impl Asker {
    fn reply(&self, code: ResponseCode, ext: &dyn WriteExt, body: &[u8]) {
        let head = ReplyHead { code, opaque: self.opaque, remark: None, ext };
        self.connection.send(|out| append_reply(out, self.encoding, &head, body), []).unwrap();
    }

    fn refuse(&self, code: ResponseCode, remark: &str) {
        let head = ReplyHead { code, opaque: self.opaque, remark: Some(remark), ext: &NoExt };
        self.connection.send(|out| append_reply(out, self.encoding, &head, &[]), []).unwrap();
    }
}

impl Sent {
    fn new(request: &SendMessageRequest<'_>, number: u64, body: &[u8], properties: &[u8]) -> Sent {
        Sent {
            number,
            topic: request.topic.into(),
            queue_id: request.queue_id,
            born_timestamp: request.born_timestamp,
            properties: String::from_utf8(properties.to_vec()).unwrap(),
            body: body.to_vec(),
        }
    }
}

impl Service for Fake {
    fn on_frame(&self, connection: &Rc<Connection>, frame: RawFrame) {
        let header = Header::decode(frame.encoding, &frame.header).unwrap();
        let asker = Asker { connection: connection.clone(), encoding: frame.encoding, opaque: header.opaque };
        let code = RequestCode(header.code);
        let is_for_namesrv =
            matches!(code, RequestCode::GET_BROKER_CLUSTER_INFO | RequestCode::GET_ROUTEINFO_BY_TOPIC);
        if is_for_namesrv && self.misdeeds.no_namesrv {
            return asker.refuse(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, "request type not supported");
        }
        if self.misdeeds.die.is_some() && !is_for_namesrv {
            let mut clients = self.clients.borrow_mut();
            if !clients.iter().any(|client| Rc::ptr_eq(client, connection)) {
                clients.push(connection.clone());
            }
        }
        match code {
            RequestCode::GET_BROKER_CLUSTER_INFO => self.cluster_info(&asker),
            RequestCode::GET_ROUTEINFO_BY_TOPIC => self.route(&asker, header.ext.get("topic").unwrap()),
            RequestCode::UPDATE_AND_CREATE_TOPIC => self.create_topic(&asker, &header.ext),
            RequestCode::GET_MAX_OFFSET => self.max_offset(&asker, &header.ext),
            RequestCode::SEND_MESSAGE_V2 => self.send(&asker, &header, &frame.body),
            RequestCode::SEND_BATCH_MESSAGE => self.send_batch(&asker, &header, &frame.body),
            RequestCode::HEART_BEAT => asker.reply(ResponseCode::SUCCESS, &NoExt, &[]),
            RequestCode::END_TRANSACTION => self.end_transaction(&header.ext),
            RequestCode::PULL_MESSAGE => self.pull(&asker, &header.ext),
            other => asker.refuse(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, &other.to_string()),
        }
    }

    fn on_closed(&self, connection: &Rc<Connection>) {
        self.clients.borrow_mut().retain(|client| !Rc::ptr_eq(client, connection));
        self.state.borrow_mut().parked.retain(|parked| !Rc::ptr_eq(&parked.asker.connection, connection));
    }
}

impl Fake {
    fn broker_datas(&self) -> Vec<BrokerData> {
        let data = |(name, address): (&str, SocketAddr)| BrokerData {
            broker_name: name.into(),
            broker_addrs: [(0, address.to_string())].into(),
            ..BrokerData::default()
        };
        let other = self.misdeeds.beside.map(|address| (OTHER_BROKER, address));
        [(BROKER, self.address.get())].into_iter().chain(other).map(data).collect()
    }

    fn cluster_info(&self, asker: &Asker) {
        let mut info = ClusterInfo::default();
        let brokers = self.broker_datas();
        info.broker_addr_table.extend(brokers.into_iter().map(|data| (data.broker_name.clone(), data)));
        asker.reply(ResponseCode::SUCCESS, &NoExt, &body::to_fastjson(&info));
    }

    fn route(&self, asker: &Asker, topic: &str) {
        let Some(queues) = self.state.borrow().topics.get(topic).copied() else {
            return asker.refuse(ResponseCode::TOPIC_NOT_EXIST, "no route");
        };
        let broker_datas = self.broker_datas();
        let queue_data = |broker: &BrokerData| QueueData {
            broker_name: broker.broker_name.clone(),
            perm: 6,
            read_queue_nums: queues,
            write_queue_nums: queues,
            ..QueueData::default()
        };
        let route = TopicRouteData {
            queue_datas: broker_datas.iter().map(queue_data).collect(),
            broker_datas,
            ..TopicRouteData::default()
        };
        asker.reply(ResponseCode::SUCCESS, &NoExt, &body::to_standard_json(&route));
    }

    fn create_topic(&self, asker: &Asker, ext: &ExtFields<'_>) {
        if self.misdeeds.no_topics {
            return asker.refuse(ResponseCode::NO_PERMISSION, "topics are made by others");
        }
        let request = CreateTopicRequest::decode(ext).unwrap();
        self.state.borrow_mut().topics.insert(request.topic.into(), request.write_queues);
        asker.reply(ResponseCode::SUCCESS, &NoExt, &[]);
    }

    fn max_offset(&self, asker: &Asker, ext: &ExtFields<'_>) {
        let request = GetMaxOffsetRequest::decode(ext).unwrap();
        let state = self.state.borrow();
        let queue = state.queues.get(&(request.topic.into(), request.queue_id));
        let offset = queue.map_or(0, Vec::len) as i64;
        asker.reply(ResponseCode::SUCCESS, &GetMaxOffsetReply { offset }, &[]);
    }

    #[expect(clippy::disallowed_methods, reason = "a stall that blocks the whole broker is what is wanted")]
    fn send(&self, asker: &Asker, header: &Header<'_>, body: &[u8]) {
        let request = SendMessageRequest::decode(&header.ext).unwrap();
        let number = self.sends.replace(self.sends.get() + 1);
        let is = |misdeed: Option<u64>| misdeed == Some(number);
        if let Some((at, pause)) = self.misdeeds.stall
            && at == number
        {
            std::thread::sleep(pause);
        }
        if self.misdeeds.die.is_some_and(|(at, _)| at == number) {
            // At once, so that nothing behind this message is taken.
            asker.connection.close("died, as told");
            return self.died.raise();
        }
        if is(self.misdeeds.refuse) {
            return asker.refuse(ResponseCode::SYSTEM_BUSY, "not now");
        }
        let mut sent = Sent::new(&request, number, body, request.properties.as_bytes());
        if is(self.misdeeds.damage) {
            *sent.body.last_mut().unwrap() ^= 1;
        }
        let offset = if is(self.misdeeds.forget) { 0 } else { self.accept(sent.clone(), asker) };
        if is(self.misdeeds.double) {
            self.store(&sent);
        }
        if is(self.misdeeds.hang_up) {
            asker.connection.close("hung up, as told");
        } else if !is(self.misdeeds.keep_silent) && !header.is_oneway() {
            let late = is(self.misdeeds.flush_late);
            let code = if late { ResponseCode::FLUSH_DISK_TIMEOUT } else { ResponseCode::SUCCESS };
            self.confirm(asker, code, request.queue_id, offset);
        }
        self.serve_parked();
    }

    fn send_batch(&self, asker: &Asker, header: &Header<'_>, body: &[u8]) {
        let request = SendMessageRequest::decode(&header.ext).unwrap();
        assert!(request.batch, "the header of a batch says so");
        for message in BatchMessages::new(body) {
            let message = message.unwrap();
            let number = self.sends.replace(self.sends.get() + 1);
            self.accept(Sent::new(&request, number, message.body, message.properties.0), asker);
        }
        if !header.is_oneway() {
            self.confirm(asker, ResponseCode::SUCCESS, request.queue_id, 0);
        }
        self.serve_parked();
    }

    fn confirm(&self, asker: &Asker, code: ResponseCode, queue_id: i32, offset: i64) {
        let id = OffsetMessageId { host: self.address.get(), physical_offset: offset };
        let reply = SendMessageReply {
            msg_id: id.to_string().into(),
            queue_id,
            queue_offset: offset,
            transaction_id: None,
            batch_uniq_id: None,
            recall_handle: None,
            region: None,
            trace_on: None,
        };
        asker.reply(code, &reply, &[]);
    }

    /// Stores a message, now or when its time has come, or keeps it as a half message; returns its offset.
    fn accept(&self, sent: Sent, asker: &Asker) -> i64 {
        let property = |name| Properties(sent.properties.as_bytes()).get(name);
        if property(property::TRANSACTION_PREPARED).is_some() {
            let mut state = self.state.borrow_mut();
            state.halves.push(Half { sent, is_ended: false });
            let place = state.halves.len() - 1;
            let (this, asker) = (self.this.upgrade().unwrap(), asker.clone());
            let ask = async move {
                glommio::timer::sleep(CHECK_AFTER).await;
                this.ask_about(place, &asker);
            };
            glommio::spawn_local(ask).detach();
            return place as i64;
        }
        let deliver_ms = property(property::TIMER_DELIVER_MS).map(|value| value.parse::<u64>().unwrap());
        let Some(deliver_ms) = deliver_ms.filter(|_| self.misdeeds.hurry != Some(sent.number)) else {
            return self.store(&sent);
        };
        let this = self.this.upgrade().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let wait = Duration::from_millis(deliver_ms).saturating_sub(now);
        glommio::spawn_local(async move {
            glommio::timer::sleep(wait).await;
            this.store(&sent);
            this.serve_parked();
        })
        .detach();
        0
    }

    /// Asks the producer of a half message what became of it, unless it has said so.
    fn ask_about(&self, place: usize, asker: &Asker) {
        let state = self.state.borrow();
        let Half { sent, is_ended: false } = &state.halves[place] else { return };
        let unique_key = Properties(sent.properties.as_bytes()).get(property::UNIQUE_KEY);
        let question = CheckTransactionStateRequest {
            topic: sent.topic.as_str().into(),
            tran_state_table_offset: place as i64,
            commit_log_offset: place as i64,
            msg_id: unique_key.map(Into::into),
            transaction_id: unique_key.map(Into::into),
            offset_msg_id: None,
            broker_name: None,
        };
        let code = RequestCode::CHECK_TRANSACTION_STATE;
        let head = RequestHead { code, opaque: 0, oneway: true, ext: &question };
        let message = Bytes::from(self.record(sent, 0));
        let sent = asker.connection.send(
            |out| encode_request(out, asker.encoding, &head, message.len()),
            [Chunk::from(message.clone())],
        );
        sent.unwrap();
    }

    fn end_transaction(&self, ext: &ExtFields<'_>) {
        let request = EndTransactionRequest::decode(ext).unwrap();
        assert_eq!(
            request.tran_state_table_offset, request.commit_log_offset,
            "as the half message's reply said"
        );
        let half = {
            let half = &mut self.state.borrow_mut().halves[request.commit_log_offset as usize];
            half.is_ended = true;
            half.sent.clone()
        };
        let unique_key = Properties(half.properties.as_bytes()).get(property::UNIQUE_KEY);
        assert_eq!(unique_key, Some(request.msg_id));
        let commits = request.commit_or_rollback == MessageSysFlag::TRANSACTION_COMMIT.0;
        if commits || self.misdeeds.never_roll_back == Some(half.number) {
            self.store(&half);
            self.serve_parked();
        }
    }

    fn store(&self, sent: &Sent) -> i64 {
        let mut state = self.state.borrow_mut();
        let queue = state.queues.entry((sent.topic.clone(), sent.queue_id)).or_default();
        let overtakes = self.misdeeds.overtake == Some(sent.number) && !queue.is_empty();
        let at = queue.len() - usize::from(overtakes);
        let bytes = self.record(sent, at);
        let tag = Properties(sent.properties.as_bytes()).get(property::TAGS).map(String::from);
        queue.insert(at, Stored { number: sent.number, tag, bytes });
        at as i64
    }

    fn record(&self, sent: &Sent, at: usize) -> Vec<u8> {
        let record = MessageRecord {
            topic: &sent.topic,
            queue_id: sent.queue_id,
            flag: 0,
            sys_flag: MessageSysFlag(0),
            born_timestamp: sent.born_timestamp,
            born_host: self.address.get(),
            store_host: self.address.get(),
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: &sent.body,
            properties: PropertyEdit { received: sent.properties.as_bytes(), set: &[], remove: &[] },
        };
        let mut bytes = vec![0; record.encoded_len().unwrap()];
        record.encode(Place { queue_offset: at as i64, physical_offset: 0, store_timestamp: 0 }, &mut bytes);
        bytes
    }

    fn pull(&self, asker: &Asker, ext: &ExtFields<'_>) {
        let request = PullMessageRequest::decode(ext).unwrap();
        assert_eq!(request.sys_flag.0, 6, "no group membership is assumed");
        let parked = Parked {
            asker: asker.clone(),
            topic: request.topic.into(),
            queue_id: request.queue_id,
            offset: request.queue_offset,
            group: request.consumer_group.into(),
            subscription: request.subscription.unwrap().into(),
        };
        self.state.borrow_mut().parked.push(parked);
        // Overtaking needs two messages in a queue before one is read.
        if self.misdeeds.overtake.is_none_or(|at| self.sends.get() > at) {
            self.serve_parked();
        }
    }

    fn serve_parked(&self) {
        if self.misdeeds.overtake.is_some_and(|at| self.sends.get() <= at) {
            return;
        }
        let mut state = self.state.borrow_mut();
        let State { parked, queues, .. } = &mut *state;
        parked.retain(|parked| {
            let queue = queues.get(&(parked.topic.clone(), parked.queue_id)).map_or(&[][..], Vec::as_slice);
            let new = queue.iter().skip(parked.offset as usize);
            if new.len() == 0 {
                return true;
            }
            let is_hidden = |stored: &Stored| {
                self.misdeeds
                    .hide
                    .is_some_and(|(group, number)| parked.group == group && stored.number == number)
            };
            let wants = |stored: &Stored| {
                let mut tags = parked.subscription.split("||").map(str::trim);
                tags.any(|wanted| wanted == "*" || stored.tag.as_deref() == Some(wanted))
                    && !is_hidden(stored)
            };
            let messages: Vec<u8> =
                new.filter(|stored| wants(stored)).flat_map(|stored| stored.bytes.iter().copied()).collect();
            let code = match messages.is_empty() {
                true => ResponseCode::PULL_RETRY_IMMEDIATELY,
                false => ResponseCode::SUCCESS,
            };
            let reply = PullMessageReply {
                suggest_which_broker_id: 0,
                next_begin_offset: queue.len() as i64,
                min_offset: 0,
                max_offset: queue.len() as i64,
                topic_sys_flag: None,
                group_sys_flag: None,
                forbidden_type: None,
            };
            parked.asker.reply(code, &reply, &messages);
            false
        });
    }
}
