//! System calls, for facts that stand in no file. The only module of the crate with `unsafe`.
//!
//! All of them are asked by [`Answers::ask`], so that everything else works on plain values.

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::{MaybeUninit, offset_of, size_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::data_dir::{DirectIo, Space};
use crate::limits::Limit;

/// What the kernel answered.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    pub memlock: Limit,
    pub nofile: Limit,
    /// Of io_uring, or the error number with which it was refused.
    pub uring: Result<UringProbe, i32>,
    /// Names the line of `mountinfo` that the directory belongs to. Absent before Linux 5.8.
    pub mount_id: Option<u64>,
    pub space: Option<Space>,
    pub direct_io: DirectIo,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct UringProbe {
    pub features: u32,
    pub ops_supported: Option<u32>,
}

impl Answers {
    /// Asks about this process and about `dir`, which must exist. Creates a file in `dir` and unlinks it at
    /// once, to learn whether it takes direct I/O.
    pub(crate) fn ask(dir: &Path) -> Self {
        let handle = File::open(dir);
        Self {
            memlock: limit(libc::RLIMIT_MEMLOCK),
            nofile: limit(libc::RLIMIT_NOFILE),
            uring: probe_uring(),
            mount_id: handle.as_ref().ok().and_then(mount_id),
            space: handle.as_ref().ok().and_then(space),
            direct_io: probe_direct_io(dir),
        }
    }
}

fn limit(resource: libc::__rlimit_resource_t) -> Limit {
    let mut found = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `found` is a valid rlimit that outlives the call, which writes nothing else.
    let result = unsafe { libc::getrlimit(resource, &mut found) };
    assert_eq!(result, 0, "getrlimit fails only for an unknown resource, not for {resource}");
    let bound = |value| (value != libc::RLIM_INFINITY).then_some(value);
    Limit { soft: bound(found.rlim_cur), hard: bound(found.rlim_max) }
}

fn statx(file: &File, mask: libc::c_uint) -> io::Result<libc::statx> {
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is an empty C string, the descriptor is open while `file` is borrowed, and `found` has
    // room for the one structure that the kernel writes.
    let result =
        unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, mask, found.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the structure is of integers only, was zeroed, and the kernel has filled it.
    Ok(unsafe { found.assume_init() })
}

fn mount_id(dir: &File) -> Option<u64> {
    let found = statx(dir, libc::STATX_MNT_ID).ok()?;
    (found.stx_mask & libc::STATX_MNT_ID != 0).then_some(found.stx_mnt_id)
}

fn space(dir: &File) -> Option<Space> {
    let mut found = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the descriptor is open while `dir` is borrowed, and `found` has room for the one structure that
    // the call writes.
    if unsafe { libc::fstatvfs(dir.as_raw_fd(), found.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the structure is of integers only, was zeroed, and the call has filled it.
    let found = unsafe { found.assume_init() };
    Some(Space {
        total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        // Available to us, not free: file systems keep a reserve for root.
        available_bytes: found.f_bavail.saturating_mul(found.f_frsize),
    })
}

/// Bytes that the file system of `dir` has left for us.
pub(crate) fn free_bytes(dir: &Path) -> Option<u64> {
    let found = space(&File::open(dir).ok()?)?;
    Some(found.available_bytes)
}

/// Allocates blocks without writing them.
pub(crate) fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    let bytes = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: takes numbers only; the descriptor is open while `file` is borrowed.
    let result = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

// --- direct I/O ---------------------------------------------------------------------------------------------

/// Alignments tried where the file system does not name its own, smallest first. A larger one than a page is
/// not usual, and the broker writes blocks of 4 KiB anyway.
const TRIAL_ALIGNMENTS: [usize; 2] = [512, 4096];

fn probe_direct_io(dir: &Path) -> DirectIo {
    // statx answers for regular files only, so one is needed either way. The name is the process's own, but a
    // leftover of a process with the same number (1, in containers) must not be in the way: hence no
    // `create_new`, and hence nothing is truncated or followed either.
    let path = dir.join(format!(".direct-io-probe.{}", std::process::id()));
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_DIRECT | libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(&path);
    // Also after a failure: file systems that refuse O_DIRECT have created the file by then.
    let _ = std::fs::remove_file(&path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return DirectIo::Unsupported,
        Err(error) => return DirectIo::Unknown { error: error.to_string() },
    };
    match statx(&file, libc::STATX_DIOALIGN) {
        Ok(found) if found.stx_mask & libc::STATX_DIOALIGN != 0 => {
            // The kernel's way of saying that this file takes none.
            if found.stx_dio_mem_align == 0 || found.stx_dio_offset_align == 0 {
                return DirectIo::Unsupported;
            }
            DirectIo::Supported {
                memory_align_bytes: found.stx_dio_mem_align,
                offset_align_bytes: found.stx_dio_offset_align,
            }
        }
        // Linux before 6.1, or a file system that does not know its own alignment.
        _ => try_alignments(&file),
    }
}

/// Writes one block of each alignment, until the kernel takes one.
fn try_alignments(file: &File) -> DirectIo {
    let memory = vec![0u8; 3 * 4096];
    let page = memory.as_ptr().align_offset(4096);
    for align in TRIAL_ALIGNMENTS {
        // Aligned to `align` but to nothing larger, in memory and in the file.
        let block = &memory[page + align..page + 2 * align];
        match file.write_all_at(block, align as u64) {
            Ok(()) => {
                let align = align as u32;
                return DirectIo::Supported { memory_align_bytes: align, offset_align_bytes: align };
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return DirectIo::Unknown { error: error.to_string() },
        }
    }
    DirectIo::Unsupported
}

// --- io_uring -----------------------------------------------------------------------------------------------

/// `struct io_uring_params` of the kernel's `io_uring.h`; only what is asked here is named.
#[repr(C)]
struct UringParams {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    reserved: [u32; 3],
    ring_offsets: [u64; 10],
}
const _: () = assert!(size_of::<UringParams>() == 120 && offset_of!(UringParams, features) == 20);

const IORING_REGISTER_PROBE: libc::c_uint = 8;
const IO_URING_OP_SUPPORTED: u16 = 1;
/// As many as an operation's number, a byte, can tell apart.
const URING_OPS_MAX: usize = 256;

/// `struct io_uring_probe`.
#[repr(C)]
struct UringOps {
    op_last: u8,
    ops_len: u8,
    reserved: [u16; 7],
    ops: [UringOp; URING_OPS_MAX],
}

/// `struct io_uring_probe_op`.
#[repr(C)]
#[derive(Clone, Copy)]
struct UringOp {
    op: u8,
    reserved_1: u8,
    flags: u16,
    reserved_2: u32,
}
const _: () = assert!(size_of::<UringOp>() == 8 && offset_of!(UringOps, ops) == 16);

/// Sets up the smallest ring, asks it, and closes it.
fn probe_uring() -> Result<UringProbe, i32> {
    // SAFETY: all fields are integers, for which zero is a value.
    let mut params: UringParams = unsafe { std::mem::zeroed() };
    // SAFETY: `params` has the kernel's layout (asserted above) and outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1u32, &raw mut params) };
    if fd < 0 {
        return Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO));
    }
    let fd = i32::try_from(fd).expect("file descriptors are ints");
    // SAFETY: the kernel has just handed us this descriptor; nobody else has it.
    let ring = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(UringProbe { features: params.features, ops_supported: count_ops(&ring) })
}

fn count_ops(ring: &OwnedFd) -> Option<u32> {
    // SAFETY: all fields are integers, for which zero is a value; the kernel wants them zeroed.
    let mut found: UringOps = unsafe { std::mem::zeroed() };
    // SAFETY: `found` has the kernel's layout with room for the `URING_OPS_MAX` entries announced, and outlives
    // the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            IORING_REGISTER_PROBE,
            &raw mut found,
            URING_OPS_MAX as libc::c_uint,
        )
    };
    if result != 0 {
        return None;
    }
    let ops = &found.ops[..usize::from(found.ops_len)];
    Some(ops.iter().filter(|op| op.flags & IO_URING_OP_SUPPORTED != 0).count() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_that_proc_shows() {
        let shown = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = shown.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let found = limit(libc::RLIMIT_NOFILE);
        let text = |bound: Option<u64>| bound.map_or("unlimited".to_owned(), |value| value.to_string());
        let numbers: Vec<&str> = line["Max open files".len()..].split_ascii_whitespace().collect();
        assert_eq!(numbers[..2], [text(found.soft), text(found.hard)]);
    }

    #[test]
    fn a_probed_directory_is_left_empty() {
        let dir = tempfile::tempdir().unwrap();
        let answers = Answers::ask(dir.path());
        assert_ne!(answers.space.unwrap().total_bytes, 0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_alignment_that_is_reported_is_one_that_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let DirectIo::Supported { memory_align_bytes, offset_align_bytes } = probe_direct_io(dir.path())
        else {
            // A machine whose temporary directory takes no direct I/O has nothing to compare.
            return;
        };
        let path = dir.path().join("file");
        let file =
            OpenOptions::new().write(true).create_new(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
        // What succeeds in the trial is aligned to no less than what the kernel asks for.
        let DirectIo::Supported { memory_align_bytes: memory, offset_align_bytes: offset } =
            try_alignments(&file)
        else {
            panic!("statx reports {memory_align_bytes}/{offset_align_bytes}, but no trial write succeeded");
        };
        assert!(memory >= memory_align_bytes, "{memory} >= {memory_align_bytes}");
        assert!(offset >= offset_align_bytes, "{offset} >= {offset_align_bytes}");
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_unknown_and_not_unsupported() {
        let gone = tempfile::tempdir().unwrap().path().join("never-made");
        let DirectIo::Unknown { error } = probe_direct_io(&gone) else {
            panic!("probed a missing directory")
        };
        assert!(error.contains("No such file"), "{error}");
    }
}
