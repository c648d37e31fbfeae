use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::connection::{Connection, ConnectionId, OutboxLimits, Service, serve};
use super::driver::pause;
use super::listener::Listener;
use super::socket::Socket;

/// How often idle connections are looked for.
const IDLE_SCAN: Duration = Duration::from_secs(10);

/// Connections accepted before other tasks get their turn.
const ACCEPTS_PER_TURN: u64 = 16;

#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// Connections served at once; one more is closed at once, with a log line.
    pub connections_max: usize,
    /// Silence in both directions after which a connection is closed (RocketMQ: `serverChannelMaxIdleTimeSeconds`).
    pub idle_max: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        ServerLimits { connections_max: 16 * 1024, idle_max: Duration::from_secs(120) }
    }
}

/// The accepted connections of one service, findable by id for replies and pushes.
#[derive(Debug)]
pub struct Server {
    connections: RefCell<FxHashMap<ConnectionId, Rc<Connection>>>,
    next_id: Cell<u64>,
    limits: ServerLimits,
}

impl Server {
    pub fn new(limits: ServerLimits) -> Rc<Self> {
        Rc::new(Server { connections: RefCell::default(), next_id: Cell::new(1), limits })
    }

    /// Accepts on `listener` for ever, serving each connection in a task of its own.
    pub async fn accept<S: Service>(self: Rc<Self>, listener: Listener, service: Rc<S>) {
        let mut accepted = 0u64;
        loop {
            let socket = listener.accept().await;
            accepted += 1;
            if accepted.is_multiple_of(ACCEPTS_PER_TURN) {
                pause().await;
            }
            let peer = socket.peer();
            if let Some(connection) = self.admit(socket) {
                glommio::spawn_local(self.clone().serve(connection, service.clone())).detach();
            } else {
                let max = self.limits.connections_max;
                tracing::warn!(%peer, listener = %listener.local(), "refused: {max} connections are open already");
            }
        }
    }

    /// Closes connections that were silent for too long. Runs for ever.
    pub async fn close_idle(self: Rc<Self>) {
        loop {
            glommio::timer::sleep(IDLE_SCAN).await;
            let now = Instant::now();
            for connection in self.connections.borrow().values() {
                if connection.idle_for(now) > self.limits.idle_max {
                    connection.close("idle for too long");
                }
            }
        }
    }

    pub fn connection(&self, id: ConnectionId) -> Option<Rc<Connection>> {
        self.connections.borrow().get(&id).cloned()
    }

    pub fn connection_count(&self) -> usize {
        self.connections.borrow().len()
    }

    fn admit(&self, socket: Socket) -> Option<Rc<Connection>> {
        let mut connections = self.connections.borrow_mut();
        if connections.len() >= self.limits.connections_max {
            return None;
        }
        let id = ConnectionId(self.next_id.replace(self.next_id.get() + 1));
        let connection = Connection::new(id, socket, OutboxLimits::SERVER);
        connections.insert(id, connection.clone());
        Some(connection)
    }

    async fn serve<S: Service>(self: Rc<Self>, connection: Rc<Connection>, service: Rc<S>) {
        serve(connection.clone(), service).await;
        self.connections.borrow_mut().remove(&connection.id());
    }
}
