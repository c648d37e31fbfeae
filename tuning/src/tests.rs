//! Whole machines, made up as trees of files: what is collected from them, and whether they would do.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::data_dir::{DirectIo, Space, WriteCache};
use crate::facts::{Facts, FactsError};
use crate::io_uring::{IoUring, Refusal};
use crate::limits::Limit;
use crate::requirements::{Needs, Unmet, requirements};
use crate::roots::Roots;
use crate::sys::{Answers, UringProbe};

const GIB: u64 = 1 << 30;

const ROOT_CAPABILITIES: &str = "CapEff:\t000001ffffffffff\n";
const NO_CAPABILITIES: &str = "CapEff:\t0000000000000000\n";

const NEEDS: Needs =
    Needs { memlock_bytes: 64 << 20, memlock_floor_bytes: 512 << 10, direct_io_align_bytes: 4096 };

/// A `/proc` and a `/sys` in a temporary directory, and a kernel that answers as told.
pub(crate) struct FakeMachine {
    root: TempDir,
    answers: Answers,
}

impl FakeMachine {
    /// What every machine shows: one cpu, 4 GiB, Linux 6.1, a data directory on an ext4 disk.
    fn new() -> Self {
        let machine = Self {
            root: tempfile::tempdir().unwrap(),
            answers: Answers {
                memlock: Limit { soft: None, hard: None },
                nofile: Limit { soft: Some(1024), hard: Some(524_288) },
                uring: Ok(UringProbe { features: 0x3fff, ops_supported: Some(50) }),
                mount_id: None,
                space: Some(Space { total_bytes: 100 * GIB, available_bytes: 60 * GIB }),
                direct_io: DirectIo::Supported { memory_align_bytes: 512, offset_align_bytes: 512 },
            },
        };
        machine
            .file("proc/meminfo", "MemTotal:        4194304 kB\nMemFree: 1 kB\nMemAvailable:    2097152 kB\n")
            .file("proc/sys/kernel/osrelease", "6.1.0-13-amd64\n")
            .file("proc/self/uid_map", "         0          0 4294967295\n")
            .file("proc/self/mountinfo", "1 0 8:0 / / rw - ext4 /dev/sda rw\n")
            .status("0", NO_CAPABILITIES);
        machine
    }

