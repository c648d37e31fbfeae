//! Where tests on disk work.

use apogee_storage::driver::check_direct_io;

/// A directory on the file system that this was built on, or nothing if it cannot be used.
pub(crate) fn directory() -> Option<tempfile::TempDir> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let io_uring =
        glommio::LocalExecutorBuilder::default().io_memory(1 << 20).make().map_err(|error| error.to_string());
    let usable = io_uring
        .map(drop)
        .and_then(|()| check_direct_io(directory.path()).map_err(|error| error.to_string()));
    match usable {
        Ok(()) => Some(directory),
        Err(why) if std::env::var("CI").is_ok_and(|ci| ci == "true") => {
            panic!("cannot be skipped under CI: {why}")
        }
        Err(why) => {
            eprintln!("SKIPPED: {why}");
            None
        }
    }
}
