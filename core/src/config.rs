//! What a process is told: one struct per role, read from the command line or a TOML file.
//!
//! Unknown keys and values out of bounds are refused by name. RocketMQ's own property names are accepted as
//! aliases where the meaning is the same, so that a `broker.conf` reads familiar.

mod replication;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use apogee_storage::driver::DiskConfig;
use apogee_storage::{CommitRule, Durability as LogDurability, GroupId, LogConfig, NodeId, Retention};
use apogee_tuning::CpuList;
use serde::{Deserialize, Serialize};

use crate::shard::settings::Settings;
use crate::shard::timers::{DEFAULT_DELAY_LEVELS, DelayLevels, TIMER_DELAY_SEC, TimerSettings};

pub use replication::{
    GroupWide, NodeAddress, PEER_PORT_DISTANCE, ReplicationConfig, member_address, parse_member_address,
};

/// Where RocketMQ's NameServer listens.
pub const NAMESRV_PORT: u16 = 9876;

/// Where RocketMQ's broker listens; shard 0 here.
pub const BROKER_PORT: u16 = 10911;

/// Distance between the ports of two shards: `port - 2` is the clients' VIP channel and `port + 1` replication.
pub const PORT_STRIDE: u16 = 10;

const MIB: u64 = 1024 * 1024;

const HOUR_MS: u64 = 3_600_000;

/// With `async` durability: the longest that a message acknowledged after its write stays unsynced.
const ASYNC_SYNC_INTERVAL_MS: u32 = 500;

/// Batches may be this much larger than the largest message: its layout, properties and the batch's own header.
const BATCH_OVERHEAD_BYTES: u32 = MIB as u32;

/// A NameServer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct NamesrvConfig {
    /// Address to bind.
    pub listen: IpAddr,
    /// Port to bind. Default 9876.
    #[serde(alias = "listenPort")]
    pub port: u16,
    /// Directory of the KV configuration, the only thing a NameServer keeps.
    pub data_dir: PathBuf,
}

impl Default for NamesrvConfig {
    fn default() -> Self {
        NamesrvConfig {
            listen: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: NAMESRV_PORT,
            data_dir: PathBuf::from("apogee-data"),
        }
    }
}

impl NamesrvConfig {
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.listen, self.port)
    }
}

