//! What one case is like.

use apogee_storage::sim::Rng;

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) voters: u64,
    pub(super) learners: u64,
    /// Nodes that may join later.
    pub(super) spare: u64,
    pub(super) election_timeout_ms: u32,
    pub(super) heartbeat_ms: u32,
    /// How long faults happen, and how long all is well afterwards.
    pub(super) faults_ms: u64,
    /// Mean pause between two faults.
    pub(super) fault_pause_ms: u64,
    /// Messages get lost, doubled and out of order without the connection breaking.
    pub(super) is_lossy: bool,
    /// One part in so many that a clock is faster or slower, at most.
    pub(super) drift_percent: u64,
    /// Mean pause between two appends at each leader.
    pub(super) append_pause_us: u64,
    pub(super) disk_us: u64,
    pub(super) net_us: u64,
    /// One operation of a disk in a hundred takes up to 200 ms longer, and one message up to 50 ms.
    pub(super) hiccups: bool,
    pub(super) window_bytes: u64,
    pub(super) uncommitted_bytes_max: u64,
    pub(super) flips: bool,
    pub(super) changes: bool,
    /// Disks are emptied under their nodes, one at a time.
    pub(super) empties: bool,
    pub(super) preferred_wait_ms: u32,
}

impl Plan {
    pub(super) fn draw(seed: u64) -> Plan {
        let rng = &mut Rng::new(seed ^ 0x706c_616e);
        let election_timeout_ms = [200, 400, 500][rng.below(3) as usize];
        let mut plan = Plan {
            voters: [3, 3, 3, 5, 1][rng.below(5) as usize],
            learners: rng.below(2),
            spare: rng.below(2),
            election_timeout_ms,
            heartbeat_ms: election_timeout_ms / 5,
            faults_ms: 8_000,
            fault_pause_ms: [150, 500, 1500][rng.below(3) as usize],
            is_lossy: rng.chance(20),
            drift_percent: rng.below(6),
            append_pause_us: [3_000, 15_000, 50_000][rng.below(3) as usize],
            disk_us: [100, 300, 3_000, 20_000][rng.below(4) as usize],
            net_us: [100, 250, 5_000][rng.below(3) as usize],
            hiccups: rng.chance(80),
            window_bytes: [64 << 10, 512 << 10, 8 << 20][rng.below(3) as usize],
            uncommitted_bytes_max: [16 << 10, 1 << 20][rng.below(2) as usize],
            flips: rng.chance(25),
            changes: rng.chance(40),
            preferred_wait_ms: [1000, 30_000][rng.below(2) as usize],
            empties: false,
        };
        // Whom it has to meet, a node with an empty disk has from its configuration, which knows of no change.
        plan.empties = !plan.changes && rng.chance(40);
        plan
    }

    /// Nothing goes wrong by itself: for scenarios.
    pub(super) fn calm(voters: u64) -> Plan {
        Plan {
            voters,
            learners: 0,
            spare: 0,
            election_timeout_ms: 400,
            heartbeat_ms: 80,
            faults_ms: 0,
            fault_pause_ms: 1000,
            is_lossy: false,
            drift_percent: 0,
            append_pause_us: 5_000,
            disk_us: 200,
            net_us: 200,
            hiccups: false,
            window_bytes: 8 << 20,
            uncommitted_bytes_max: 1 << 20,
            flips: false,
            changes: false,
            empties: false,
            preferred_wait_ms: 30_000,
        }
    }
}
