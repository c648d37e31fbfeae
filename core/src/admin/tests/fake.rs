//! A group of nodes and its NameServer: listeners of a test that answer by one table.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use apogee_net::body::{BrokerData, ClusterInfo, GroupNode, GroupRole, GroupStatus, to_fastjson};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::command::{ReplyHead, append_reply};
use apogee_net::frame::split_frame;
use apogee_net::header::{Header, NoExt};
use apogee_net::request::{ChangeMembersRequest, TransferLeaderRequest, TypedHeader};
use bytes::BytesMut;
use socket2::{Domain, Socket, Type};

const SHARDS: u16 = 2;

/// Two shards on three nodes; node 1 leads the first, node 2 the second.
pub(super) struct FakeGroup {
    table: Arc<Mutex<Table>>,
    namesrv: SocketAddr,
}

#[derive(Default)]
struct Table {
    /// Base address of each node, dead or alive.
    nodes: BTreeMap<i64, SocketAddr>,
    dead: Vec<i64>,
    recovering: Vec<i64>,
    shards: [Shard; SHARDS as usize],
    /// How often the leader still says that the node to be promoted is behind.
    behind: i64,
    refusal: Option<&'static str>,
    ignores_orders: bool,
    no_group: bool,
    /// No NameServer has heard of this shard.
    unregistered: Option<i64>,
    /// This shard runs at no node.
    not_running: Option<i64>,
    /// Ports of dead nodes.
    closed: Vec<Socket>,
}

#[derive(Default)]
struct Shard {
    leader: Option<i64>,
    members: BTreeMap<i64, &'static str>,
}

type Answer = (ResponseCode, String, Vec<u8>);

impl FakeGroup {
    pub(super) fn start() -> FakeGroup {
        let table = Arc::new(Mutex::new(Table::default()));
        let namesrv = TcpListener::bind("127.0.0.1:0").unwrap();
        let fake = FakeGroup { table: table.clone(), namesrv: namesrv.local_addr().unwrap() };
        listen(namesrv, move |code, _| table.lock().unwrap().nameserver(code));
        for node in 1..=3 {
            fake.add_node(node);
            for shard in &mut fake.table().shards {
                shard.members.insert(node, "voter");
            }
        }
        fake.set_leader(0, Some(1));
        fake.set_leader(1, Some(2));
        fake
    }

    /// A node that runs and belongs to nothing. Returns its base address.
    pub(super) fn add_node(&self, node: i64) -> SocketAddr {
        let ip = IpAddr::V4(Ipv4Addr::new(127, 0, 0, u8::try_from(node).unwrap()));
        let (base, sockets) = free_ports(ip);
        self.table().nodes.insert(node, base);
        for (shard, socket) in (0..).zip(sockets) {
            let table = self.table.clone();
            socket.listen(128).unwrap();
            listen(socket.into(), move |code, header| table.lock().unwrap().node(node, shard, code, header));
        }
        base
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap()
    }

    pub(super) fn namesrv(&self) -> SocketAddr {
        self.namesrv
    }

    pub(super) fn address(&self, node: i64, shard: u16) -> SocketAddr {
        self.table().address(node, shard.into())
    }

    /// From now on the node is as one whose machine is there and whose process is not. Shards that it led have no leader.
    pub(super) fn kill(&self, node: i64) {
        let mut table = self.table();
        table.dead.push(node);
        let (nowhere, sockets) = free_ports(table.nodes[&node].ip());
        table.nodes.insert(node, nowhere);
        table.closed.extend(sockets);
        for shard in table.shards.iter_mut().filter(|shard| shard.leader == Some(node)) {
            shard.leader = None;
        }
    }

    /// The disk of the node lost something.
    pub(super) fn damage(&self, node: i64) {
        self.table().recovering.push(node);
    }

    pub(super) fn set_leader(&self, shard: usize, node: Option<i64>) {
        self.table().shards[shard].leader = node;
    }

    pub(super) fn leaders(&self) -> [Option<i64>; SHARDS as usize] {
        self.table().shards.each_ref().map(|shard| shard.leader)
    }

    pub(super) fn members(&self, shard: usize) -> Vec<(i64, &'static str)> {
        self.table().shards[shard].members.iter().map(|(node, member)| (*node, *member)).collect()
    }

    pub(super) fn set_behind(&self, times: i64) {
        self.table().behind = times;
    }