/// A node of brokers: one per shard.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct BrokerConfig {
    /// Cluster the node belongs to.
    #[serde(alias = "brokerClusterName")]
    pub cluster: String,
    /// Name of the broker group; shard `k` is the broker `<group>-<k>`.
    #[serde(alias = "brokerName")]
    pub group: String,
    /// NameServers, each `host:port`; also as one string separated by `;`.
    #[serde(alias = "namesrvAddr", deserialize_with = "addresses")]
    pub namesrv: Vec<SocketAddr>,
    /// Address to bind.
    pub listen: IpAddr,
    /// Address that clients are told. Needed when `listen` is unspecified (0.0.0.0).
    #[serde(alias = "brokerIP1")]
    pub advertise: Option<IpAddr>,
    /// Port of shard 0; shard `k` listens 10·k above it.
    #[serde(alias = "listenPort")]
    pub base_port: u16,
    #[serde(alias = "storePathRootDir")]
    pub data_dir: PathBuf,
    /// CPUs that run shards, one executor pinned to each. Empty: every CPU this process may use.
    #[serde(deserialize_with = "cpus", serialize_with = "cpus_as_text")]
    pub cpus: CpuList,
    /// Profile of the machine, as `apogee-tune profile --out` writes it. What this file leaves at its default is taken from
    /// there; without one the CPUs and the spinning follow from what the machine is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<PathBuf>,
    /// Shards of a new data directory; an existing one keeps its number. Default: one per CPU.
    pub shards: Option<u16>,
    /// What an acknowledgement of a send promises.
    #[serde(alias = "flushDiskType")]
    pub durability: Durability,
    /// Size of a log segment. Multiple of 4 KiB, 16 MiB to 4 GiB. Default 1 GiB: few files, and space is still
    /// freed in useful steps. Every shard holds two from the start.
    #[serde(alias = "mappedFileSizeCommitLog")]
    pub segment_bytes: u64,
    /// Memory per shard that keeps the newest messages for tailing consumers. 1 MiB and more.
    pub tail_cache_bytes: u64,
    /// Entries of queues' indexes that a shard keeps in memory, some 24 bytes each. Default: the log's own.
    pub index_entries_max: Option<u64>,
    /// Free space of the file system that is left alone: below it the oldest messages leave early, and if that does
    /// not help, sends are refused until there is room again.
    pub disk_reserve_bytes: u64,
    /// How long messages are kept, in hours; they leave by whole segments. 1 to 876,000 (a hundred years). Default 72.
    #[serde(alias = "fileReservedTime")]
    pub retention_hours: u32,
    /// Bytes that the log of one shard may take up; the oldest segments leave beyond it. At least four segments.
    /// Default: as many as the disk holds.
    pub retention_bytes: Option<u64>,
    /// Whether messages leave before their time when the disk is full up to its reserve. Otherwise sends are refused
    /// then.
    #[serde(alias = "cleanFileForciblyEnable")]
    pub reclaim_early: bool,
    /// Batches of one log that may be on their way to the disk at once, 1 to 64. Default: the log's own.
    pub batches_in_flight_max: Option<u32>,
    /// Size from which a batch of the log takes no more messages, in bytes; 4 KiB and more. Default: the log's own.
    pub batch_bytes_target: Option<u32>,
    /// Reads from disk for consumers that lag which one shard has under way at once, 1 to 64; others wait in line.
    /// Default: the log's own, chosen so that producers notice little of them.
    pub catch_up_reads_max: Option<u32>,
    /// Bytes of these reads, 64 KiB to 64 MiB. Default: the log's own.
    pub catch_up_bytes_max: Option<u64>,
    /// Create topics when a producer names an unknown one.
    #[serde(alias = "autoCreateTopicEnable")]
    pub auto_create_topic: bool,
    /// Create consumer groups when a consumer names an unknown one.
    #[serde(alias = "autoCreateSubscriptionGroup")]
    pub auto_create_group: bool,
    /// What clients may do at this broker: 4 read, 2 write, 6 both. Topics are registered with no more than this.
    #[serde(alias = "brokerPermission")]
    pub permission: i32,
    /// Tell clients that trace their messages to do so.
    #[serde(alias = "traceOn")]
    pub trace_on: bool,
    /// Whether the broker itself resets a group's offsets on request, as since 5.0, or has the group's live clients do
    /// it.
    #[serde(alias = "useServerSideResetOffset")]
    pub server_side_reset: bool,
    /// Largest message body. Up to 8 MiB; RocketMQ's clients refuse more than 4 MiB by default.
    #[serde(alias = "maxMessageSize")]
    pub message_bytes_max: u32,
    /// Delays of the delay levels, up to 18, each a number and a unit (s, m, h, d).
    #[serde(alias = "messageDelayLevel")]
    pub delay_levels: String,
    /// Whether messages may ask for a time of their own; those that wait already are delivered in either case.
    #[serde(alias = "timerWheelEnable")]
    pub timer_enable: bool,
    /// The longest that a message may ask to wait, in seconds. 1 to 31,622,400 (a year). Default 259,200, three days.
    #[serde(alias = "timerMaxDelaySec")]
    pub timer_delay_max_sec: u64,
    /// Whether producers may take back a message that waits for its time.
    #[serde(alias = "recallMessageEnable")]
    pub recall_enable: bool,
    /// Let consumers filter by SQL92 expressions over properties. On, unlike RocketMQ: nothing is paid for it by who
    /// does not use it.
    #[serde(alias = "enablePropertyFilter")]
    pub enable_property_filter: bool,
    /// Make the topic that clients send their traces to.
    #[serde(alias = "traceTopicEnable")]
    pub trace_topic: bool,
    /// Refuse transactional messages.
    #[serde(alias = "rejectTransactionMessage")]
    pub reject_transactions: bool,
    /// How long a half message waits before its producer is asked what became of it, unless it says so itself, in
    /// milliseconds. Default 6 s.
    #[serde(alias = "transactionTimeOut")]
    pub transaction_timeout_ms: u32,
    /// From one such question to the next, in milliseconds; 100 and more. Default 30 s.
    #[serde(alias = "transactionCheckInterval")]
    pub transaction_check_interval_ms: u32,
    /// Questions after which a half message is given up, 1 to 1,000,000. Default 15.
    #[serde(alias = "transactionCheckMax")]
    pub transaction_checks_max: u32,
    /// Store replies of request-reply as well as hand them over.
    #[serde(alias = "storeReplyMessageEnable")]
    pub store_replies: bool,
    /// How long an idle executor keeps polling before it sleeps, in microseconds. Zero sleeps at once; more trades
    /// CPU time for latency on cores that nothing else uses.
    pub spin_us: u64,
    /// The group of nodes that this one belongs to. Without it every shard is alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication: Option<ReplicationConfig>,
}

