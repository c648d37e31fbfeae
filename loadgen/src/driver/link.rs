use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use apogee_net::acl::Credentials;
use apogee_net::client::{ConnectError, ConnectOptions, RemotingClient};
use apogee_net::frame::HeaderEncoding;
use apogee_net::io::Signal;
use apogee_net::tls::{TlsClient, TlsFileError};
use futures_lite::future;

use crate::scenario::{Acl, Target, Tls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause before something that failed is tried again.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Pause between two attempts to reach a broker again: how exactly the end of its absence is seen.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// How NameServers and brokers are spoken to: the same for all.
#[derive(Clone)]
pub(super) struct Access {
    encoding: HeaderEncoding,
    tls: Option<TlsClient>,
    credentials: Option<Credentials>,
}

impl Access {
    /// Reads the files that the target names.
    pub(super) fn new(target: &Target) -> Result<Access, TlsFileError> {
        Ok(Access {
            encoding: target.header.into(),
            tls: target.tls.as_ref().map(Tls::client).transpose()?,
            credentials: target.acl.as_ref().map(Acl::credentials),
        })
    }

    pub(super) fn options(&self) -> ConnectOptions {
        ConnectOptions {
            encoding: self.encoding,
            tls: self.tls.clone(),
            credentials: self.credentials.clone(),
            ..ConnectOptions::within(CONNECT_TIMEOUT)
        }
    }
}

/// A connection to the master of one broker name: made anew whenever it breaks, and moved when the master does.
pub(super) struct Link {
    address: Cell<SocketAddr>,
    options: ConnectOptions,
    client: RefCell<Rc<RemotingClient>>,
    /// The connection to the master before: what it has not answered yet, it may still answer.
    previous: RefCell<Option<Rc<RemotingClient>>>,
    moved: Signal,
    /// Raised when the connection breaks.
    broke: Rc<Signal>,
}

impl Link {
    /// `broke` is shared by those whose routes are watched together.
    pub(super) async fn open(
        address: SocketAddr,
        options: ConnectOptions,
        broke: Rc<Signal>,
    ) -> Result<Rc<Link>, ConnectError> {
        let client = RemotingClient::connect(address, &options).await?;
        Ok(Rc::new(Link {
            address: Cell::new(address),
            options,
            client: RefCell::new(client),
            previous: RefCell::default(),
            moved: Signal::default(),
            broke,
        }))
    }

    /// Where the master is, as far as is known.
    pub(super) fn address(&self) -> SocketAddr {
        self.address.get()
    }

    /// The connection, unless it is broken at the moment.
    pub(super) fn client(&self) -> Option<Rc<RemotingClient>> {
        let client = self.client.borrow();
        (!client.is_closed()).then(|| client.clone())
    }

    /// The master is at `address` now.
    pub(super) fn move_to(&self, address: SocketAddr) {
        if self.address.replace(address) != address {
            self.moved.raise();
        }
    }

    /// Whether there is no connection to where the master is.
    pub(super) fn is_down(&self) -> bool {
        let client = self.client.borrow();
        client.is_closed() || client.peer() != self.address.get()
    }

    /// Connects again after each break and each move, for ever.
    pub(super) async fn keep(self: Rc<Self>) {
        loop {
            let client = self.client.borrow().clone();
            future::or(client.closed(), self.moved.wait()).await;
            if client.is_closed() {
                self.broke.raise();
            }
            while self.is_down() {
                let address = self.address.get();
                match RemotingClient::connect(address, &self.options).await {
                    Ok(client) => {
                        tracing::info!(broker = %address, "connected again");
                        let previous = self.client.replace(client);
                        *self.previous.borrow_mut() = Some(previous);
                    }
                    Err(_) => glommio::timer::sleep(RECONNECT_PAUSE).await,
                }
            }
        }
    }
}
