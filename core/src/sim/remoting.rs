//! What stock clients call the remoting client: one connection per address, opened when it is needed, requests and
//! answers paired by number.
//!
//! Source: `NettyRemotingClient`, `NettyRemotingAbstract`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::header::WriteExt;
use bytes::Bytes;

use super::executor::{MS, Promise, Sim, Us};
use super::network::{ConnectFailed, End, HostId, Network};
use super::wire::{self, Answer, Asked, Received};

/// `connectTimeoutMillis`
const CONNECT_WAIT: Us = 3_000 * MS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallError {
    Connect(ConnectFailed),
    Timeout,
    Closed,
}

type Waiting = Promise<Result<Answer, CallError>>;

pub(super) struct Channel {
    end: End,
    waiting: RefCell<BTreeMap<i32, Waiting>>,
    /// Those who wait for the end of it.
    on_end: RefCell<Vec<Promise<()>>>,
}

type OnAsked = Rc<dyn Fn(SocketAddr, &Rc<Channel>, Asked)>;

pub(super) struct Remoting {
    pub(super) sim: Sim,
    network: Rc<Network>,
    host: HostId,
    channels: RefCell<BTreeMap<SocketAddr, Rc<Channel>>>,
    /// What the servers ask is given to.
    on_asked: RefCell<Option<OnAsked>>,
    next_opaque: Cell<i32>,
    this: Weak<Remoting>,
}

impl Channel {
    pub(super) fn is_closed(&self) -> bool {
        self.end.is_closed()
    }

    /// Ends the connection and all that wait on it.
    pub(super) fn close(&self) {
        self.end.close();
        self.fail_all();
    }

    fn fail_all(&self) {
        for (_, waiting) in std::mem::take(&mut *self.waiting.borrow_mut()) {
            waiting.keep(Err(CallError::Closed));
        }
        for waiting in std::mem::take(&mut *self.on_end.borrow_mut()) {
            waiting.keep(());
        }
    }

    /// Answers what a server asked.
    pub(super) fn answer(&self, opaque: i32, code: ResponseCode, body: &[u8]) {
        let head =
            apogee_net::command::ReplyHead { code, opaque, remark: None, ext: &apogee_net::header::NoExt };
        let mut out = bytes::BytesMut::new();
        let encoding = apogee_net::frame::HeaderEncoding::Json;
        apogee_net::command::append_reply(&mut out, encoding, &head, body).expect("an answer fits a frame");
        self.end.send(out.freeze());
    }
}

impl Remoting {
    pub(super) fn new(sim: &Sim, network: &Rc<Network>, host: HostId) -> Rc<Remoting> {
        Rc::new_cyclic(|this| Remoting {
            sim: sim.clone(),
            network: network.clone(),
            host,
            channels: RefCell::default(),
            on_asked: RefCell::default(),
            next_opaque: Cell::new(1),
            this: this.clone(),
        })
    }

    pub(super) fn on_asked(&self, on_asked: impl Fn(SocketAddr, &Rc<Channel>, Asked) + 'static) {
        *self.on_asked.borrow_mut() = Some(Rc::new(on_asked));
    }

    /// The connection to an address, if there is one that lives.
    pub(super) fn channel(&self, to: SocketAddr) -> Option<Rc<Channel>> {
        self.channels.borrow().get(&to).filter(|channel| !channel.is_closed()).cloned()
    }

    pub(super) async fn connect(&self, to: SocketAddr) -> Result<Rc<Channel>, CallError> {
        if let Some(channel) = self.channel(to) {
            return Ok(channel);
        }
        let end = self.network.connect(self.host, to, CONNECT_WAIT).await.map_err(CallError::Connect)?;
        // Somebody else may have been faster.
        if let Some(channel) = self.channel(to) {
            end.close();
            return Ok(channel);
        }
        let channel =
            Rc::new(Channel { end: end.clone(), waiting: RefCell::default(), on_end: RefCell::default() });
        self.channels.borrow_mut().insert(to, channel.clone());
        let (weak, this) = (Rc::downgrade(&channel), self.this.clone());
        end.listen(move |frame| {
            let (Some(channel), Some(this)) = (weak.upgrade(), this.upgrade()) else { return };
            match frame {
                Some(frame) => this.receive(to, &channel, &frame),
                None => channel.fail_all(),
            }
        });
        Ok(channel)
    }

