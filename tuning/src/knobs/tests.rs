//! Each tuner on machines that are not here: what it finds, what `apply` writes, and that `undo` leaves every byte as it was.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::{Finding, Machine, Settings, Verdict, tuners};
use crate::change::{Journal, Report, Undone, apply, look, script, undo, wanted};
use crate::details::Details;
use crate::facts::Facts;
use crate::nics::{Nic, nics};
use crate::profile::{Goal, Profile, Request, derive, drift};
use crate::roots::chosen;
use crate::tests::{FakeMachine, bare_metal, container, virtual_machine};

/// A made-up machine with its facts, its profile, and the settings that a tuner may change.
struct World {
    machine: FakeMachine,
    settings: Settings,
    facts: Facts,
    nics: Vec<Nic>,
    profile: Profile,
}

impl World {
    fn new(machine: FakeMachine, goal: Goal) -> World {
        let settings = Settings::under(machine.root());
        let facts = machine.facts();
        let nics = nics(settings.roots());
        let request =
            Request { goal: Some(goal), shards: None, base_port: 10911, port_stride: 10, disk: None };
        let profile = derive(&settings, &facts, &nics, &request).unwrap();
        World { machine, settings, facts, nics, profile }
    }

    fn look(&self, only: &[&str]) -> Vec<Report> {
        let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
        let World { settings, facts, nics, profile, .. } = self;
        look(&Machine { settings, facts, nics, profile }, &only)
    }

    fn findings(&self, tuner: &str) -> Vec<Finding> {
        self.look(&[tuner]).into_iter().flat_map(|report| report.findings).collect()
    }

    /// What `found` and `wanted` say of the only finding that is to be changed.
    fn change(&self, tuner: &str) -> (String, String) {
        let findings = self.findings(tuner);
        let mut changes = findings.iter().filter(|finding| matches!(finding.verdict, Verdict::Change(_)));
        let (Some(finding), None) = (changes.next(), changes.next()) else {
            panic!("{tuner}: one change expected, {findings:?} found")
        };
        (finding.found.clone(), finding.wanted.clone())
    }

    fn is_right(&self, tuner: &str) -> bool {
        let findings = self.findings(tuner);
        !findings.is_empty() && findings.iter().all(|finding| finding.verdict == Verdict::Right)
    }

    fn is_not_judged(&self, tuner: &str) -> bool {
        let findings = self.findings(tuner);
        !findings.is_empty() && findings.iter().all(|finding| matches!(finding.verdict, Verdict::NotHere(_)))
    }

    fn journal(&self) -> Journal {
        Journal::open(&self.machine.root().join("journal")).unwrap()
    }
}

/// Every file of the tree and its content.
fn content(root: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() {
                let text = fs::read_to_string(entry.path()).unwrap();
                // The kernel shows a choice and a line end behind what it was given; a file shows what was written.
                files.insert(entry.path().display().to_string(), chosen(text.trim_end()).to_owned());
            }
        }
    }
    files
}

const NOTHING: [String; 0] = [];

/// The files that differ from what they were.
fn changed(world: &World, before: &BTreeMap<String, String>) -> Vec<String> {
    let now = content(world.machine.root());
    let names = now.keys().chain(before.keys()).filter(|name| now.get(*name) != before.get(*name));
    names.cloned().collect()
}