/// RocketMQ's `flushDiskType`, with stronger promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Acknowledged after the sync: survives loss of power.
    #[serde(alias = "SYNC_FLUSH")]
    Sync,
    /// Acknowledged after the direct write: survives a crash of the process.
    #[serde(alias = "ASYNC_FLUSH")]
    Async,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        BrokerConfig {
            cluster: "DefaultCluster".into(),
            group: "broker-a".into(),
            namesrv: vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), NAMESRV_PORT)],
            listen: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            advertise: None,
            base_port: BROKER_PORT,
            data_dir: PathBuf::from("apogee-data"),
            cpus: CpuList::default(),
            profile: None,
            shards: None,
            durability: Durability::Sync,
            segment_bytes: 1024 * MIB,
            tail_cache_bytes: 64 * MIB,
            index_entries_max: None,
            disk_reserve_bytes: 1024 * MIB,
            retention_hours: 72,
            retention_bytes: None,
            reclaim_early: true,
            batches_in_flight_max: None,
            batch_bytes_target: None,
            catch_up_reads_max: None,
            catch_up_bytes_max: None,
            auto_create_topic: true,
            auto_create_group: true,
            permission: 6,
            trace_on: true,
            server_side_reset: true,
            message_bytes_max: 4 * MIB as u32,
            delay_levels: DEFAULT_DELAY_LEVELS.into(),
            timer_enable: true,
            timer_delay_max_sec: 3 * 86_400,
            recall_enable: false,
            enable_property_filter: true,
            trace_topic: false,
            reject_transactions: false,
            transaction_timeout_ms: 6_000,
            transaction_check_interval_ms: 30_000,
            transaction_checks_max: 15,
            store_replies: true,
            spin_us: 0,
            replication: None,
        }
    }
}

