//! The real program on the machine that runs the test.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_apogee-tune")).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn the_probes_json_carries_every_part() {
    let dir = tempfile::tempdir().unwrap();
    let facts = json(&run(&["probe", "--data", dir.path().to_str().unwrap(), "--json"]));
    for part in ["cpus", "memory", "kernel", "io_uring", "limits", "data", "nics", "details"] {
        assert!(!facts[part].is_null(), "{part} of {facts}");
    }
    assert_eq!(facts["data"]["path"], dir.path().to_str().unwrap());
}

#[test]
fn the_probes_table_has_one_line_per_subject() {
    let dir = tempfile::tempdir().unwrap();
    let table = text(&run(&["probe", "--data", dir.path().to_str().unwrap()]));
    for subject in [
        "cpus",
        "numa",
        "memory",
        "kernel",
        "io_uring",
        "memlock",
        "data",
        "file system",
        "disk",
        "caches",
        "disk queue",
    ] {
        assert!(table.lines().any(|line| line.starts_with(subject)), "{subject} is not in\n{table}");
    }
}

#[test]
fn a_disk_is_measured_into_a_profile_that_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let measured = run(&[
        "disk",
        dir.path().to_str().unwrap(),
        "--seconds",
        "0.005",
        "--file-mib",
        "32",
        "--out",
        &path("disk.json"),
    ]);
    if String::from_utf8_lossy(&measured.stderr).contains("Invalid argument") {
        eprintln!("skipped: the temporary directory takes no direct I/O");
        return;
    }
    assert!(measured.status.success(), "{}", String::from_utf8_lossy(&measured.stderr));
    assert!(
        text(&measured).contains("most throughput: batches of")
            || text(&measured).contains("most throughput")
    );

    let made =
        run(&["profile", "--disk", &path("disk.json"), "--out", &path("profile.toml"), "--goal", "dev"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let checked = run(&["check", "--profile", &path("profile.toml"), "--json"]);
    assert!(
        checked.status.code().is_some_and(|code| code < 2),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
    assert_eq!(json(&checked)["goal"], "dev");

    let text = fs::read_to_string(path("profile.toml")).unwrap();
    fs::write(path("profile.toml"), text.replace("goal = \"dev\"", "gaol = \"dev\"")).unwrap();
    let refused = run(&["check", "--profile", &path("profile.toml")]);
    assert_eq!(refused.status.code(), Some(2));
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("gaol") && error.contains("profile.toml"), "{error}");
}

#[test]
fn an_unknown_knob_is_refused_with_those_that_are_known() {
    let refused = run(&["check", "--only", "warp-drive"]);
    assert_eq!(refused.status.code(), Some(2));
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("warp-drive") && error.contains("disk-scheduler"), "{error}");
}

/// Every setting of the kernel and of block devices that can be read, but for what counts by itself.
fn settings() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![Path::new("/proc/sys").to_owned(), Path::new("/proc/irq").to_owned()];
    dirs.extend(
        fs::read_dir("/sys/block").into_iter().flatten().flatten().map(|disk| disk.path().join("queue")),
    );
    dirs.extend(
        fs::read_dir("/sys/class/net").into_iter().flatten().flatten().map(|nic| nic.path().join("queues")),
    );
    dirs.push("/sys/kernel/mm/transparent_hugepage".into());
    dirs.push("/sys/kernel/mm/ksm".into());
    dirs.push("/sys/devices/virtual/workqueue".into());
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if let Ok(text) = fs::read_to_string(entry.path()) {
                found.insert(entry.path().display().to_string(), text);
            }
        }
    }
    let counts_by_itself = |name: &str| {
        [
            "random/",
            "dentry",
            "inode",
            "file-nr",
            "aio-nr",
            "nr_open",
            "pty/nr",
            "ns_last_pid",
            "spurious",
            "inflight",
            "node",
            "effective_affinity",
            "tainted",
            "pages_",
            "full_scans",
            "general_profit",
            "stable_node",
            "tcp_mem",
            "udp_mem",
            "quota/",
            "nf_conntrack_count",
            "perf_event_max_sample_rate",
            "hung_task_detect_count",
        ]
        .iter()
        .any(|part| name.contains(part))
    };
    found.retain(|name, _| !counts_by_itself(name));
    found
}

#[test]
fn this_machine_is_as_it_was_after_apply_and_undo() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    let journal = ["--journal", journal.to_str().unwrap()];
    // SAFETY: asks for a number.
    let is_root = unsafe { libc::geteuid() } == 0;
    let dry = text(&run(&[&["apply", "--dry-run"], &journal[..]].concat()));
    if !is_root || dry.starts_with("0 changes") {
        eprintln!("skipped: only root may change the machine, and something must be there to change");
        return;
    }
    let before = settings();
    let applied = run(&[&["apply"], &journal[..]].concat());
    let applied_text = text(&applied);
    if applied_text.contains("0 changed") {
        eprintln!(
            "skipped: this machine lets nothing be changed:\n{}",
            String::from_utf8_lossy(&applied.stderr)
        );
        return;
    }
    let between = settings();
    let undone = run(&[&["undo"], &journal[..]].concat());
    assert!(undone.status.success(), "{}", text(&undone));
    assert_ne!(between, before, "{applied_text}");
    let after = settings();
    let differ: Vec<_> = before.keys().filter(|name| after.get(*name) != before.get(*name)).collect();
    assert!(differ.is_empty(), "{differ:?}");
}
