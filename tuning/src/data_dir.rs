//! The data directory: its file system, the device below, and what both ask of direct I/O.

use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use crate::roots::{Roots, chosen, read, read_line, read_switch, read_value};
use crate::sys::Answers;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DataDir {
    /// The directory asked about, absolute.
    pub path: PathBuf,
    /// Where it was probed: the directory itself, or while it does not exist, the nearest one above it.
    pub probed: PathBuf,
    pub file_system: Option<FileSystem>,
    pub space: Option<Space>,
    /// Absent where no single device is below: memory, network and stacked file systems.
    pub device: Option<BlockDevice>,
    pub direct_io: DirectIo,
}

/// The mounted file system that a path is on, from `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileSystem {
    /// `ext4`, `xfs`, `tmpfs`, …
    pub kind: String,
    pub mount_point: PathBuf,
    /// What is mounted: a device's path, or whatever the file system calls its source.
    pub source: String,
    /// The file system's own options, e.g. `rw,nobarrier`.
    pub options: String,
    /// Of the device, as `major:minor`; major 0 is no device.
    pub device_number: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Space {
    pub total_bytes: u64,
    /// What an ordinary user may still write.
    pub available_bytes: u64,
}

/// A whole disk (of a partition, the disk it is on), or a virtual one such as device mapper's or MD's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockDevice {
    pub name: String,
    pub model: Option<String>,
    /// Virtual disks often say so without being it.
    pub rotational: Option<bool>,
    pub write_cache: Option<WriteCache>,
    /// Whether one write can go past the cache, so that it needs no flush after it.
    pub force_unit_access: Option<bool>,
    pub logical_block_bytes: Option<u32>,
    pub physical_block_bytes: Option<u32>,
    pub scheduler: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteCache {
    /// A write is done before it is durable; a sync must flush the device.
    WriteBack,
    /// A completed write is durable.
    WriteThrough,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectIo {
    Supported {
        memory_align_bytes: u32,
        offset_align_bytes: u32,
    },
    Unsupported,
    /// No file could be made in the directory.
    Unknown {
        error: String,
    },
}

impl DataDir {
    /// `path` as given by the user, `probed` and `answers` as [`nearest_existing`] and the kernel returned them.
    pub(crate) fn collect(roots: &Roots, path: PathBuf, probed: PathBuf, answers: Answers) -> Self {
        let mounts = read(&roots.proc("self/mountinfo")).unwrap_or_default();
        let file_system = find_mount(&mounts, answers.mount_id, &probed);
        let device = file_system.as_ref().and_then(|file_system| block_device(roots, file_system));
        Self { path, probed, file_system, space: answers.space, device, direct_io: answers.direct_io }
    }
}

/// The path without links, or of the nearest directory above it that exists.
pub(crate) fn nearest_existing(path: &Path) -> PathBuf {
    path.ancestors().find_map(|path| fs::canonicalize(path).ok()).unwrap_or_else(|| PathBuf::from("/"))
}

/// The mount with the id that the kernel named for the path; without one, the innermost mount point above the
/// path, and of several on the same point the last, which hides the others.
fn find_mount(mounts: &str, mount_id: Option<u64>, path: &Path) -> Option<FileSystem> {
    let mounts = || mounts.lines().filter_map(parse_mount);
    let by_id = mount_id.and_then(|wanted| mounts().find(|(id, _)| *id == wanted));
    by_id
        .or_else(|| {
            mounts()
                .filter(|(_, mount)| path.starts_with(&mount.mount_point))
                .max_by_key(|(_, mount)| mount.mount_point.components().count())
        })
        .map(|(_, mount)| mount)
}

/// One line of `mountinfo` (proc_pid_mountinfo(5)), with any number of optional fields before the dash:
///
/// ```text
/// 27 1      254:0  /    /var        rw,relatime shared:1 - ext4 /dev/vda rw,discard
/// id parent device root mount point options     optional   kind source   options
/// ```
fn parse_mount(line: &str) -> Option<(u64, FileSystem)> {
    let (mount, source) = line.split_once(" - ")?;
    let mut mount = mount.split(' ');
    let id = mount.next()?.parse().ok()?;
    let device_number = mount.nth(1)?.to_owned();
    let mount_point = PathBuf::from(unescape(mount.nth(1)?));
    let mut source = source.split(' ');
    let file_system = FileSystem {
        kind: source.next()?.to_owned(),
        mount_point,
        source: unescape(source.next()?),
        options: source.next().unwrap_or_default().to_owned(),
        device_number,
    };
    Some((id, file_system))
}

/// Undoes the kernel's `\040` for a blank, and the like for tab, line end and backslash.
fn unescape(field: &str) -> String {
    let mut plain = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                plain.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    plain.push_str(rest);
    plain
}

fn block_device(roots: &Roots, file_system: &FileSystem) -> Option<BlockDevice> {
    // btrfs and others number their mounts without a device, but name it as their source.
    let entry = if file_system.device_number.starts_with("0:") {
        let device = Path::new(&file_system.source);
        if device.components().nth(1) != Some(Component::Normal(OsStr::new("dev"))) {
            return None;
        }
        // /dev/mapper and /dev/disk hold links to the device's proper name.
        let device = fs::canonicalize(device).unwrap_or_else(|_| device.to_owned());
        roots.sys("class/block").join(device.file_name()?)
    } else {
        roots.sys("dev/block").join(&file_system.device_number)
    };
    let mut dir = fs::canonicalize(entry).ok()?;
    if dir.join("partition").exists() {
        dir.pop();
    }
    let queue = dir.join("queue");
    Some(BlockDevice {
        name: dir.file_name()?.to_string_lossy().into_owned(),
        model: read_line(&dir.join("device/model")),
        rotational: read_switch(&queue.join("rotational")),
        write_cache: read_line(&queue.join("write_cache")).and_then(|line| match line.as_str() {
            "write back" => Some(WriteCache::WriteBack),
            "write through" => Some(WriteCache::WriteThrough),
            _ => None,
        }),
        force_unit_access: read_switch(&queue.join("fua")),
        logical_block_bytes: read_value(&queue.join("logical_block_size")),
        physical_block_bytes: read_value(&queue.join("physical_block_size")),
        scheduler: read_line(&queue.join("scheduler")).map(|line| chosen(&line).to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
        40 27 8:1 / /var rw shared:1 master:2 - xfs /dev/sda1 rw,noquota\n\
        41 27 8:2 / /var rw - ext4 /dev/sda2 rw\n\
        a line that is none\n\
        42 41 0:55 /sub /var/my\\040data rw - btrfs /dev/sdb rw\n";

    fn kind_at(mount_id: Option<u64>, path: &str) -> Option<String> {
        find_mount(MOUNTS, mount_id, Path::new(path)).map(|found| found.kind + " " + &found.source)
    }

    #[test]
    fn a_path_is_on_its_innermost_and_last_mount() {
        assert_eq!(kind_at(None, "/home/x"), Some("ext4 /dev/vda".into()));
        assert_eq!(kind_at(None, "/var/lib"), Some("ext4 /dev/sda2".into()));
        assert_eq!(kind_at(None, "/variety"), Some("ext4 /dev/vda".into()));
        assert_eq!(kind_at(None, "/var/my data/log"), Some("btrfs /dev/sdb".into()));
    }

    #[test]
    fn the_kernels_mount_id_decides_before_the_path_does() {
        assert_eq!(kind_at(Some(40), "/var/lib"), Some("xfs /dev/sda1".into()));
        assert_eq!(kind_at(Some(99), "/var/lib"), Some("ext4 /dev/sda2".into()));
    }

    #[test]
    fn escapes_are_undone_and_stray_backslashes_kept() {
        assert_eq!(unescape(r"a\040b\011c\134d"), "a b\tc\\d");
        assert_eq!(unescape(r"a\9\"), r"a\9\");
        assert_eq!(unescape(r"\é040"), r"\é040");
    }

    #[test]
    fn the_chosen_scheduler_is_the_bracketed_one() {
        assert_eq!(chosen("none [mq-deadline] kyber bfq"), "mq-deadline");
        assert_eq!(chosen("none"), "none");
    }
}
