//! Before the first message: find the NameServer and the brokers, make the topic, wait until it has a route.

use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::{Duration, Instant};

use apogee_net::body::{self, ClusterInfo, TopicRouteData};
use apogee_net::client::{CallError, RemotingClient};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::flags::Perm;
use apogee_net::header::{NoExt, WriteExt};
use apogee_net::request::{CreateTopicRequest, GetRouteInfoRequest};

use super::link::Access;
use crate::cluster::{self, BrokerTarget, ClusterError};
use crate::scenario::Scenario;

pub(super) const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for a topic that was just created to appear in its route. A broker registers before it answers, so
/// usually the first look finds it.
const ROUTE_WAIT_MAX: Duration = Duration::from_secs(10);
const ROUTE_POLL: Duration = Duration::from_millis(100);

/// A broker of the run and where it is.
#[derive(Clone, Debug)]
pub(super) struct Broker {
    pub(super) name: String,
    pub(super) address: SocketAddr,
}

/// Why a run cannot begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    #[error("'{given}' is no address ({reason}); expected host:port")]
    Address { given: String, reason: String },
    #[error("no NameServer can be reached: {}. Is one running there? (--namesrv host:port, default port 9876)", .tried.join("; "))]
    NameServerUnreachable { tried: Vec<String> },
    #[error(
        "{address} is not a NameServer: {how}. --namesrv wants the NameServer (default port 9876), not a broker"
    )]
    NotANameServer { address: String, how: String },
    #[error("NameServer {namesrv}: {error}")]
    Cluster { namesrv: String, error: ClusterError },
    #[error(
        "broker '{name}' is registered at {address}, but cannot be used from here: {reason}. A broker must register \
         an address that its clients can reach (brokerIP1)"
    )]
    BrokerUnreachable { name: String, address: String, reason: String },
    #[error("broker '{broker}' refuses {what}: {code}{}{remark}", if .remark.is_empty() { "" } else { ", " })]
    Refused { broker: String, what: &'static str, code: ResponseCode, remark: String },
    #[error("topic '{topic}' has no route to {} after {waited:?}, though each broker said it was created", .missing.join(", "))]
    NoRoute { topic: String, missing: Vec<String>, waited: Duration },
}

/// Finds the brokers and makes the topic on each of them.
pub(super) async fn prepare(scenario: &Scenario, access: &Access) -> Result<Vec<Broker>, SetupError> {
    let (namesrv, cluster) = find_cluster(&scenario.target.namesrv, access).await?;
    let targets = cluster::select_brokers(&cluster, scenario.target.brokers.as_deref())
        .map_err(|error| SetupError::Cluster { namesrv: namesrv.peer().to_string(), error })?;
    let mut brokers = Vec::with_capacity(targets.len());
    let topics = scenario.topic_names();
    for target in &targets {
        brokers.push(create_topics(target, &topics, scenario, access).await?);
    }
    for topic in &topics {
        await_route(&namesrv, &targets, topic, scenario.topics.queues).await?;
    }
    Ok(brokers)
}

/// The first NameServer that can be connected to, and what it knows. One that answers wrongly ends the search: the
/// address is a mistake.
async fn find_cluster(
    addresses: &[String],
    access: &Access,
) -> Result<(Rc<RemotingClient>, ClusterInfo), SetupError> {
    let mut tried = Vec::new();
    for given in addresses {
        let client = match RemotingClient::connect(resolve(given)?, &access.options()).await {
            Ok(client) => client,
            Err(error) => {
                tried.push(format!("{given}: {error}"));
                continue;
            }
        };
        let wrong = |how: String| SetupError::NotANameServer { address: given.clone(), how };
        let request = client.call(RequestCode::GET_BROKER_CLUSTER_INFO, &NoExt, [], ADMIN_TIMEOUT);
        let reply = match request.await {
            Ok(reply) => reply,
            Err(CallError::Closed) => return Err(wrong(how_it_closed(&client))),
            Err(error) => return Err(wrong(error.to_string())),
        };
        if reply.code() != ResponseCode::SUCCESS {
            return Err(wrong(format!("asked for its brokers it answers {}", reply.code())));
        }
        let cluster = body::parse(reply.body()).map_err(|error| wrong(error.to_string()))?;
        return Ok((client, cluster));
    }
    Err(SetupError::NameServerUnreachable { tried })
}

