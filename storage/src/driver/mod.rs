//! What carries out the log's decisions: glommio for the running log, plain files for the opening.

mod background;
mod budget;
mod direct_io;
mod directory;
mod disk;
mod files;
mod identity;
mod mapped;
mod open_files;
mod pool;
mod prepare;
mod residency;
mod segment_file;
mod usage;

pub use direct_io::{DirectIoError, check_direct_io};
pub use directory::{DirectoryError, ShardDirectory};
pub use disk::{Disk, DiskConfig, DmaBuffer, FileBytes, LoadIndexError};
pub use files::LogFiles;
pub use identity::{Identity, IdentityError};
pub use segment_file::SegmentFile;
