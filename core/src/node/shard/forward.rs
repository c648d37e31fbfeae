//! Requests handed on to the leader, at its port for clients.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use apogee_net::client::{ConnectOptions, RemotingClient};
use apogee_net::io::Chunk;
use apogee_storage::NodeId;
use glommio::TaskQueueHandle;
use glommio::sync::Semaphore;

use super::ShardDriver;
use crate::node::clock::now_ms;
use crate::shard::{ForwardAnswer, ForwardExt, ForwardFailed, ForwardId, ForwardRequest};

/// A leader that does not take a connection within this is tried again by the shard, or another one is known by then.
const CONNECT_WAIT: Duration = Duration::from_secs(1);

/// Requests that wait for a connection to the leader, or for its answer. As many as the shard holds at all.
const UNDER_WAY_MAX: usize = crate::shard::HELD_MAX;

/// Bytes of requests that the leader has not taken yet; beyond it forwarding fails, and the shard holds them for a while.
const UNSENT_BYTES_MAX: usize = crate::shard::HELD_BYTES_MAX;

/// Connections to other nodes' ports for clients, kept from request to request.
pub(super) struct Forwarder {
    /// To the node that was asked last: there is one leader.
    client: RefCell<Option<(SocketAddr, Rc<RemotingClient>)>>,
    /// One connects, others wait for what comes of it.
    connecting: Semaphore,
    under_way: Cell<usize>,
}

impl Default for Forwarder {
    fn default() -> Self {
        Forwarder { client: RefCell::default(), connecting: Semaphore::new(1), under_way: Cell::default() }
    }
}

impl Forwarder {
    fn connected(&self, address: SocketAddr) -> Option<Rc<RemotingClient>> {
        let client = self.client.borrow();
        let (to, client) = client.as_ref()?;
        (*to == address && !client.is_closed()).then(|| client.clone())
    }

    async fn connect(&self, address: SocketAddr) -> Result<Rc<RemotingClient>, ForwardFailed> {
        // Never closed, so always granted.
        let _one = self.connecting.acquire_permit(1).await;
        if let Some(client) = self.connected(address) {
            return Ok(client);
        }
        let connected = RemotingClient::connect(address, &ConnectOptions::within(CONNECT_WAIT)).await;
        let client = connected.map_err(|error| {
            tracing::debug!(%address, %error, "cannot forward to the leader");
            ForwardFailed
        })?;
        *self.client.borrow_mut() = Some((address, client.clone()));
        Ok(client)
    }
}

impl ShardDriver {
    pub(super) fn forward(&self, id: Option<ForwardId>, to: NodeId, request: ForwardRequest) {
        let Some(this) = self.this.upgrade() else { return };
        let address = self.peers.as_ref().and_then(|peers| peers.client_address(to));
        if let Some(client) = address.and_then(|address| self.forwarder.connected(address)) {
            return this.ask(&client, id, request);
        }
        if self.forwarder.under_way.get() >= UNDER_WAY_MAX {
            return this.on_forwarded(id, Err(ForwardFailed));
        }
        self.forwarder.under_way.set(self.forwarder.under_way.get() + 1);
        let work = async move {
            let connected = match address {
                Some(address) => this.forwarder.connect(address).await,
                // The leader was heard of, and its connections are gone again.
                None => Err(ForwardFailed),
            };
            this.forwarder.under_way.set(this.forwarder.under_way.get() - 1);
            match connected {
                Ok(client) => this.ask(&client, id, request),
                Err(failed) => this.on_forwarded(id, Err(failed)),
            }
            this.pump();
        };
        self.schedule(work);
    }

    fn ask(self: &Rc<Self>, client: &RemotingClient, id: Option<ForwardId>, request: ForwardRequest) {
        let ForwardRequest { code, ext, body, timeout_ms } = request;
        let body = (!body.is_empty()).then(|| Chunk::from(body));
        if client.unsent_bytes() > UNSENT_BYTES_MAX {
            return self.on_forwarded(id, Err(ForwardFailed));
        }
        let Some(id) = id else {
            // Nobody waits for it, and it may be lost as it may be on any connection.
            let _ = client.oneway(code, &ext, body);
            return;
        };
        let this = Rc::downgrade(self);
        let timeout = Duration::from_millis(timeout_ms.max(0) as u64);
        client.start(code, &ext, body, timeout, move |reply| {
            let Some(this) = this.upgrade() else { return };
            let answer = reply.map_err(|_| ForwardFailed).map(|reply| {
                let header = reply.header();
                ForwardAnswer {
                    code: reply.code(),
                    remark: header.remark.as_deref().map(str::to_owned),
                    ext: ForwardExt::of(&header),
                    body: reply.body().clone(),
                }
            });
            this.on_forwarded(Some(id), answer);
        });
    }

    /// Runs it in a turn of its own: `spawn_local` runs a task at once up to where it waits, so that a row of requests that
    /// cannot be forwarded would be taken up each within the one before, without end.
    fn schedule(&self, work: impl Future<Output = ()> + 'static) {
        self.spawn_into(work, TaskQueueHandle::default());
    }

    /// In a task of its own: this may have come from within the shard's actions being carried out.
    fn on_forwarded(self: &Rc<Self>, id: Option<ForwardId>, answer: Result<ForwardAnswer, ForwardFailed>) {
        let Some(id) = id else { return };
        let this = self.clone();
        let work = async move {
            this.shard.borrow_mut().on_forwarded(id, answer, now_ms());
            this.pump();
        };
        self.schedule(work);
    }
}
