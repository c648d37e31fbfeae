//! A shard's group: messages to and from the same shard on other nodes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use apogee_net::io::{Chunk, LinkFrame, Listener};
use apogee_storage::driver::{DmaBuffer, SegmentFile};
use apogee_storage::{DiskError, LogOffset, Member, MemoryRun, NodeId, Run};

use super::{Groups, ShardDriver};
use crate::config::{BrokerConfig, parse_member_address};
use crate::node::clock::now_ms;
use crate::node::peers::{LinkKind, PeerEvents, Peers};
use crate::node::segment_source::chunk_of;
use crate::replication::codec::{CodecError, FRAME_HEADER_LEN, FrameHeader, decode, encode};
use crate::replication::{Channel, PeerHello, PeerMessage};
use crate::shard::Rank;

/// Room for the head of any message but those that carry pieces of checkpoints.
const HEAD_BYTES: usize = 128;

type Outgoing = PeerMessage<Run<DmaBuffer>>;

/// Messages to peers that wait for a segment's file to be opened: of each the first, and those behind it, for they must
/// arrive in order. What a leader has on its way to a follower is bounded, so this is.
#[derive(Default)]
pub(super) struct Waiting {
    of: RefCell<BTreeMap<NodeId, WaitingFor>>,
    next: Cell<u64>,
}

struct WaitingFor {
    /// Of the task that opens files for it. What waits from one session must not be sent in another.
    number: u64,
    messages: VecDeque<Outgoing>,
}

/// The peers of a shard; none without a group. Nobody is called yet.
pub(super) fn peers(
    config: &BrokerConfig,
    shard: u16,
    driver: &Weak<ShardDriver>,
    groups: Groups,
) -> Option<Rc<Peers>> {
    let replication = config.replication.as_ref()?;
    let values = config.group_wide()?.values().map(|(name, value)| (name.to_owned(), value)).into();
    let group = (config.group.clone(), values);
    Some(Peers::new(replication.node_id(), shard.into(), group, driver.clone(), groups.replication))
}

/// Where the other nodes are as the configuration says.
pub(super) fn configured_peers(
    config: &BrokerConfig,
    shard: u16,
) -> anyhow::Result<BTreeMap<NodeId, SocketAddr>> {
    let nodes = config.replication.iter().flat_map(|replication| &replication.nodes);
    nodes.map(|node| Ok((node.node_id(), node.peer_address(shard, config.base_port)?))).collect()
}

impl ShardDriver {
    /// Begins to answer the other nodes, and to call them.
    pub(super) fn meet_peers(&self, listener: Option<Listener>) {
        let (Some(peers), Some(listener)) = (&self.peers, listener) else { return };
        self.own(peers.clone().accept(listener));
        self.own(peers.clone().watch());
        let addresses = self.addresses_of(self.shard.borrow().members());
        peers.set_members(&addresses);
    }

    pub(super) fn on_role_changed(&self, rank: Rank) {
        let Rank { broker_id, term } = rank;
        let what = match (rank.is_master(), self.shard.borrow().is_removed()) {
            (true, _) => "leads its group",
            (false, true) => "was removed from its group; clients are handed on to the leader",
            (false, false) => "follows in its group",
        };
        tracing::info!(shard = self.number, broker_id, term, "{what}");
        self.registrars.iter().for_each(|registrar| registrar.on_changed());
    }

    pub(super) fn send_to_peer(&self, to: NodeId, message: Outgoing) {
        if message.channel() == Channel::Append
            && let Some(behind) = self.waiting_for_files.of.borrow_mut().get_mut(&to)
        {
            return behind.messages.push_back(message);
        }
        let open: Option<Vec<_>> =
            segments_of(&message).into_iter().map(|segment| self.disk.open_segment_file(segment)).collect();
        match open {
            Some(files) => self.send_with(to, message, &files),
            None => self.open_and_send(to, message),
        }
    }

    /// Sends a message; `files` are those of its runs.
    fn send_with(&self, to: NodeId, message: Outgoing, files: &[Rc<SegmentFile>]) {
        let Some(peers) = &self.peers else { return };
        let kind = match message.channel() {
            Channel::Control => LinkKind::Control,
            Channel::Append => LinkKind::Appends,
        };
        let mut head = Vec::with_capacity(HEAD_BYTES);
        encode(&message, &mut head);
        let PeerMessage::Append { batches, .. } = message else { return peers.send(to, kind, &head, &[]) };
        let chunks = batches.into_iter().map(|run| match run {
            Run::Memory(MemoryRun { buffer, range }) => Chunk::shared(buffer, range),
            Run::File(run) => {
                let file = files.iter().find(|file| file.segment() == run.segment);
                chunk_of(file.expect("the files of all runs are here").clone(), run)
            }
        });
        peers.send(to, kind, &head, &chunks.collect::<Vec<_>>());
    }