impl BrokerConfig {
    /// Refuses what cannot work, naming the key, what was found and what is possible.
    pub fn validate(&self) -> anyhow::Result<()> {
        for (key, name) in [("cluster", &self.cluster), ("group", &self.group)] {
            let legal = !name.is_empty()
                && name.len() <= NAME_BYTES_MAX
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            ensure!(
                legal,
                "{key} = {name:?}: expected 1 to {NAME_BYTES_MAX} letters, digits, '-' or '_' (it becomes a topic name)"
            );
        }
        ensure!(
            !self.namesrv.is_empty(),
            "namesrv is empty: a broker without a NameServer is found by no client"
        );
        between("segment_bytes", self.segment_bytes, 16 * MIB, 4096 * MIB)?;
        ensure!(
            self.segment_bytes.is_multiple_of(4096),
            "segment_bytes = {}: not a multiple of 4096",
            self.segment_bytes
        );
        between("tail_cache_bytes", self.tail_cache_bytes, MIB, 1024 * 1024 * MIB)?;
        between("disk_reserve_bytes", self.disk_reserve_bytes, 0, DISK_BYTES_MAX)?;
        between("retention_hours", self.retention_hours.into(), 1, RETENTION_HOURS_MAX)?;
        if let Some(bytes) = self.retention_bytes {
            let min = RETENTION_SEGMENTS_MIN * self.segment_bytes;
            ensure!(
                (min..=DISK_BYTES_MAX).contains(&bytes),
                "retention_bytes = {bytes}: expected {min} to {DISK_BYTES_MAX}, {RETENTION_SEGMENTS_MIN} times segment_bytes and more"
            );
        }
        let disk = self.disk();
        between("catch_up_reads_max", disk.catch_up_reads_max.into(), 1, 64)?;
        between("catch_up_bytes_max", disk.catch_up_bytes_max, MIB / 16, 64 * MIB)?;
        between(
            "transaction_check_interval_ms",
            self.transaction_check_interval_ms.into(),
            100,
            HOUR_MS * 24,
        )?;
        between("transaction_checks_max", self.transaction_checks_max.into(), 1, 1_000_000)?;
        between("permission", self.permission.try_into().unwrap_or(u64::MAX), 0, 7)?;
        between("message_bytes_max", u64::from(self.message_bytes_max), 1024, 8 * MIB)?;
        if let Some(shards) = self.shards {
            between("shards", u64::from(shards), 1, u64::from(SHARDS_MAX))?;
        }
        between("base_port", u64::from(self.base_port), 1024, 65_000)?;
        between("spin_us", self.spin_us, 0, 10_000)?;
        self.delay_levels
            .parse::<DelayLevels>()
            .with_context(|| format!("delay_levels = {:?}", self.delay_levels))?;
        between(
            "timer_delay_max_sec",
            self.timer_delay_max_sec,
            *TIMER_DELAY_SEC.start(),
            *TIMER_DELAY_SEC.end(),
        )?;
        self.log(GroupId(0), NodeId(0)).validate()?;
        if let Some(replication) = &self.replication {
            replication.validate(self)?;
        }
        self.advertised_ip().map(|_| ())
    }

    /// Settings of one shard's log.
    pub fn log(&self, group: GroupId, node: NodeId) -> LogConfig {
        let defaults = LogConfig::new(group, node);
        LogConfig {
            durability: match self.durability {
                Durability::Sync => LogDurability::Sync,
                Durability::Async => LogDurability::Async { sync_interval_ms: ASYNC_SYNC_INTERVAL_MS },
            },
            commit_rule: match self.replication {
                Some(_) => CommitRule::Group,
                None => CommitRule::Local,
            },
            segment_bytes: self.segment_bytes,
            tail_cache_bytes: self.tail_cache_bytes,
            batch_bytes_target: self.batch_bytes_target.unwrap_or(defaults.batch_bytes_target),
            batch_bytes_max: self
                .message_bytes_max
                .saturating_add(BATCH_OVERHEAD_BYTES)
                .next_multiple_of(4096),
            batches_in_flight_max: self.batches_in_flight_max.unwrap_or(defaults.batches_in_flight_max),
            index_entries_max: self.index_entries_max.unwrap_or(defaults.index_entries_max),
            reserve_bytes: self.disk_reserve_bytes,
            retention: Retention {
                age_ms: Some(u64::from(self.retention_hours) * HOUR_MS),
                bytes: self.retention_bytes,
                may_reclaim: self.reclaim_early,
            },
            ..defaults
        }
    }

    /// What can be changed while the broker runs.
    pub fn settings(&self) -> Settings {
        Settings {
            broker_perm: self.permission,
            auto_create_topic: self.auto_create_topic,
            auto_create_group: self.auto_create_group,
            trace_on: self.trace_on,
            file_reserved_hours: self.retention_hours,
            reclaim_early: self.reclaim_early,
            reject_transactions: self.reject_transactions,
            transaction_timeout_ms: self.transaction_timeout_ms,
            transaction_check_interval_ms: self.transaction_check_interval_ms,
            transaction_checks_max: self.transaction_checks_max,
            store_replies: self.store_replies,
            timer_enable: self.timer_enable,
            timer_delay_max_sec: self.timer_delay_max_sec,
            recall_enable: self.recall_enable,
        }
    }

