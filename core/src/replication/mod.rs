//! Replication: the consensus decisions of one shard's group of nodes.
//!
//! The commit log is the Raft log: one batch is one entry. tikv's `raft` decides and never sees a payload; batches travel
//! beside its messages. No I/O, no clock: [`Replica`] takes what happened and the time, and returns [`ReplicaAction`]s.

/// Whether a fault was put in on purpose: never outside of the simulator.
#[cfg(test)]
macro_rules! flawed {
    ($flaw:ident) => {
        crate::replication::sim::flaw::is(crate::replication::sim::flaw::Flaw::$flaw)
    };
}
#[cfg(not(test))]
macro_rules! flawed {
    ($flaw:ident) => {
        false
    };
}

mod action;
mod checkpoint;
pub mod codec;
#[cfg(test)]
mod codec_tests;
mod config;
mod entries;
mod group_log;
mod lease;
mod logger;
mod membership;
mod message;
mod peers;
mod replica;
#[cfg(test)]
mod sim;
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
