//! A whole cluster in one thread, from one seed. See the README of this folder.

mod audit;
mod broker;
mod client;
mod damage;
mod executor;
mod faults;
mod host;
mod ledger;
mod mutant;
mod namesrv;
mod network;
mod peers;
mod readback;
mod registrar;
mod remoting;
mod runs;
mod server;
mod wire;
mod workload;
mod world;