    /// All that cannot, as GET_BROKER_CONFIG (26) shows it: under our own names, and where RocketMQ's tools look for it
    /// or a property means the same, under RocketMQ's.
    pub fn properties(&self) -> BTreeMap<String, String> {
        let own = serde_json::to_value(self).expect("the keys are names");
        let serde_json::Value::Object(mut own) = own else { unreachable!("a struct is an object") };
        if let Some(serde_json::Value::Object(replication)) = own.remove("replication") {
            own.extend(replication.into_iter().map(|(key, value)| (format!("replication.{key}"), value)));
        }
        let mut properties: BTreeMap<_, _> = own.into_iter().map(|(key, value)| (key, text(value))).collect();
        for key in SHOWN_AS_SETTINGS {
            properties.remove(*key);
        }
        let namesrv = properties["namesrv"].clone();
        for (name, value) in [
            ("namesrvAddr", namesrv),
            ("storePathRootDir", self.data_dir.display().to_string()),
            ("mappedFileSizeCommitLog", self.segment_bytes.to_string()),
            (
                "flushDiskType",
                match self.durability {
                    Durability::Sync => "SYNC_FLUSH".into(),
                    Durability::Async => "ASYNC_FLUSH".into(),
                },
            ),
            ("messageDelayLevel", self.delay_levels.clone()),
            ("msgTraceTopicName", "RMQ_SYS_TRACE_TOPIC".into()),
            ("traceTopicEnable", "false".into()),
            ("filterServerNums", "0".into()),
            ("slaveReadEnable", "false".into()),
            ("useTLS", "false".into()),
            ("longPollingEnable", "true".into()),
            ("enableControllerMode", "false".into()),
            ("authenticationEnabled", "false".into()),
            ("authorizationEnabled", "false".into()),
            ("enableMixedMessageType", "false".into()),
            ("enableQueueStat", "false".into()),
        ] {
            properties.insert(name.into(), value);
        }
        properties
    }

    /// Settings of the disk under one shard's log.
    pub fn disk(&self) -> DiskConfig {
        let defaults = DiskConfig::DEFAULT;
        DiskConfig {
            catch_up_reads_max: self.catch_up_reads_max.unwrap_or(defaults.catch_up_reads_max),
            catch_up_bytes_max: self.catch_up_bytes_max.unwrap_or(defaults.catch_up_bytes_max),
            ..defaults
        }
    }

    /// What shards are told about delayed messages.
    ///
    /// # Panics
    /// If the settings are not [valid](Self::validate).
    pub fn timers(&self) -> TimerSettings {
        TimerSettings { levels: self.delay_levels.parse().expect("validated"), ..TimerSettings::default() }
    }

    /// The address clients are sent to; it also stands in every stored message.
    pub fn advertised_ip(&self) -> anyhow::Result<IpAddr> {
        match self.advertise {
            Some(ip) if ip.is_unspecified() => bail!("advertise = {ip}: no client can connect to that"),
            Some(ip) => Ok(ip),
            None if self.listen.is_unspecified() => {
                // What the other nodes reach is the best guess at what clients reach.
                let own = self.replication.as_ref().and_then(ReplicationConfig::own_address);
                own.with_context(|| {
                    format!(
                        "listen = {} needs advertise (brokerIP1): the address under which clients reach this node",
                        self.listen
                    )
                })
            }
            None => Ok(self.listen),
        }
    }

    /// Port of shard `shard`.
    pub fn port(&self, shard: u16) -> anyhow::Result<u16> {
        shard_port(self.base_port, shard)
    }

