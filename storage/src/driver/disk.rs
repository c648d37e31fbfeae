//! The disk under a running log: direct I/O on one glommio executor.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use glommio::GlommioError;
use glommio::io::{DmaFile, OpenOptions, ReadResult};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::files::LogFiles;
use super::prepare::{Fill, blocking, prepare_segment, space_of};
use crate::disk::{Buffer, Completion, DiskError, DiskOp, FileRun, SegmentInfo, Space};
use crate::format::BLOCK_LEN;
use crate::job_error::JobError;
use crate::sealed::{read_ends, seal_segment};
use crate::snapshot::{NewState, take_snapshot};
use crate::source::LogFile;
use crate::types::LogOffset;

impl Buffer for DmaBuffer {}

pub use glommio::io::DmaBuffer;

#[derive(Clone, Copy, Debug)]
pub struct DiskConfig {
    /// Segment files kept open, at most; beyond it those not in use are closed, the longest unused first. Default 256.
    pub open_files_max: usize,
}

impl Default for DiskConfig {
    fn default() -> DiskConfig {
        DiskConfig { open_files_max: 256 }
    }
}

struct OpenSegment {
    file: Rc<DmaFile>,
    last_used: u64,
}

/// Carries out [`DiskOp`]s and reads [`FileRun`]s of one log directory. Belongs to the executor it was opened on.
pub struct Disk {
    files: LogFiles,
    new_state: NewState,
    config: DiskConfig,
    open: RefCell<FxHashMap<LogOffset, OpenSegment>>,
    uses: Cell<u64>,
    fill: Fill,
}

impl Disk {
    /// To be called on the executor that will use the disk, before anything else there opens a file for direct I/O.
    /// Snapshots are taken of what `new_state` makes.
    pub async fn open(files: LogFiles, config: DiskConfig, new_state: NewState) -> Result<Disk, DiskError> {
        prime_poll_probe(files.log_path()).await?;
        Ok(Disk {
            files,
            new_state,
            config,
            open: RefCell::default(),
            uses: Cell::new(0),
            fill: Fill::unknown(),
        })
    }

    fn directory(&self) -> &Path {
        self.files.log_path()
    }

    /// Bytes of the file system that holds the log.
    pub async fn space(&self) -> Result<Space, DiskError> {
        let directory = self.directory().to_owned();
        let space = blocking(move || space_of(&directory)).await;
        let action = || format!("ask for the free space in {}", self.directory().display());
        space.map_err(|error| DiskError::io(action(), &error))
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
            DiskOp::Prepare { segment, recycle, reserve_bytes } => {
                let result = self.prepare(segment, recycle, reserve_bytes).await;
                Completion::Prepared { base: segment.base, result }
            }
            DiskOp::Seal(job) => {
                let (files, base) = (self.files.clone(), job.segment.base);
                let sealed = blocking(move || Ok(seal_segment(&files, &job))).await;
                Completion::Sealed { base, result: self.of_job("seal", sealed) }
            }
            DiskOp::Snapshot(job) => {
                let (files, at, new_state) = (self.files.clone(), job.at, Arc::clone(&self.new_state));
                let taken = blocking(move || Ok(take_snapshot(&files, &job, new_state()).map(drop))).await;
                Completion::Snapshot { at, result: self.of_job("take a snapshot of", taken) }
            }
            DiskOp::ReadEnds(index) => {
                let base = index.summary().segment.base;
                let ends = blocking(move || Ok(read_ends(&index))).await;
                let action = || format!("read the index of segment {base} in {}", self.directory().display());
                let result = match ends {
                    Ok(Ok(ends)) => Ok(ends),
                    Ok(Err(fault)) => {
                        Err(DiskError::Io { action: action(), os_code: None, message: fault.to_string() })
                    }
                    Err(error) => Err(DiskError::io(action(), &error)),
                };
                Completion::Ends { base, result }
            }
            DiskOp::Remove { segment } => {
                Completion::Removed { base: segment, result: self.remove(segment).await }
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

    fn of_job<T>(&self, action: &str, result: io::Result<Result<T, JobError>>) -> Result<T, DiskError> {
        let action = || format!("{action} the log in {}", self.directory().display());
        match result {
            Ok(done) => done.map_err(|error| DiskError::job(action(), &error)),
            Err(error) => Err(DiskError::io(action(), &error)),
        }
    }

    /// Removes a segment's file and the index files of those before it. Whoever has it open keeps it.
    async fn remove(&self, segment: LogOffset) -> Result<(), DiskError> {
        self.open.borrow_mut().remove(&segment);
        let files = self.files.clone();
        let removed = blocking(move || files.remove_left(segment)).await;
        removed.map_err(|error| {
            DiskError::io(format!("remove segment {segment} in {}", self.directory().display()), &error)
        })
    }

    async fn prepare(
        &self,
        segment: SegmentInfo,
        recycle: Option<LogOffset>,
        reserve_bytes: u64,
    ) -> Result<(), DiskError> {
        if let Some(old) = recycle {
            self.remove(old).await?;
        }
        prepare_segment(self.directory(), segment, reserve_bytes, &self.fill).await?;
        // Now, off the append path, rather than at the first write.
        self.segment(segment.base).await.map(drop)
    }

    /// The open file of a segment.
    async fn segment(&self, base: LogOffset) -> Result<Rc<DmaFile>, DiskError> {
        if let Some(file) = self.opened(base) {
            return Ok(file);
        }
        let path = self.files.path(LogFile::Segment(base));
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
        let action = format!("{action} segment {segment} in {}", self.directory().display());
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
