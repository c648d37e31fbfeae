//! What a data directory's disk can do, measured the way the log uses it: direct writes to a prewritten file, one sync for
//! what was written, reads beside them.
//!
//! One round is what the log does between two acknowledgements: `depth` writes at once, and, with a sync, one sync once all of
//! them are done. Latencies are those of whole rounds. The files are removed at the end, and at the next start if that failed.

mod file;
mod measure;
#[allow(unsafe_code)]
mod ring;

pub(crate) use file::TestFile;
pub(crate) use measure::round_latencies;
pub use measure::{DiskError, Plan, measure};

use serde::{Deserialize, Serialize};

/// What was measured, as `apogee-tune disk` prints it and a profile keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskProfile {
    /// Directory and device that were measured.
    pub directory: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    pub read_bytes_per_s: u64,
    pub write_bytes_per_s: u64,
    /// Median of write and sync of 4 KiB in a file that was only allocated, to that in one written before.
    pub fresh_to_prewritten: f64,
    /// p99 of write and sync of 64 KiB beside reads at full speed, to that alone.
    pub beside_reads_to_alone: f64,
    pub rows: Vec<Row>,
}

/// What a round did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// Writes alone.
    Write,
    /// Writes, then one sync.
    WriteSync,
    /// The same in a file whose blocks were allocated and never written.
    FreshWriteSync,
    /// The same while another thread reads at full speed.
    WriteSyncBesideReads,
    /// Sequential reads.
    Read,
}

impl Load {
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Load::Write => "write",
            Load::WriteSync => "write + sync",
            Load::FreshWriteSync => "write + sync, fresh blocks",
            Load::WriteSyncBesideReads => "write + sync beside reads",
            Load::Read => "read",
        }
    }
}

/// One load at one size and depth. Latencies in microseconds, of rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub load: Load,
    /// Of each write or read.
    pub bytes: u32,
    /// How many at once.
    pub depth: u32,
    pub rounds: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Absent below ten thousand rounds: ten samples must lie beyond it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p999_us: Option<f64>,
    pub max_us: f64,
    pub bytes_per_s: u64,
}

/// Two rows within this of each other are as good as each other here.
const SAME_WITHIN: f64 = 1.1;

/// How much longer a round may take for the sake of its size, where latency counts.
const LATENCY_FOR_SIZE: f64 = 1.5;

impl DiskProfile {
    fn durable(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.load == Load::WriteSync)
    }

    /// Size and depth that give the most bytes a second, the least that is on its way where several do.
    #[must_use]
    pub fn deepest_gainful(&self) -> Option<(u32, u32)> {
        let most = self.durable().map(|row| row.bytes_per_s).max()?;
        let good = self.durable().filter(|row| row.bytes_per_s as f64 * SAME_WITHIN >= most as f64);
        let least = good.min_by_key(|row| u64::from(row.bytes) * u64::from(row.depth))?;
        Some((least.bytes, least.depth))
    }

    /// The largest size, and then the largest depth, whose rounds take hardly longer than the smallest ones.
    #[must_use]
    pub fn lowest_latency(&self) -> Option<(u32, u32)> {
        let smallest = self.durable().filter(|row| row.depth == 1).min_by_key(|row| row.bytes)?;
        let bound = smallest.p50_us * LATENCY_FOR_SIZE;
        let single = self.durable().filter(|row| row.depth == 1 && row.p50_us <= bound);
        let bytes = single.map(|row| row.bytes).max()?;
        let deep = self.durable().filter(|row| row.bytes == bytes && row.p50_us <= bound * LATENCY_FOR_SIZE);
        Some((bytes, deep.map(|row| row.depth).max()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(bytes: u32, depth: u32, p50_us: f64, bytes_per_s: u64) -> Row {
        Row {
            load: Load::WriteSync,
            bytes,
            depth,
            rounds: 1000,
            p50_us,
            p99_us: p50_us * 2.0,
            p999_us: None,
            max_us: p50_us * 3.0,
            bytes_per_s,
        }
    }

    fn profile(rows: Vec<Row>) -> DiskProfile {
        DiskProfile {
            directory: "/d".into(),
            device: None,
            read_bytes_per_s: 1,
            write_bytes_per_s: 1,
            fresh_to_prewritten: 1.0,
            beside_reads_to_alone: 1.0,
            rows,
        }
    }

    #[test]
    fn the_smallest_of_what_is_equally_fast_is_chosen() {
        let disk = profile(vec![
            row(4096, 1, 100.0, 40 << 20),
            row(262_144, 2, 200.0, 2_000 << 20),
            row(1 << 20, 4, 900.0, 2_100 << 20),
        ]);
        assert_eq!(disk.deepest_gainful(), Some((262_144, 2)));
    }

    #[test]
    fn for_latency_a_round_may_grow_by_half() {
        let disk = profile(vec![
            row(4096, 1, 100.0, 1),
            row(65_536, 1, 140.0, 2),
            row(65_536, 4, 200.0, 3),
            row(65_536, 8, 400.0, 4),
            row(1 << 20, 1, 500.0, 5),
        ]);
        assert_eq!(disk.lowest_latency(), Some((65_536, 4)));
        assert_eq!(profile(Vec::new()).lowest_latency(), None);
    }
}
