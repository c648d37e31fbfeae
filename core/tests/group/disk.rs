//! A node's disk: a file system in an image, that can be full and slow without touching the machine's.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::hosts::Host;
use crate::sys;

const FILL_STEPS: [u64; 4] = [256 << 20, 16 << 20, 1 << 20, 64 << 10];
const THROTTLES_V1: &str = "/sys/fs/cgroup/blkio";
const THROTTLES_V2: &str = "/sys/fs/cgroup";

/// Mounted in its host's namespace only, and gone with it.
pub(crate) struct Disk {
    folder: PathBuf,
    /// The same as this process sees it.
    seen: PathBuf,
}

impl Disk {
    pub(crate) fn new(host: &Host, work: &Path, bytes: u64) -> Disk {
        let image = work.join("disk.img");
        let folder = work.join("disk");
        std::fs::create_dir_all(&folder).expect("make a mount point");
        // Sparse: it takes what is written to it.
        File::create(&image).and_then(|file| file.set_len(bytes)).expect("make an image");
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image));
        run(host.command("mount").args(["-o", "loop"]).arg(&image).arg(&folder));
        Disk { seen: host.path(&folder), folder }
    }

    /// On its host.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn ballast(&self) -> PathBuf {
        self.seen.join("ballast")
    }

    /// Takes all that is free.
    pub(crate) fn fill(&self) {
        // Others take space meanwhile, so it is taken in ever smaller steps, each until there is no room for another.
        let mut taken = 0;
        for step in FILL_STEPS {
            let mut take = || {
                let mut command = Command::new("fallocate");
                command.args(["--offset", &taken.to_string(), "--length", &step.to_string()]);
                let took = command.arg(self.ballast()).output().expect("run fallocate").status.success();
                taken += if took { step } else { 0 };
                took
            };
            while take() {}
        }
        println!(
            "    {} MiB of ballast, {} KiB left",
            taken >> 20,
            sys::free_bytes(&self.seen).unwrap_or(0) >> 10
        );
    }

    /// Gives it back.
    pub(crate) fn relieve(&self) {
        std::fs::remove_file(self.ballast()).expect("remove the ballast");
    }
}

/// A bound on the writes of one process to one file system's device. Lifted when dropped.
pub(crate) struct SlowDisk {
    group: PathBuf,
    /// Where the process goes back to.
    parent: PathBuf,
    pid: u32,
}

impl SlowDisk {
    /// So many writes a second and no more; none if this machine has no such bounds. `data` is a path on the device, as
    /// this process sees it.
    pub(crate) fn slow(pid: u32, data: &Path, writes_per_second: u32) -> Result<SlowDisk, String> {
        let device = std::fs::metadata(data).map_err(|e| format!("{}: {e}", data.display()))?.dev();
        let device = format!("{}:{}", libc::major(device), libc::minor(device));
        let write = |path: PathBuf, text: String| {
            std::fs::write(&path, &text).map_err(|e| format!("write {text:?} to {}: {e}", path.display()))
        };
        let name = format!("apogee-group-{}-{pid}", std::process::id());
        let (parent, file, limit) = if Path::new(THROTTLES_V1).is_dir() {
            (THROTTLES_V1, "blkio.throttle.write_iops_device", format!("{device} {writes_per_second}"))
        } else {
            write(Path::new(THROTTLES_V2).join("cgroup.subtree_control"), "+io".into())?;
            (THROTTLES_V2, "io.max", format!("{device} wiops={writes_per_second}"))
        };
        let group = Path::new(parent).join(name);
        std::fs::create_dir(&group).map_err(|e| format!("make {}: {e}", group.display()))?;
        let slow = SlowDisk { group: group.clone(), parent: parent.into(), pid };
        write(group.join(file), limit)?;
        write(group.join("cgroup.procs"), pid.to_string())?;
        Ok(slow)
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // The process may be gone by now, which empties the group as well.
        let _ = std::fs::write(self.parent.join("cgroup.procs"), self.pid.to_string());
        for _ in 0..50 {
            if std::fs::remove_dir(&self.group).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        println!("  {} is left behind", self.group.display());
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