    /// Opens what the message needs and sends it, and then those that came behind it, until nothing waits.
    fn open_and_send(&self, to: NodeId, message: Outgoing) {
        let Some(this) = self.this.upgrade() else { return };
        let number = self.waiting_for_files.next.replace(self.waiting_for_files.next.get() + 1);
        let waiting = WaitingFor { number, messages: VecDeque::from([message]) };
        self.waiting_for_files.of.borrow_mut().insert(to, waiting);
        let work = async move {
            while let Some(segments) = this.first_waiting(to, number, segments_of) {
                let mut files = Vec::with_capacity(segments.len());
                for segment in segments {
                    match this.disk.segment_file(segment).await {
                        Ok(file) => files.push(file),
                        Err(error) => return this.cannot_open(to, number, &error),
                    }
                }
                let message = this.first_waiting(to, number, |_| ()).and_then(|()| this.take_waiting(to));
                let Some(message) = message else { return };
                this.send_with(to, message, &files);
            }
            this.forget_waiting(to, Some(number));
        };
        self.spawn_into(work, self.groups.catch_up);
    }

    fn first_waiting<T>(&self, to: NodeId, number: u64, look: impl FnOnce(&Outgoing) -> T) -> Option<T> {
        let waiting = self.waiting_for_files.of.borrow();
        waiting.get(&to).filter(|waiting| waiting.number == number)?.messages.front().map(look)
    }

    fn take_waiting(&self, to: NodeId) -> Option<Outgoing> {
        self.waiting_for_files.of.borrow_mut().get_mut(&to)?.messages.pop_front()
    }

    fn forget_waiting(&self, node: NodeId, number: Option<u64>) -> bool {
        let mut waiting = self.waiting_for_files.of.borrow_mut();
        let is_it =
            waiting.get(&node).is_some_and(|found| number.is_none_or(|number| found.number == number));
        is_it && waiting.remove(&node).is_some()
    }

    /// The follower must not miss a message without notice: its session ends, and another begins from what it has then.
    fn cannot_open(&self, to: NodeId, number: u64, error: &DiskError) {
        tracing::error!(shard = self.number, peer = %to, %error, "cannot read the log for a follower");
        if self.forget_waiting(to, Some(number))
            && let Some(peers) = &self.peers
        {
            peers.end(to, "the log cannot be read");
        }
    }

    pub(super) fn on_members_changed(&self, members: &[Member]) {
        if let Some(peers) = &self.peers {
            peers.set_members(&self.addresses_of(members));
        }
    }

    /// Where members are called. What the group says of a node counts; as long as it says nothing, as to a node that waits
    /// to be added, the configuration does.
    pub(super) fn addresses_of(&self, members: &[Member]) -> BTreeMap<NodeId, SocketAddr> {
        if members.is_empty() {
            return self.configured_peers.clone();
        }
        let peer_address = |member: &Member| {
            let address = parse_member_address(&member.address);
            if address.is_none() {
                let address = String::from_utf8_lossy(&member.address);
                tracing::error!(shard = self.number, node = %member.node, %address, "a member's address is unusable");
            }
            Some((member.node, address?))
        };
        members.iter().filter_map(peer_address).collect()
    }

    fn end_session(&self, node: NodeId, reason: &str) {
        tracing::warn!(shard = self.number, peer = %node, reason, "a peer's message is refused");
        if let Some(peers) = &self.peers {
            peers.end(node, "a message was refused");
        }
    }
}

impl PeerEvents for ShardDriver {
    fn hello(&self) -> PeerHello {
        self.shard.borrow().peer_hello().expect("only shards of a group have peers")
    }

    fn on_up(&self, hello: PeerHello) {
        self.shard.borrow_mut().on_peer_up(hello, now_ms());
    }

    fn on_down(&self, node: NodeId) {
        self.forget_waiting(node, None);
        self.shard.borrow_mut().on_peer_down(node, now_ms());
    }

    fn on_frame(&self, node: NodeId, frame: LinkFrame<DmaBuffer>) {
        let message = match message_of(frame) {
            Ok(message) => message,
            Err(error) => return self.end_session(node, &error.to_string()),
        };
        let now = self.turn_began();
        let heard = self.shard.borrow_mut().on_peer_message(node, message, now.ms);
        if let Err(fault) = heard {
            self.end_session(node, &fault.what);
        }
    }

    fn on_turn_end(&self) {
        self.pump();
    }
}

/// The segments that a message is partly read from.
fn segments_of(message: &Outgoing) -> Vec<LogOffset> {
    let PeerMessage::Append { batches, .. } = message else { return Vec::new() };
    let segments = batches.iter().filter_map(|run| match run {
        Run::Memory(_) => None,
        Run::File(run) => Some(run.segment),
    });
    segments.collect()
}

fn message_of(frame: LinkFrame<DmaBuffer>) -> Result<PeerMessage<DmaBuffer>, CodecError> {
    let (header, body) =
        frame.head.split_first_chunk::<FRAME_HEADER_LEN>().ok_or(CodecError::Short { field: "header" })?;
    let header = FrameHeader::decode(header)?;
    if header.body_len as usize != body.len() {
        return Err(CodecError::Value { field: "body length", found: header.body_len.into() });
    }
    let came: usize = frame.parts.iter().map(|part| part.len()).sum();
    if header.batch_bytes as usize != came {
        return Err(CodecError::Value { field: "batch bytes", found: came as u64 });
    }
    let mut message = decode(header, body)?;
    if let PeerMessage::Append { batches, .. } = &mut message {
        *batches = frame.parts;
    }
    Ok(message)
}
