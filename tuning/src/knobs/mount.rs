//! How the data directory's file system is mounted.

use super::{Finding, Machine, Tuner, Verdict};

pub(super) struct Options;

impl Tuner for Options {
    fn name(&self) -> &'static str {
        "mount-options"
    }

    fn why(&self) -> &'static str {
        "Online discard sends commands to the disk whenever a segment is freed, and access times make reads into writes."
    }

    fn cost(&self) -> &'static str {
        "writes and syncs late by 10 ms and more while a segment is discarded"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let data = &machine.facts.data;
        let Some(file_system) = &data.file_system else { return Vec::new() };
        let mounts = crate::roots::read(&machine.settings.roots().proc("self/mountinfo")).unwrap_or_default();
        let own = mounts
            .lines()
            .find(|line| line.split(' ').nth(4) == Some(&file_system.mount_point.to_string_lossy()));
        let own_options = own.and_then(|line| line.split(' ').nth(5)).unwrap_or_default();
        let has = |options: &str, name: &str| options.split(',').any(|option| option == name);
        let discards = has(&file_system.options, "discard");
        let keeps_times = !has(own_options, "noatime") && !has(own_options, "relatime");
        let target = file_system.mount_point.display().to_string();
        if !discards && !keeps_times {
            return vec![Finding::right(target, "no online discard")];
        }
        let (mut found, mut remount) = (Vec::new(), Vec::new());
        if discards {
            found.push("discard");
            remount.push("nodiscard");
        }
        if keeps_times {
            found.push("atime");
            remount.push("noatime");
        }
        let advice = format!(
            "mount -o remount,{} {target}, and the same in /etc/fstab; free blocks by fstrim.timer instead",
            remount.join(",")
        );
        vec![Finding::new(target, found.join(","), remount.join(","), Verdict::Advice(advice))]
    }
}