    pub(crate) fn file(&self, path: &str, text: &str) -> &Self {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    pub(crate) fn link(&self, path: &str, target: &str) -> &Self {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    fn status(&self, allowed: &str, more: &str) -> &Self {
        self.file("proc/self/status", &format!("Name:\tapogee\n{more}Cpus_allowed_list:\t{allowed}\n"))
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn facts(&self) -> Facts {
        self.try_collect().unwrap()
    }

    fn try_collect(&self) -> Result<Facts, FactsError> {
        let data = PathBuf::from("/srv/apogee");
        Facts::from_answers(&Roots::under(self.root.path()), data.clone(), data, self.answers.clone())
    }

    fn collect(self) -> Facts {
        self.try_collect().unwrap()
    }
}

/// Two sockets of two cores with two threads each; the log on the second partition of an NVMe drive.
pub(crate) fn bare_metal() -> FakeMachine {
    let mut machine = FakeMachine::new();
    machine.answers.mount_id = Some(31);
    machine
        .status("0-7", ROOT_CAPABILITIES)
        .file("proc/cpuinfo", "processor\t: 0\nmodel name\t: Ferranti 9\nflags\t\t: fpu sse2 avx2\n")
        .file("proc/meminfo", "MemTotal:       67108864 kB\nMemAvailable:   33554432 kB\n")
        .file(
            "proc/self/mountinfo",
            "30 1 259:1 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p1 rw\n\
             31 30 259:2 / /srv rw,noatime shared:2 - xfs /dev/nvme0n1p2 rw,attr2\n",
        )
        .file("proc/self/cgroup", "0::/system.slice/apogee.service\n")
        .file("sys/fs/cgroup/system.slice/apogee.service/cpu.max", "max 100000\n")
        .file("sys/fs/cgroup/system.slice/apogee.service/memory.max", "max\n")
        .file("sys/devices/system/cpu/online", "0-7\n")
        .file("sys/devices/system/cpu/isolated", "2-3\n")
        .file("sys/devices/system/cpu/smt/active", "1\n")
        .file("sys/devices/system/node/possible", "0-1\n")
        .file("sys/devices/system/node/node0/cpulist", "0-1,4-5\n")
        .file(
            "sys/devices/system/node/node0/meminfo",
            "Node 0 MemTotal:  33554432 kB\nNode 0 MemFree: 1 kB\n",
        )
        .file("sys/devices/system/node/node1/cpulist", "2-3,6-7\n")
        .file("sys/devices/system/node/node1/meminfo", "Node 1 MemTotal:  33554432 kB\n")
        .file("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n")
        .file("sys/class/dmi/id/sys_vendor", "Ferranti\n")
        .file("sys/class/dmi/id/product_name", "Atlas\n");
    for cpu in 0..8 {
        let threads = format!("{},{}\n", cpu % 4, cpu % 4 + 4);
        machine.file(&format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"), &threads);
    }
    let disk = "sys/devices/pci0000:00/nvme/nvme0/nvme0n1";
    for (name, text) in [
        ("device/model", "Fast Drive 2TB   \n"),
        ("queue/rotational", "0\n"),
        ("queue/write_cache", "write through\n"),
        ("queue/fua", "1\n"),
        ("queue/logical_block_size", "512\n"),
        ("queue/physical_block_size", "4096\n"),
        ("queue/scheduler", "[none] mq-deadline\n"),
        ("nvme0n1p2/partition", "2\n"),
    ] {
        machine.file(&format!("{disk}/{name}"), text);
    }
    machine.link("sys/dev/block/259:2", "../../devices/pci0000:00/nvme/nvme0/nvme0n1/nvme0n1p2");
    machine
}

/// A guest with one disk, to an ordinary user with the usual memlock limit.
pub(crate) fn virtual_machine() -> FakeMachine {
    let mut machine = FakeMachine::new();
    machine.answers.memlock = Limit { soft: Some(8 << 20), hard: Some(8 << 20) };
    machine
        .status("0-1", NO_CAPABILITIES)
        .file("proc/cpuinfo", "model name\t: vCPU\nflags\t\t: fpu hypervisor avx\nflags\t\t: none\n")
        .file("proc/self/mountinfo", "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n")
        .file("sys/devices/system/cpu/online", "0-1\n")
        .file("sys/devices/system/clocksource/clocksource0/current_clocksource", "kvm-clock\n")
        .file("sys/class/dmi/id/sys_vendor", "QEMU\n")
        .file("sys/class/dmi/id/product_name", "Standard PC\n")
        .file("sys/devices/virtio/block/vda/queue/rotational", "1\n")
        .file("sys/devices/virtio/block/vda/queue/write_cache", "write back\n")
        .file("sys/devices/virtio/block/vda/queue/fua", "0\n")
        .file("sys/devices/virtio/block/vda/queue/scheduler", "none [mq-deadline] kyber\n")
        .link("sys/dev/block/254:0", "../../devices/virtio/block/vda");
    machine
}

/// Root in a rootless container: capabilities that count only inside, an image for a root file system, a quota
/// set on a group above, and a seccomp filter.
pub(crate) fn container() -> FakeMachine {
    let machine = FakeMachine::new();
    machine
        .status("0-3", &format!("{ROOT_CAPABILITIES}Seccomp:\t2\n"))
        .file("proc/self/uid_map", "         0     100000      65536\n")
        .file("proc/self/mountinfo", "900 800 0:60 / / rw - overlay overlay rw,lowerdir=/a:/b\n")
        .file("proc/self/cgroup", "0::/pod/app\n")
        .file("sys/fs/cgroup/pod/app/cpu.max", "200000 100000\n")
        .file("sys/fs/cgroup/pod/cpu.max", "150000 100000\n")
        .file("sys/fs/cgroup/pod/memory.max", "1073741824\n")
        .file("sys/devices/system/cpu/online", "0-31\n");
    machine
}

#[test]
fn bare_metal_shows_nodes_siblings_and_the_disk_below_a_partition() {
    let facts = bare_metal().collect();

    let cpu = &facts.cpus.each[6];
    assert_eq!((cpu.id, cpu.node, cpu.smt_siblings.to_string()), (6, Some(1), "2".to_owned()));
    assert_eq!(facts.cpus.each.len(), 8);
    assert_eq!(facts.cpus.nodes[1].cpus.to_string(), "2-3,6-7");
    assert_eq!(facts.cpus.nodes[1].memory_bytes, Some(32 * GIB));
    assert_eq!(facts.cpus.smt_active, Some(true));
    assert_eq!(facts.cpus.isolated.to_string(), "2-3");
    assert_eq!(facts.kernel.virtualised_by, None);
    assert_eq!((facts.limits.cpu_quota, facts.memory.cgroup_limit_bytes), (None, None));
    assert!(facts.limits.memlock_exempt && !facts.memlock_limited());

    assert_eq!(facts.data.file_system.as_ref().unwrap().kind, "xfs");
    let disk = facts.data.device.as_ref().unwrap();
    assert_eq!((disk.name.as_str(), disk.model.as_deref()), ("nvme0n1", Some("Fast Drive 2TB")));
    assert_eq!((disk.rotational, disk.force_unit_access), (Some(false), Some(true)));
    assert_eq!(disk.write_cache, Some(WriteCache::WriteThrough));
    assert_eq!((disk.logical_block_bytes, disk.physical_block_bytes), (Some(512), Some(4096)));
    assert_eq!(disk.scheduler.as_deref(), Some("none"));
    assert_eq!(requirements(&facts, NEEDS), Ok(()));
}

#[test]
fn the_table_of_bare_metal_reads_like_this() {
    let expected = "\
cpus        8 allowed (0-7) of 8 online, SMT on, isolated 2-3; Ferranti 9
numa        node 0: cpus 0-1,4-5, 32 GiB; node 1: cpus 2-3,6-7, 32 GiB
memory      64 GiB, 32 GiB available
kernel      Linux 6.1.0-13-amd64, clock tsc, no hypervisor seen
io_uring    available, 50 operations, features 0x3fff
memlock     unlimited, not applied to this process (CAP_IPC_LOCK)
open files  1024
data        /srv/apogee, 60 GiB free of 100 GiB
file system xfs on /srv (/dev/nvme0n1p2)
disk        nvme0n1, Fast Drive 2TB, not rotational, write-through, FUA, blocks 512/4096 B, scheduler none
direct I/O  aligned to 512 B in memory, 512 B in the file";
    assert_eq!(bare_metal().collect().to_string(), expected);
}

#[test]
fn a_virtual_machine_names_its_host_and_its_memlock_limit_is_applied() {
    let facts = virtual_machine().collect();
    assert_eq!(facts.kernel.virtualised_by.as_deref(), Some("QEMU Standard PC"));
    assert_eq!(facts.kernel.clock_source.as_deref(), Some("kvm-clock"));
    assert!(facts.cpus.nodes.is_empty());
    assert_eq!(facts.cpus.each[1].node, None);
    let disk = facts.data.device.as_ref().unwrap();
    assert_eq!((disk.name.as_str(), disk.write_cache), ("vda", Some(WriteCache::WriteBack)));
    assert_eq!(disk.scheduler.as_deref(), Some("mq-deadline"));

    let unmet = requirements(&facts, NEEDS).unwrap_err();
    assert_eq!(unmet, Unmet::Memlock { found_bytes: 8 << 20, needed_bytes: 64 << 20 });
    assert_eq!(
        unmet.to_string(),
        "the locked-memory limit is too low: 8 MiB found, 64 MiB needed; raise it with `ulimit -l 65536` \
         (systemd: LimitMEMLOCK=infinity)"
    );
    assert_eq!(requirements(&facts, Needs { memlock_bytes: 8 << 20, ..NEEDS }), Ok(()));
}

#[test]
fn a_container_is_bound_by_the_tightest_of_its_groups() {
    let facts = container().collect();
    assert_eq!(facts.limits.cpu_quota, Some(1.5));
    assert_eq!(facts.memory.cgroup_limit_bytes, Some(GIB));
    assert_eq!((facts.cpus.allowed.len(), facts.cpus.online.len()), (4, 32));
    assert_eq!(facts.data.device, None);
    let table = facts.to_string();
    assert!(table.contains("4 allowed (0-3) of 32 online, quota 1.50 cpus"), "{table}");
    assert!(table.contains("cgroup limit 1 GiB"), "{table}");
}

#[test]
fn root_in_a_container_of_its_own_users_is_not_exempt_from_memlock() {
    let mut machine = container();
    machine.answers.memlock = Limit { soft: Some(64 << 10), hard: None };
    let facts = machine.collect();
    assert!(!facts.limits.memlock_exempt && facts.memlock_limited());
    assert_eq!(
        requirements(&facts, NEEDS),
        Err(Unmet::Memlock { found_bytes: 64 << 10, needed_bytes: 64 << 20 })
    );
}

#[test]
fn an_exempt_process_still_needs_the_limit_that_the_runtime_looks_at() {
    let mut machine = bare_metal();
    machine.answers.memlock = Limit { soft: Some(64 << 10), hard: None };
    assert_eq!(
        requirements(&machine.collect(), NEEDS),
        Err(Unmet::Memlock { found_bytes: 64 << 10, needed_bytes: 512 << 10 })
    );
}

#[test]
fn control_groups_of_version_1_are_read_even_where_the_host_path_is_not_shown() {
    let machine = FakeMachine::new();
    machine
        .file("proc/self/cgroup", "9:memory:/docker/4f2a\n4:cpu,cpuacct:/../4f2a\n0::/\n")
        .file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "250000\n")
        .file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
        .file("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n");
    let facts = machine.collect();
    assert_eq!(facts.limits.cpu_quota, Some(2.5));
    assert_eq!(facts.memory.cgroup_limit_bytes, Some(GIB / 2));
}

#[test]
fn version_1_without_limits_says_so_with_odd_numbers() {
    let machine = FakeMachine::new();
    machine
        .file("proc/self/cgroup", "9:memory:/\n4:cpu,cpuacct:/\n")
        .file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
        .file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
        .file("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    let facts = machine.collect();
    assert_eq!((facts.limits.cpu_quota, facts.memory.cgroup_limit_bytes), (None, None));
}

#[test]
fn a_file_system_without_a_device_number_is_traced_by_its_source() {
    let machine = FakeMachine::new();
    machine
        .file("proc/self/mountinfo", "5 1 0:44 /sub /srv rw - btrfs /dev/no-such-disk rw\n")
        .file("sys/devices/x/no-such-disk/queue/rotational", "0\n")
        .link("sys/class/block/no-such-disk", "../../devices/x/no-such-disk");
    let disk = machine.collect().data.device.unwrap();
    assert_eq!((disk.name.as_str(), disk.rotational), ("no-such-disk", Some(false)));
}

#[test]
fn each_knob_that_forbids_io_uring_has_its_sentence() {
    let refused = |errno, disabled: &str, machine: FakeMachine| {
        let mut machine = machine;
        machine.file("proc/sys/kernel/io_uring_disabled", disabled);
        machine.answers.uring = Err(errno);
        machine.collect()
    };
    let facts = refused(libc::EPERM, "2\n", FakeMachine::new());
    assert_eq!(facts.io_uring, IoUring::Refused(Refusal::Sysctl { value: 2 }));
    assert_eq!(
        requirements(&facts, NEEDS).unwrap_err().to_string(),
        "io_uring is refused: kernel.io_uring_disabled is 2; \
         set it to 0 with `sysctl -w kernel.io_uring_disabled=0`"
    );
    let facts = refused(libc::EPERM, "0\n", container());
    assert_eq!(
        requirements(&facts, NEEDS).unwrap_err().to_string(),
        "io_uring is refused: a seccomp filter forbids it; run with a seccomp profile that allows \
         io_uring_setup, io_uring_enter and io_uring_register"
    );
    assert!(facts.to_string().contains("io_uring    refused: a seccomp filter forbids it\n"));
}

#[test]
fn an_old_kernel_is_refused_before_anything_else_is_asked_of_it() {
    let mut machine = FakeMachine::new();
    machine.file("proc/sys/kernel/osrelease", "4.19.0-21-amd64\n");
    machine.answers.uring = Err(libc::ENOSYS);
    machine.answers.direct_io = DirectIo::Unsupported;
    assert_eq!(
        requirements(&machine.collect(), NEEDS).unwrap_err().to_string(),
        "Linux 4.19.0-21-amd64 is too old: Apogee needs 5.8 or newer"
    );
}

#[test]
fn a_directory_without_direct_io_is_named_with_its_file_system() {
    let mut machine = FakeMachine::new();
    machine.file("proc/self/mountinfo", "7 1 0:9 / /srv rw - nfs4 server:/vol rw\n");
    machine.answers.direct_io = DirectIo::Unsupported;
    let facts = machine.collect();
    assert_eq!(
        requirements(&facts, NEEDS).unwrap_err().to_string(),
        "/srv/apogee is on nfs4, which does not support direct I/O (O_DIRECT); choose a directory on ext4 or XFS"
    );
    assert_eq!(facts.data.device, None);
}

#[test]
fn an_alignment_beyond_the_brokers_is_refused() {
    let mut machine = FakeMachine::new();
    machine.answers.direct_io = DirectIo::Supported { memory_align_bytes: 4, offset_align_bytes: 65536 };
    let unmet = requirements(&machine.collect(), NEEDS).unwrap_err();
    assert!(
        matches!(unmet, Unmet::DirectIoAlignment { found_bytes: 65536, needed_bytes: 4096, .. }),
        "{unmet:?}"
    );
}

#[test]
fn a_directory_that_cannot_be_written_says_what_the_kernel_said() {
    let mut machine = FakeMachine::new();
    machine.answers.direct_io = DirectIo::Unknown { error: "Permission denied (os error 13)".into() };
    assert_eq!(
        requirements(&machine.collect(), NEEDS).unwrap_err().to_string(),
        "no file can be created in /srv/apogee: Permission denied (os error 13)"
    );
}

#[test]
fn without_proc_the_error_asks_for_it() {
    let machine = FakeMachine::new();
    fs::remove_dir_all(machine.root.path().join("proc")).unwrap();
    let error = machine.try_collect().unwrap_err().to_string();
    assert!(error.ends_with("is /proc mounted?"), "{error}");
}

#[test]
fn without_sys_the_facts_that_stand_there_are_absent_and_the_rest_holds() {
    let facts = FakeMachine::new().collect();
    assert_eq!(facts.cpus.online, facts.cpus.allowed);
    assert_eq!((facts.cpus.smt_active, facts.kernel.clock_source.as_deref()), (None, None));
    // Without capabilities, but also without a limit.
    assert!(!facts.memlock_limited());
    assert_eq!(facts.data.device, None);
    assert_eq!(requirements(&facts, NEEDS), Ok(()));
}

/// The real kernel, with a data directory that does not exist yet: it is not made by asking.
#[test]
fn a_missing_data_directory_is_probed_in_the_one_above() {
    let above = tempfile::tempdir().unwrap();
    let data = above.path().join("not/yet");
    let facts = Facts::collect(&Roots::machine(), &data).unwrap();
    assert_eq!(facts.data.path, data);
    assert_eq!(facts.data.probed, fs::canonicalize(above.path()).unwrap());
    assert!(!Path::new(&data).exists());
    assert!(facts.data.file_system.is_some());
    assert!(!facts.cpus.allowed.is_empty());
}
