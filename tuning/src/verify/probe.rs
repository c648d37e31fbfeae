//! The crate's own measurements as probes.

use std::path::PathBuf;
use std::time::Duration;

use super::{Probe, ProbeError};
use crate::disk::{TestFile, round_latencies};
use crate::net::loopback_round_trips;

/// Bytes of a write: a batch at low load.
const DISK_BYTES: u32 = 16 << 10;
const FILE_BYTES: u64 = 64 << 20;

/// Bytes of an echoed message.
const NET_BYTES: u32 = 1024;

/// Write and sync of a small batch in the data directory.
pub struct DiskProbe {
    directory: PathBuf,
    time: Duration,
    file: Option<TestFile>,
}

impl DiskProbe {
    #[must_use]
    pub fn new(directory: PathBuf, time: Duration) -> Self {
        DiskProbe { directory, time, file: None }
    }
}

impl Probe for DiskProbe {
    fn name(&self) -> String {
        format!("write + sync of {} KiB", DISK_BYTES >> 10)
    }

    fn round(&mut self) -> Result<f64, ProbeError> {
        let mut measure = || -> std::io::Result<f64> {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(TestFile::prewritten(&self.directory, FILE_BYTES)?),
            };
            let latencies = round_latencies(file, DISK_BYTES, self.time)?;
            Ok(latencies.value_at_quantile(0.999) as f64 / 1e3)
        };
        measure().map_err(|error| {
            let probe = format!("the disk of {}", self.directory.display());
            ProbeError { probe, reason: error.to_string() }
        })
    }
}

/// Round trips of 1 KiB over loopback: what wakes, sleeps and schedules, not what crosses a wire.
pub struct NetProbe {
    time: Duration,
}

impl NetProbe {
    #[must_use]
    pub fn new(time: Duration) -> Self {
        NetProbe { time }
    }
}

impl Probe for NetProbe {
    fn name(&self) -> String {
        format!("loopback round trip of {NET_BYTES} B")
    }

    fn round(&mut self) -> Result<f64, ProbeError> {
        let latencies = loopback_round_trips(NET_BYTES, self.time)
            .map_err(|error| ProbeError { probe: self.name(), reason: error.to_string() })?;
        Ok(latencies.value_at_quantile(0.999) as f64 / 1e3)
    }
}
