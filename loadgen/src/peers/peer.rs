//! Who takes part.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// When a broker makes durable what it has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Before the acknowledgement.
    Sync,
    /// Some time after it; a loss of power costs acknowledged messages.
    Async,
}

/// Whose program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Product {
    Apogee,
    #[serde(rename = "Apache RocketMQ")]
    RocketMq,
    #[serde(rename = "rocketmq-rust")]
    RocketMqRust,
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Product::Apogee => "Apogee",
            Product::RocketMq => "Apache RocketMQ",
            Product::RocketMqRust => "rocketmq-rust",
        })
    }
}

/// A product with a choice of flush: one column of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[value(rename_all = "kebab-case")]
pub enum Peer {
    /// With sync flush, its default
    Apogee,
    ApogeeAsync,
    /// With async flush, its default
    RocketmqAsync,
    RocketmqSync,
    /// With async flush, its default
    RocketmqRustAsync,
    RocketmqRustSync,
}

impl Peer {
    pub fn product(self) -> Product {
        match self {
            Peer::Apogee | Peer::ApogeeAsync => Product::Apogee,
            Peer::RocketmqAsync | Peer::RocketmqSync => Product::RocketMq,
            Peer::RocketmqRustAsync | Peer::RocketmqRustSync => Product::RocketMqRust,
        }
    }

    pub fn flush(self) -> Flush {
        match self {
            Peer::Apogee | Peer::RocketmqSync | Peer::RocketmqRustSync => Flush::Sync,
            Peer::ApogeeAsync | Peer::RocketmqAsync | Peer::RocketmqRustAsync => Flush::Async,
        }
    }

    /// Whether its code becomes fast only after having run for a while.
    pub fn is_compiled_while_running(self) -> bool {
        self.product() == Product::RocketMq
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flush = match self.flush() {
            Flush::Sync => "sync",
            Flush::Async => "async",
        };
        write!(f, "{}, {flush}", self.product())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_has_a_name_of_its_own_on_the_command_line_and_in_the_report() {
        let names = |name: fn(&Peer) -> String| Peer::value_variants().iter().map(name).collect::<Vec<_>>();
        let flags = names(|peer| peer.to_possible_value().unwrap().get_name().to_owned());
        assert_eq!(
            flags,
            [
                "apogee",
                "apogee-async",
                "rocketmq-async",
                "rocketmq-sync",
                "rocketmq-rust-async",
                "rocketmq-rust-sync"
            ]
        );
        assert_eq!(names(Peer::to_string)[2], "Apache RocketMQ, async");
        let json = |peer: &Peer| serde_json::to_value(peer).unwrap().as_str().unwrap().to_owned();
        assert_eq!(names(|peer| peer.to_possible_value().unwrap().get_name().to_owned()), names(json));
    }
}
