//! Opens a shard: its directory, its disk, its log and what the log says of topics, groups and offsets.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use apogee_storage::driver::{Disk, DmaBuffer, Identity, ShardDirectory};
use apogee_storage::{NodeId, RecoveryReport, RefusedSnapshot, ReplacedIndex, recover};

use super::clock::now_ms;
use super::data_dir::shard_dir;
use crate::config::BrokerConfig;
use crate::shard::topics::TopicPolicy;
use crate::shard::{Replay, Shard, ShardConfig};

/// A shard recovered and not yet served.
pub(super) struct OpenShard {
    pub(super) shard: Shard<DmaBuffer>,
    pub(super) disk: Disk,
    pub(super) directory: ShardDirectory,
}

impl OpenShard {
    pub(super) async fn open(config: &BrokerConfig, number: u16) -> anyhow::Result<Self> {
        let identity = Identity {
            cluster: config.cluster.clone(),
            group: config.group.clone(),
            shard: number.into(),
            node: NodeId(0),
        };
        let directory = ShardDirectory::open(&shard_dir(config, number), &identity)?;
        let policy = topic_policy(config, &format!("{}-{number}", config.group));
        let new_state = Replay::new_state(policy, config.auto_create_group);
        let disk = Disk::open(directory.files().clone(), config.disk(), new_state).await?;
        let address = SocketAddr::new(config.advertised_ip()?, config.port(number)?);
        let shard = open_shard(config, shard_config(config, number, address), &identity, &directory)?;
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

fn shard_config(config: &BrokerConfig, number: u16, address: SocketAddr) -> ShardConfig {
    ShardConfig {
        cluster: config.cluster.as_str().into(),
        broker_name: format!("{}-{number}", config.group),
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
fn open_shard(
    config: &BrokerConfig,
    shard_config: ShardConfig,
    identity: &Identity,
    directory: &ShardDirectory,
) -> anyhow::Result<Shard<DmaBuffer>> {
    let log_config = config.log(identity.group_id(), identity.node);
    let policy = topic_policy(config, &shard_config.broker_name);
    let mut replay = Replay::new(policy, config.auto_create_group);
    let started = Instant::now();
    let recovered = recover(directory.files(), &log_config, &mut replay)?;
    log_report(&shard_config.broker_name, &recovered.report, started.elapsed());
    Ok(Shard::open(shard_config, log_config, recovered, replay, now_ms())?)
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
