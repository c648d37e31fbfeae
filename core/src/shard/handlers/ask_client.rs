//! What only a client knows: GET_CONSUMER_RUNNING_INFO (307) and CONSUME_MESSAGE_DIRECTLY (309) are passed on to one,
//! INVOKE_BROKER_TO_GET_CONSUMER_STATUS (223) asks all of a group and puts their answers together.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use apogee_net::body::{GetConsumerStatusBody, MessageQueue, parse, to_fastjson};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::header::{ExtWriter, WriteExt};
use apogee_net::io::{Chunk, ConnectionId};
use apogee_net::message::OffsetMessageId;
use apogee_net::request::{
    ConsumeMessageDirectlyRequest, GetConsumerRunningInfoRequest, GetConsumerStatusRequest, TypedHeader,
};
use apogee_storage::{Buffer, LogOffset};
use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::reset_offset::CLIENT_VERSION_MIN;
use super::{Answer, Handled};
use crate::service::{Reply, ReplyTo, Request};
use crate::shard::call::{CallError, ClientAnswer};
use crate::shard::load::{LoadError, Wanted};
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;

/// Clients older than this do not know the requests (`MQVersion.Version.V3_1_8_SNAPSHOT`).
const FORWARD_VERSION_MIN: i32 = 62;

/// How long the client of a request that is passed on has (`Broker2Client#callClient`).
const FORWARD_TIMEOUT_MS: i64 = 10_000;

/// How long the clients of a group have to say where they are. They are asked at the same time.
const STATUS_TIMEOUT_MS: i64 = 5_000;

/// Clients that one request asks. Of a larger group, one must be named.
const CLIENTS_ASKED_MAX: usize = 512;

/// Extra fields as they came, or made here.
struct Fields(Vec<(String, String)>);

impl WriteExt for Fields {
    fn write_ext(&self, fields: &mut ExtWriter<'_>) {
        for (name, value) in &self.0 {
            fields.str(name, value);
        }
    }
}

impl Fields {
    fn of(request: &Request<'_>) -> Self {
        let fields = request.header.ext.iter();
        Fields(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn set(&mut self, name: &str, value: String) {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value));
    }
}

/// A request on its way to a client, and back to the tool.
struct Forward {
    to: Option<ReplyTo>,
    code: RequestCode,
    group: String,
    client_id: String,
    client: ConnectionId,
    fields: Fields,
}

impl<B: Buffer + 'static> Shard<B> {
    fn find_client(&self, group: &str, client_id: &str) -> Result<ConnectionId, Refusal> {
        let members = self.clients.consumer_group(group);
        let Some((client, member)) = members.and_then(|members| members.member(client_id)) else {
            let remark = format!("The Consumer <{group}> <{client_id}> not online");
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
        };
        if member.version() < FORWARD_VERSION_MIN {
            let remark = format!(
                "The Consumer <{client_id}> Version <{}> too low to finish, please upgrade it to V3_1_8_SNAPSHOT",
                member.version()
            );
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
        }
        Ok(client)
    }

    /// The client's answer is the tool's, whatever it says.
    fn forward(&mut self, forward: Forward, body: Bytes, now_ms: i64) {
        let Forward { to, code, group, client_id, client, fields } = forward;
        let chunks: SmallVec<[Chunk; 2]> =
            if body.is_empty() { SmallVec::new() } else { smallvec![Chunk::Bytes(body)] };
        let then = move |shard: &mut Self, answer: Result<ClientAnswer, CallError>, _: i64| {
            let reply = match answer {
                Ok(ClientAnswer { code, remark, ext, body }) => {
                    let reply = Reply::new(code).with_ext(Fields(ext)).with_body(body);
                    match remark {
                        Some(remark) => reply.with_remark(remark),
                        None => reply,
                    }
                }
                Err(error @ CallError::Timeout(_)) => {
                    let remark = format!("consumer <{group}> <{client_id}> Timeout: {error}");
                    Reply::error(ResponseCode::CONSUME_MSG_TIMEOUT, remark)
                }
                Err(error @ (CallError::Closed | CallError::Full)) => {
                    let remark = format!("invoke consumer <{group}> <{client_id}> Exception: {error}");
                    Reply::error(ResponseCode::SYSTEM_ERROR, remark)
                }
            };
            shard.reply(to, reply);
        };
        self.call(client, code, Box::new(fields), chunks, now_ms, FORWARD_TIMEOUT_MS, Box::new(then));
    }
}

pub(super) fn running_info<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = GetConsumerRunningInfoRequest::decode(&request.header.ext)?;
    let client = shard.find_client(wanted.consumer_group, wanted.client_id)?;
    let forward = Forward {
        to: request.reply_to(),
        code: RequestCode::GET_CONSUMER_RUNNING_INFO,
        group: wanted.consumer_group.to_owned(),
        client_id: wanted.client_id.to_owned(),
        client,
        fields: Fields::of(request),
    };
    shard.forward(forward, request.body.clone(), now_ms);
    Ok(Answer::Later)
}

