//! Which shard a directory belongs to: a small text file, written once when the directory is made.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use crate::types::{GroupId, NodeId};

/// Version of the directory as a whole: its files, their names and formats.
const DIRECTORY_FORMAT: u32 = 2;
const FILE_NAME: &str = "identity";
/// An identity file is a handful of short lines; a longer one is none.
const FILE_BYTES_MAX: u64 = 4096;

/// The node of a shard without a group.
const ALONE: NodeId = NodeId(0);

/// Whom the data of a directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster: String,
    /// Name of the group of nodes.
    pub group: String,
    pub shard: u32,
    pub node: NodeId,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{path}: {error}")]
    Io { path: String, error: io::Error },
    #[error("{path} is not an identity file: {what}")]
    Unreadable { path: String, what: String },
    #[error("{path}: directory format {found}; this program knows format {DIRECTORY_FORMAT} only")]
    Format { path: String, found: u32 },
    #[error("{path}: the data belongs to {field} {found}, not to {expected}")]
    Mismatch { path: String, field: &'static str, found: String, expected: String },
    #[error(
        "{field} {value:?} cannot be part of an identity: it is empty, too long or has control characters"
    )]
    Name { field: &'static str, value: String },
}

impl Identity {
    /// The number that stands for cluster, group and shard in each batch: the 64-bit FNV-1a hash of the three.
    #[must_use]
    pub fn group_id(&self) -> GroupId {
        let text = format!("{}\0{}\0{}", self.cluster, self.group, self.shard);
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        GroupId(hash)
    }

    fn fields(&self) -> [(&'static str, String); 4] {
        [
            ("cluster", self.cluster.clone()),
            ("group", self.group.clone()),
            ("shard", self.shard.to_string()),
            ("node", self.node.to_string()),
        ]
    }

    /// Compares with what the directory says, or writes it if the directory is new. The directory of a shard without a group
    /// becomes that of a group's node, and no other node's ever after.
    pub(super) fn claim(&self, directory: &Path) -> Result<(), IdentityError> {
        for (field, value) in self.fields() {
            if value.is_empty() || value.len() > 255 || value.chars().any(char::is_control) {
                return Err(IdentityError::Name { field, value });
            }
        }
        if let Some(found) = Identity::read(directory)? {
            let is_alone = found.node == ALONE && self.node != ALONE;
            let found = if is_alone { Identity { node: self.node, ..found } } else { found };
            self.compare(&found, &directory.join(FILE_NAME))?;
            if !is_alone {
                return Ok(());
            }
        }
        self.write(directory).map_err(|error| IdentityError::Io {
            path: directory.join(FILE_NAME).display().to_string(),
            error,
        })
    }

    fn compare(&self, found: &Identity, path: &Path) -> Result<(), IdentityError> {
        for ((field, expected), (_, found)) in self.fields().into_iter().zip(found.fields()) {
            if found != expected {
                let path = path.display().to_string();
                return Err(IdentityError::Mismatch { path, field, found, expected });
            }
        }
        Ok(())
    }

    /// Whose data a directory says it holds; nothing if it does not say. Changes nothing.
    pub fn read(directory: &Path) -> Result<Option<Identity>, IdentityError> {
        let path = directory.join(FILE_NAME);
        let name = path.display().to_string();
        let io = |error| IdentityError::Io { path: name.clone(), error };
        match fs::metadata(&path) {
            Ok(file) if file.len() > FILE_BYTES_MAX => {
                let what = format!("it has {} bytes", file.len());
                Err(IdentityError::Unreadable { path: name, what })
            }
            Ok(_) => Identity::parse(&name, &fs::read(&path).map_err(io)?).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io(error)),
        }
    }

    fn parse(path: &str, bytes: &[u8]) -> Result<Identity, IdentityError> {
        let unreadable = |what: String| IdentityError::Unreadable { path: path.to_owned(), what };
        let text = str::from_utf8(bytes).map_err(|_| unreadable("it is not text".to_owned()))?;
        let mut lines = text.lines();
        let mut value = |field: &'static str| {
            let line = lines.next().unwrap_or_default();
            let value = line.strip_prefix(field).and_then(|rest| rest.strip_prefix(": "));
            value.map(str::to_owned).ok_or_else(|| unreadable(format!("{field} expected, found {line:?}")))
        };
        let number = |field: &str, value: String| {
            value.parse().map_err(|_| unreadable(format!("{field} is {value:?}")))
        };
        let format = number("format", value("format")?)?;
        if format != u64::from(DIRECTORY_FORMAT) {
            let found = u32::try_from(format).unwrap_or(u32::MAX);
            return Err(IdentityError::Format { path: path.to_owned(), found });
        }
        let (cluster, group) = (value("cluster")?, value("group")?);
        let shard = number("shard", value("shard")?)?;
        let shard = u32::try_from(shard).map_err(|_| unreadable(format!("shard is {shard}")))?;
        let node = NodeId(number("node", value("node")?)?);
        Ok(Identity { cluster, group, shard, node })
    }

    fn write(&self, directory: &Path) -> io::Result<()> {
        let mut text = format!("format: {DIRECTORY_FORMAT}\n");
        for (field, value) in self.fields() {
            writeln!(text, "{field}: {value}").expect("writing to a string");
        }
        let unfinished = directory.join("identity.tmp");
        let mut file = File::create(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, directory.join(FILE_NAME))?;
        File::open(directory)?.sync_all()
    }
}
