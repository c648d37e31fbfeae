//! Where the kernel shows itself as files, and how such files are read.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// How much of one file is read; what lies beyond is ignored. The longest we read, `mountinfo`, takes about
/// 150 bytes per mount; `cpuinfo` is longer on large machines, but only its first processor is looked at.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The `/proc` and `/sys` to read: the machine's own, or a made-up tree in tests.
#[derive(Debug, Clone)]
pub struct Roots {
    root: PathBuf,
}

impl Roots {
    /// The machine this process runs on.
    pub fn machine() -> Self {
        Self::under(Path::new("/"))
    }

    /// `proc` and `sys` below `root`.
    pub fn under(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// A file named from the root directory on: `proc/…` or `sys/…`.
    pub(crate) fn below(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    pub(crate) fn proc(&self, path: &str) -> PathBuf {
        self.root.join("proc").join(path)
    }

    pub(crate) fn sys(&self, path: &str) -> PathBuf {
        self.root.join("sys").join(path)
    }
}

/// The file's text. Bytes that are not UTF-8 (they occur in mount points) are replaced.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A file of one line without its line end; `None` when it is absent, unreadable or empty.
pub(crate) fn read_line(path: &Path) -> Option<String> {
    let text = read(path).ok()?;
    let line = text.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

/// A file that holds one value.
pub(crate) fn read_value<T: FromStr>(path: &Path) -> Option<T> {
    read_line(path)?.parse().ok()
}

/// A file that holds `0` or `1`.
pub(crate) fn read_switch(path: &Path) -> Option<bool> {
    read_value::<u8>(path).map(|value| value != 0)
}

/// The value of the first `key: value` line.
pub(crate) fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == key).then(|| value.trim())
    })
}

/// The bytes of a `key: 4810968 kB` line.
pub(crate) fn kib_field(text: &str, key: &str) -> Option<u64> {
    let kib: u64 = field(text, key)?.strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The bracketed word of `none [mq-deadline] kyber`; the whole line where there is no choice.
pub(crate) fn chosen(line: &str) -> &str {
    line.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or(line, |(chosen, _)| chosen)
}
