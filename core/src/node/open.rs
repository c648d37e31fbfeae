//! Opens a shard: its directory, its disk, its log and what the log says of topics, groups and offsets.

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use apogee_storage::driver::{Disk, DmaBuffer, Identity, ShardDirectory};
use apogee_storage::{
    CommitRule, GroupRecovered, GroupState, LogConfig, LogSource as _, Member, Recovered, RecoveryReport,
    RefusedSnapshot, ReplacedIndex, read_group_state, read_saved_group_state, recover, recover_group,
    save_group_state,
};

use super::clock::now_ms;
use super::data_dir::shard_dir;
use crate::config::{BrokerConfig, ReplicationConfig, broker_name, member_address};
use crate::replication::ReplicaConfig;
use crate::shard::topics::TopicPolicy;
use crate::shard::{GroupStart, Replay, Shard, ShardConfig};

/// A shard recovered and not yet served.
pub(super) struct OpenShard {
    pub(super) shard: Shard<DmaBuffer>,
    pub(super) disk: Disk,
    pub(super) directory: ShardDirectory,
}

impl OpenShard {
    /// Shard `number` of `shards`.
    pub(super) async fn open(config: &BrokerConfig, number: u16, shards: u16) -> anyhow::Result<Self> {
        let identity = Identity {
            cluster: config.cluster.clone(),
            group: config.group.clone(),
            shard: number.into(),
            node: config.node_id(),
        };
        let directory = ShardDirectory::open(&shard_dir(config, number), &identity)?;
        let policy = topic_policy(config, &broker_name(&config.group, number));
        let new_state = Replay::new_state(policy, config.auto_create_group);
        let disk = Disk::open(directory.files().clone(), config.disk(), new_state).await?;
        let address = SocketAddr::new(config.advertised_ip()?, config.port(number)?);
        let opening = Opening {
            config,
            number,
            shard_config: shard_config(config, number, shards, address),
            log_config: config.log(identity.group_id(), identity.node),
            directory: &directory,
        };
        let shard = match &config.replication {
            None => opening.shard_alone()?,
            Some(replication) => opening.shard_of_group(replication, &disk)?,
        };
        Ok(OpenShard { shard, disk, directory })
    }
}

fn topic_policy(config: &BrokerConfig, broker_name: &str) -> TopicPolicy {
    TopicPolicy {
        cluster_name: config.cluster.clone(),
        broker_name: broker_name.to_owned(),
        auto_create: config.auto_create_topic,
        has_trace_topic: config.trace_topic,
    }
}

fn shard_config(config: &BrokerConfig, number: u16, shards: u16, address: SocketAddr) -> ShardConfig {
    ShardConfig {
        cluster: config.cluster.as_str().into(),
        broker_name: broker_name(&config.group, number),
        shards,
        address,
        message_bytes_max: config.message_bytes_max as usize,
        timers: config.timers(),
        enable_property_filter: config.enable_property_filter,
        settings: config.settings(),
        properties: Rc::new(config.properties()),
        server_side_reset: config.server_side_reset,
    }
}

/// Recovers the log and opens the shard on it. Blocks: nothing is served on this executor yet.
struct Opening<'a> {
    config: &'a BrokerConfig,
    number: u16,
    shard_config: ShardConfig,
    log_config: LogConfig,
    directory: &'a ShardDirectory,
}