async fn create_topics(
    target: &BrokerTarget,
    topics: &[String],
    scenario: &Scenario,
    access: &Access,
) -> Result<Broker, SetupError> {
    let unreachable = |reason: String| SetupError::BrokerUnreachable {
        name: target.name.clone(),
        address: target.address.clone(),
        reason,
    };
    let address = resolve(&target.address)?;
    let client = RemotingClient::connect(address, &access.options()).await;
    let client = client.map_err(|error| unreachable(error.to_string()))?;
    let queues = i32::try_from(scenario.topics.queues).expect("bounded by QUEUES_PER_BROKER_MAX");
    for topic in topics {
        let request = CreateTopicRequest {
            topic,
            default_topic: "TBW102",
            read_queues: queues,
            write_queues: queues,
            perm: Perm::READ_WRITE,
            filter_type: "SINGLE_TAG",
            topic_sys_flag: Some(0),
            order: false,
            attributes: None,
            force: false,
        };
        let code = RequestCode::UPDATE_AND_CREATE_TOPIC;
        ask_broker(&client, &target.name, code, &request, "to create the topic").await?;
    }
    Ok(Broker { name: target.name.clone(), address })
}

/// One question to a broker during the setup; anything but success is an error that names it.
pub(super) async fn ask_broker(
    client: &RemotingClient,
    broker: &str,
    code: RequestCode,
    request: &dyn WriteExt,
    what: &'static str,
) -> Result<apogee_net::client::ReplyFrame, SetupError> {
    let reply = client.call(code, request, [], ADMIN_TIMEOUT).await.map_err(|error| {
        let (name, address) = (broker.to_owned(), client.peer().to_string());
        let reason = if error == CallError::Closed { how_it_closed(client) } else { error.to_string() };
        SetupError::BrokerUnreachable { name, address, reason }
    })?;
    if reply.code() == ResponseCode::SUCCESS {
        return Ok(reply);
    }
    let remark = reply.header().remark.map(String::from).unwrap_or_default();
    Err(SetupError::Refused { broker: broker.to_owned(), what, code: reply.code(), remark })
}

/// Under TLS 1.3 a server that does not like its client says so after the client believes itself connected.
fn how_it_closed(client: &RemotingClient) -> String {
    let why = client.fault().map_or_else(String::new, |fault| format!(" ({fault})"));
    format!("it closes the connection when asked{why}")
}

async fn await_route(
    namesrv: &RemotingClient,
    brokers: &[BrokerTarget],
    topic: &str,
    queues: u32,
) -> Result<(), SetupError> {
    let request =
        GetRouteInfoRequest { topic, accept_standard_json_only: true, zone_name: None, zone_mode: false };
    let wrong = |how: String| SetupError::NotANameServer { address: namesrv.peer().to_string(), how };
    let started = Instant::now();
    loop {
        let reply = namesrv.call(RequestCode::GET_ROUTEINFO_BY_TOPIC, &request, [], ADMIN_TIMEOUT).await;
        let reply = reply.map_err(|error| wrong(error.to_string()))?;
        let route = match reply.code() {
            ResponseCode::SUCCESS => body::parse(reply.body()).map_err(|error| wrong(error.to_string()))?,
            ResponseCode::TOPIC_NOT_EXIST => TopicRouteData::default(),
            code => return Err(wrong(format!("asked for a route it answers {code}"))),
        };
        let missing = cluster::not_yet_routed(&route, brokers, queues);
        if missing.is_empty() {
            return Ok(());
        }
        if started.elapsed() >= ROUTE_WAIT_MAX {
            let missing = missing.into_iter().map(str::to_owned).collect();
            return Err(SetupError::NoRoute { topic: topic.to_owned(), missing, waited: ROUTE_WAIT_MAX });
        }
        // The NameServer tells nobody about changes; clients ask again, as here.
        glommio::timer::sleep(ROUTE_POLL).await;
    }
}

pub(super) fn resolve(given: &str) -> Result<SocketAddr, SetupError> {
    let wrong = |reason: String| SetupError::Address { given: given.to_owned(), reason };
    let mut addresses = given.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    addresses.next().ok_or_else(|| wrong("the name has no address".to_owned()))
}
