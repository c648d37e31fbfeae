use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use apogee_net::client::RemotingClient;

pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause between two attempts to reach a broker again.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A connection to one broker that is made anew whenever it breaks.
pub(super) struct Link {
    address: SocketAddr,
    client: RefCell<Rc<RemotingClient>>,
}

impl Link {
    pub(super) async fn open(address: SocketAddr) -> io::Result<Rc<Link>> {
        let client = RemotingClient::connect(address, CONNECT_TIMEOUT).await?;
        Ok(Rc::new(Link { address, client: RefCell::new(client) }))
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
            match RemotingClient::connect(self.address, CONNECT_TIMEOUT).await {
                Ok(client) => {
                    tracing::info!(broker = %self.address, "connected again");
                    *self.client.borrow_mut() = client;
                }
                Err(_) => glommio::timer::sleep(RETRY_PAUSE).await,
            }
        }
    }
}
