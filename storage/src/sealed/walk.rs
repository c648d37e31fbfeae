//! Batch after batch of a sealed segment, by headers and directories alone.

use std::io;

use super::build::SealJob;
use crate::format::{BatchError, Directory, RawDirectory, RawHeader};
use crate::job_error::JobError;
use crate::source::{LogFile, LogSource};
use crate::types::{BatchIndex, Term};
use crate::window::Window;

/// Records that are skipped rather than read. Less than this a disk transfers in the time it takes to answer one more
/// read (some 50 µs at 1 GB/s and more), so reading on is as fast, with far fewer requests.
const SKIP_BYTES: u64 = 64 << 10;

/// Read at once where records are skipped: header and directory of some 400 records.
const HEAD_BYTES: u64 = 16 << 10;

/// Read at once where they are not.
const READ_BYTES: u64 = 1 << 20;

/// Checks that each batch follows the one before, from what the job says up to where it says the segment ends.
pub(crate) struct Walk<'a, S: ?Sized> {
    source: &'a S,
    job: &'a SealJob,
    window: Window<'a, S>,
    /// Where the next batch stands.
    position: u64,
    last_index: BatchIndex,
    last_term: Term,
    /// Where the last batch stands.
    last_position: u64,
}

impl<'a, S: LogSource + ?Sized> Walk<'a, S> {
    pub(crate) fn new(source: &'a S, job: &'a SealJob) -> Walk<'a, S> {
        Walk {
            source,
            job,
            window: Window::new(source, job.segment),
            position: 0,
            last_index: BatchIndex(job.first_index.0 - 1),
            last_term: job.prev_term,
            last_position: 0,
        }
    }

    /// The next batch and where in the segment it stands; nothing behind the last.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Directory<'_>)>, JobError> {
        let Walk { source, job, window, position, last_index, last_term, last_position } = self;
        let (source, file, at) = (*source, LogFile::Segment(job.segment.base), *position);
        let end = job.end.0 - job.segment.base.0;
        if at == end {
            return Ok(None);
        }
        let failed = |error: io::Error| JobError::io(source, file, "read", at, &error);
        let torn = |error: BatchError| JobError::Batch { file: source.name(file), position: at, error };
        let header = RawHeader(window.block(at).map_err(failed)?).verify();
        let header = *header.map_err(|error| torn(error.into()))?;
        let (directory_end, length) = (header.directory_end() as u64, header.batch_len() as u64);
        let rules = [
            ("group", job.group.0, header.group().0),
            ("base_offset", job.segment.base.0 + at, header.base_offset().0),
            ("index", last_index.0 + 1, header.index().0),
            ("prev_term", last_term.0, header.prev_term().0),
            ("length", length.min(end - at), length),
        ];
        for (field, expected, found) in rules {
            if expected != found {
                let file = source.name(file);
                return Err(JobError::Unexpected { file, position: at, field, expected, found });
            }
        }
        (*position, *last_position) = (at + length, at);
        (*last_index, *last_term) = (header.index(), header.term());
        window.set_read_bytes(if length - directory_end < SKIP_BYTES { READ_BYTES } else { HEAD_BYTES });
        let bytes = window.read(at, directory_end).map_err(failed)?;
        Ok(Some((at, RawDirectory(bytes).verify().map_err(torn)?)))
    }

    /// The index of the last batch, to be asked when there is no more.
    pub(crate) fn finish(self) -> Result<BatchIndex, JobError> {
        let (expected, found) = (self.job.last_term.0, self.last_term.0);
        if expected != found {
            let file = self.source.name(LogFile::Segment(self.job.segment.base));
            let position = self.last_position;
            return Err(JobError::Unexpected { file, position, field: "last_term", expected, found });
        }
        Ok(self.last_index)
    }
}
