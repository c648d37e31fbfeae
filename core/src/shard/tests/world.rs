//! A shard with a fake clock and a fake disk, asked over the wire format: no executor, socket or file.
//!
//! Tests of every folder of the shard may use it.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;

use apogee_net::body::{
    ConsumeType, ConsumerData, HeartbeatData, MessageModel, SubscriptionData, to_fastjson,
};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::command::{ReplyHead, RequestHead, append_request, encode_reply};
use apogee_net::flags::{MessageSysFlag, PullSysFlag};
use apogee_net::frame::{HeaderEncoding, RawFrame, split_frame};
use apogee_net::header::{Header, NoExt, WriteExt};
use apogee_net::io::ConnectionId;
use apogee_net::message::{StoredMessage, StoredMessages};
use apogee_net::request::{PullMessageRequest, QueryConsumerOffsetRequest, SendMessageRequest};
use apogee_storage::sim::SimDisk;
use apogee_storage::{AlignedBuffer, GroupId, LogConfig, NodeId, Run, recover};
use bytes::BytesMut;

use crate::replication::PeerMessage;
use crate::service::{Reply, ReplyTo, Request};
use crate::shard::settings::Settings;
use crate::shard::timers::TimerSettings;
use crate::shard::topics::TopicPolicy;
use crate::shard::{
    Action, Fetch, ForwardId, ForwardRequest, Need, Push, Rank, Replay, SearchError, Shard, ShardConfig,
};

pub(in crate::shard) const START_MS: i64 = 1_700_000_000_000;
pub(in crate::shard) const PRODUCER: ConnectionId = ConnectionId(1);
pub(in crate::shard) const CONSUMER: ConnectionId = ConnectionId(2);
/// Where clients are.
pub(in crate::shard) const CLIENT: &str = "10.0.0.1:5555";
pub(in crate::shard) const BROKER: &str = "broker-a-0";

pub(in crate::shard) struct World {
    pub(in crate::shard) shard: Shard<AlignedBuffer>,
    pub(in crate::shard) disk: SimDisk,
    pub(in crate::shard) log_config: LogConfig,
    pub(in crate::shard) now_ms: i64,
    pub(in crate::shard) next_opaque: i32,
    pub(in crate::shard) answered: BTreeMap<i32, Answered>,
    pub(in crate::shard) pushed: Vec<Pushed>,
    pub(in crate::shard) registrations: usize,
    /// Topics whose route was asked for.
    pub(in crate::shard) route_asked: Vec<String>,
    /// How often index pages had to be loaded for a request.
    pub(in crate::shard) loads: usize,
    /// What the shard wants of its group.
    pub(in crate::shard) group: GroupSide,
}

/// What a shard sent to the other nodes, and told of itself, since somebody looked.
#[derive(Default)]
pub(in crate::shard) struct GroupSide {
    pub(in crate::shard) to_peers: VecDeque<(NodeId, PeerMessage<Run<AlignedBuffer>>)>,
    pub(in crate::shard) forwards: VecDeque<(Option<ForwardId>, NodeId, ForwardRequest)>,
    pub(in crate::shard) ranks: Vec<Rank>,
    pub(in crate::shard) alarms: Vec<String>,
}

/// A request from the broker, as a client sees it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::shard) struct Pushed {
    pub(in crate::shard) to: ConnectionId,
    pub(in crate::shard) code: RequestCode,
    pub(in crate::shard) ext: BTreeMap<String, String>,
    pub(in crate::shard) body: Vec<u8>,
    pub(in crate::shard) answered_as: Option<i32>,
}

impl Pushed {
    fn of(to: ConnectionId, push: &Push) -> Self {
        let body: Vec<u8> = push.body.iter().flat_map(|chunk| chunk.in_memory().unwrap().to_vec()).collect();
        let head = RequestHead {
            code: push.code,
            opaque: push.answered_as.unwrap_or(0),
            oneway: push.answered_as.is_none(),
            ext: &*push.ext,
        };
        let mut wire = BytesMut::new();
        append_request(&mut wire, HeaderEncoding::Json, &head, &body).unwrap();
        let frame = split_frame(&mut wire).unwrap().unwrap();
        let header = Header::decode(frame.encoding, &frame.header).unwrap();
        let ext = header.ext.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Pushed { to, code: push.code, ext, body, answered_as: push.answered_as }
    }
}

/// A reply as a client sees it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::shard) struct Answered {
    pub(in crate::shard) code: ResponseCode,
    pub(in crate::shard) remark: String,
    pub(in crate::shard) ext: BTreeMap<String, String>,
    pub(in crate::shard) body: Vec<u8>,
}

