//! The files of a log in a real directory: whole or not there, and known to be resident or not.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use apogee_storage::driver::{Identity, LogFiles, ShardDirectory};
use apogee_storage::{LogFile, LogOffset, LogSource as _, NodeId};

const PAGE: usize = 4096;
const BASE: LogOffset = LogOffset(1 << 30);

fn identity() -> Identity {
    Identity { cluster: "test".to_owned(), group: "group".to_owned(), shard: 3, node: NodeId(1) }
}

fn shard(directory: &Path) -> ShardDirectory {
    ShardDirectory::open(directory, &identity()).unwrap()
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn index_is_listed_mapped_replaced_and_removed() {
    let directory = directory();
    let shard = shard(directory.path());
    let files = shard.files();
    assert!(files.indexes().unwrap().is_empty());
    assert_eq!(files.map_index(BASE).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    files.write_index(BASE, b"first").unwrap();
    let first = files.map_index(BASE).unwrap();
    files.write_index(BASE, b"second").unwrap();
    assert_eq!((first.bytes(), files.map_index(BASE).unwrap().bytes()), (&b"first"[..], &b"second"[..]));
    assert_eq!(files.indexes().unwrap(), [BASE]);
    assert_eq!(names(files.log_path()), ["00000000001073741824.idx"]);
    files.remove_index(BASE).unwrap();
    assert!(files.indexes().unwrap().is_empty());
    assert_eq!(first.bytes(), b"first", "who has mapped a file keeps it");
}

#[test]
fn snapshots_stand_in_a_directory_of_their_own() {
    let directory = directory();
    let shard = shard(directory.path());
    let files = shard.files();
    for at in [5, 7] {
        files.write_snapshot(LogOffset(at), &[at as u8; 9]).unwrap();
    }
    let mut found = files.snapshots().unwrap();
    found.sort();
    assert_eq!(found, [5, 7].map(LogOffset));
    assert_eq!(files.read_snapshot(LogOffset(7)).unwrap(), [7; 9]);
    files.remove_snapshot(LogOffset(5)).unwrap();
    assert_eq!(names(&directory.path().join("state")), ["00000000000000000007.snap"]);
    assert!(names(files.log_path()).is_empty());
}

#[test]
fn unfinished_files_are_removed_at_the_opening() {
    let directory = directory();
    drop(shard(directory.path()));
    for unfinished in ["log/00000000000000000000.idx.tmp", "state/00000000000000000000.snap.tmp"] {
        fs::write(directory.path().join(unfinished), b"half").unwrap();
    }
    let shard = shard(directory.path());
    assert!(names(shard.files().log_path()).is_empty() && names(shard.files().state_path()).is_empty());
}

#[test]
fn write_that_fails_leaves_what_was_there() {
    let directory = directory();
    let files = LogFiles::new(directory.path());
    assert!(files.write_index(BASE, b"no such directory").is_err());
    let shard = shard(directory.path());
    let files = shard.files();
    files.write_index(BASE, b"good").unwrap();
    // What stands in the way of the unfinished file.
    fs::create_dir(files.log_path().join("00000000001073741824.idx.tmp")).unwrap();
    assert!(files.write_index(BASE, b"never").is_err());
    assert_eq!(files.map_index(BASE).unwrap().bytes(), b"good");
}

#[test]
fn pages_that_are_not_in_memory_are_known_without_touching_them() {
    let directory = directory();
    let shard = shard(directory.path());
    let files = shard.files();
    // More pages than one question to the kernel is about.
    let pages = 600;
    let bytes: Vec<u8> = (0..pages * PAGE).map(|at| (at / PAGE) as u8).collect();
    files.write_index(BASE, &bytes).unwrap();
    let file = File::open(files.path(LogFile::Index(BASE))).unwrap();
    // SAFETY: a plain system call on an open descriptor.
    let advised = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(advised, 0);
    let index = files.map_index(BASE).unwrap();
    if index.is_resident(0..pages * PAGE) {
        // In memory there is nothing that could be cold.
        eprintln!("SKIPPED: {} does not forget pages", directory.path().display());
        return;
    }
    let cold = 500 * PAGE + 100..501 * PAGE + 1;
    assert!(!index.is_resident(cold.clone()));
    assert_eq!(index.bytes()[cold.start], (500 % 256) as u8);
    assert!(index.is_resident(500 * PAGE..501 * PAGE));
    assert!(!index.is_resident(0..pages * PAGE));
    index.prefetch(0..pages * PAGE);
    for page in 0..pages {
        assert_eq!(index.bytes()[page * PAGE], page as u8);
    }
    assert!(index.is_resident(0..pages * PAGE));
    assert!(index.is_resident(pages * PAGE..pages * PAGE), "nothing is asked for");
    assert!(index.is_resident(0..(pages + 5) * PAGE), "behind the end there is nothing to wait for");
}

#[test]
fn empty_file_is_mapped_too() {
    let directory = directory();
    let shard = shard(directory.path());
    shard.files().write_index(BASE, b"").unwrap();
    assert!(shard.files().map_index(BASE).unwrap().bytes().is_empty());
}

const READ_ONLY: &str = "APOGEE_TEST_READ_ONLY_DIRECTORY";

/// Not a test of its own: what the next one runs as a process that sees a read-only file system.
#[test]
fn open_in_read_only_directory() {
    let Ok(directory) = std::env::var(READ_ONLY) else { return };
    let error = ShardDirectory::open(Path::new(&directory), &identity()).unwrap_err();
    println!("refused: {error}");
}

#[test]
fn read_only_file_system_is_named() {
    let directory = directory();
    let mounts = "mount -t tmpfs none $0 && mkdir $0/shard && mount -o remount,ro $0 && exec $1 \
                  --exact open_in_read_only_directory --nocapture";
    let mut process = std::process::Command::new("unshare");
    process.args(["-rm", "sh", "-c", mounts]).arg(directory.path()).arg(std::env::current_exe().unwrap());
    let shard = directory.path().join("shard");
    let ran = process.env(READ_ONLY, &shard).output();
    let Some(ran) = ran.ok().filter(|ran| ran.status.success()) else {
        return eprintln!("SKIPPED: this machine lets tests mount nothing");
    };
    let expected = format!("refused: {}/log is on a read-only file system (tmpfs)", shard.display());
    let said = String::from_utf8(ran.stdout).unwrap();
    assert!(said.contains(&expected), "{said}");
}

#[test]
fn listing_that_fails_says_where() {
    let directory = directory();
    let files = LogFiles::new(directory.path());
    let error = files.segments().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert!(error.to_string().starts_with(&files.log_path().display().to_string()), "{error}");
    assert_eq!(files.snapshots().unwrap(), [], "a shard that was never opened has none");
}
