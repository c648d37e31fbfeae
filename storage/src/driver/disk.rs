//! The disk under a running log: direct I/O on one glommio executor.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use glommio::GlommioError;
use glommio::io::{DmaFile, OpenOptions, ReadResult};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::prepare::{Fill, prepare_segment};
use crate::disk::{Buffer, Completion, DiskError, DiskOp, FileRun, SegmentInfo};
use crate::format::BLOCK_LEN;
use crate::source::LogFile;
use crate::types::LogOffset;

impl Buffer for DmaBuffer {}

pub use glommio::io::DmaBuffer;

#[derive(Clone, Copy, Debug)]
pub struct DiskConfig {
    /// No segment is made if less than this would stay free on the file system. Default 1 GiB.
    pub reserve_bytes: u64,
    /// Segment files kept open, at most; beyond it those not in use are closed, the longest unused first. Default 256.
    pub open_files_max: usize,
}

impl Default for DiskConfig {
    fn default() -> DiskConfig {
        DiskConfig { reserve_bytes: 1 << 30, open_files_max: 256 }
    }
}

struct OpenSegment {
    file: Rc<DmaFile>,
    last_used: u64,
}

/// Carries out [`DiskOp`]s and reads [`FileRun`]s of one log directory. Belongs to the executor it was opened on.
pub struct Disk {
    directory: PathBuf,
    config: DiskConfig,
    open: RefCell<FxHashMap<LogOffset, OpenSegment>>,
    uses: Cell<u64>,
    fill: Fill,
}

impl Disk {
    /// To be called on the executor that will use the disk, before anything else there opens a file for direct I/O.
    pub async fn open(directory: &Path, config: DiskConfig) -> Result<Disk, DiskError> {
        prime_poll_probe(directory).await?;
        Ok(Disk {
            directory: directory.to_owned(),
            config,
            open: RefCell::default(),
            uses: Cell::new(0),
            fill: Fill::unknown(),
        })
    }

    /// A buffer for [`CommitLog::poll_op`](crate::CommitLog::poll_op).
    #[must_use]
    pub fn alloc(&self, len: usize) -> DmaBuffer {
        glommio::allocate_dma_buffer(len)
    }

    /// Carries out one operation; any number may be under way at once. Dropping the future does not undo it.
    pub async fn execute(&self, op: DiskOp<DmaBuffer>) -> Completion {
        match op {
            DiskOp::Write { id, segment, position, buffer, len, .. } => {
                Completion::Written { id, result: self.write(segment, position, buffer, len).await }
            }
            DiskOp::Sync { id, segments } => Completion::Synced { id, result: self.sync(segments).await },
            DiskOp::Prepare { segment } => {
                Completion::Prepared { base: segment.base, result: self.prepare(segment).await }
            }
        }
    }

    /// Reads bytes of a segment past the page cache.
    pub async fn read(&self, run: FileRun) -> Result<FileBytes, DiskError> {
        let file = self.segment(run.segment).await?;
        let read = file.read_at(run.position, run.len as usize).await;
        let bytes = read.map_err(|error| self.error("read", run.segment, &error))?;
        if bytes.len() != run.len as usize {
            let action = format!("read segment {} at {}", run.segment, run.position);
            let message = format!("{} bytes of {}", bytes.len(), run.len);
            return Err(DiskError::Io { action, os_code: None, message });
        }
        Ok(FileBytes(bytes))
    }

    async fn write(
        &self,
        segment: LogOffset,
        position: u64,
        buffer: Rc<DmaBuffer>,
        len: u32,
    ) -> Result<(), DiskError> {
        assert_eq!(buffer.len(), len as usize, "a write is of a whole buffer");
        self.fill.set(position + u64::from(len));
        let file = self.segment(segment).await?;
        let written = file.write_rc_at(buffer, position).await;
        let written = written.map_err(|error| self.error("write", segment, &error))?;
        if written != len as usize {
            let action = format!("write segment {segment} at {position}");
            return Err(DiskError::Io {
                action,
                os_code: None,
                message: format!("{written} bytes of {len}"),
            });
        }
        Ok(())
    }

