//! The data directory of a node: its identity, its number of shards, its lock.
//!
//! ```text
//!     apogee-data/
//!       node.toml     cluster, group, number of shards, and which of the group's nodes
//!       lock          held while a process uses the directory
//!       shard-0/ …    one directory per shard, self-contained
//! ```

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::config::{BrokerConfig, ReplicationConfig, SHARDS_MAX};

const FORMAT_VERSION: u32 = 1;

#[derive(Debug)]
pub(super) struct DataDir {
    identity: Identity,
    /// The flock ends with this descriptor.
    _lock: File,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    format_version: u32,
    cluster: String,
    group: String,
    /// Fixed when the directory is made: queues live in shards and are never moved.
    shards: u16,
    /// Which of the group's nodes; none while every shard is alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<u16>,
}

impl DataDir {
    /// Opens the directory, or makes it with `cores` shards unless the configuration says how many.
    pub(super) fn open(config: &BrokerConfig, cores: usize) -> anyhow::Result<Self> {
        let root = &config.data_dir;
        std::fs::create_dir_all(root)
            .with_context(|| format!("cannot make the data directory {}", root.display()))?;
        let lock = lock(root)?;
        let path = root.join("node.toml");
        let identity = if path.exists() {
            let mut identity: Identity = crate::config::read_file(&path)?;
            identity.check(config, &path)?;
            let node = config.replication.as_ref().map(|replication| replication.node);
            if identity.node != node {
                // What was alone begins a group, and is that group's from now on.
                identity.node = node;
                identity.write(&path)?;
            }
            identity
        } else {
            let identity = Identity {
                format_version: FORMAT_VERSION,
                cluster: config.cluster.clone(),
                group: config.group.clone(),
                shards: config.shards.unwrap_or_else(|| u16::try_from(cores).unwrap_or(SHARDS_MAX)),
                node: config.replication.as_ref().map(|replication| replication.node),
            };
            identity.write(&path)?;
            identity
        };
        Ok(DataDir { identity, _lock: lock })
    }

    pub(super) fn shards(&self) -> u16 {
        self.identity.shards
    }
}

/// Directory of one shard's log.
pub(super) fn shard_dir(config: &BrokerConfig, shard: u16) -> PathBuf {
    config.data_dir.join(format!("shard-{shard}"))
}

impl Identity {
    fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = toml::to_string(self).context("identity as TOML")?;
        write_whole(path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
    }

    fn check(&self, config: &BrokerConfig, path: &Path) -> anyhow::Result<()> {
        let place = path.display();
        ensure!(
            self.format_version == FORMAT_VERSION,
            "{place}: format version {} is not known here, which knows {FORMAT_VERSION}",
            self.format_version
        );
        for (key, found, expected) in
            [("cluster", &self.cluster, &config.cluster), ("group", &self.group, &config.group)]
        {
            ensure!(
                found == expected,
                "{place}: this directory belongs to {key} {found:?}, the configuration says {expected:?}"
            );
        }
        match (self.node, config.replication.as_ref().map(|replication| replication.node)) {
            (found, expected) if found == expected => {}
            (Some(found), Some(expected)) => bail!(
                "{place}: this directory is node {found}'s, the configuration says replication.node = {expected}"
            ),
            (Some(found), None) => bail!(
                "{place}: this directory is node {found}'s of a group of nodes, the configuration has no [replication]: \
                 alone, it would go on without the others"
            ),
            (None, _) => {
                let begins =
                    |replication: &ReplicationConfig| !replication.join && replication.nodes.len() == 1;
                ensure!(
                    config.replication.as_ref().is_some_and(begins),
                    "{place}: this directory was made without [replication]. It can begin a group, as its only node: leave \
                     only this one in replication.nodes, start it, then have nodes with empty directories join"
                );
            }
        }
        if let Some(shards) = config.shards {
            ensure!(
                shards == self.shards,
                "{place}: this directory has {} shards, the configuration says {shards}; the number is fixed when a directory is made",
                self.shards
            );
        }
        ensure!((1..=SHARDS_MAX).contains(&self.shards), "{place}: {} shards", self.shards);
        Ok(())
    }
}

fn lock(root: &Path) -> anyhow::Result<File> {
    let path = root.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    // SAFETY: an open descriptor and plain flags.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        let error = std::io::Error::last_os_error();
        if error.kind() == std::io::ErrorKind::WouldBlock {
            bail!("the data directory {} is used by another process", root.display());
        }
        return Err(error).with_context(|| format!("cannot lock {}", path.display()));
    }
    Ok(file)
}

/// Writes a file so that after a crash it is there whole or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::NodeAddress;

    fn config(dir: &Path) -> BrokerConfig {
        BrokerConfig { data_dir: dir.join("data"), ..BrokerConfig::default() }
    }

    #[test]
    fn the_number_of_shards_is_fixed_when_the_directory_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        assert_eq!(DataDir::open(&config, 4).unwrap().shards(), 4);
        assert_eq!(DataDir::open(&config, 2).unwrap().shards(), 4);
        let other = BrokerConfig { shards: Some(3), ..config };
        assert!(DataDir::open(&other, 2).unwrap_err().to_string().contains("has 4 shards"));
    }

    #[test]
    fn a_directory_belongs_to_one_node_of_a_group_or_to_none() {
        let dir = tempfile::tempdir().unwrap();
        let node =
            |id| NodeAddress { id, address: Ipv4Addr::LOCALHOST.into(), base_port: None, learner: false };
        let alone = config(dir.path());
        let as_node = |data_dir: &str, id| BrokerConfig {
            data_dir: dir.path().join(data_dir),
            replication: Some(ReplicationConfig::new(id, vec![node(1), node(2), node(3)])),
            ..alone.clone()
        };
        let refused = |config: &BrokerConfig| DataDir::open(config, 1).unwrap_err().to_string();
        drop(DataDir::open(&alone, 1).unwrap());
        assert!(refused(&as_node("data", 1)).contains("made without [replication]"));
        for _ in 0..2 {
            drop(DataDir::open(&as_node("other", 2), 1).unwrap());
        }
        assert!(
            refused(&as_node("other", 3))
                .contains("is node 2's, the configuration says replication.node = 3")
        );
        let mut first = as_node("data", 1);
        first.replication = Some(ReplicationConfig::new(1, vec![node(1)]));
        drop(DataDir::open(&first, 1).unwrap());
        assert!(refused(&alone).contains("the configuration has no [replication]"));
        // The group may have got others since.
        drop(DataDir::open(&as_node("data", 1), 1).unwrap());
        let alone = BrokerConfig { data_dir: dir.path().join("other"), ..alone };
        assert!(refused(&alone).contains("the configuration has no [replication]"));
    }

    #[test]
    fn a_directory_has_one_user_and_one_group() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let held = DataDir::open(&config, 1).unwrap();
        assert!(DataDir::open(&config, 1).unwrap_err().to_string().contains("another process"));
        drop(held);
        let foreign = BrokerConfig { group: "other".into(), ..config };
        assert!(DataDir::open(&foreign, 1).unwrap_err().to_string().contains("belongs to group"));
    }
}
