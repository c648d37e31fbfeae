//! What can be asked of the bench.

use std::path::PathBuf;

use clap::Parser;

use crate::peers::broker::Ports;
use crate::peers::peer::Peer;
use crate::peers::{rocketmq, rocketmq_rust};
use crate::scenario::{CLOSED_LOOP_DEPTH_MAX, CONNECTIONS_MAX};

/// Measures Apogee, Apache RocketMQ and rocketmq-rust side by side on this machine.
#[derive(Clone, Debug, Parser)]
#[command(name = "peers")]
pub struct Options {
    /// Who takes part, separated by commas [default: all]
    #[arg(long, value_delimiter = ',')]
    pub peers: Vec<Peer>,
    /// How often everything is measured; the peers take turns within each round
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    /// Message bodies in bytes for the saturation
    #[arg(long, value_delimiter = ',', default_value = "128,1024,16384")]
    pub sizes: Vec<usize>,
    /// Message body in bytes for the latencies
    #[arg(long, default_value_t = 1024)]
    pub latency_size: usize,
    /// Percent of each peer's own saturation
    #[arg(long, value_delimiter = ',', default_value = "10,30,60,80")]
    pub fractions: Vec<u32>,
    /// Percent of the slowest peer's saturation, as rates that all peers get
    #[arg(long, value_delimiter = ',', default_value = "30,80")]
    pub shared: Vec<u32>,
    /// Further rates that all peers get, in messages per second; a peer that saturates below one is left out
    #[arg(long, value_delimiter = ',')]
    pub rates: Vec<u64>,
    /// Length of a measured stretch of the latencies
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// The same of the saturation
    #[arg(long, default_value_t = 4)]
    pub saturation_seconds: u64,
    /// Load after each start of a peer that is compiled while it runs, before anything is measured
    #[arg(long, default_value_t = 30)]
    pub warmup_seconds: u64,
    /// Requests in flight over all connections of which the best is taken as saturation
    #[arg(long, value_delimiter = ',', default_value = "64,256,1024")]
    pub in_flight: Vec<u32>,
    /// Publishing connections
    #[arg(long, default_value_t = 4)]
    pub connections: usize,
    /// Queues of the topic
    #[arg(long, default_value_t = 8)]
    pub queues: u32,
    /// CPUs of the broker, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "0")]
    pub broker_cpus: Vec<usize>,
    /// CPU of the generator
    #[arg(long, default_value_t = 1)]
    pub generator_cpu: usize,
    /// Folder for what is fetched (kept) and for data (removed); on the disk that is to be measured
    /// [default: below the target folder]
    #[arg(long)]
    pub work: Option<PathBuf>,
    /// Apogee's program [default: target/release/apogee]
    #[arg(long)]
    pub apogee: Option<PathBuf>,
    #[arg(long, default_value = rocketmq::VERSION)]
    pub rocketmq_version: String,
    /// Further setting of Apache RocketMQ's broker; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    pub rocketmq_set: Vec<String>,
    #[arg(long, default_value = rocketmq_rust::VERSION)]
    pub rocketmq_rust_version: String,
    /// First of the ports that a peer takes
    #[arg(long, default_value_t = 21000)]
    pub port_base: u16,
    /// Also write every figure to this file
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Also write the report to this file
    #[arg(long)]
    pub markdown: Option<PathBuf>,
    /// One short round: shows that everything works, and the order of magnitude
    #[arg(long)]
    pub quick: bool,
    /// Only fetch and build the peers
    #[arg(long)]
    pub obtain_only: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    pub bench: bool,
}

impl Options {
    /// Everybody, if nobody was named; the short round, if that was asked for.
    pub fn settle(mut self) -> Options {
        if self.peers.is_empty() {
            self.peers = clap::ValueEnum::value_variants().to_vec();
        }
        if self.quick {
            self.rounds = 1;
            self.sizes.truncate(2);
            self.fractions = vec![30, 80];
            self.shared = vec![80];
            self.in_flight = vec![256];
            self.seconds = self.seconds.min(3);
            self.saturation_seconds = self.saturation_seconds.min(2);
            self.warmup_seconds = self.warmup_seconds.min(13);
        }
        self
    }

    /// What cannot be done, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        if self.rounds == 0 || self.seconds == 0 || self.saturation_seconds == 0 {
            return Err("--rounds, --seconds and --saturation-seconds must be at least 1".to_owned());
        }
        if self.sizes.is_empty() || self.in_flight.is_empty() || self.broker_cpus.is_empty() {
            return Err("--sizes, --in-flight and --broker-cpus must name at least one".to_owned());
        }
        if self.broker_cpus.contains(&self.generator_cpu) {
            return Err(format!(
                "CPU {} is the generator's and the broker's; each needs its own",
                self.generator_cpu
            ));
        }
        if let Some(percent) =
            self.fractions.iter().chain(&self.shared).find(|percent| !(1..=100).contains(*percent))
        {
            return Err(format!("{percent} percent of a saturation; 1 to 100 are allowed"));
        }
        if !(1..=CONNECTIONS_MAX).contains(&self.connections) || (self.queues as usize) < self.connections {
            return Err(format!(
                "--connections {} with --queues {}: each connection needs a queue of its own",
                self.connections, self.queues
            ));
        }
        let depth_max = self.connections as u32 * CLOSED_LOOP_DEPTH_MAX;
        if let Some(in_flight) = self
            .in_flight
            .iter()
            .find(|in_flight| !(self.connections as u32..=depth_max).contains(*in_flight))
        {
            return Err(format!(
                "--in-flight {in_flight}; with {} connections {} to {depth_max} are allowed",
                self.connections, self.connections
            ));
        }
        if Ports::from_base(self.port_base).is_none() {
            return Err(format!("--port-base {} leaves no room for further ports", self.port_base));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Options {
        Options::try_parse_from(["peers"].into_iter().chain(line.split_whitespace())).unwrap().settle()
    }

    #[test]
    fn everybody_takes_part_unless_named() {
        assert_eq!(options("--bench").peers.len(), 6);
        assert_eq!(
            options("--peers apogee,rocketmq-rust-sync").peers,
            [Peer::Apogee, Peer::RocketmqRustSync]
        );
        assert_eq!(options("").check(), Ok(()));
        assert_eq!(options("--quick").check(), Ok(()));
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for (line, says) in [
            ("--rounds 0", "must be at least 1"),
            ("--generator-cpu 0", "each needs its own"),
            ("--fractions 101", "101 percent"),
            ("--connections 9", "a queue of its own"),
            ("--in-flight 3", "4 to 16384 are allowed"),
            ("--port-base 65530", "no room"),
        ] {
            let error = options(line).check().unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
