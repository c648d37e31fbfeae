//! The file that is measured.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::ring::Block;

/// Bytes written at once while a file is filled.
const FILL_BYTES: usize = 1 << 20;

/// A file that goes when it is dropped.
#[derive(Debug)]
pub(crate) struct TestFile {
    pub(super) file: File,
    pub(super) bytes: u64,
    path: PathBuf,
}

impl TestFile {
    /// `bytes` written once, durable.
    pub(crate) fn prewritten(dir: &Path, bytes: u64) -> io::Result<TestFile> {
        let file = TestFile::open(dir, "prewritten", bytes)?;
        let block = Block::new(FILL_BYTES);
        for at in (0..bytes).step_by(FILL_BYTES) {
            let len = (bytes - at).min(FILL_BYTES as u64) as usize;
            file.file.write_all_at(&block.bytes()[..len], at)?;
        }
        file.file.sync_all()?;
        Ok(file)
    }

    /// `bytes` allocated and not written.
    pub(super) fn fresh(dir: &Path, bytes: u64) -> io::Result<TestFile> {
        let file = TestFile::open(dir, "fresh", bytes)?;
        crate::sys::allocate(&file.file, bytes)?;
        file.file.sync_all()?;
        Ok(file)
    }

    fn open(dir: &Path, name: &str, bytes: u64) -> io::Result<TestFile> {
        let path = dir.join(format!(".apogee-tune-{name}"));
        // What an earlier run could not remove.
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_DIRECT | libc::O_CLOEXEC)
            .open(&path)?;
        Ok(TestFile { file, bytes, path })
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        // One that stays is removed by the next run.
        let _ = fs::remove_file(&self.path);
    }
}
