//! The command line: one sub-command per role.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use apogee_tuning::CpuList;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::admin::{self, AdminArgs};
use crate::config::{self, BROKER_PORT, BrokerConfig, Durability, NAMESRV_PORT, NamesrvConfig};
use crate::log_tool::{self, LogArgs};
use crate::node::{self, Plan};
use crate::recover::{self, RecoverArgs};
use crate::trial::{self, ClusterArgs};

const MIB: u64 = 1024 * 1024;

/// Segments of a broker that is tried out: small ones, since every shard prepares two of them at start.
const STANDALONE_SEGMENT_MIB: u64 = 128;

/// A RocketMQ-compatible message broker: one shard per core, direct I/O, durable by default.
#[derive(Debug, Parser)]
#[command(name = "apogee", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A NameServer and a broker in one process, with sane defaults.
    Standalone(Standalone),
    /// Three NameServers and three nodes on this machine, to see what happens when one dies.
    Cluster(ClusterArgs),
    /// A NameServer.
    Namesrv(Namesrv),
    /// A node of brokers, one per shard.
    Broker(Broker),
    /// Look at a running cluster, and change it.
    Admin(AdminArgs),
    /// Look at a log on disk: check it, or print what is in it.
    Log(LogArgs),
    /// Have a node of a group that lost data go on without it, where its group has no leader otherwise.
    Recover(RecoverArgs),
}

#[derive(Debug, Args)]
struct Standalone {
    /// TOML file with settings of the broker that no flag is about; where there is a flag, the flag's value counts.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory, made when missing.
    #[arg(long, value_name = "DIR", default_value = "apogee-data")]
    data: PathBuf,
    /// CPUs that run shards, e.g. 0-3,8. Default: all that this process may use.
    #[arg(long, value_name = "LIST", default_value = "", hide_default_value = true)]
    cores: CpuList,
    /// Shards of a new data directory. Default: one per core.
    #[arg(long, value_name = "N")]
    shards: Option<u16>,
    /// Address to listen on.
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// Address that clients are told, when it differs from the one listened on.
    #[arg(long, value_name = "IP")]
    advertise: Option<IpAddr>,
    /// Port of the NameServer.
    #[arg(long, value_name = "PORT", default_value_t = NAMESRV_PORT)]
    namesrv_port: u16,
    /// Port of shard 0; shard k listens 10·k above it.
    #[arg(long, value_name = "PORT", default_value_t = BROKER_PORT)]
    base_port: u16,
    /// What an acknowledgement promises: `sync` survives loss of power, `async` a crash of the process.
    #[arg(long, value_enum, default_value_t = DurabilityArg::Sync)]
    durability: DurabilityArg,
    /// Size of a log segment in MiB.
    #[arg(long, value_name = "MIB", default_value_t = STANDALONE_SEGMENT_MIB)]
    segment_mib: u64,
    /// Keep messages for so many hours.
    #[arg(long, value_name = "HOURS", default_value_t = 72)]
    retention_hours: u32,
    /// Keep at most so many MiB of log per shard. Default: as many as the disk holds.
    #[arg(long, value_name = "MIB")]
    retention_mib: Option<u64>,
    /// Leave so many MiB of the disk free: below it the oldest messages leave early, then sends are refused.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    disk_reserve_mib: u64,
    /// Profile of this machine, made by `apogee-tune profile --out FILE`.
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Keep polling for this long before sleeping, in microseconds: CPU time for latency.
    #[arg(long, value_name = "US", default_value_t = 0)]
    spin_us: u64,
}