    fn receive(&self, from: SocketAddr, channel: &Rc<Channel>, frame: &Bytes) {
        match wire::receive(frame) {
            Received::Answer { opaque, answer } => {
                let waiting = channel.waiting.borrow_mut().remove(&opaque);
                // One that came too late answers nobody.
                if let Some(waiting) = waiting {
                    waiting.keep(Ok(answer));
                }
            }
            Received::Asked(asked) => {
                let on_asked = self.on_asked.borrow().clone();
                if let Some(on_asked) = on_asked {
                    on_asked(from, channel, asked);
                }
            }
        }
    }

    fn opaque(&self) -> i32 {
        let opaque = self.next_opaque.get();
        self.next_opaque.set(opaque + 1);
        opaque
    }

    /// Asks and waits for the answer. A time-out closes the connection (`clientCloseSocketIfTimeout`).
    pub(super) async fn call(
        &self,
        to: SocketAddr,
        code: RequestCode,
        ext: &dyn WriteExt,
        body: &[u8],
        timeout: Us,
    ) -> Result<Answer, CallError> {
        let (answer, channel) = self.ask(to, code, ext, body, timeout).await;
        if let (Err(CallError::Timeout), Some(channel)) = (&answer, channel) {
            channel.close();
        }
        answer
    }

    /// As [`call`](Remoting::call), but a time-out leaves the connection as it is (`invokeAsync`).
    pub(super) async fn call_async(
        &self,
        to: SocketAddr,
        code: RequestCode,
        ext: &dyn WriteExt,
        body: &[u8],
        timeout: Us,
    ) -> Result<Answer, CallError> {
        self.ask(to, code, ext, body, timeout).await.0
    }

    async fn ask(
        &self,
        to: SocketAddr,
        code: RequestCode,
        ext: &dyn WriteExt,
        body: &[u8],
        timeout: Us,
    ) -> (Result<Answer, CallError>, Option<Rc<Channel>>) {
        let began = self.sim.now();
        let channel = match self.sim.within(timeout, self.connect(to)).await {
            Some(Ok(channel)) => channel,
            Some(Err(error)) => return (Err(error), None),
            None => return (Err(CallError::Timeout), None),
        };
        let (opaque, waiting) = (self.opaque(), Waiting::new());
        channel.waiting.borrow_mut().insert(opaque, waiting.clone());
        channel.end.send(wire::request(code, opaque, false, ext, body));
        let left = timeout.saturating_sub(self.sim.now() - began);
        let answer = self.sim.within(left, waiting.kept()).await;
        channel.waiting.borrow_mut().remove(&opaque);
        (answer.unwrap_or(Err(CallError::Timeout)), Some(channel))
    }

    pub(super) async fn oneway(
        &self,
        to: SocketAddr,
        code: RequestCode,
        ext: &dyn WriteExt,
        body: &[u8],
    ) -> Result<(), CallError> {
        let channel = self.connect(to).await?;
        channel.end.send(wire::request(code, self.opaque(), true, ext, body));
        Ok(())
    }

    /// Until the connection to an address is gone.
    pub(super) async fn closed(&self, to: SocketAddr) {
        if let Some(channel) = self.channel(to) {
            let end = Promise::new();
            channel.on_end.borrow_mut().push(end.clone());
            drop(channel);
            end.kept().await;
        }
    }

    /// Ends all connections.
    pub(super) fn close(&self) {
        for (_, channel) in std::mem::take(&mut *self.channels.borrow_mut()) {
            channel.close();
        }
    }
}
