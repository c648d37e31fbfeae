//! The disk under a running log: direct I/O on one glommio executor.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use glommio::GlommioError;
use glommio::io::{DmaFile, OpenOptions, ReadResult};
use smallvec::SmallVec;

use super::background::Background;
use super::budget::Budget;
use super::files::LogFiles;
use super::open_files::OpenFiles;
use super::pool::{blocking, blocking_or, pool_at_rest};
use super::prepare::{Fill, prepare_segment, recycle_segment, space_of};
use super::segment_file::{SegmentFile, read_to_nowhere};
use super::usage::{Usage, Use};
use crate::checkpoint::{Reset, ResetDone, ResetJob, take_checkpoint};
use crate::disk::{Buffer, Completion, DiskError, DiskOp, FileRun, SegmentInfo, Space};
use crate::format::BLOCK_LEN;
use crate::group_state::{GroupState, save_group_state};
use crate::index::IndexEntry;
use crate::job_error::JobError;
use crate::sealed::{IndexFault, KeySearch, SealedIndex, read_ends, seal_segment};
use crate::snapshot::{NewState, rebuild_state, take_snapshot};
use crate::source::LogFile;
use crate::types::LogOffset;

impl Buffer for DmaBuffer {}

pub use glommio::io::DmaBuffer;

#[derive(Clone, Copy, Debug)]
pub struct DiskConfig {
    /// Segment files kept open for writing, at most, and as many for reading; beyond it those not in use are closed, the
    /// longest unused first. Default 256.
    pub open_files_max: usize,
    /// Reads of segments and of index pages under way at once, at most. Others wait in line. Default 2.
    pub catch_up_reads_max: u32,
    /// Bytes of such reads under way at once, at most; a longer one runs alone. Default 256 KiB: an append that comes in
    /// between waits for what the disk is reading, and twice as much made its median half as long again.
    pub catch_up_bytes_max: u64,
}

impl Default for DiskConfig {
    fn default() -> DiskConfig {
        DiskConfig::DEFAULT
    }
}

impl DiskConfig {
    pub const DEFAULT: DiskConfig =
        DiskConfig { open_files_max: 256, catch_up_reads_max: 2, catch_up_bytes_max: 256 << 10 };

    /// Threads that the executor's blocking pool should have, so that none of these waits for another: the reads, the
    /// making of a segment, the saving of a group node's state, and one for what is short (opening files, asking for the
    /// free space). What takes long runs
    /// on a thread that the disk has for itself.
    #[must_use]
    pub fn pool_threads(&self) -> usize {
        self.catch_up_reads_max as usize + 3
    }
}

/// How often an ending executor looks for its pool: 4 seconds. A piece of a segment takes milliseconds.
const STOP_LOOKS_MAX: u32 = 2000;

/// A segment's file past the page cache.
struct DirectFile {
    file: DmaFile,
    /// Dropped after the file is closed.
    _use: Rc<Use>,
}

/// Carries out [`DiskOp`]s and reads [`FileRun`]s of one log directory. Belongs to the executor it was opened on. When
/// dropped it waits for the background job under way.
pub struct Disk {
    files: LogFiles,
    new_state: NewState,
    direct: OpenFiles<DirectFile>,
    for_readers: OpenFiles<SegmentFile>,
    usage: Rc<Usage>,
    catch_up: Rc<Budget>,
    background: Background,
    fill: Fill,
    /// A state of the group's node is on its way.
    is_saving: Cell<bool>,
}

/// Two states at once would be written to the same slot, or finish in the wrong order.
struct Saving<'a>(&'a Cell<bool>);

impl Saving<'_> {
    fn begin(is_saving: &Cell<bool>) -> Saving<'_> {
        assert!(!is_saving.replace(true), "two states of a group's node are saved at once");
        Saving(is_saving)
    }
}

impl Drop for Saving<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// What a search for a key counts for in the budget: it reads pages one by one.
const KEY_SEARCH_BYTES: u64 = 64 * 1024;

/// Why a search ended.
enum LookError {
    Fault(IndexFault),
    Io(io::Error),
}

impl From<IndexFault> for LookError {
    fn from(fault: IndexFault) -> Self {
        LookError::Fault(fault)
    }
}

impl From<io::Error> for LookError {
    fn from(error: io::Error) -> Self {
        LookError::Io(error)
    }
}