    /// Id of the node in its group; 0 without one.
    pub fn node_id(&self) -> NodeId {
        self.replication.as_ref().map_or(NodeId(0), ReplicationConfig::node_id)
    }
}

/// What clients know a shard of a group by, on all of its nodes.
pub fn broker_name(group: &str, shard: u16) -> String {
    format!("{group}-{shard}")
}

/// Port of shard `shard` of a node with this base port.
pub fn shard_port(base_port: u16, shard: u16) -> anyhow::Result<u16> {
    PORT_STRIDE
        .checked_mul(shard)
        .and_then(|distance| base_port.checked_add(distance))
        // The port above it is replication's.
        .filter(|&port| port <= u16::MAX - PEER_PORT_DISTANCE)
        .with_context(|| format!("base_port = {base_port}: no port left for shard {shard}"))
}

/// Keys whose values may be others than the file's: shown under RocketMQ's names with what is in force.
const SHOWN_AS_SETTINGS: &[&str] = &[
    "permission",
    "auto_create_topic",
    "auto_create_group",
    "trace_on",
    "retention_hours",
    "reclaim_early",
    "reject_transactions",
    "transaction_timeout_ms",
    "transaction_check_interval_ms",
    "transaction_checks_max",
    "store_replies",
    "timer_enable",
    "timer_delay_max_sec",
    "recall_enable",
];

/// A configuration value in one line.
fn text(value: serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Null => String::new(),
        Value::String(text) => text,
        Value::Array(parts) => parts.into_iter().map(text).collect::<Vec<_>>().join(";"),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Object(_)) => other.to_string(),
    }
}

const NAME_BYTES_MAX: usize = 100;

/// A hundred years.
const RETENTION_HOURS_MAX: u64 = 876_000;

/// One segment is written to, one is made ready, the newest full one always stays: with less than one more nearly
/// nothing could be kept.
const RETENTION_SEGMENTS_MIN: u64 = 4;

/// More than any disk has.
const DISK_BYTES_MAX: u64 = 1 << 50;

/// More shards than any machine has cores; ports and directories are numbered by them.
pub const SHARDS_MAX: u16 = 1024;

fn between(key: &str, found: u64, min: u64, max: u64) -> anyhow::Result<()> {
    ensure!((min..=max).contains(&found), "{key} = {found}: expected {min} to {max}");
    Ok(())
}

/// Reads a role's configuration file.
pub fn read_file<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is not a valid configuration", path.display()))
}

/// `host:port` addresses separated by `;` or `,`, as RocketMQ writes them.
pub fn parse_addresses(text: &str) -> anyhow::Result<Vec<SocketAddr>> {
    use std::net::ToSocketAddrs;
    text.split([';', ','])
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            part.to_socket_addrs()
                .with_context(|| format!("{part:?} is not a reachable host:port"))?
                .next()
                .with_context(|| format!("{part:?} has no address"))
        })
        .collect()
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    Text(String),
    Many(Vec<T>),
}

fn addresses<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let text = match OneOrMany::<String>::deserialize(deserializer)? {
        OneOrMany::Text(text) => text,
        OneOrMany::Many(parts) => parts.join(";"),
    };
    parse_addresses(&text).map_err(|error| serde::de::Error::custom(format!("{error:#}")))
}

/// An address, or a host name that is looked up.
fn host<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    use std::net::ToSocketAddrs;
    let text = String::deserialize(deserializer)?;
    if let Ok(ip) = text.parse() {
        return Ok(ip);
    }
    let found = (text.as_str(), 0).to_socket_addrs().ok().and_then(|mut found| found.next());
    let found =
        found.ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no address and no known host")));
    found.map(|address| address.ip())
}

fn cpus<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<CpuList, D::Error> {
    match OneOrMany::<u32>::deserialize(deserializer)? {
        OneOrMany::Text(text) => text.parse().map_err(serde::de::Error::custom),
        OneOrMany::Many(cpus) => Ok(cpus.into_iter().collect()),
    }
}

