//! Drives a NameServer, as `node/namesrv.rs` does.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use apogee_net::io::ConnectionId;
use bytes::Bytes;

use super::audit::Audit;
use super::executor::{Scope, Sim, Us};
use super::host::Clock;
use super::mutant::Mutant;
use super::network::{HostId, Network};
use super::server::{Connections, Serve, serve};
use super::wire;
use crate::nameserver::{Action, KvConfig, NameServer, NameServerConfig, TICK_PERIOD};
use crate::service::Request;

pub(super) struct Namesrv {
    sim: Sim,
    nameserver: RefCell<NameServer>,
    connections: Connections,
    clock: Clock,
    /// Which of the NameServers it is, and which of that one's lives.
    nth: usize,
    life: u64,
    audit: Rc<Audit>,
    scope: Rc<Scope>,
}

impl Namesrv {
    pub(super) fn start(
        sim: &Sim,
        network: &Network,
        host: HostId,
        address: SocketAddr,
        nth: usize,
        audit: &Rc<Audit>,
        mutant: Option<Mutant>,
    ) -> Rc<Namesrv> {
        let clock = Clock::wrong(sim);
        let mut nameserver = NameServer::new(NameServerConfig::default(), KvConfig::default(), 0);
        if mutant == Some(Mutant::UnfencedMasters) {
            nameserver.forget_to_fence();
        }
        let namesrv = Rc::new(Namesrv {
            sim: sim.clone(),
            nameserver: RefCell::new(nameserver),
            connections: Connections::default(),
            clock,
            nth,
            life: sim.now(),
            audit: audit.clone(),
            scope: Scope::new(sim),
        });
        serve(network, host, address, &namesrv);
        let this = Rc::downgrade(&namesrv);
        let sim = sim.clone();
        namesrv.scope.spawn(async move {
            loop {
                sim.sleep(TICK_PERIOD.as_micros() as Us).await;
                let Some(this) = this.upgrade() else { return };
                this.nameserver.borrow_mut().on_tick(this.now_ms());
                this.carry_out();
            }
        });
        namesrv
    }

    /// A clock that never jumps, as the NameServer wants it.
    fn now_ms(&self) -> i64 {
        (self.clock.ns(&self.sim) / 1_000_000) as i64
    }

    fn carry_out(&self) {
        loop {
            let action = self.nameserver.borrow_mut().poll_action();
            match action {
                Some(Action::CloseConnection { connection, .. }) => {
                    if self.connections.close(connection) {
                        self.on_closed(connection);
                    }
                }
                Some(Action::PersistKv(_)) => {}
                None => return,
            }
        }
    }

    pub(super) fn end(&self) {
        self.scope.end();
    }
}

impl Serve for Namesrv {
    fn on_frame(&self, connection: ConnectionId, peer: SocketAddr, frame: Bytes) {
        let frame = wire::frame(&frame);
        let request =
            Request::decode(connection, peer, &frame).expect("clients write headers that can be read");
        if request.is_answer() {
            return;
        }
        let reply = self.nameserver.borrow_mut().handle(&request, self.now_ms());
        self.audit.look_at_masters(self.nth, self.life, &self.nameserver.borrow());
        self.carry_out();
        if let Some(to) = request.reply_to() {
            self.connections.send(connection, wire::reply(to, &reply));
        }
    }

    fn on_closed(&self, connection: ConnectionId) {
        self.nameserver.borrow_mut().on_connection_closed(connection);
        self.audit.look_at_masters(self.nth, self.life, &self.nameserver.borrow());
        self.carry_out();
    }

    fn connections(&self) -> &Connections {
        &self.connections
    }
}