impl Opening<'_> {
    fn replay(&self) -> Replay {
        Replay::new(topic_policy(self.config, &self.shard_config.broker_name), self.config.auto_create_group)
    }

    fn shard_alone(self) -> anyhow::Result<Shard<DmaBuffer>> {
        let mut replay = self.replay();
        let started = Instant::now();
        let files = self.directory.files();
        if read_saved_group_state(files)?.is_some() {
            bail!(
                "{}: the log is a group's, whose other nodes know what in it counts: it needs [replication]",
                self.directory.path().display()
            );
        }
        let recovered = recover(files, &self.log_config, &mut replay)?;
        log_report(&self.shard_config.broker_name, &recovered.report, started.elapsed());
        Ok(Shard::open(self.shard_config, self.log_config, recovered, replay, now_ms())?)
    }

    fn shard_of_group(
        self,
        replication: &ReplicationConfig,
        disk: &Disk,
    ) -> anyhow::Result<Shard<DmaBuffer>> {
        let mut replay = self.replay();
        let started = Instant::now();
        let files = self.directory.files();
        let LogConfig { group, node, .. } = self.log_config;
        let state = match read_group_state(files, group, node)? {
            Some(state) => state,
            None => {
                let mut state = self.first_state(replication)?;
                // A log that had no group has told what it acknowledged: nothing of that may be missing, nor be taken for
                // undecided.
                let alone = LogConfig { commit_rule: CommitRule::Local, ..self.log_config.clone() };
                state.commit = recover(files, &alone, &mut self.replay())?.report.last_index;
                // Before anybody hears of this node: it must not come back as another one.
                save_group_state(files, &state)?;
                state
            }
        };
        let recovered = recover_group(files, &self.log_config, state, &mut replay)?;
        let broker = &self.shard_config.broker_name;
        let GroupRecovered {
            state,
            recovered: Recovered { report, .. },
            uncommitted,
            damage,
            interrupted,
            ..
        } = &recovered;
        if let Some(damage) = damage {
            tracing::error!(
                broker,
                %damage,
                "the log is damaged: what is missing is taken from the leader, and until then this node does not vote"
            );
        }
        if let Some(interrupted) = interrupted {
            tracing::warn!(broker, ?interrupted, "the log was being begun anew when the process ended");
        }
        tracing::info!(
            broker,
            term = state.term.0,
            uncommitted,
            recovering = state.recovering,
            "a log of a group"
        );
        log_report(broker, report, started.elapsed());
        let config = replica_config(replication, self.number, state);
        let group = GroupStart { config, recovered };
        let alloc = |len| disk.alloc(len);
        Ok(Shard::open_in_group(self.shard_config, self.log_config, group, replay, now_ms(), alloc)?)
    }

    /// What a node says when it comes to its group for the first time.
    fn first_state(&self, replication: &ReplicationConfig) -> anyhow::Result<GroupState> {
        let LogConfig { group, node, segment_bytes, write_window_bytes, .. } = self.log_config;
        let has_log = !self.directory.files().segments()?.is_empty();
        if has_log && (replication.join || replication.nodes.len() > 1) {
            bail!(
                "{}: this is the log of a shard without a group. A group begins with it as the only one of its nodes: \
                 leave only this one in replication.nodes, start it, then have empty nodes join",
                self.directory.path().display()
            );
        }
        let mut state = GroupState::new(group, node);
        state.incarnation = incarnation()?;
        state.segment_bytes = segment_bytes;
        state.write_window_bytes = write_window_bytes;
        if !replication.join {
            state.conf.voters = replication.voters();
            state.conf.learners = replication.learners();
            for node in &replication.nodes {
                let address = node.peer_address(self.number, self.config.base_port)?;
                state.members.push(Member { node: node.node_id(), address: member_address(address) });
            }
        }
        Ok(state)
    }
}

/// A number that no other life of this directory has.
fn incarnation() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("/dev/urandom")?;
    // Zero is nobody's.
    Ok(u64::from_le_bytes(bytes) | 1)
}

fn replica_config(replication: &ReplicationConfig, number: u16, state: &GroupState) -> ReplicaConfig {
    ReplicaConfig {
        seed: state.incarnation,
        election_timeout_ms: replication.election_timeout_ms,
        heartbeat_ms: replication.heartbeat_ms,
        window_bytes: replication.window_bytes,
        uncommitted_bytes_max: replication.uncommitted_bytes_max,
        preferred_leaders: replication.preferred_leaders,
        preferred_leaders_wait_ms: replication.preferred_leaders_wait_ms,
        disk_stall_ms: replication.disk_stall_ms,
        ..ReplicaConfig::new(state.node, number.into())
    }
}

fn log_report(broker: &str, report: &RecoveryReport, took: Duration) {
    for ReplacedIndex { file, flaw, by } in &report.indexes_replaced {
        tracing::warn!(broker, file, %flaw, ?by, "an index could not be used");
    }
    for RefusedSnapshot { file, flaw } in &report.snapshots_refused {
        tracing::warn!(broker, file, %flaw, "a snapshot could not be used");
    }
    if let Some(cut) = &report.cut {
        tracing::warn!(broker, ?cut, "the log ended in an unfinished batch");
    }
    tracing::info!(
        broker,
        begin = report.begin.0,
        end = report.end.0,
        segments = report.segments,
        sealed = report.sealed_segments,
        batches = report.batches,
        records = report.records,
        snapshot = report.snapshot.map(|at| at.0),
        control_records = report.control_records,
        bytes_read = report.bytes_read,
        ?took,
        "log recovered"
    );
}