fn cpus_as_text<S: serde::Serializer>(cpus: &CpuList, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_rocketmq_words_reads_as_ours() {
        let config: BrokerConfig = toml::from_str(
            r#"
            brokerClusterName = "c"
            brokerName = "b"
            namesrvAddr = "127.0.0.1:9876;127.0.0.1:9877"
            brokerIP1 = "10.0.0.7"
            listenPort = 20911
            flushDiskType = "ASYNC_FLUSH"
            autoCreateTopicEnable = false
            fileReservedTime = 48
            cleanFileForciblyEnable = false
            cpus = "0-2,5"
            "#,
        )
        .unwrap();
        assert_eq!(config.cluster, "c");
        assert_eq!(config.namesrv.len(), 2);
        assert_eq!(config.advertised_ip().unwrap().to_string(), "10.0.0.7");
        assert_eq!(config.durability, Durability::Async);
        assert_eq!(config.cpus.to_string(), "0-2,5");
        assert!(!config.auto_create_topic);
        let retention = config.log(GroupId(1), NodeId(0)).retention;
        let two_days = Some(48 * 3600 * 1000);
        assert_eq!(retention, Retention { age_ms: two_days, bytes: None, may_reclaim: false });
        assert_eq!(config.port(3).unwrap(), 20941);
        config.validate().unwrap();
    }

    #[test]
    fn the_configuration_is_shown_under_our_names_and_rocketmq_s() {
        let properties =
            BrokerConfig { cpus: "0-2,5".parse().unwrap(), ..BrokerConfig::default() }.properties();
        for (key, value) in [
            ("namesrvAddr", "127.0.0.1:9876"),
            ("namesrv", "127.0.0.1:9876"),
            ("flushDiskType", "SYNC_FLUSH"),
            ("durability", "sync"),
            ("cpus", "0-2,5"),
            ("segment_bytes", "1073741824"),
            ("retention_bytes", ""),
            ("data_dir", "apogee-data"),
        ] {
            assert_eq!(properties.get(key).map(String::as_str), Some(value), "{key}");
        }
        assert!(SHOWN_AS_SETTINGS.iter().all(|key| !properties.contains_key(*key)));
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = toml::from_str::<BrokerConfig>("flushDiskTyp = \"SYNC_FLUSH\"").unwrap_err();
        assert!(error.to_string().contains("flushDiskTyp"), "{error}");
    }

    #[test]
    fn bounds_are_named_with_what_was_found() {
        let local = BrokerConfig { listen: IpAddr::V4(Ipv4Addr::LOCALHOST), ..BrokerConfig::default() };
        local.validate().unwrap();
        let refused = |config: BrokerConfig| config.validate().unwrap_err().to_string();
        assert!(refused(BrokerConfig { segment_bytes: 5, ..local.clone() }).contains("segment_bytes = 5"));
        assert!(refused(BrokerConfig { group: "a b".into(), ..local.clone() }).contains("group = \"a b\""));
        assert!(refused(BrokerConfig { shards: Some(0), ..local.clone() }).contains("shards = 0"));
        assert!(
            refused(BrokerConfig { retention_hours: 0, ..local.clone() }).contains("retention_hours = 0")
        );
        let one_segment = BrokerConfig { retention_bytes: Some(1024 * MIB), ..local.clone() };
        assert!(refused(one_segment).contains("retention_bytes = 1073741824: expected 4294967296 to"));
        let tiny = BrokerConfig { batch_bytes_target: Some(1), ..local.clone() };
        assert!(refused(tiny).contains("batch_bytes_target is 1; it must lie between 4096 and"));
        let none = BrokerConfig { catch_up_reads_max: Some(0), ..local.clone() };
        assert!(refused(none).contains("catch_up_reads_max = 0: expected 1 to 64"));
        let deep = BrokerConfig { batches_in_flight_max: Some(65), ..local.clone() };
        assert!(refused(deep).contains("batches_in_flight_max is 65; it must lie between 1 and 64"));
        assert!(refused(BrokerConfig::default()).contains("advertise"));
    }
}
