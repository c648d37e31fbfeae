//! A file system that runs full, goes read-only or dies under a running log: what was acknowledged stays, errors say what
//! happened, and where the disk comes back the log goes on.
//!
//! Each test runs as a process of its own in a mount namespace of its own, on an ext4 file system in a file: so it
//! needs to be root. Skipped, with a word, where it is not, or where the machine cannot do it.

mod harness;
#[path = "harness/reading.rs"]
mod reading;

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use apogee_storage::driver::{DiskConfig, ShardDirectory};
use apogee_storage::{
    AppendRefused, DiskError, FailureCause, LogConfig, NodeId, Poison, QueueKey, QueueOffset,
};
use harness::{Numbered, Shard, append, identity, on_executor};
use reading::{bytes_of, read_all};

const MIB: u64 = 1 << 20;
const DISK: DiskConfig = DiskConfig { open_files_max: 8, ..DiskConfig::DEFAULT };

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 2 * MIB,
        batch_bytes_max: 256 << 10,
        batch_bytes_target: 64 << 10,
        staged_bytes_max: MIB,
        tail_cache_bytes: 256 << 10,
        retry_ms: 20,
        reserve_bytes: 0,
        ..LogConfig::new(identity().group_id(), NodeId(1))
    }
}

/// Names the directory that a test's own process works in.
const MOUNT: &str = "APOGEE_TEST_MOUNT";

/// A file system in a file, mounted for this process alone.
struct Mounted {
    image: PathBuf,
    path: PathBuf,
}

impl Mounted {
    fn new(directory: &Path) -> Mounted {
        let (image, path) = (directory.join("image"), directory.join("mounted"));
        File::create(&image).unwrap().set_len(24 * MIB).unwrap();
        fs::create_dir(&path).unwrap();
        run("mkfs.ext4", &["-q", "-b", "4096", "-m", "0", image.to_str().unwrap()]);
        let mounted = Mounted { image, path };
        mounted.mount();
        mounted
    }

    fn mount(&self) {
        let (image, path) = (self.image.to_str().unwrap(), self.path.to_str().unwrap());
        run("mount", &["-o", "loop,errors=remount-ro", image, path]);
    }

    /// After whatever happened to it, as an administrator does.
    fn mount_again(&self) {
        let (image, path) = (self.image.to_str().unwrap(), self.path.to_str().unwrap());
        // The kernel lets go of the files of an io_uring some time after they were closed.
        let patiently = "for i in $(seq 500); do umount $0 2>/dev/null && exit; sleep 0.02; done; umount $0";
        run("sh", &["-c", patiently, path]);
        let repaired = Command::new("fsck.ext4").args(["-p", image]).output().unwrap();
        assert!(repaired.status.code().is_some_and(|code| code <= 1), "{repaired:?}");
        self.mount();
    }

    /// Name of the block device, as below `/sys/fs/ext4`.
    fn device(&self) -> String {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let line = mounts.lines().find(|line| line.split(' ').nth(1) == self.path.to_str()).unwrap();
        line.split(' ').next().unwrap().trim_start_matches("/dev/").to_owned()
    }

    /// Whether this process has a file on it open.
    fn is_open(&self) -> bool {
        let mut open = fs::read_dir("/proc/self/fd").unwrap();
        open.any(|fd| fs::read_link(fd.unwrap().path()).is_ok_and(|file| file.starts_with(&self.path)))
    }

    fn shard(&self) -> PathBuf {
        self.path.join("shard")
    }

    /// Takes space until `left` bytes are free; given back with [`free`](Mounted::free).
    fn fill(&self, left: u64) {
        let free = free_bytes(&self.path);
        let ballast = File::create(self.path.join("ballast")).unwrap();
        // SAFETY: a plain system call on a descriptor that `ballast` keeps open.
        let error = unsafe { libc::posix_fallocate(ballast.as_raw_fd(), 0, (free - left) as libc::off_t) };
        assert_eq!(error, 0, "{free} bytes are free, {left} wanted");
    }

    fn free(&self) {
        fs::remove_file(self.path.join("ballast")).unwrap();
    }
}

fn free_bytes(path: &Path) -> u64 {
    let file = File::open(path).unwrap();
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the descriptor is open and `stat` has room for the answer.
    assert_eq!(unsafe { libc::fstatvfs(file.as_raw_fd(), stat.as_mut_ptr()) }, 0);
    // SAFETY: the call succeeded, so it has filled `stat`.
    let stat = unsafe { stat.assume_init() };
    stat.f_bavail * stat.f_frsize
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}

/// Whether this machine lets us mount; says why not.
fn cannot_mount() -> Option<String> {
    // SAFETY: the call has no arguments and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Some("only root can mount".to_owned());
    }
    let probe = "d=$(mktemp -d) && cd $d && truncate -s 4M i && mkfs.ext4 -q i && mkdir m && mount -o loop i m && \
                 umount m && rm -r $d";
    let tried = Command::new("unshare").args(["--mount", "sh", "-c", probe]).output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// Runs the test of this name, `work`, in a process that may mount.
