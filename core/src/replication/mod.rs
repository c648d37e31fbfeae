//! Replication: the consensus decisions of one shard's group of nodes.
//!
//! The commit log is the Raft log: one batch is one entry. tikv's `raft` decides and never sees a payload; batches travel
//! beside its messages. No I/O, no clock: [`Replica`] takes what happened and the time, and returns [`ReplicaAction`]s.

mod action;
pub mod codec;
mod config;
mod membership;
mod message;
mod replica;
mod status;

pub use action::{ReplicaAction, Role};
pub use config::ReplicaConfig;
pub use membership::{ChangeRefused, MemberChange};
pub use message::{
    AppendAnswer, AppendHead, Channel, Heartbeat, HeartbeatAnswer, Members, PeerHello, PeerMessage,
    ResetAnswer, ResetHead, ResetPart, VoteAnswer, VoteRequest,
};
pub use replica::{PeerFault, Replica, TransferRefused};
pub use status::{GroupStatus, PeerStatus};
