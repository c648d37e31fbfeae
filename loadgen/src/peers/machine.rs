//! What this machine is, as a report should say it.

use std::path::Path;

/// RAM in bytes; zero if the kernel does not say.
pub fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    parse_total(&text).unwrap_or_default()
}

/// Facts that decide how fast anything here can be, one a line. `folder` lies on the disk that is written to.
pub fn facts(folder: &Path) -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let models = field_values(&cpus, "model name");
    let mut facts = vec![
        format!("{} × {}", models.len(), models.first().copied().unwrap_or("unknown CPU")),
        format!("{:.1} GiB of memory", memory_bytes() as f64 / f64::from(1 << 30)),
        format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
    ];
    if cpus.contains("hypervisor") {
        facts.push("a virtual machine".to_owned());
    }
    if let Some((kind, device)) = std::path::absolute(folder).ok().and_then(|folder| {
        mount_of(&read("/proc/mounts"), &folder).map(|(kind, device)| (kind.to_owned(), device.to_owned()))
    }) {
        facts.push(format!("data on {kind} ({device})"));
    }
    facts.push(format!(
        "vm.dirty_background_ratio {}, vm.dirty_ratio {}",
        read("/proc/sys/vm/dirty_background_ratio").trim(),
        read("/proc/sys/vm/dirty_ratio").trim()
    ));
    let load = read("/proc/loadavg");
    let load: Vec<_> = load.split_ascii_whitespace().take(3).collect();
    facts.push(format!("load average before the run {}", load.join(" ")));
    facts
}

fn parse_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn field_values<'a>(cpuinfo: &'a str, field: &str) -> Vec<&'a str> {
    let values =
        cpuinfo.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() == field);
    values.map(|(_, value)| value.trim()).collect()
}

/// File system and device of the longest mount point above the folder.
fn mount_of<'a>(mounts: &'a str, folder: &Path) -> Option<(&'a str, &'a str)> {
    let parsed = mounts.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (device, point, kind) = (words.next()?, words.next()?, words.next()?);
        folder.starts_with(point).then_some((point.len(), kind, device))
    });
    parsed.max_by_key(|(length, ..)| *length).map(|(_, kind, device)| (kind, device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /data tmpfs rw 0 0\n/dev/b /data/x xfs rw 0 0\n";
        assert_eq!(mount_of(mounts, Path::new("/data/xy")), Some(("tmpfs", "tmpfs")));
        assert_eq!(mount_of(mounts, Path::new("/data/x/y")), Some(("xfs", "/dev/b")));
        assert_eq!(mount_of(mounts, Path::new("/home")), Some(("ext4", "/dev/a")));
    }

    #[test]
    fn numbers_are_read_from_the_kernels_texts() {
        assert_eq!(parse_total("MemTotal:       24 kB\nMemFree: 1 kB\n"), Some(24 * 1024));
        assert_eq!(
            field_values("model name\t: X\nflags\t: a\n\nmodel name\t: X\n", "model name"),
            ["X", "X"]
        );
        assert!(memory_bytes() > 0);
        assert!(facts(Path::new(".")).len() >= 5);
    }
}