impl Answered {
    pub(in crate::shard) fn int(&self, field: &str) -> i64 {
        self.ext.get(field).unwrap_or_else(|| panic!("{field} in {self:?}")).parse().unwrap()
    }

    pub(in crate::shard) fn messages(&self) -> Vec<StoredMessage<'_>> {
        StoredMessages::new(&self.body).collect::<Result<_, _>>().unwrap()
    }

    pub(in crate::shard) fn bodies(&self) -> Vec<String> {
        self.messages().iter().map(|message| String::from_utf8(message.body.to_vec()).unwrap()).collect()
    }
}

pub(in crate::shard) fn log_config() -> LogConfig {
    LogConfig { segment_bytes: 16 << 20, tail_cache_bytes: 1 << 20, ..LogConfig::new(GroupId(7), NodeId(0)) }
}

pub(in crate::shard) fn policy() -> TopicPolicy {
    TopicPolicy {
        cluster_name: "DefaultCluster".into(),
        broker_name: BROKER.into(),
        auto_create: true,
        has_trace_topic: false,
    }
}

pub(in crate::shard) fn open(disk: &SimDisk, log_config: &LogConfig, now_ms: i64) -> Shard<AlignedBuffer> {
    let mut replay = Replay::new(policy(), true);
    let recovered = recover(disk, log_config, &mut replay).unwrap();
    let config = shard_config("127.0.0.1:10911".parse().unwrap());
    Shard::open(config, log_config.clone(), recovered, replay, now_ms).unwrap()
}

pub(in crate::shard) fn shard_config(address: SocketAddr) -> ShardConfig {
    ShardConfig {
        cluster: "DefaultCluster".into(),
        broker_name: BROKER.into(),
        shards: 1,
        address,
        message_bytes_max: 4 << 20,
        timers: TimerSettings::default(),
        enable_property_filter: true,
        settings: Settings { recall_enable: true, ..Settings::default() },
        properties: Rc::default(),
        server_side_reset: true,
    }
}

impl World {
    pub(in crate::shard) fn new() -> Self {
        Self::with_seed(1)
    }

    pub(in crate::shard) fn with_seed(seed: u64) -> Self {
        Self::with(seed, log_config())
    }

    pub(in crate::shard) fn with(seed: u64, log_config: LogConfig) -> Self {
        let disk = SimDisk::new(seed);
        disk.set_new_state(Replay::new_state(policy(), true));
        let shard = open(&disk, &log_config, START_MS);
        let mut world = World::of(shard, disk, log_config, START_MS);
        world.settle();
        world
    }

    pub(in crate::shard) fn of(
        shard: Shard<AlignedBuffer>,
        disk: SimDisk,
        log_config: LogConfig,
        now_ms: i64,
    ) -> Self {
        World {
            shard,
            disk,
            log_config,
            now_ms,
            next_opaque: 1,
            answered: BTreeMap::new(),
            pushed: Vec::new(),
            registrations: 0,
            route_asked: Vec::new(),
            loads: 0,
            group: GroupSide::default(),
        }
    }

    /// Sends a request over the wire form and returns the number its reply will carry.
    pub(in crate::shard) fn ask(
        &mut self,
        from: ConnectionId,
        code: RequestCode,
        ext: &dyn WriteExt,
        body: &[u8],
    ) -> i32 {
        let opaque = self.next_opaque;
        self.next_opaque += 1;
        self.request(from, RequestHead { code, opaque, oneway: false, ext }, body);
        opaque
    }

    pub(in crate::shard) fn request(&mut self, from: ConnectionId, head: RequestHead<'_>, body: &[u8]) {
        self.request_of(CLIENT.parse().unwrap(), from, head, body);
    }

    /// A request of somebody at this address.
    pub(in crate::shard) fn request_of(
        &mut self,
        peer: SocketAddr,
        from: ConnectionId,
        head: RequestHead<'_>,
        body: &[u8],
    ) {
        let mut wire = BytesMut::new();
        append_request(&mut wire, HeaderEncoding::Json, &head, body).unwrap();
        let frame = split_frame(&mut wire).unwrap().unwrap();
        let mut request = Request::decode(from, peer, &frame).unwrap();
        while let Err(pages) = self.shard.on_request(&request, self.now_ms) {
            // Damage is met by the request itself when it is asked again.
            let _ = pages.index.load(pages.range);
            request = Request::decode_again(from, peer, &frame);
            self.loads += 1;
        }
        self.submit();
    }

