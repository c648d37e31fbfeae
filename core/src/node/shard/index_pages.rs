//! Index pages that are not in memory: for requests that need them, and for the shard itself.

use apogee_net::code::ResponseCode;
use apogee_net::frame::RawFrame;
use apogee_storage::driver::LoadIndexError;
use apogee_storage::{DiskError, KeySearch};
use bytes::Bytes;

use super::ShardDriver;
use crate::node::clock::now_ms;
use crate::service::{Reply, Request};
use crate::shard::{ColdPages, LoadId, Need, SearchError, SearchId};

/// Requests that need pages of index files which are not in memory; one more is answered as busy.
const INDEX_WAITERS_MAX: usize = 1024;

/// Longest header and body of such a request. It is copied out of the receive buffer, so those that wait hold 64 MiB.
const INDEX_WAITER_BYTES_MAX: usize = 64 * 1024;

/// Loads that one request gets. Each brings it further, unless memory is so short that pages leave before they are
/// looked at: a search over a thousand segments, all cold, takes some twenty.
const INDEX_LOADS_PER_REQUEST_MAX: u32 = 32;

impl ShardDriver {
    /// Loads the index pages that a request needs, and asks it again.
    pub(super) fn ask_again(&self, request: &Request<'_>, frame: &RawFrame, pages: ColdPages) {
        let Some(this) = self.this.upgrade() else { return };
        let (connection, peer) = (request.connection, request.peer);
        let busy = |reason: String| {
            if let Some(to) = request.reply_to() {
                self.send(to, Reply::error(ResponseCode::SYSTEM_BUSY, reason));
            }
        };
        if self.index_waiters.get() >= INDEX_WAITERS_MAX {
            return busy(format!("{INDEX_WAITERS_MAX} requests wait for index files already"));
        }
        if frame.header.len() + frame.body.len() > INDEX_WAITER_BYTES_MAX {
            return busy("index files must be read, and the request is too large to wait for that".into());
        }
        self.index_waiters.set(self.index_waiters.get() + 1);
        let frame = RawFrame {
            encoding: frame.encoding,
            header: Bytes::copy_from_slice(&frame.header),
            body: Bytes::copy_from_slice(&frame.body),
        };
        let work = async move {
            let request = Request::decode_again(connection, peer, &frame);
            if let Err(reason) = this.load_and_ask(&request, pages).await
                && let Some(to) = request.reply_to()
            {
                this.send(to, Reply::error(ResponseCode::SYSTEM_BUSY, reason));
            }
            this.index_waiters.set(this.index_waiters.get() - 1);
            this.pump();
        };
        self.spawn_into(work, self.groups.catch_up);
    }

    /// Until the request needs no pages any more; otherwise says why it cannot be answered.
    pub(super) async fn load_and_ask(
        &self,
        request: &Request<'_>,
        mut pages: ColdPages,
    ) -> Result<(), String> {
        for _ in 0..INDEX_LOADS_PER_REQUEST_MAX {
            match self.disk.load_index(&pages.index, pages.range).await {
                // Damage is met again by the request, and dealt with there.
                Ok(()) | Err(LoadIndexError::Fault(_)) => {}
                Err(LoadIndexError::Disk(error)) => {
                    tracing::error!(shard = self.number, %error, "cannot read an index file");
                    return Err(error.to_string());
                }
            }
            // Nothing is done for a client that is gone, or has to go elsewhere.
            if self.stopping.get() || self.server.connection(request.connection).is_none() {
                return Ok(());
            }
            let now = self.read_clock();
            let asked = self.shard.borrow_mut().on_request(request, now.ms);
            match asked {
                Ok(()) => return Ok(()),
                Err(next) => pages = next,
            }
        }
        Err("index files do not stay in memory: the machine has too little of it".into())
    }

    /// Brings in what the shard itself wants to look at. The shard bounds how many loads wait, the disk how many run.
    pub(super) fn start_load(&self, id: LoadId, need: Need) {
        let Some(this) = self.this.upgrade() else { return };
        let work = async move {
            let result = this.load(need).await;
            this.shard.borrow_mut().on_loaded(id, result, now_ms());
            this.pump();
        };
        self.spawn_into(work, self.groups.catch_up);
    }

    /// Looks for a key in index files. The shard bounds how many searches there are.
    pub(super) fn start_search(&self, id: SearchId, search: KeySearch) {
        let Some(this) = self.this.upgrade() else { return };
        let work = async move {
            let result = this.disk.find_key(search).await.map_err(|error| match error {
                LoadIndexError::Disk(error) => SearchError::Disk(error),
                LoadIndexError::Fault(fault) => SearchError::Fault(fault),
            });
            this.shard.borrow_mut().on_keys_found(id, result, now_ms());
            this.pump();
        };
        self.spawn_into(work, self.groups.catch_up);
    }

    pub(super) async fn load(&self, need: Need) -> Result<Vec<Bytes>, DiskError> {
        match need {
            Need::Pages(pages) => match self.disk.load_index(&pages.index, pages.range).await {
                // Damage is met again by whoever looks into the pages, and dealt with there.
                Ok(()) | Err(LoadIndexError::Fault(_)) => Ok(Vec::new()),
                Err(LoadIndexError::Disk(error)) => Err(error),
            },
            Need::Runs(runs) => {
                let mut pieces = Vec::with_capacity(runs.len());
                for run in runs {
                    pieces.push(Bytes::copy_from_slice(self.disk.read(run).await?.as_ref()));
                }
                Ok(pieces)
            }
        }
    }
}
