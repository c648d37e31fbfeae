use std::fmt;

use apogee_net::code::RequestCode;
use apogee_net::header::WriteExt;
use apogee_net::io::{Chunk, ConnectionId};
use apogee_storage::{Buffer, FileRun, KeySearch, Member, MemoryRun, NodeId, Run};
use smallvec::SmallVec;

use super::load::{LoadId, Need};
use super::query::SearchId;
use super::registration::Rank;
use super::roles::{ForwardId, ForwardRequest};
use crate::replication::PeerMessage;
use crate::service::{Reply, ReplyTo};

/// What a shard wants done. The order matters only among the replies and pushes of one connection.
#[derive(Debug)]
pub enum Action<B> {
    Reply {
        to: ReplyTo,
        reply: Reply,
    },
    /// Fetch what is not in memory, in order, then send the reply with all of it as its body.
    Read {
        to: ReplyTo,
        reply: Reply,
        runs: SmallVec<[Fetch; 4]>,
    },
    /// Bring something into memory; to be answered by [`Shard::on_loaded`](super::Shard::on_loaded), also when it
    /// fails.
    Load {
        id: LoadId,
        need: Need,
    },
    /// Look for a key in index files; to be answered by [`Shard::on_keys_found`](super::Shard::on_keys_found), also
    /// when it fails.
    FindKey {
        id: SearchId,
        search: KeySearch,
    },
    /// Send a request to a client, if it is still connected.
    Push {
        to: ConnectionId,
        push: Push,
    },
    /// Ask a NameServer where a topic's queues are; to be answered by [`Shard::on_route`](super::Shard::on_route).
    FindRoute {
        topic: String,
    },
    Close {
        connection: ConnectionId,
        reason: &'static str,
    },
    /// Tell every NameServer what changed since it was told last; once all have answered or failed to, reply.
    Register {
        then: Option<(ReplyTo, Reply)>,
    },
    /// Send to another node of the group, on the connection that [`PeerMessage::channel`] names, or drop it if there is none.
    Peer {
        to: NodeId,
        message: PeerMessage<Run<B>>,
    },
    /// Ask the leader, at its port for clients; with an id to be answered by
    /// [`Shard::on_forwarded`](super::Shard::on_forwarded), also when it fails, otherwise a oneway request.
    Forward {
        id: Option<ForwardId>,
        to: NodeId,
        request: ForwardRequest,
    },
    /// The shard became the master, ceased to be it, or does not belong to the group any more: every NameServer is to know
    /// at once.
    RoleChanged(Rank),
    /// The nodes of the group and how they are reached. Nobody else is to be called.
    MembersChanged(Vec<Member>),
    /// For people: something is wrong that does not pass by itself.
    Alarm(String),
}

/// A piece of a reply's body: already in memory, or to be read from a segment.
#[derive(Debug)]
pub enum Fetch {
    Here(Chunk),
    File(FileRun),
}

impl<B: Buffer + 'static> From<Run<B>> for Fetch {
    fn from(run: Run<B>) -> Self {
        match run {
            Run::Memory(MemoryRun { buffer, range }) => Fetch::Here(Chunk::shared(buffer, range)),
            Run::File(run) => Fetch::File(run),
        }
    }
}

/// A request from the broker to a client.
pub struct Push {
    pub code: RequestCode,
    pub ext: Box<dyn WriteExt>,
    pub body: SmallVec<[Chunk; 2]>,
    /// The opaque under which the client answers; none for a oneway request.
    pub answered_as: Option<i32>,
}

impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Push({}, body {:?})", self.code, self.body)
    }
}