    /// Hands operations to the disk, which does nothing yet, and takes actions.
    pub(in crate::shard) fn submit(&mut self) {
        loop {
            while let Some(action) = self.shard.take_action() {
                self.carry_out(action);
            }
            match self.shard.poll_op(self.now_ms, SimDisk::alloc) {
                Some(op) => self.disk.submit(op),
                None => match self.shard.take_action() {
                    Some(action) => self.carry_out(action),
                    None => return,
                },
            }
        }
    }

    /// Lets the disk carry out one operation; false if it has none.
    pub(in crate::shard) fn step(&mut self) -> bool {
        let Some(completion) = self.disk.step() else { return false };
        self.shard.on_completion(completion, self.now_ms);
        self.submit();
        true
    }

    pub(in crate::shard) fn settle(&mut self) {
        self.submit();
        while self.step() {}
    }

    pub(in crate::shard) fn tick(&mut self, ms: i64) {
        self.now_ms += ms;
        self.shard.on_tick(self.now_ms);
        self.settle();
    }

    /// The power goes, and the shard starts again on what is left.
    pub(in crate::shard) fn crash(&mut self) {
        self.disk.crash();
        self.now_ms += 1000;
        self.shard = open(&self.disk, &self.log_config, self.now_ms);
        self.settle();
    }

    pub(in crate::shard) fn carry_out(&mut self, action: Action<AlignedBuffer>) {
        match action {
            Action::Reply { to, reply } => self.answer(to, reply),
            Action::Read { to, mut reply, runs } => {
                for run in runs {
                    reply = match run {
                        Fetch::Here(chunk) => reply.with_body(chunk.in_memory().unwrap().to_vec()),
                        Fetch::File(run) => reply.with_body(self.disk.read(run)),
                    };
                }
                self.answer(to, reply);
            }
            Action::Load { id, need } => {
                let loaded = match need {
                    Need::Pages(pages) => {
                        // Damage is met by whoever looks into the pages.
                        let _ = pages.index.load(pages.range);
                        Vec::new()
                    }
                    Need::Runs(runs) => runs.into_iter().map(|run| self.disk.read(run).into()).collect(),
                };
                self.loads += 1;
                self.shard.on_loaded(id, Ok(loaded), self.now_ms);
            }
            Action::FindKey { id, search } => {
                let loads = &mut self.loads;
                let found = search.run(|index, range| {
                    *loads += 1;
                    index.load(range).map_err(SearchError::Fault)
                });
                self.shard.on_keys_found(id, found, self.now_ms);
            }
            Action::Push { to, push } => self.pushed.push(Pushed::of(to, &push)),
            Action::FindRoute { topic } => self.route_asked.push(topic),
            Action::Close { .. } => {}
            Action::Peer { to, message } => self.group.to_peers.push_back((to, message)),
            Action::Forward { id, to, request } => self.group.forwards.push_back((id, to, request)),
            Action::RoleChanged(rank) => self.group.ranks.push(rank),
            Action::MembersChanged(_) => {}
            Action::Alarm(text) => self.group.alarms.push(text),
            Action::Register { then } => {
                self.registrations += 1;
                if let Some((to, reply)) = then {
                    self.answer(to, reply);
                }
            }
        }
    }

    pub(in crate::shard) fn answer(&mut self, to: ReplyTo, reply: Reply) {
        let body: Vec<u8> = reply.body.iter().flat_map(|chunk| chunk.in_memory().unwrap().to_vec()).collect();
        let head = ReplyHead {
            code: reply.code,
            opaque: to.opaque,
            remark: reply.remark.as_deref(),
            ext: &reply.ext,
        };
        let mut wire = BytesMut::new();
        encode_reply(&mut wire, to.encoding, &head, body.len()).unwrap();
        wire.extend_from_slice(&body);
        let RawFrame { encoding, header, body } = split_frame(&mut wire).unwrap().unwrap();
        let header = Header::decode(encoding, &header).unwrap();
        let ext = header.ext.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let answered = Answered {
            code: ResponseCode(header.code),
            remark: header.remark.as_deref().unwrap_or_default().to_owned(),
            ext,
            body: body.to_vec(),
        };
        assert!(self.answered.insert(header.opaque, answered).is_none(), "answered twice");
    }

    /// Connections and codes of what was pushed since the last call.
    pub(in crate::shard) fn take_pushed(&mut self) -> Vec<(ConnectionId, RequestCode)> {
        std::mem::take(&mut self.pushed).into_iter().map(|pushed| (pushed.to, pushed.code)).collect()
    }

