//! What the log costs, measured against the bare disk and against itself.
//!
//!     cargo bench -p apogee-storage --bench log -- WHAT... [--dir DIR] [--rounds N] [--seconds S] [--segment-mib N] [--gib N,N]
//!
//! Run by `cargo test` each does a small round, so that it cannot rot. Whatever is compared is measured in turns, so
//! that what disturbs the machine disturbs both; printed are medians of the rounds with their least and greatest, and
//! ratios within one run. Figures of two runs say little about each other.

#[path = "../../tests/harness/mod.rs"]
#[allow(dead_code, reason = "shared with the tests, which use other parts of it")]
mod harness;

mod append;
mod catch_up;
mod floor;
mod load;
mod modelled;
mod pipeline;
mod queues;
mod recovery;
mod samples;
mod segments;

use std::path::{Path, PathBuf};
use std::time::Duration;

use apogee_storage::driver::{DiskConfig, check_direct_io};
use apogee_storage::{LogConfig, NodeId};
use harness::identity;

/// Name, what it shows, how to run it.
type Benchmark = (&'static str, fn(&Scale, &Path));

const ALL: [Benchmark; 10] = [
    ("append", append::run),
    ("pipeline", pipeline::run),
    ("modelled", modelled::run),
    ("steady", pipeline::steady),
    ("neighbours", pipeline::neighbours),
    ("segments", segments::run),
    ("preparation", segments::preparation),
    ("catch-up", catch_up::run),
    ("queues", queues::run),
    ("recovery", recovery::run),
];

/// How much to measure.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    pub(crate) rounds: usize,
    /// Length of one round of one contender.
    pub(crate) round: Duration,
    /// Size of the segments that rounds write to.
    pub(crate) segment_bytes: u64,
    /// Sizes of the logs that are recovered.
    pub(crate) recovered_mib: Vec<u64>,
    /// Small: it only has to work.
    pub(crate) is_smoke: bool,
}

impl Scale {
    fn smoke() -> Scale {
        Scale {
            rounds: 1,
            round: Duration::from_millis(60),
            segment_bytes: 8 << 20,
            recovered_mib: vec![16],
            is_smoke: true,
        }
    }

    fn full() -> Scale {
        Scale {
            rounds: 5,
            round: Duration::from_secs(4),
            segment_bytes: 1 << 30,
            recovered_mib: vec![5 << 10, 20 << 10],
            is_smoke: false,
        }
    }

    /// The log's defaults, with segments of this scale.
    pub(crate) fn log_config(&self) -> LogConfig {
        let defaults = LogConfig::new(identity().group_id(), NodeId(1));
        LogConfig { segment_bytes: self.segment_bytes, reserve_bytes: 0, ..defaults }
    }

    pub(crate) fn disk_config(&self) -> DiskConfig {
        DiskConfig::default()
    }
}

struct Options {
    what: Vec<Benchmark>,
    dir: PathBuf,
    scale: Scale,
}

fn options() -> Options {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    // Cargo says so when it measures, and says nothing when it tests.
    let is_bench = args.iter().any(|arg| arg == "--bench");
    args.retain(|arg| arg != "--bench");
    let mut scale = if is_bench { Scale::full() } else { Scale::smoke() };
    let (mut what, mut dir) = (Vec::new(), PathBuf::from(env!("CARGO_TARGET_TMPDIR")));
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg} needs a value"));
        match arg.as_str() {
            "--dir" => dir = value().into(),
            "--rounds" => scale.rounds = value().parse().expect("--rounds takes a number"),
            "--seconds" => {
                scale.round = Duration::from_secs_f64(value().parse().expect("--seconds takes a number"));
            }
            "--segment-mib" => {
                scale.segment_bytes = value().parse::<u64>().expect("--segment-mib takes a number") << 20;
            }
            "--gib" => {
                let list = value();
                let gib = list.split(',').map(|gib| gib.parse::<u64>().expect("--gib takes numbers: 5,20"));
                scale.recovered_mib = gib.map(|gib| gib << 10).collect();
            }
            name => match ALL.iter().find(|benchmark| benchmark.0 == name) {
                Some(benchmark) => what.push(*benchmark),
                None => panic!(
                    "unknown argument {name}; known are {}, --dir, --rounds, --seconds, --segment-mib, --gib",
                    ALL.map(|(name, _)| name).join(", ")
                ),
            },
        }
    }
    if what.is_empty() {
        what = ALL.to_vec();
    }
    Options { what, dir, scale }
}

fn main() {
    if recovery::is_builder() {
        return recovery::build();
    }
    let options = options();
    if let Err(why) = check_direct_io(&options.dir) {
        if std::env::var("CI").is_ok_and(|ci| ci == "true") {
            panic!("cannot be skipped under CI: {why}");
        }
        return println!("SKIPPED: {why}");
    }
    for (name, run) in options.what {
        println!("\n# {name}, in {}", options.dir.display());
        let directory = tempfile::tempdir_in(&options.dir).expect("a directory to measure in");
        run(&options.scale, directory.path());
    }
}
