use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use apogee_net::acl::Credentials;
use apogee_net::client::{ConnectError, ConnectOptions, RemotingClient};
use apogee_net::frame::HeaderEncoding;
use apogee_net::tls::{TlsClient, TlsFileError};

use crate::scenario::{Acl, Target, Tls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause between two attempts to reach a broker again.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(100);

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

/// A connection to one broker that is made anew whenever it breaks.
pub(super) struct Link {
    address: SocketAddr,
    options: ConnectOptions,
    client: RefCell<Rc<RemotingClient>>,
}

impl Link {
    pub(super) async fn open(address: SocketAddr, options: ConnectOptions) -> Result<Rc<Link>, ConnectError> {
        let client = RemotingClient::connect(address, &options).await?;
        Ok(Rc::new(Link { address, options, client: RefCell::new(client) }))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The connection, unless it is broken at the moment.
    pub(super) fn client(&self) -> Option<Rc<RemotingClient>> {
        let client = self.client.borrow();
        (!client.is_closed()).then(|| client.clone())
    }

    /// Connects again after each break, for ever.
    pub(super) async fn keep(self: Rc<Self>) {
        loop {
            let client = self.client.borrow().clone();
            client.closed().await;
            match RemotingClient::connect(self.address, &self.options).await {
                Ok(client) => {
                    tracing::info!(broker = %self.address, "connected again");
                    *self.client.borrow_mut() = client;
                }
                Err(_) => glommio::timer::sleep(RETRY_PAUSE).await,
            }
        }
    }
}