    /// The client answers a request of the broker's.
    pub(in crate::shard) fn answer_push(&mut self, pushed: &Pushed, code: ResponseCode, body: &[u8]) {
        let opaque = pushed.answered_as.expect("a request that is answered");
        let head = ReplyHead { code, opaque, remark: None, ext: &NoExt };
        let mut wire = BytesMut::new();
        encode_reply(&mut wire, HeaderEncoding::Json, &head, body.len()).unwrap();
        wire.extend_from_slice(body);
        let frame = split_frame(&mut wire).unwrap().unwrap();
        let answer = Request::decode(pushed.to, CLIENT.parse().unwrap(), &frame).unwrap();
        self.shard.on_answer(&answer, self.now_ms);
        self.settle();
    }

    pub(in crate::shard) fn asked(
        &mut self,
        from: ConnectionId,
        code: RequestCode,
        ext: &dyn WriteExt,
        body: &[u8],
    ) -> Answered {
        let opaque = self.ask(from, code, ext, body);
        self.settle();
        self.answered.remove(&opaque).expect("an answer")
    }

    pub(in crate::shard) fn send(&mut self, topic: &str, body: &str) -> Answered {
        self.send_tagged(topic, body, "")
    }

    pub(in crate::shard) fn send_tagged(&mut self, topic: &str, body: &str, tag: &str) -> Answered {
        let properties = if tag.is_empty() { String::new() } else { format!("TAGS\u{1}{tag}\u{2}") };
        let send = SendMessageRequest { properties: &properties, ..send_to(topic) };
        self.asked(PRODUCER, RequestCode::SEND_MESSAGE_V2, &send, body.as_bytes())
    }

    pub(in crate::shard) fn start_pull(&mut self, pull: &PullMessageRequest<'_>) -> i32 {
        let opaque = self.ask(CONSUMER, RequestCode::PULL_MESSAGE, pull, b"");
        self.settle();
        opaque
    }

    pub(in crate::shard) fn pull(&mut self, pull: &PullMessageRequest<'_>) -> Answered {
        self.asked(CONSUMER, RequestCode::PULL_MESSAGE, pull, b"")
    }

    pub(in crate::shard) fn heartbeat(
        &mut self,
        from: ConnectionId,
        client_id: &str,
        group: &str,
        topic: &str,
        tags: &str,
    ) -> Answered {
        let subscription = SubscriptionData::of_tags(topic, tags, START_MS);
        let consumer = ConsumerData {
            group_name: group.into(),
            consume_type: ConsumeType::Passively,
            message_model: MessageModel::Clustering,
            subscription_data_set: vec![subscription],
            ..Default::default()
        };
        let data = HeartbeatData {
            client_id: client_id.into(),
            consumer_data_set: vec![consumer],
            ..Default::default()
        };
        self.asked(from, RequestCode::HEART_BEAT, &NoExt, &to_fastjson(&data))
    }

    pub(in crate::shard) fn committed_offset(&mut self, group: &str, topic: &str) -> Answered {
        let query = QueryConsumerOffsetRequest {
            consumer_group: group,
            topic,
            queue_id: 0,
            set_zero_if_not_found: false,
        };
        self.asked(CONSUMER, RequestCode::QUERY_CONSUMER_OFFSET, &query, b"")
    }
}

pub(in crate::shard) fn send_to(topic: &str) -> SendMessageRequest<'_> {
    SendMessageRequest {
        producer_group: "PG",
        topic,
        default_topic: "TBW102",
        default_topic_queues: 4,
        queue_id: 0,
        sys_flag: MessageSysFlag(0),
        born_timestamp: START_MS,
        flag: 0,
        properties: "",
        reconsume_times: 0,
        unit_mode: false,
        max_reconsume_times: None,
        batch: false,
        broker_name: None,
    }
}

/// A pull that brings its own filter and does not wait.
pub(in crate::shard) fn pull_from(topic: &str, queue_offset: i64) -> PullMessageRequest<'_> {
    PullMessageRequest {
        consumer_group: "CG",
        topic,
        queue_id: 0,
        queue_offset,
        messages_max: 32,
        sys_flag: PullSysFlag::SUBSCRIPTION,
        commit_offset: 0,
        suspend_timeout_ms: 0,
        subscription: Some("*"),
        sub_version: 0,
        expression_type: Some("TAG"),
        message_bytes_max: None,
    }
}

pub(in crate::shard) fn waiting(pull: PullMessageRequest<'_>) -> PullMessageRequest<'_> {
    PullMessageRequest {
        sys_flag: pull.sys_flag.with(PullSysFlag::SUSPEND),
        suspend_timeout_ms: 15_000,
        ..pull
    }
}