#[derive(Debug, Args)]
struct Namesrv {
    /// TOML file; flags win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[arg(long, value_name = "IP")]
    listen: Option<IpAddr>,
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Broker {
    /// TOML file with the node's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Profile of this machine, made by `apogee-tune profile --out FILE`.
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DurabilityArg {
    Sync,
    Async,
}

/// Runs the command to its end. An error is one sentence for the person at the terminal.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let plan = match cli.command {
        Command::Standalone(args) => args.plan()?,
        Command::Namesrv(args) => Plan { namesrv: Some(args.config()?), broker: None, welcome: false },
        Command::Broker(args) => {
            let file: BrokerConfig = config::read_file(&args.config)?;
            let broker = BrokerConfig { profile: args.profile.or(file.profile.clone()), ..file };
            Plan { namesrv: None, broker: Some(broker), welcome: false }
        }
        Command::Cluster(args) => return trial::run(&args),
        Command::Admin(args) => return admin::run(args),
        Command::Log(args) => return Ok(log_tool::run(args)),
        Command::Recover(args) => {
            recover::run(&args, &mut std::io::stdout().lock())?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    node::run(plan)?;
    Ok(ExitCode::SUCCESS)
}

impl Standalone {
    fn plan(self) -> anyhow::Result<Plan> {
        let file = match &self.config {
            Some(path) => config::read_file(path)?,
            None => BrokerConfig::default(),
        };
        ensure!(
            file.replication.is_none(),
            "[replication] has no meaning for a standalone broker; start nodes of a group by `apogee broker`, or try one \
             out by `apogee cluster`"
        );
        let namesrv =
            NamesrvConfig { listen: self.listen, port: self.namesrv_port, data_dir: self.data.clone() };
        // The broker reaches the NameServer of its own process by loopback when that listens everywhere.
        let namesrv_ip =
            if self.listen.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { self.listen };
        let broker = BrokerConfig {
            namesrv: vec![SocketAddr::new(namesrv_ip, self.namesrv_port)],
            listen: self.listen,
            advertise: self.advertise,
            base_port: self.base_port,
            data_dir: self.data,
            cpus: self.cores,
            shards: self.shards,
            durability: match self.durability {
                DurabilityArg::Sync => Durability::Sync,
                DurabilityArg::Async => Durability::Async,
            },
            segment_bytes: self.segment_mib.saturating_mul(MIB),
            retention_hours: self.retention_hours,
            retention_bytes: self.retention_mib.map(|mib| mib.saturating_mul(MIB)),
            disk_reserve_bytes: self.disk_reserve_mib.saturating_mul(MIB),
            spin_us: self.spin_us,
            profile: self.profile.or(file.profile.clone()),
            ..file
        };
        Ok(Plan { namesrv: Some(namesrv), broker: Some(broker), welcome: true })
    }
}

impl Namesrv {
    fn config(self) -> anyhow::Result<NamesrvConfig> {
        let file: NamesrvConfig = match &self.config {
            Some(path) => config::read_file(path)?,
            None => NamesrvConfig::default(),
        };
        Ok(NamesrvConfig {
            listen: self.listen.unwrap_or(file.listen),
            port: self.port.unwrap_or(file.port),
            data_dir: self.data.unwrap_or(file.data_dir),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settings_file_of_standalone_gives_what_no_flag_is_about() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "transaction_checks_max = 3\nbase_port = 1\n").expect("write it");
        let path = file.path().to_str().expect("a path");
        let cli = Cli::parse_from(["apogee", "standalone", "--base-port", "12345", "--config", path]);
        let Command::Standalone(standalone) = cli.command else { panic!("another command") };
        let broker = standalone.plan().expect("a plan").broker.expect("a broker");
        assert_eq!(broker.transaction_checks_max, 3);
        assert_eq!(broker.base_port, 12345);
    }

    #[test]
    fn a_standalone_broker_is_no_node_of_a_group() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let group = "[replication]\nnode = 1\nnodes = [{ id = 1, address = \"127.0.0.1\" }]\n";
        std::fs::write(file.path(), group).expect("write it");
        let path = file.path().to_str().expect("a path");
        let cli = Cli::parse_from(["apogee", "standalone", "--config", path]);
        let Command::Standalone(standalone) = cli.command else { panic!("another command") };
        assert!(standalone.plan().unwrap_err().to_string().contains("[replication] has no meaning"));
    }

    #[test]
    fn commands_are_recognized() {
        let command = |line: &str| Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command);
        assert!(matches!(command("apogee admin group status --json"), Ok(Command::Admin(_))));
        assert!(matches!(command("apogee admin group transfer --to 2 --shard 1"), Ok(Command::Admin(_))));
        assert!(matches!(command("apogee cluster --nodes 5 --data d"), Ok(Command::Cluster(_))));
        assert!(matches!(command("apogee recover data/shard-0 --accept-loss"), Ok(Command::Recover(_))));
        for wrong in ["apogee admin", "apogee admin group", "apogee cluster --nodes many", "apogee broker"] {
            assert!(command(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_settings_file_with_an_unknown_key_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "no_such_setting = 3\n").expect("write it");
        let path = file.path().to_str().expect("a path");
        let cli = Cli::parse_from(["apogee", "standalone", "--config", path]);
        let Command::Standalone(standalone) = cli.command else { panic!("another command") };
        assert!(standalone.plan().is_err());
    }
}
