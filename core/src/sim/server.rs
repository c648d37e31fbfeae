//! The connections that one process accepted, by the ids under which its decisions know them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use apogee_net::io::ConnectionId;
use bytes::Bytes;

use super::network::{End, HostId, Network};

#[derive(Default)]
pub(super) struct Connections {
    open: RefCell<BTreeMap<ConnectionId, End>>,
    last: Cell<u64>,
}

/// What a server is told of its connections.
pub(super) trait Serve: 'static {
    fn on_frame(&self, connection: ConnectionId, peer: SocketAddr, frame: Bytes);
    fn on_closed(&self, connection: ConnectionId);
    fn connections(&self) -> &Connections;
}

/// Accepts connections for `server` from now on.
pub(super) fn serve<S: Serve>(network: &Network, host: HostId, address: SocketAddr, server: &Rc<S>) {
    let server = Rc::downgrade(server);
    network.listen(host, address, move |end| {
        let Some(serving) = server.upgrade() else { return end.close() };
        let connections = serving.connections();
        let id = ConnectionId(connections.last.get() + 1);
        connections.last.set(id.0);
        connections.open.borrow_mut().insert(id, end.clone());
        // The port names the connection, so that each has a peer of its own.
        let peer = SocketAddr::new(client_ip(end.peer()), 30_000 + (id.0 % 30_000) as u16);
        let server = server.clone();
        end.listen(move |frame| {
            let Some(server) = server.upgrade() else { return };
            match frame {
                Some(frame) => server.on_frame(id, peer, frame),
                None => {
                    server.connections().open.borrow_mut().remove(&id);
                    server.on_closed(id);
                }
            }
        });
    });
}

/// Where a host is.
pub(super) fn client_ip(host: HostId) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, host.0 as u8 + 1))
}

impl Connections {
    pub(super) fn send(&self, to: ConnectionId, frame: Bytes) {
        if let Some(end) = self.open.borrow().get(&to) {
            end.send(frame);
        }
    }

    pub(super) fn is_open(&self, connection: ConnectionId) -> bool {
        self.open.borrow().contains_key(&connection)
    }

    /// Closes a connection; true if it was open.
    pub(super) fn close(&self, connection: ConnectionId) -> bool {
        let end = self.open.borrow_mut().remove(&connection);
        end.inspect(End::close).is_some()
    }
}
