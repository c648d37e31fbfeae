//! Drives the NameServer: sockets to [`NameServer`], its actions to sockets and the KV file.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use anyhow::Context;
use apogee_net::code::ResponseCode;
use apogee_net::frame::RawFrame;
use apogee_net::io::{Connection, Driver, DriverConfig, Listener, Server, ServerLimits, Service};
use bytes::Bytes;
use glommio::sync::Semaphore;

use super::NodeEvent;
use super::data_dir::write_whole;
use super::stop::StopSignal;
use crate::config::NamesrvConfig;
use crate::nameserver::{Action, KvConfig, NameServer, NameServerConfig, TICK_PERIOD};
use crate::service::{Reply, Request};

/// The KV configuration, in the data directory.
const KV_FILE: &str = "kvConfig.json";

/// Runs the NameServer until the order to stop. Reports when it listens, or why it cannot.
pub(super) async fn run(config: NamesrvConfig, stop: StopSignal, events: Sender<NodeEvent>) {
    Driver::start(DriverConfig::default());
    let (event, driver) = match NamesrvDriver::start(&config) {
        Ok(driver) => (NodeEvent::NamesrvReady, Some(driver)),
        Err(error) => (NodeEvent::Failed(error.context("the NameServer cannot start")), None),
    };
    // Nobody listens only when the process is ending already.
    let _ = events.send(event);
    stop.given().await;
    if let Some(driver) = driver {
        driver.stop().await;
    }
}

struct NamesrvDriver {
    nameserver: RefCell<NameServer>,
    server: Rc<Server>,
    kv_file: PathBuf,
    started: Instant,
    /// One write of the KV file at a time, in the order of the changes.
    persisting: Rc<Semaphore>,
    tasks: RefCell<Vec<glommio::Task<()>>>,
}

impl NamesrvDriver {
    fn start(config: &NamesrvConfig) -> anyhow::Result<Rc<Self>> {
        let kv_file = config.data_dir.join(KV_FILE);
        let kv = read_kv(&kv_file)?;
        let address = config.address();
        let listener = Listener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        let driver = Rc::new(NamesrvDriver {
            nameserver: RefCell::new(NameServer::new(NameServerConfig::default(), kv, 0)),
            server: Server::new(ServerLimits::default()),
            kv_file,
            started: Instant::now(),
            persisting: Rc::new(Semaphore::new(1)),
            tasks: RefCell::default(),
        });
        let tasks = [
            glommio::spawn_local(driver.server.clone().accept(listener, driver.clone())),
            glommio::spawn_local(driver.server.clone().close_idle()),
            glommio::spawn_local(driver.clone().tick()),
        ];
        driver.tasks.borrow_mut().extend(tasks);
        Ok(driver)
    }

    /// A clock that never jumps, as the NameServer wants it.
    fn now_ms(&self) -> i64 {
        self.started.elapsed().as_millis() as i64
    }

    async fn tick(self: Rc<Self>) {
        loop {
            glommio::timer::sleep(TICK_PERIOD).await;
            self.nameserver.borrow_mut().on_tick(self.now_ms());
            self.carry_out_closings();
        }
    }

    /// Returns what must be on disk before the reply may leave.
    fn carry_out_actions(&self) -> Option<Bytes> {
        let mut to_persist = None;
        loop {
            let action = self.nameserver.borrow_mut().poll_action();
            match action {
                Some(Action::CloseConnection { connection, reason }) => {
                    if let Some(connection) = self.server.connection(connection) {
                        connection.close(reason);
                    }
                }
                // Each holds the whole file: the last one counts.
                Some(Action::PersistKv(bytes)) => to_persist = Some(bytes),
                None => return to_persist,
            }
        }
    }

    fn carry_out_closings(&self) {
        let to_persist = self.carry_out_actions();
        assert!(to_persist.is_none(), "only requests change the KV configuration");
    }

    async fn stop(&self) {
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        for task in tasks {
            task.cancel().await;
        }
    }
}

impl Service for NamesrvDriver {
    fn on_frame(&self, connection: &Rc<Connection>, frame: RawFrame) {
        // A NameServer asks nobody, so answers answer nothing.
        let Some(request) = Request::of(connection, &frame).filter(|request| !request.is_answer()) else {
            return;
        };
        let reply = self.nameserver.borrow_mut().handle(&request, self.now_ms());
        let to = request.reply_to();
        let connection = connection.clone();
        let send = move |reply: Reply| {
            // The NameServer keeps its replies within a frame.
            if let Some(to) = to
                && let Err(error) = reply.send(to, &connection)
            {
                tracing::error!(%error, "a reply of the NameServer does not fit a frame");
            }
        };
        match self.carry_out_actions() {
            None => send(reply),
            Some(bytes) => {
                let (path, persisting) = (self.kv_file.clone(), self.persisting.clone());
                let persist = async move {
                    let Ok(_permit) = persisting.acquire_permit(1).await else { return };
                    let written =
                        glommio::executor().spawn_blocking(move || write_whole(&path, &bytes)).await;
                    if let Err(error) = written {
                        tracing::error!(%error, "cannot write the KV configuration");
                        let remark = format!("cannot write the KV configuration: {error}");
                        send(Reply::error(ResponseCode::SYSTEM_ERROR, remark));
                    } else {
                        send(reply);
                    }
                };
                glommio::spawn_local(persist).detach();
            }
        }
    }

    fn on_closed(&self, connection: &Rc<Connection>) {
        self.nameserver.borrow_mut().on_connection_closed(connection.id());
        self.carry_out_closings();
    }
}

fn read_kv(path: &Path) -> anyhow::Result<KvConfig> {
    match std::fs::read(path) {
        Ok(bytes) => KvConfig::from_file(&bytes)
            .with_context(|| format!("{} is not a KV configuration", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(KvConfig::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