fn on_own_mount(name: &str, work: impl FnOnce(&Mounted)) {
    if let Ok(directory) = std::env::var(MOUNT) {
        return work(&Mounted::new(Path::new(&directory)));
    }
    if let Some(why) = cannot_mount() {
        return eprintln!("SKIPPED {name}: {why}");
    }
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output = Command::new("unshare")
        .arg("--mount")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(MOUNT, directory.path())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

fn record(id: u64) -> Numbered {
    Numbered { id, len: 10_000 }
}

/// Stages records from number `next` on until one is refused; gives why, and how many are committed.
async fn append_until_refused(shard: &mut Shard, next: &mut u64) -> (AppendRefused, u64) {
    let mut committed = *next;
    loop {
        let refused = shard.log.stage([append(0, *next, record(*next).len)]).err();
        *next += u64::from(refused.is_none());
        let settled = shard.settle().await;
        committed += settled.iter().map(|batch| batch.places.len() as u64).sum::<u64>();
        if let Some(refused) = refused {
            return (refused, committed);
        }
        assert!(*next < 10_000, "never refused");
    }
}

/// Every record up to `count` can be read, from memory or file.
async fn check_readable(shard: &Shard, count: u64) {
    assert_eq!(shard.log.max_offset(QueueKey(0)), QueueOffset(count));
    let wanted: Vec<u8> = (0..count).flat_map(|id| bytes_of(record(id))).collect();
    assert!(read_all(shard, 0).await == wanted, "other bytes than were staged");
}

#[test]
fn full_file_system_refuses_appends_until_there_is_space() {
    on_own_mount("full_file_system_refuses_appends_until_there_is_space", |mounted| {
        on_executor(async {
            let mut shard = Shard::open(&mounted.shard(), config(), DISK).await;
            shard.settle().await;
            mounted.fill(MIB);
            let mut next = 0;
            let (refused, committed) = append_until_refused(&mut shard, &mut next).await;
            let AppendRefused::NoSpace(error @ DiskError::NoSpace { .. }) = refused else {
                panic!("{refused:?}")
            };
            assert!(error.to_string().contains(" bytes are free in "), "{error}");
            assert!(committed > 100, "two segments of 2 MiB were ready: {committed}");
            check_readable(&shard, committed).await;
            // One that was staged when the segment was full was told so.
            let failed = shard.log.take_failed().expect("what filled the segment up");
            assert!(matches!(failed.cause, FailureCause::NoSpace(_)), "{failed:?}");
            assert_eq!(committed + failed.count, next);

            mounted.free();
            let mut next = committed;
            while shard.log.stage([append(0, next, record(next).len)]).is_err() {
                glommio::timer::sleep(Duration::from_millis(5)).await;
                shard.settle().await;
            }
            next += 1;
            shard.settle().await;
            check_readable(&shard, next).await;
        });
    });
}

/// Appends until the log is poisoned; gives why, and how many records were acknowledged.
async fn append_until_poisoned(shard: &mut Shard, first: u64) -> (Poison, u64) {
    let mut next = first;
    let (refused, committed) = append_until_refused(shard, &mut next).await;
    let AppendRefused::Poisoned(poison) = refused else { panic!("{refused:?}") };
    assert!(matches!(shard.log.take_failed().unwrap().cause, FailureCause::Poisoned(_)));
    (poison, committed)
}

/// What was acknowledged before the file system failed under `fail` is there once it is mounted again.
fn survives(mounted: &Mounted, os_codes: &[i32], fail: impl FnOnce(&Mounted)) {
    let acknowledged = on_executor(async {
        let mut shard = Shard::open(&mounted.shard(), config(), DISK).await;
        for id in 0..50 {
            shard.log.stage([append(0, id, record(id).len)]).unwrap();
            assert_eq!(shard.settle().await.len(), 1);
        }
        fail(mounted);
        let (poison, acknowledged) = append_until_poisoned(&mut shard, 50).await;
        let DiskError::Io { os_code: Some(os_code), .. } = &poison.error else { panic!("{poison}") };
        assert!(os_codes.contains(os_code), "{poison}");
        assert!(poison.to_string().starts_with("the log takes no appends since a "), "{poison}");
        // glommio closes files in the background, as long as its executor lives.
        drop(shard);
        while mounted.is_open() {
            glommio::timer::sleep(Duration::from_millis(5)).await;
        }
        acknowledged
    });
    mounted.mount_again();
    on_executor(async {
        let mut shard = Shard::open(&mounted.shard(), config(), DISK).await;
        let found = shard.log.max_offset(QueueKey(0)).0;
        assert!(found >= acknowledged, "{found} records, {acknowledged} were acknowledged");
        check_readable(&shard, found).await;
        shard.log.stage([append(0, found, record(found).len)]).unwrap();
        assert_eq!(shard.settle().await.len(), 1);
    });
}

#[test]
fn file_system_gone_read_only_poisons_the_log_and_loses_nothing() {
    on_own_mount("file_system_gone_read_only_poisons_the_log_and_loses_nothing", |mounted| {
        survives(mounted, &[libc::EROFS, libc::EIO], |mounted| {
            // What the kernel does when it finds the file system damaged.
            let device = mounted.device();
            fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "by the test").unwrap();
        });
    });
}

#[test]
fn dead_file_system_poisons_the_log_and_loses_nothing() {
    on_own_mount("dead_file_system_poisons_the_log_and_loses_nothing", |mounted| {
        survives(mounted, &[libc::EIO], |mounted| {
            // EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH: from now on every operation fails.
            const SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
            let directory = File::open(&mounted.path).unwrap();
            let no_log_flush = 2u32;
            // SAFETY: the descriptor is open and the argument points to the flags that the call reads.
            let done = unsafe { libc::ioctl(directory.as_raw_fd(), SHUTDOWN, &raw const no_log_flush) };
            assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        });
    });
}

#[test]
fn read_only_file_system_is_told_at_the_opening() {
    on_own_mount("read_only_file_system_is_told_at_the_opening", |mounted| {
        drop(ShardDirectory::open(&mounted.shard(), &identity()).unwrap());
        run("mount", &["-o", "remount,ro", mounted.path.to_str().unwrap()]);
        let error = ShardDirectory::open(&mounted.shard(), &identity()).unwrap_err().to_string();
        assert!(error.contains("is on a read-only file system (ext4)"), "{error}");
        assert!(error.contains(mounted.shard().to_str().unwrap()), "{error}");
    });
}
