//! How far the machine has drifted from its profile, as the node told last.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Settings of the machine that differ from the profile that the broker runs by: a figure that the node's control thread sets
/// and shards show.
#[derive(Debug, Clone, Default)]
pub struct DriftGauge(Arc<AtomicUsize>);

impl DriftGauge {
    pub fn set(&self, differences: usize) {
        self.0.store(differences, Ordering::Relaxed);
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
