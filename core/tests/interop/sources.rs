//! Whether the sources of a client program changed since it was built.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

/// Over the version of what they need, and every file of the folder, name and content.
pub(crate) fn fingerprint(folder: &Path, version: &str) -> String {
    let mut files = Vec::new();
    list_files(folder, &mut files);
    files.sort();
    let mut hasher = DefaultHasher::new();
    version.hash(&mut hasher);
    for file in files {
        file.hash(&mut hasher);
        std::fs::read(&file).expect("read a source file").hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}

fn list_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("read a source folder") {
        let path = entry.expect("a folder entry").path();
        if path.is_dir() {
            list_files(&path, files);
        } else {
            files.push(path);
        }
    }
}