/// The client gets the message as it is stored.
pub(super) fn consume_directly<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = ConsumeMessageDirectlyRequest::decode(&request.header.ext)?;
    let group = wanted.consumer_group;
    let client_id = wanted.client_id.unwrap_or("null");
    let client = shard.find_client(group, client_id)?;
    let message_id = wanted.msg_id.unwrap_or_default();
    let no_message = |reason: String| {
        Refusal::new(ResponseCode::SYSTEM_ERROR, format!("no message {message_id:?} to consume: {reason}"))
    };
    let id = OffsetMessageId::parse(message_id).map_err(|error| no_message(error.to_string()))?;
    let offset = u64::try_from(id.physical_offset).map_err(|_| no_message("negative offset".into()))?;

    let mut fields = Fields::of(request);
    fields.set("brokerName", shard.config.broker_name.clone());
    if let Some(topic) = wanted.topic.and_then(|topic| shard.topics.get(topic)) {
        fields.set("topicSysFlag", topic.config().topic_sys_flag.to_string());
    }
    if let Some(config) = shard.groups.get(group) {
        fields.set("groupSysFlag", config.group_sys_flag.to_string());
    }
    let forward = Forward {
        to: request.reply_to(),
        code: RequestCode::CONSUME_MESSAGE_DIRECTLY,
        group: group.to_owned(),
        client_id: client_id.to_owned(),
        client,
        fields,
    };
    let message_id = message_id.to_owned();
    let then = move |shard: &mut Shard<B>, message: Result<Bytes, LoadError>, now_ms: i64| match message {
        Ok(message) => shard.forward(forward, message, now_ms),
        Err(error) => {
            let remark = format!("no message {message_id:?} to consume: {error}");
            shard.reply(forward.to, Refusal::new(ResponseCode::SYSTEM_ERROR, remark).into());
        }
    };
    shard.load(Wanted::At(LogOffset(offset)), now_ms, Box::new(then));
    Ok(Answer::Later)
}

/// Answers that come in one by one.
struct Collected {
    to: Option<ReplyTo>,
    unanswered: usize,
    by_client: BTreeMap<String, BTreeMap<MessageQueue, i64>>,
}

/// Where each client of a group is in its queues of a topic. Clients that do not answer are left out.
pub(super) fn consumer_status<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = GetConsumerStatusRequest::decode(&request.header.ext)?;
    let only = wanted.client_addr.filter(|client| !client.trim().is_empty());
    let refused = |remark: String| Refusal::new(ResponseCode::SYSTEM_ERROR, remark);
    let members = shard.clients.consumer_group(wanted.group).ok_or_else(|| {
        refused(format!("No Any Consumer online in the consumer group: [{}]", wanted.group))
    })?;
    if let Some((_, old)) = members.members().find(|(_, member)| member.version() < CLIENT_VERSION_MIN) {
        let remark = format!("the client does not support this feature. version={}", old.version());
        return Err(refused(remark).into());
    }
    let asked: Vec<(ConnectionId, String)> = match only {
        Some(client_id) => members.member(client_id).into_iter().collect::<Vec<_>>(),
        None => members.members().take(CLIENTS_ASKED_MAX + 1).collect(),
    }
    .into_iter()
    .map(|(connection, member)| (connection, member.client_id().to_owned()))
    .collect();
    if asked.len() > CLIENTS_ASKED_MAX {
        let remark = format!("the group has more than {CLIENTS_ASKED_MAX} clients; name one (clientAddr)");
        return Err(refused(remark).into());
    }
    let collected = Collected { to: request.reply_to(), unanswered: asked.len(), by_client: BTreeMap::new() };
    if asked.is_empty() {
        return Ok(collected.reply().into());
    }
    let collected = Rc::new(RefCell::new(collected));
    for (connection, client_id) in asked {
        let collected = Rc::clone(&collected);
        let then = move |shard: &mut Shard<B>, answer: Result<ClientAnswer, CallError>, _: i64| {
            let mut collected = collected.borrow_mut();
            if let Some(status) = answer.ok().and_then(|answer| status_of(&answer)) {
                collected.by_client.insert(client_id, status);
            }
            collected.unanswered -= 1;
            if collected.unanswered == 0 {
                let (to, reply) = (collected.to, collected.reply());
                shard.reply(to, reply);
            }
        };
        let ext = Fields(vec![
            ("topic".to_owned(), wanted.topic.to_owned()),
            ("group".to_owned(), wanted.group.to_owned()),
        ]);
        let code = RequestCode::GET_CONSUMER_STATUS_FROM_CLIENT;
        shard.call(
            connection,
            code,
            Box::new(ext),
            SmallVec::new(),
            now_ms,
            STATUS_TIMEOUT_MS,
            Box::new(then),
        );
    }
    Ok(Answer::Later)
}

impl Collected {
    fn reply(&self) -> Reply {
        let body = GetConsumerStatusBody {
            consumer_table: self.by_client.clone(),
            ..GetConsumerStatusBody::default()
        };
        Reply::success().with_body(to_fastjson(&body))
    }
}

fn status_of(answer: &ClientAnswer) -> Option<BTreeMap<MessageQueue, i64>> {
    let is_success = answer.code == ResponseCode::SUCCESS && !answer.body.is_empty();
    let body: GetConsumerStatusBody = is_success.then(|| parse(&answer.body).ok())??;
    Some(body.message_queue_table)
}