/// Two sockets, SMT, a network interface of eight queues, an NVMe drive; everything as a distribution leaves it.
fn untuned_server() -> FakeMachine {
    let machine = bare_metal();
    for cpu in 0..8 {
        let dir = format!("sys/devices/system/cpu/cpu{cpu}");
        machine
            .file(&format!("{dir}/cpufreq/scaling_governor"), "powersave\n")
            .file(&format!("{dir}/cpufreq/energy_performance_preference"), "balance_performance\n")
            .file(&format!("{dir}/cpuidle/state0/latency"), "0\n")
            .file(&format!("{dir}/cpuidle/state0/disable"), "0\n")
            .file(&format!("{dir}/cpuidle/state1/latency"), "2\n")
            .file(&format!("{dir}/cpuidle/state1/disable"), "0\n")
            .file(&format!("{dir}/cpuidle/state2/latency"), "133\n")
            .file(&format!("{dir}/cpuidle/state2/disable"), "0\n");
    }
    let disk = "sys/devices/pci0000:00/nvme/nvme0/nvme0n1";
    for (file, value) in [
        ("sys/devices/system/cpu/intel_pstate/no_turbo", "1\n"),
        ("sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet acpi_pm\n"),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n"),
        ("proc/irq/default_smp_affinity", "ff\n"),
        ("proc/sys/net/core/somaxconn", "128\n"),
        ("proc/sys/net/ipv4/tcp_max_syn_backlog", "512\n"),
        ("proc/sys/net/core/netdev_max_backlog", "1000\n"),
        ("proc/sys/net/core/rmem_max", "212992\n"),
        ("proc/sys/net/core/wmem_max", "212992\n"),
        ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
        ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
        ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1\n"),
        ("proc/sys/net/core/busy_poll", "0\n"),
        ("proc/sys/net/core/busy_read", "0\n"),
        ("proc/sys/vm/swappiness", "60\n"),
        ("proc/sys/vm/max_map_count", "65530\n"),
        ("proc/sys/vm/zone_reclaim_mode", "1\n"),
        ("proc/sys/vm/stat_interval", "1\n"),
        ("proc/sys/kernel/numa_balancing", "1\n"),
        ("proc/sys/kernel/sched_autogroup_enabled", "1\n"),
        ("proc/sys/kernel/nmi_watchdog", "1\n"),
        ("proc/sys/kernel/soft_watchdog", "1\n"),
        ("proc/sys/kernel/io_uring_disabled", "2\n"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n"),
        ("sys/kernel/mm/transparent_hugepage/defrag", "[always] defer defer+madvise madvise never\n"),
        ("sys/kernel/mm/ksm/run", "1\n"),
        ("sys/devices/virtual/workqueue/cpumask", "ff\n"),
        ("proc/4711/comm", "irqbalance\n"),
    ] {
        machine.file(file, value);
    }
    for (file, value) in [
        ("scheduler", "none [mq-deadline] kyber\n"),
        ("nomerges", "0\n"),
        ("rq_affinity", "1\n"),
        ("read_ahead_kb", "4096\n"),
        ("wbt_lat_usec", "2000\n"),
    ] {
        machine.file(&format!("{disk}/queue/{file}"), value);
    }
    machine.link("sys/block/nvme0n1", "../devices/pci0000:00/nvme/nvme0/nvme0n1");
    // The interface: queue k's interrupt is 100 + k.
    let nic = "sys/devices/pci0000:80/0000:81:00.0";
    machine.file("sys/bus/pci/drivers/ice/bind", "");
    machine.link(&format!("{nic}/driver"), "../../../bus/pci/drivers/ice");
    machine.link("sys/class/net/eth0/device", "../../../devices/pci0000:80/0000:81:00.0");
    machine
        .file("sys/class/net/eth0/operstate", "up\n")
        .file("sys/class/net/eth0/speed", "25000\n")
        .file(&format!("{nic}/numa_node"), "1\n");
    let mut interrupts = String::from("           CPU0\n");
    for queue in 0..8 {
        interrupts.push_str(&format!(" {}:  0  IR-PCI-MSI 1-edge ice-eth0-TxRx-{queue}\n", 100 + queue));
        machine
            .file(&format!("{nic}/msi_irqs/{}", 100 + queue), "msix\n")
            .file(&format!("proc/irq/{}/smp_affinity_list", 100 + queue), "0-7\n")
            .file(&format!("sys/class/net/eth0/queues/rx-{queue}/rps_cpus"), "ff\n")
            .file(&format!("sys/class/net/eth0/queues/tx-{queue}/xps_cpus"), "00\n");
    }
    machine.file("proc/interrupts", &interrupts);
    fake_ethtool(machine.root());
    machine
}

/// A program that remembers options and rules in files, and shows them as ethtool does.
fn fake_ethtool(root: &Path) {
    let state = root.join("nic");
    fs::create_dir_all(state.join("rules")).unwrap();
    for (name, value) in [("rx-usecs", "50"), ("adaptive-rx", "on"), ("ntuple", "off"), ("combined", "8")] {
        fs::write(state.join(name), value).unwrap();
    }
    let text = format!(
        "#!/bin/sh\ncd {}\ncase \"$1\" in\n\
         -c) printf 'Adaptive RX: %s  TX: off\\nrx-usecs:\\t%s\\n' \"$(cat adaptive-rx)\" \"$(cat rx-usecs)\" ;;\n\
         -k) printf 'ntuple-filters: %s\\n' \"$(cat ntuple)\" ;;\n\
         -l) printf 'Current hardware settings:\\nCombined:\\t%s\\n' \"$(cat combined)\" ;;\n\
         -n) for rule in rules/*; do [ -e \"$rule\" ] && cat \"$rule\"; done; true ;;\n\
         -C|-K|-L) printf '%s' \"$4\" > \"$3\" ;;\n\
         -N) if [ \"$3\" = delete ]; then rm \"rules/$4\"; else\n\
         printf 'Filter: %s\\n\\tDest port: %s mask: 0x0\\n\\tAction: Direct to queue %s\\n' \"${{10}}\" \"$6\" \"$8\" > \"rules/${{10}}\"; fi ;;\n\
         *) exit 1 ;;\nesac\n",
        state.display()
    );
    let path = root.join("ethtool");
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_server_as_it_came_is_told_all_that_costs_latency() {
    let world = World::new(untuned_server(), Goal::Latency);
    // One thread of each core; control has the first core of one node, and its sibling.
    assert_eq!(world.profile.shard_cpus().to_string(), "1-3");
    assert_eq!(world.profile.control_cpus.to_string(), "0,4");
    let own = |text: &str| text.to_owned();
    let table: &[(&str, &str, &str)] = &[
        ("cpu-governor", "powersave", "performance"),
        ("cpu-energy", "balance_performance", "performance"),
        ("cpu-turbo", "1", "0"),
        ("cpu-idle", "awake within 133 µs", "awake within 10 µs"),
        ("clock-source", "hpet", "tsc"),
        ("irq-default", "ff", "11"),
        ("nic-coalescing", "adaptive on, 50 µs", "adaptive off, 3 µs"),
        ("packet-backlog", "1000", "at least 5000"),
        ("tcp-idle-restart", "1", "0"),
        ("disk-scheduler", "mq-deadline", "none"),
        ("disk-merges", "0", "2"),
        ("disk-completion", "1", "2"),
        ("disk-read-ahead", "4096", "128"),
        ("disk-throttle", "2000", "0"),
        ("swappiness", "60", "1"),
        ("thp", "always", "madvise"),
        ("thp-defrag", "always", "madvise"),
        ("ksm", "1", "0"),
        ("max-map-count", "65530", "at least 262144"),
        ("numa-balancing", "1", "0"),
        ("zone-reclaim", "1", "0"),
        ("sched-autogroup", "1", "0"),
        ("vm-stat-interval", "1", "at least 10"),
        ("nmi-watchdog", "1", "0"),
        ("soft-watchdog", "1", "0"),
        ("workqueues", "ff", "11"),
        ("io-uring", "2", "0"),
    ];
    for (tuner, found, wanted) in table {
        assert_eq!(world.change(tuner), (own(found), own(wanted)), "{tuner}");
    }
    for (tuner, count) in [
        ("irq-affinity", 3),
        ("nic-flow-rules", 3),
        ("nic-rps", 8),
        ("nic-xps", 3),
        ("listen-backlog", 2),
        ("tcp-buffers", 4),
        ("busy-poll", 2),
    ] {
        let changes =
            world.findings(tuner).into_iter().filter(|finding| matches!(finding.verdict, Verdict::Change(_)));
        assert_eq!(changes.count(), count, "{tuner}");
    }
    for tuner in ["isolated-cpus", "irqbalance", "disk-trim", "open-files"] {
        let is_advice =
            world.findings(tuner).iter().all(|finding| matches!(finding.verdict, Verdict::Advice(_)));
        assert!(is_advice || world.is_right(tuner), "{tuner}: {:?}", world.findings(tuner));
    }
    assert!(
        world.is_right("nic-queues") && world.is_right("disk-write-cache") && world.is_right("mount-options")
    );
}

#[test]
fn each_tuner_is_right_after_apply_and_every_byte_is_back_after_undo() {
    let world = World::new(untuned_server(), Goal::Latency);
    let before = content(world.machine.root());
    for tuner in tuners() {
        let name = tuner.name();
        let changes = wanted(&world.look(&[name]));
        let count = changes.len();
        let mut journal = world.journal();
        for applied in apply(&world.settings, changes, &mut journal).unwrap() {
            applied.result.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert_eq!(journal.entries().len(), count);
        let is_left =
            world.findings(name).iter().any(|finding| matches!(finding.verdict, Verdict::Change(_)));
        assert!(!is_left, "{name} wants more changes after its own: {:?}", world.findings(name));
        // Another process undoes it.
        let undone = undo(&world.settings, &mut world.journal(), false).unwrap();
        assert!(undone.iter().all(|undone| matches!(undone, Undone::Restored(_))), "{name}: {undone:?}");
        assert_eq!(changed(&world, &before), NOTHING, "{name}");
    }
}

#[test]
fn all_tuners_together_are_undone_together() {
    let world = World::new(untuned_server(), Goal::Latency);
    let before = content(world.machine.root());
    let changes = wanted(&world.look(&[]));
    assert!(changes.len() > 50, "{}", changes.len());
    apply(&world.settings, changes, &mut world.journal()).unwrap();
    assert!(wanted(&world.look(&[])).is_empty());
    assert!(
        drift(&world.settings, &world.facts, &world.profile).is_empty(),
        "nothing drifts once all is applied"
    );
    undo(&world.settings, &mut world.journal(), false).unwrap();
    assert_eq!(changed(&world, &before), NOTHING);
    assert!(!drift(&world.settings, &world.facts, &world.profile).is_empty());
}

#[test]
fn a_setting_that_somebody_else_changed_is_left_to_them() {
    let world = World::new(untuned_server(), Goal::Latency);
    apply(&world.settings, wanted(&world.look(&["swappiness"])), &mut world.journal()).unwrap();
    world.machine.file("proc/sys/vm/swappiness", "5\n");
    let undone = undo(&world.settings, &mut world.journal(), false).unwrap();
    assert!(matches!(&undone[..], [Undone::ChangedSince { found, .. }] if found == "5"), "{undone:?}");
    assert!(world.is_right("swappiness"));

    world.machine.file("proc/sys/vm/swappiness", "60\n");
    apply(&world.settings, wanted(&world.look(&["swappiness"])), &mut world.journal()).unwrap();
    world.machine.file("proc/sys/vm/swappiness", "5\n");
    undo(&world.settings, &mut world.journal(), true).unwrap();
    assert_eq!(world.findings("swappiness")[0].found, "60");
}

#[test]
fn a_setting_that_cannot_be_written_is_reported_and_the_others_are_made() {
    let world = World::new(untuned_server(), Goal::Latency);
    let path = world.machine.root().join("proc/sys/vm/swappiness");
    // Root may write what nobody may, so the file is made one that cannot be: a link into nothing that can be read first.
    fs::remove_file(&path).unwrap();
    symlink("/proc/self/comm_that_is_not_there", &path).unwrap();
    world.machine.file("proc/sys/vm/zone_reclaim_mode", "1\n");
    let changes = wanted(&world.look(&["zone-reclaim", "swappiness"]));
    let applied = apply(&world.settings, changes, &mut world.journal()).unwrap();
    assert_eq!(applied.len(), 1, "a file that cannot be read is none of the machine's");
    assert!(applied[0].result.is_ok());
}

#[test]
fn a_journal_cut_short_in_its_last_line_is_read_up_to_there() {
    let world = World::new(untuned_server(), Goal::Latency);
    apply(&world.settings, wanted(&world.look(&["swappiness", "ksm"])), &mut world.journal()).unwrap();
    let path = world.machine.root().join("journal");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() - 10]).unwrap();
    assert_eq!(world.journal().entries().len(), 1);
    fs::write(&path, format!("nonsense\n{text}")).unwrap();
    let error = Journal::open(&path).unwrap_err().to_string();
    assert!(error.contains("line 1") && error.contains("journal"), "{error}");
}

#[test]
fn the_script_makes_and_takes_back_the_same_changes() {
    let world = World::new(untuned_server(), Goal::Latency);
    let changes = wanted(&world.look(&["swappiness", "nic-flow-rules", "tcp-buffers"]));
    let text = script(&world.settings, &changes);
    for line in [
        "echo 1 > /proc/sys/vm/swappiness",
        "echo 60 > /proc/sys/vm/swappiness",
        "ethtool -K eth0 ntuple on",
        "ethtool -N eth0 flow-type tcp4 dst-port 10921 action 1 loc 901",
        "ethtool -N eth0 delete 901",
        "echo '4096 131072 16777216' > /proc/sys/net/ipv4/tcp_rmem",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(text.find("action 1").unwrap() < text.find("delete 901").unwrap());
    let parsed = std::process::Command::new("sh").arg("-n").arg("-c").arg(&text).status().unwrap();
    assert!(parsed.success());
    // Nothing to change is a script too.
    assert!(script(&world.settings, &[]).contains("apply() {\n    :\n}"));
}

#[test]
fn on_a_virtual_machine_what_is_the_hosts_is_not_judged() {
    let machine = virtual_machine();
    machine.file("sys/block/vda/queue/scheduler", "none [mq-deadline]\n");
    let world = World::new(machine, Goal::Latency);
    assert!(world.is_not_judged("cpu-governor") && world.is_not_judged("cpu-idle"));
    let world = World::new(virtual_machine(), Goal::Vm);
    assert!(world.findings("cpu-idle").is_empty(), "a guest's goal does not ask for it");
    assert_eq!(world.profile.shard_cpus().to_string(), "0-1");
    assert_eq!(world.profile.spin_us, 0);
}

#[test]
fn a_container_with_a_quota_gets_no_more_shards_than_it_pays_for() {
    let world = World::new(container(), Goal::SharedHost);
    let quota = world.facts.limits.cpu_quota.unwrap();
    assert!(
        world.profile.shards.len() as f64 <= quota.max(1.0),
        "{} shards, quota {quota}",
        world.profile.shards.len()
    );
    assert!(wanted(&world.look(&[])).is_empty(), "nothing that others of the host would see is changed");
}

#[test]
fn the_probe_tells_of_sleep_clocks_and_queues() {
    let machine = untuned_server();
    machine
        .file("sys/devices/system/cpu/cpu0/cache/index0/level", "1\n")
        .file("sys/devices/system/cpu/cpu0/cache/index0/type", "Data\n")
        .file("sys/devices/system/cpu/cpu0/cache/index0/size", "48K\n")
        .file("sys/devices/system/cpu/cpu0/cache/index0/shared_cpu_list", "0,4\n")
        .file("sys/devices/system/cpu/cpu0/cpuidle/state0/name", "POLL\n");
    let world = World::new(machine, Goal::Latency);
    let details = Details::collect(&world.settings, &world.facts, &world.nics).to_string();
    for line in [
        "caches      L1 data 48 KiB for cpu 0,4",
        "frequency   governor powersave",
        "idle states POLL (0 µs)",
        "huge pages  always",
        "disk queue  ? requests, read-ahead 4096 KiB, nomerges 0, rq_affinity 1, throttle 2000 µs, polling off",
        "settings    eth0: 8 combined queues, ring ?, waits 50 µs, adaptive on, flow rules off; RPS on 8 queues, XPS on 0",
    ] {
        assert!(details.lines().any(|found| found == line), "{line:?} is not in\n{details}");
    }
}

#[test]
fn names_are_unique_and_every_tuner_says_why_and_what_it_costs() {
    let mut names: Vec<&str> = tuners().iter().map(|tuner| tuner.name()).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    for tuner in tuners() {
        let is_sentence = tuner.why().ends_with('.') && tuner.why().len() > 40;
        assert!(is_sentence && tuner.cost().len() > 8, "{}", tuner.name());
    }
}