    async fn sync(&self, segments: SmallVec<[LogOffset; 2]>) -> Result<(), DiskError> {
        for segment in segments {
            let file = self.segment(segment).await?;
            file.fdatasync().await.map_err(|error| self.error("sync", segment, &error))?;
        }
        Ok(())
    }

    async fn prepare(&self, segment: SegmentInfo) -> Result<(), DiskError> {
        prepare_segment(&self.directory, segment, self.config.reserve_bytes, &self.fill).await?;
        // Now, off the append path, rather than at the first write.
        self.segment(segment.base).await.map(drop)
    }

    /// The open file of a segment.
    async fn segment(&self, base: LogOffset) -> Result<Rc<DmaFile>, DiskError> {
        if let Some(file) = self.opened(base) {
            return Ok(file);
        }
        let path = self.directory.join(LogFile::Segment(base).file_name());
        let opened = OpenOptions::new().read(true).write(true).dma_open(&path).await;
        let file = opened.map_err(|error| self.error("open", base, &error))?;
        // Another task may have opened it meanwhile; then the two are the same to everyone.
        if let Some(earlier) = self.opened(base) {
            return Ok(earlier);
        }
        let file = Rc::new(file);
        let opened = OpenSegment { file: Rc::clone(&file), last_used: self.uses.get() };
        self.open.borrow_mut().insert(base, opened);
        self.close_longest_unused();
        Ok(file)
    }

    fn opened(&self, base: LogOffset) -> Option<Rc<DmaFile>> {
        self.uses.set(self.uses.get() + 1);
        let mut open = self.open.borrow_mut();
        let segment = open.get_mut(&base)?;
        segment.last_used = self.uses.get();
        Some(Rc::clone(&segment.file))
    }

    fn close_longest_unused(&self) {
        let mut open = self.open.borrow_mut();
        while open.len() > self.config.open_files_max {
            let unused = open.iter().filter(|(_, segment)| Rc::strong_count(&segment.file) == 1);
            let Some(base) = unused.min_by_key(|(_, segment)| segment.last_used).map(|(base, _)| *base)
            else {
                return;
            };
            open.remove(&base);
        }
    }

    fn error(&self, action: &str, segment: LogOffset, error: &GlommioError<()>) -> DiskError {
        let os_code = match error {
            GlommioError::IoError(error) => error.raw_os_error(),
            GlommioError::EnhancedIoError { source, .. } => source.raw_os_error(),
            _ => None,
        };
        let action = format!("{action} segment {segment} in {}", self.directory.display());
        DiskError::Io { action, os_code, message: error.to_string() }
    }
}

/// Bytes read from a segment.
#[derive(Clone, Debug)]
pub struct FileBytes(ReadResult);

impl AsRef<[u8]> for FileBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Opens a file that is not empty before any other. glommio decides per thread and device, by reading from the first
/// file opened for direct I/O, whether completions can be polled; on an empty file it decides wrongly and later
/// reads fail with EOPNOTSUPP.
async fn prime_poll_probe(directory: &Path) -> Result<(), DiskError> {
    // SAFETY: the call has no arguments and cannot fail.
    let thread = unsafe { libc::gettid() };
    let path = directory.join(format!("probe.{}.{thread}.tmp", std::process::id()));
    let action = || format!("probe {}", directory.display());
    fs::write(&path, [0; 2 * BLOCK_LEN]).map_err(|error| DiskError::io(action(), &error))?;
    let opened = OpenOptions::new().read(true).dma_open(&path).await;
    let closed = match opened {
        Ok(file) => file.close().await,
        Err(error) => Err(error),
    };
    let removed = fs::remove_file(&path);
    closed.map_err(|error| DiskError::Io { action: action(), os_code: None, message: error.to_string() })?;
    removed.map_err(|error| DiskError::io(action(), &error))
}