/// Why pages of an index could not be brought in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadIndexError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// They are damaged.
    #[error(transparent)]
    Fault(#[from] IndexFault),
}

impl Disk {
    /// To be called on the executor that will use the disk, before anything else there opens a file for direct I/O.
    /// Snapshots are taken of what `new_state` makes.
    pub async fn open(files: LogFiles, config: DiskConfig, new_state: NewState) -> Result<Disk, DiskError> {
        prime_poll_probe(files.log_path()).await?;
        let background = Background::start()
            .map_err(|error| DiskError::io("start the background thread of a log", &error))?;
        Ok(Disk {
            files,
            new_state,
            direct: OpenFiles::new(config.open_files_max),
            for_readers: OpenFiles::new(config.open_files_max),
            usage: Usage::new(background.sender()),
            catch_up: Budget::new(config.catch_up_bytes_max, config.catch_up_reads_max),
            background,
            fill: Fill::unknown(),
            is_saving: Cell::new(false),
        })
    }

    fn directory(&self) -> &Path {
        self.files.log_path()
    }

    /// To be called before the executor ends: stops a preparation and waits, for some seconds at most, until no call of the
    /// blocking pool is under way.
    pub async fn stop(&self) {
        self.fill.stop();
        pool_at_rest(STOP_LOOKS_MAX).await;
    }

