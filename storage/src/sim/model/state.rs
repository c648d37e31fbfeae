//! What the layer above makes of its control records here: a list of them, so that each can be asked for.

use crate::snapshot::DerivedState;
use crate::types::LogOffset;

/// Where each control record stands and the checksum of its bytes, in the order of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ControlState {
    records: Vec<(LogOffset, u32)>,
}

/// Bytes of one record in a snapshot.
const ENCODED_LEN: usize = 12;

impl ControlState {
    pub(super) fn records(&self) -> &[(LogOffset, u32)] {
        &self.records
    }
}

pub(super) fn digest(control_record: &[u8]) -> u32 {
    crc32c::crc32c(control_record)
}

impl DerivedState for ControlState {
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        assert!(self.records.is_empty(), "restored over something");
        if !snapshot.len().is_multiple_of(ENCODED_LEN) {
            return Err(format!("{} bytes are no state", snapshot.len()));
        }
        self.records = snapshot
            .chunks(ENCODED_LEN)
            .map(|record| {
                let (at, digest) = record.split_at(8);
                let at = LogOffset(u64::from_le_bytes(at.try_into().expect("8 bytes")));
                (at, u32::from_le_bytes(digest.try_into().expect("4 bytes")))
            })
            .collect();
        Ok(())
    }

    fn apply(&mut self, at: LogOffset, control_record: &[u8]) -> Result<(), String> {
        if let Some((last, _)) = self.records.last() {
            assert!(*last < at, "control record at {at} behind the one at {last}");
        }
        self.records.push((at, digest(control_record)));
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        let records = self.records.iter();
        records.flat_map(|(at, digest)| [&at.0.to_le_bytes()[..], &digest.to_le_bytes()].concat()).collect()
    }
}
