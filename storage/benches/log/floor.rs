//! The bare disk: what no log can go below.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use apogee_storage::driver::{Disk, DiskConfig, LogFiles};
use apogee_storage::{AlignedBuffer, BatchIndex, Completion, DiskOp, LogFile, LogOffset, OpId, SegmentInfo};
use smallvec::smallvec;

use super::harness::open_disk;

/// A segment made as the log's are, written to by plain system calls or through the executor's ring.
pub(crate) struct Floor {
    pub(crate) disk: Rc<Disk>,
    file: File,
    segment: SegmentInfo,
    position: u64,
    bytes: AlignedBuffer,
}

impl Floor {
    pub(crate) async fn new(directory: &Path, segment_bytes: u64) -> Floor {
        let files = LogFiles::new(directory);
        std::fs::create_dir_all(files.log_path()).expect("a directory for the floor");
        let path = files.log_path().join(LogFile::Segment(LogOffset(0)).file_name());
        let disk = Rc::new(open_disk(files, DiskConfig::default(), ()).await);
        let segment = SegmentInfo { base: LogOffset(0), bytes: segment_bytes };
        match disk.execute(DiskOp::Prepare { segment, recycle: None, reserve_bytes: 0 }).await {
            Completion::Prepared { result: Ok(()), .. } => {}
            other => panic!("{other:?}"),
        }
        let mut options = File::options();
        options.write(true).custom_flags(libc::O_DIRECT);
        let file = options.open(path).expect("it was just made");
        let mut bytes = AlignedBuffer::zeroed(1 << 20);
        bytes.as_mut().fill(0x5a);
        Floor { disk, file, segment, position: 0, bytes }
    }

    /// Where the next `len` bytes go: the file is written round and round.
    fn advance(&mut self, len: u32) -> u64 {
        if self.position + u64::from(len) > self.segment.bytes {
            self.position = 0;
        }
        self.position += u64::from(len);
        self.position - u64::from(len)
    }

    /// `pwrite`, then `fdatasync` if wanted. Blocks the executor, on which nothing else is under way.
    pub(crate) fn by_system_calls(&mut self, len: u32, sync: bool) -> Duration {
        let position = self.advance(len);
        let begun = Instant::now();
        self.file.write_all_at(&self.bytes.as_ref()[..len as usize], position).expect("a direct write");
        if sync {
            self.file.sync_data().expect("a sync");
        }
        begun.elapsed()
    }

    /// The same through the executor's ring, as the log does it.
    pub(crate) async fn by_ring(&mut self, len: u32, sync: bool) -> Duration {
        let mut buffer = self.disk.alloc(len as usize);
        buffer.as_bytes_mut().fill(0x5a);
        let (id, index, segment, position) = (OpId(1), BatchIndex(1), self.segment.base, self.advance(len));
        let begun = Instant::now();
        let op = DiskOp::Write { id, index, segment, position, buffer: Rc::new(buffer), len };
        let written = self.disk.execute(op).await;
        assert!(matches!(written, Completion::Written { result: Ok(()), .. }), "{written:?}");
        if sync {
            let synced = self.disk.execute(DiskOp::Sync { id, segments: smallvec![segment] }).await;
            assert!(matches!(synced, Completion::Synced { result: Ok(()), .. }), "{synced:?}");
        }
        begun.elapsed()
    }
}
