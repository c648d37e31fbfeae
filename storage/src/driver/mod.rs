//! What carries out the log's decisions: glommio for the running log, plain files for the opening.

mod direct_io;
mod directory;
mod disk;
mod files;
mod identity;
mod mapped;
mod prepare;

pub use direct_io::{DirectIoError, check_direct_io};
pub use directory::{DirectoryError, ShardDirectory};
pub use disk::{Disk, DiskConfig, DmaBuffer, FileBytes};
pub use files::LogFiles;
pub use identity::{Identity, IdentityError};
