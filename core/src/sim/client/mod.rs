//! Stock clients, as far as brokers and NameServers can tell them from real ones.

pub(super) mod consumer;
pub(super) mod instance;
pub(super) mod popper;
pub(super) mod producer;