    pub(super) fn refuse(&self, why: &'static str) {
        self.table().refusal = Some(why);
    }

    pub(super) fn ignore_orders(&self) {
        self.table().ignores_orders = true;
    }

    /// The shard is at the nodes, and no NameServer has heard of it.
    pub(super) fn unregister(&self, shard: i64) {
        self.table().unregistered = Some(shard);
    }

    /// The shard has not begun at any node.
    pub(super) fn hold_back(&self, shard: i64) {
        let mut table = self.table();
        table.unregistered = Some(shard);
        table.not_running = Some(shard);
    }

    pub(super) fn dissolve(&self) {
        self.table().no_group = true;
    }
}

/// A socket on a port for each shard, ten apart, and the first address. Nobody listens there yet, and nobody else can.
fn free_ports(ip: IpAddr) -> (SocketAddr, Vec<Socket>) {
    for _ in 0..1000 {
        let (base, first) = closed_port(SocketAddr::new(ip, 0)).unwrap();
        let others = (1..SHARDS).map(|shard| {
            let port = base.port().checked_add(10 * shard)?;
            closed_port(SocketAddr::new(ip, port)).ok().map(|(_, socket)| socket)
        });
        if let Some(others) = others.collect::<Option<Vec<_>>>() {
            return (base, [first].into_iter().chain(others).collect());
        }
    }
    panic!("no free ports at {ip}");
}

/// An address at which nobody listens as long as the socket is there: a port that was merely free a moment ago may be another
/// test's by now.
pub(super) fn closed_port(at: SocketAddr) -> io::Result<(SocketAddr, Socket)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&at.into())?;
    let bound = socket.local_addr()?.as_socket().expect("an address of the internet");
    Ok((bound, socket))
}

fn listen(
    listener: TcpListener,
    answer: impl Fn(RequestCode, &Header<'_>) -> Option<Answer> + Send + Clone + 'static,
) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = answer.clone();
            std::thread::spawn(move || serve(stream.unwrap(), answer));
        }
    });
}

/// Answers until the other side goes; without an answer, closes.
fn serve(mut stream: TcpStream, answer: impl Fn(RequestCode, &Header<'_>) -> Option<Answer>) {
    let mut received = BytesMut::new();
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        received.extend_from_slice(&piece[..read]);
        while let Some(frame) = split_frame(&mut received).unwrap() {
            let header = Header::decode(frame.encoding, &frame.header).unwrap();
            let Some((code, remark, body)) = answer(RequestCode(header.code), &header) else { return };
            let head = ReplyHead { code, opaque: header.opaque, remark: Some(&remark), ext: &NoExt };
            let mut out = BytesMut::new();
            append_reply(&mut out, frame.encoding, &head, &body).unwrap();
            stream.write_all(&out).unwrap();
        }
    }
}

fn success(body: Vec<u8>) -> Option<Answer> {
    Some((ResponseCode::SUCCESS, String::new(), body))
}

fn refused(code: ResponseCode, why: impl Into<String>) -> Option<Answer> {
    Some((code, why.into(), Vec::new()))
}

impl Table {
    fn address(&self, node: i64, shard: i64) -> SocketAddr {
        let base = self.nodes[&node];
        SocketAddr::new(base.ip(), base.port() + 10 * shard as u16)
    }

    fn nameserver(&self, code: RequestCode) -> Option<Answer> {
        assert_eq!(code, RequestCode::GET_BROKER_CLUSTER_INFO);
        let mut info = ClusterInfo::default();
        for number in (0..i64::from(SHARDS)).filter(|number| Some(*number) != self.unregistered) {
            let leader = self.shards[number as usize].leader;
            let alive = self.nodes.keys().filter(|node| !self.dead.contains(node));
            let place = |node: i64| if leader == Some(node) { 0 } else { node };
            let data = BrokerData {
                broker_addrs: alive
                    .map(|&node| (place(node), self.address(node, number).to_string()))
                    .collect(),
                broker_name: format!("set-{number}"),
                cluster: "C".into(),
                ..BrokerData::default()
            };
            info.broker_addr_table.insert(format!("set-{number}"), data);
        }
        success(to_fastjson(&info).to_vec())
    }