    /// Bytes of the file system that holds the log.
    pub async fn space(&self) -> Result<Space, DiskError> {
        space_of(self.directory()).await
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
            DiskOp::Erase { id, segment, position } => {
                let mut zeros = self.alloc(BLOCK_LEN);
                zeros.as_bytes_mut().fill(0);
                let result = self.write(segment, position, Rc::new(zeros), BLOCK_LEN as u32).await;
                Completion::Written { id, result }
            }
            DiskOp::Sync { id, segments } => Completion::Synced { id, result: self.sync(segments).await },
            DiskOp::Prepare { segment, recycle, reserve_bytes } => {
                let result = self.prepare(segment, recycle, reserve_bytes).await;
                Completion::Prepared { base: segment.base, result }
            }
            DiskOp::Seal(job) => {
                let (files, base) = (self.files.beside_appends(), job.segment.base);
                let sealed = self.background.run(move |_| seal_segment(&files, &job)).await;
                Completion::Sealed { base, result: self.of_job("seal", sealed) }
            }
            DiskOp::Snapshot(job) => {
                let (files, at) = (self.files.beside_appends(), job.at);
                let new_state = Arc::clone(&self.new_state);
                let taken = self.background.run(move |_| take_snapshot(&files, &job, new_state())).await;
                Completion::Snapshot { at, result: self.of_job("take a snapshot of", taken).map(drop) }
            }
            DiskOp::ReadEnds(index) => {
                let base = index.summary().segment.base;
                let ends = self.background.run(move |_| read_ends(&index)).await;
                let action = || format!("read the index of segment {base} in {}", self.directory().display());
                let result = match ends {
                    Ok(Ok(ends)) => Ok(ends),
                    Ok(Err(fault)) => Err(DiskError::fault(action(), &fault)),
                    Err(error) => Err(DiskError::io(action(), &error)),
                };
                Completion::Ends { base, result }
            }
            DiskOp::Remove { segment } => {
                Completion::Removed { base: segment, result: self.remove(segment).await }
            }
            DiskOp::SaveGroupState { id, state } => {
                Completion::GroupStateSaved { id, result: self.save_group_state(state).await }
            }
            DiskOp::Reset(job) => {
                Completion::ResetDone { id: job.id, result: self.reset(job).await.map(Box::new) }
            }
            DiskOp::TakeCheckpoint(job) => {
                let (files, id) = (self.files.beside_appends(), job.id);
                let taken = self.background.run(move |_| take_checkpoint(&files, &job)).await;
                let result = self.of_job("take a checkpoint of", taken).map(Box::new);
                Completion::CheckpointTaken { id, result }
            }
            DiskOp::Rebuild(job) => {
                let (files, id, state) = (self.files.beside_appends(), job.id, (self.new_state)());
                let rebuilt = self.background.run(move |_| rebuild_state(&files, &job, state)).await;
                Completion::Rebuilt { id, result: self.of_job("derive the state of", rebuilt) }
            }
        }
    }

    /// Reads bytes of a segment past the page cache, within the catch-up budget.
    pub async fn read(&self, run: FileRun) -> Result<FileBytes, DiskError> {
        let _permit = self.catch_up.acquire(run.len.into()).await;
        let direct = self.segment(run.segment).await?;
        let read = direct.file.read_at(run.position, run.len as usize).await;
        self.close_if_left(run.segment, direct).await;
        let bytes = read.map_err(|error| self.error("read", run.segment, &error))?;
        if bytes.len() != run.len as usize {
            let action = format!("read segment {} at {}", run.segment, run.position);
            let message = format!("{} bytes of {}", bytes.len(), run.len);
            return Err(DiskError::Io { action, os_code: None, message });
        }
        Ok(FileBytes(bytes))
    }

    /// Reads within the catch-up budget that are under way.
    #[must_use]
    pub fn catch_up_reads(&self) -> u32 {
        self.catch_up.holders()
    }

    /// What [`segment_file`](Disk::segment_file) gives, if that is open already.
    #[must_use]
    pub fn open_segment_file(&self, segment: LogOffset) -> Option<Rc<SegmentFile>> {
        self.for_readers.find(segment)
    }

    /// The file of a segment, for reading through the page cache and for `sendfile`. It is not written anew while the
    /// answer is held.
    pub async fn segment_file(&self, segment: LogOffset) -> Result<Rc<SegmentFile>, DiskError> {
        if let Some(file) = self.for_readers.find(segment) {
            return Ok(file);
        }
        let used = self.usage.begin(segment)?;
        let path = self.files.path(LogFile::Segment(segment));
        let opening = SegmentFile::open(path, used, segment, Rc::clone(&self.catch_up));
        self.for_readers.find_or_open(segment, opening, || !self.usage.has_left(segment)).await
    }

    /// Brings pages of an index into memory and checks them, within the catch-up budget: what a cold
    /// [`IndexFault`] asked for.
    pub async fn load_index(
        &self,
        index: &Arc<SealedIndex>,
        range: Range<u64>,
    ) -> Result<(), LoadIndexError> {
        let _permit = self.catch_up.acquire(range.end - range.start).await;
        let file = LogFile::Index(index.summary().segment.base);
        let path = self.files.path(file);
        let (name, at, index) = (path.clone(), range.start, Arc::clone(index));
        let loaded = blocking_or(
            || format!("read {} at {at}", name.display()),
            move || {
                // A read that fails is an error here, and the end of the process where memory is touched.
                read_to_nowhere(&File::open(path)?, range.clone())?;
                Ok(index.load(range))
            },
        );
        Ok(loaded.await??)
    }

    /// Looks for a key in indexes, on the blocking pool and within the catch-up budget.
    pub async fn find_key(&self, search: KeySearch) -> Result<Vec<IndexEntry>, LoadIndexError> {
        let _permit = self.catch_up.acquire(KEY_SEARCH_BYTES).await;
        let files = self.files.clone();
        let found = blocking_or(
            || format!("look for a key in the indexes of {}", self.directory().display()),
            move || {
                Ok(search.run(|index, range| {
                    let path = files.path(LogFile::Index(index.summary().segment.base));
                    read_to_nowhere(&File::open(path)?, range.clone())?;
                    index.load(range).map_err(LookError::Fault)
                }))
            },
        );
        match found.await? {
            Ok(entries) => Ok(entries),
            Err(LookError::Fault(fault)) => Err(fault.into()),
            Err(LookError::Io(error)) => {
                let action = format!("read an index in {}", self.directory().display());
                Err(DiskError::io(action, &error).into())
            }
        }
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
        let direct = self.segment(segment).await?;
        let written = direct.file.write_rc_at(buffer, position).await;
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
            let direct = self.segment(segment).await?;
            direct.file.fdatasync().await.map_err(|error| self.error("sync", segment, &error))?;
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

    /// Removes a segment's file and the index files of those before it. Whoever reads the file keeps it.
    async fn remove(&self, segment: LogOffset) -> Result<(), DiskError> {
        self.let_go(segment).await;
        let is_used = self.usage.is_used(segment);
        let files = self.files.clone();
        let removed = self.background.run(move |held| {
            if is_used && let Ok(file) = File::open(files.path(LogFile::Segment(segment))) {
                held.insert(segment, file);
            }
            files.remove_left(segment)
        });
        removed.await.flatten().map_err(|error| {
            DiskError::io(format!("remove segment {segment} in {}", self.directory().display()), &error)
        })
    }

    /// On the pool, whose threads are there for what somebody waits for: an election does.
    async fn save_group_state(&self, state: Box<GroupState>) -> Result<(), DiskError> {
        let _saving = Saving::begin(&self.is_saving);
        let files = self.files.clone();
        let saved = blocking(move || Ok(save_group_state(&files, &state))).await;
        self.of_job("save the group's state beside", saved)
    }

    /// Lets all files go, then begins the log anew. Whoever reads one of them keeps it.
    async fn reset(&self, job: Box<ResetJob>) -> Result<ResetDone, DiskError> {
        let _saving = Saving::begin(&self.is_saving);
        let start = job.checkpoint.start.base_offset;
        let (files, derived) = (self.files.clone(), (self.new_state)());
        let begun = self.background.run(move |_| Reset::begin(&files, *job, derived)).await;
        let reset = self.of_job("begin anew", begun).map_err(DiskError::not_begun)?;
        self.let_all_go(start).await;
        let files = self.files.clone();
        let done = self.background.run(move |_| reset.finish(&files)).await;
        self.of_job("begin anew", done)
    }

    async fn let_all_go(&self, start: LogOffset) {
        self.usage.on_begun_anew(start);
        self.fill.set(u64::MAX);
        drop(self.for_readers.forget_all());
        for direct in self.direct.forget_all() {
            if let Ok(DirectFile { file, _use }) = Rc::try_unwrap(direct) {
                // Failing means that a write before failed, and what was written there goes.
                let _ = file.close().await;
            }
        }
    }

    async fn prepare(
        &self,
        segment: SegmentInfo,
        recycle: Option<LogOffset>,
        reserve_bytes: u64,
    ) -> Result<(), DiskError> {
        let is_recycled = match recycle {
            Some(left) => self.recycle(left, segment).await?,
            None => false,
        };
        if !is_recycled {
            prepare_segment(self.directory(), segment, reserve_bytes, &self.fill).await?;
        }
        // Now, off the append path, rather than at the first write.
        self.segment(segment.base).await.map(drop)
    }

    /// Makes a segment of the file of one that left; removes that file if it will not do.
    async fn recycle(&self, left: LogOffset, segment: SegmentInfo) -> Result<bool, DiskError> {
        self.let_go(left).await;
        if !self.usage.is_used(left) {
            let files = self.files.clone();
            let action = || {
                let (from, to, directory) = (left, segment.base, self.directory().display());
                format!("make segment {to} of segment {from} in {directory}")
            };
            if blocking_or(action, move || recycle_segment(&files, left, segment)).await? {
                return Ok(true);
            }
        }
        self.remove(left).await?;
        Ok(false)
    }

    /// Opens a segment that has left no more, and closes it if nobody else has it open.
    async fn let_go(&self, segment: LogOffset) {
        self.usage.on_left(segment);
        self.for_readers.forget(segment);
        if let Some(direct) = self.direct.forget(segment) {
            self.close_if_left(segment, direct).await;
        }
    }

    /// Closes the file of a segment that has left, before it is removed: whoever closes a removed file last waits for
    /// the file system, and glommio closes on this thread.
    async fn close_if_left(&self, segment: LogOffset, direct: Rc<DirectFile>) {
        if self.usage.has_left(segment)
            && let Ok(DirectFile { file, _use }) = Rc::try_unwrap(direct)
        {
            // Failing means that a write before failed, and what was written there has left.
            let _ = file.close().await;
        }
    }

    /// The open file of a segment.
    async fn segment(&self, base: LogOffset) -> Result<Rc<DirectFile>, DiskError> {
        if let Some(file) = self.direct.find(base) {
            return Ok(file);
        }
        let used = self.usage.begin(base)?;
        let opening = async {
            let path = self.files.path(LogFile::Segment(base));
            let opened = OpenOptions::new().read(true).write(true).dma_open(&path).await;
            let file = opened.map_err(|error| self.error("open", base, &error))?;
            Ok(DirectFile { file, _use: used })
        };
        self.direct.find_or_open(base, opening, || !self.usage.has_left(base)).await
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
