//! Replication: the consensus decisions of one shard's group of nodes.
//!
//! The commit log is the Raft log: one batch is one entry. tikv's `raft` decides and never sees a payload; batches travel
//! beside its messages. No I/O, no clock: [`Replica`] takes what happened and the time, and returns [`ReplicaAction`]s.

mod action;
mod checkpoint;
pub mod codec;
mod config;
mod entries;
mod group_log;
mod lease;
mod logger;
mod membership;
mod message;
mod peers;
mod replica;
mod state_file;

pub use action::{ReplicaAction, Role};
pub use config::ReplicaConfig;
pub use group_log::GroupLog;
pub use membership::{ChangeRefused, MEMBERS_MAX, MemberChange};
pub use message::{
    AppendAnswer, AppendHead, Channel, Heartbeat, HeartbeatAnswer, Members, PeerHello, PeerMessage,
    ResetAnswer, ResetHead, ResetPart, VoteAnswer, VoteRequest,
};
pub use replica::{GroupStatus, NO_MEMBER, PeerFault, PeerStatus, Replica, TransferRefused};
