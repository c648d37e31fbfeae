//! What a reply needs from the disk.

use std::rc::Rc;

use apogee_net::code::ResponseCode;
use apogee_net::io::Chunk;
use apogee_storage::{DiskError, FileRun};

use super::ShardDriver;
use crate::node::segment_source::{self, SENDFILE_BYTES_MIN};
use crate::service::{Reply, ReplyTo};
use crate::shard::Fetch;

/// Replies whose messages are being read from disk into memory, each up to 8 MiB; more wait for their turn. Twice the
/// reads that the disk has under way, so that it never waits for this thread. Long runs are not read here: they leave
/// by `sendfile`, and each connection's writer has at most one piece of 256 KiB brought in for it, within the same
/// catch-up budget.
pub(super) const READS_IN_FLIGHT_MAX: u64 = 4;

/// Pulls that wait for one of those reads; one more is answered as busy, and its client tries again.
const READS_WAITING_MAX: usize = 16 * 1024;

impl ShardDriver {
    pub(super) fn start_read(
        &self,
        to: ReplyTo,
        reply: Reply,
        runs: impl IntoIterator<Item = Fetch> + 'static,
    ) {
        let Some(this) = self.this.upgrade() else { return };
        if self.reads_waiting.get() >= READS_WAITING_MAX {
            let remark = format!("{READS_WAITING_MAX} pulls wait for the disk already");
            return self.send(to, Reply::error(ResponseCode::SYSTEM_BUSY, remark));
        }
        self.reads_waiting.set(self.reads_waiting.get() + 1);
        let work = async move {
            // Never closed, so always granted.
            let permit = this.reads.acquire_permit(1).await;
            this.reads_waiting.set(this.reads_waiting.get() - 1);
            // Nothing is read for a client that is gone.
            if permit.is_ok() && this.server.connection(to.connection).is_some() {
                let reply = this.read(reply, runs).await;
                this.send(to, reply);
            }
        };
        self.spawn_into(work, self.groups.catch_up);
    }

    /// The reply with its body read from disk, or open to be sent from there; or the reason why it cannot be.
    pub(super) async fn read(&self, mut reply: Reply, runs: impl IntoIterator<Item = Fetch>) -> Reply {
        for run in runs {
            let fetched = match run {
                Fetch::Here(chunk) => Ok(chunk),
                Fetch::File(run) => self.fetch(run).await,
            };
            match fetched {
                Ok(chunk) => reply.body.push(chunk),
                Err(error) => {
                    tracing::error!(shard = self.number, %error, "cannot read messages");
                    let remark = format!("cannot read messages: {error}");
                    return Reply::error(ResponseCode::SYSTEM_ERROR, remark);
                }
            }
        }
        reply
    }

    pub(super) async fn fetch(&self, run: FileRun) -> Result<Chunk, DiskError> {
        if run.len >= SENDFILE_BYTES_MIN {
            let file = self.disk.segment_file(run.segment).await?;
            return Ok(segment_source::chunk_of(file, run));
        }
        let bytes = self.disk.read(run).await?;
        Ok(Chunk::shared(Rc::new(bytes), 0..run.len as usize))
    }
}
