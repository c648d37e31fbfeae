//! The few system calls that the standard library lacks. All `unsafe` of these tests is here.

use std::ffi::CString;
use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// Longest name of a network device, the closing zero not counted (`IFNAMSIZ`).
const DEVICE_NAME_MAX: usize = 15;

/// Moves the calling thread, and what it starts from now on, into the network namespace that `path` stands for.
pub(crate) fn enter_network(path: &Path) -> Result<()> {
    let namespace = File::open(path)?;
    // SAFETY: setns(2) touches no memory of ours; the descriptor is open.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })
}

/// Makes a device in the thread's network namespace: what its host sends is read from the file, one packet each, and
/// what is written to the file comes to the host. It is gone when the file is closed.
pub(crate) fn open_tun(name: &str) -> Result<File> {
    assert!(name.len() <= DEVICE_NAME_MAX, "{name} is too long for a device");
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all zeroes is a value of this plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes an ifreq, and is given one that outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    // SAFETY: plain flags of an open descriptor.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    Ok(file)
}

/// Whether there is something to read, waiting for it so long at most.
pub(crate) fn readable_within(file: &File, limit: Duration) -> bool {
    let mut wanted = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let limit = libc::c_int::try_from(limit.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: poll(2) is given one pollfd and told so.
    unsafe { libc::poll(&raw mut wanted, 1, limit) > 0 }
}

/// Sends a signal to a process that is a child of ours and has not been waited for, so that its number is still its.
pub(crate) fn signal(child: &std::process::Child, signal: libc::c_int) {
    let pid = libc::pid_t::try_from(child.id()).expect("a process id");
    // SAFETY: kill(2) touches no memory of ours.
    check(unsafe { libc::kill(pid, signal) }).expect("send a signal to a child");
}

/// Bytes of a file system that are free.
pub(crate) fn free_bytes(path: &Path) -> Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all zeroes is a value of this plain C structure.
    let mut facts: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends in a zero and the structure outlives the call.
    check(unsafe { libc::statvfs(path.as_ptr(), &raw mut facts) })?;
    Ok(facts.f_bavail * facts.f_frsize)
}

fn check(result: libc::c_int) -> Result<()> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}
