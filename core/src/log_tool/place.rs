//! Which logs a directory means: a node's data directory, a shard's, or its `log/`.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

/// A shard's directory, with `log/` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShardPlace(pub(crate) PathBuf);

/// What was named is no place of a log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("cannot look into {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error(
        "{} holds no log: name the data directory of a node, the directory of a shard (with log/ in it), or that log/",
        path.display()
    )]
    NoLog { path: PathBuf },
    #[error("{} has {count} shards: name one of them, such as {}", path.display(), first.display())]
    Several { path: PathBuf, count: usize, first: PathBuf },
}

/// All shards of a directory, in the order of their numbers.
pub(super) fn shards(dir: &Path) -> Result<Vec<ShardPlace>, PlaceError> {
    let unreadable = |error| PlaceError::Unreadable { path: dir.to_owned(), error };
    let mut numbered = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let number = entry.file_name().to_str().and_then(|name| name.strip_prefix("shard-")?.parse().ok());
        if let Some(number) = number.filter(|_: &u16| has_log(&entry.path())) {
            numbered.push((number, ShardPlace(entry.path())));
        }
    }
    if !numbered.is_empty() {
        numbered.sort_unstable_by_key(|(number, _)| *number);
        return Ok(numbered.into_iter().map(|(_, place)| place).collect());
    }
    if has_log(dir) {
        return Ok(vec![ShardPlace(dir.to_owned())]);
    }
    // Perhaps `log/` itself; the way to it may end in `.` or a link.
    let whole = dir.canonicalize().map_err(unreadable)?;
    match whole.parent() {
        Some(shard) if whole.file_name() == Some(OsStr::new("log")) => Ok(vec![ShardPlace(shard.to_owned())]),
        _ => Err(PlaceError::NoLog { path: dir.to_owned() }),
    }
}

/// The only shard of a directory.
pub(crate) fn one_shard(dir: &Path) -> Result<ShardPlace, PlaceError> {
    let mut shards = shards(dir)?;
    match shards.len() {
        1 => Ok(shards.remove(0)),
        count => Err(PlaceError::Several { path: dir.to_owned(), count, first: shards.swap_remove(0).0 }),
    }
}

fn has_log(dir: &Path) -> bool {
    dir.join("log").is_dir()
}

#[cfg(test)]
mod tests {
    use std::fs::create_dir_all;

    use super::*;

    #[test]
    fn each_level_of_a_data_directory_is_understood() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let shard = |number: u32| root.join(format!("shard-{number}"));
        for number in [0, 2, 10] {
            create_dir_all(shard(number).join("log")).unwrap();
        }
        create_dir_all(root.join("shard-x/log")).unwrap();
        create_dir_all(root.join("shard-7")).unwrap();
        let all = [0, 2, 10].map(|number| ShardPlace(shard(number)));
        assert_eq!(shards(&root).unwrap(), all, "by number, not by name");
        assert_eq!(shards(&shard(2)).unwrap(), [ShardPlace(shard(2))]);
        assert_eq!(shards(&shard(2).join("log/.")).unwrap(), [ShardPlace(shard(2))]);
        assert_eq!(one_shard(&shard(2).join("log")).unwrap(), ShardPlace(shard(2)));

        let error = one_shard(&root).unwrap_err().to_string();
        assert!(error.contains("has 3 shards") && error.ends_with("shard-0"), "{error}");
        let error = shards(&root.join("shard-7")).unwrap_err().to_string();
        assert!(error.contains("shard-7 holds no log"), "{error}");
        let error = shards(&root.join("missing")).unwrap_err().to_string();
        assert!(error.contains("cannot look into"), "{error}");
    }
}