    fn node(&mut self, node: i64, shard: i64, code: RequestCode, header: &Header<'_>) -> Option<Answer> {
        if self.dead.contains(&node) || self.not_running == Some(shard) {
            return None;
        }
        if self.no_group {
            return refused(ResponseCode::SYSTEM_ERROR, "this broker belongs to no group");
        }
        match code {
            RequestCode::APOGEE_GROUP_STATUS => success(to_fastjson(&self.status(node, shard)).to_vec()),
            _ if self.shards[shard as usize].leader != Some(node) => {
                refused(ResponseCode::SERVICE_NOT_AVAILABLE, "this node does not lead the group")
            }
            _ if self.refusal.is_some() => refused(ResponseCode::SYSTEM_ERROR, self.refusal.unwrap()),
            _ if self.ignores_orders => success(Vec::new()),
            RequestCode::APOGEE_TRANSFER_LEADER => {
                self.transfer(shard, TransferLeaderRequest::decode(&header.ext).unwrap().node)
            }
            RequestCode::APOGEE_CHANGE_MEMBERS => {
                self.change(shard, &ChangeMembersRequest::decode(&header.ext).unwrap())
            }
            other => panic!("{other}"),
        }
    }

    fn status(&self, node: i64, number: i64) -> GroupStatus {
        let shard = &self.shards[number as usize];
        let leads = shard.leader == Some(node);
        let nodes = shard.members.iter().map(|(&member, &kind)| {
            let dead = self.dead.contains(&member);
            let known = |well: i64, dead_value: i64| leads.then_some(if dead { dead_value } else { well });
            let peer = self.address(member, number);
            GroupNode {
                address: SocketAddr::new(peer.ip(), peer.port() + 1).to_string(),
                committed_index: known(1204, 1180),
                connected: !dead,
                heard_ms_ago: known(40, 2300),
                in_flight_bytes: 0,
                lag_batches: known(0, 14),
                matched_index: known(1204, 1190),
                member: kind.into(),
                node: member,
                recovering: false,
                why: if dead { "not heard of for 2300 ms".into() } else { String::new() },
            }
        });
        GroupStatus {
            broker_name: format!("set-{number}"),
            changing: None,
            cluster_name: "C".into(),
            committed_index: 1204,
            disk_trouble: None,
            first_index: 1,
            last_index: 1204,
            leader: shard.leader,
            lease_ms: if leads { 300 } else { 0 },
            node,
            nodes: nodes.collect(),
            persisted_index: 1204,
            preferred: Some(number + 1),
            recovering: self.recovering.contains(&node),
            role: if leads { GroupRole::Leader } else { GroupRole::Follower },
            shard: number,
            shards: SHARDS.into(),
            term: 7,
            uncommitted_bytes: 0,
            why: match shard.leader {
                Some(leader) if leader == node => "it leads since term 7".into(),
                Some(leader) => format!("it follows node {leader}"),
                None => "it hears of no leader".into(),
            },
        }
    }

    fn transfer(&mut self, shard: i64, to: i64) -> Option<Answer> {
        let shard = &mut self.shards[shard as usize];
        let someone = || {
            let others =
                shard.members.keys().find(|&&node| Some(node) != shard.leader && !self.dead.contains(&node));
            *others.unwrap()
        };
        shard.leader = Some(if to == 0 { someone() } else { to });
        success(Vec::new())
    }

    fn change(&mut self, number: i64, request: &ChangeMembersRequest<'_>) -> Option<Answer> {
        let node = request.node;
        if self.behind > 0 && request.change == "PROMOTE" {
            self.behind -= 1;
            let why = format!("node {node} is {} batches behind", self.behind + 1);
            return refused(ResponseCode::SYSTEM_BUSY, why);
        }
        let expected = self
            .nodes
            .get(&node)
            .map(|base| SocketAddr::new(base.ip(), base.port() + 10 * number as u16 + 1).to_string());
        let members = &mut self.shards[number as usize].members;
        match request.change {
            "ADD_LEARNER" => {
                assert_eq!(request.address, expected.as_deref());
                members.insert(node, "learner");
            }
            "PROMOTE" => assert_eq!(members.insert(node, "voter"), Some("learner")),
            "REMOVE" => assert!(members.remove(&node).is_some()),
            "REPLACE" => {
                assert!(members.remove(&node).is_some());
                assert_eq!(members.insert(request.by.unwrap(), "voter"), Some("learner"));
            }
            other => panic!("{other}"),
        }
        success(Vec::new())
    }
}
