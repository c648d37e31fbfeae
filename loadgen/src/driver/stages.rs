//! Asks the brokers for their stages, before the start and after the drain.

use std::collections::BTreeMap;

use apogee_net::body::{self, KvTable};
use apogee_net::client::RemotingClient;
use apogee_net::code::RequestCode;

use super::link::Access;
use super::setup::{self, Broker};
use crate::stages::{AskForStages, Snapshot};

/// By the name of the broker.
pub(super) type Snapshots = BTreeMap<String, Snapshot>;

/// What each broker had counted by now. One that does not answer, or tells no stages, is not among them: that says
/// nothing about the run.
pub(super) async fn ask(brokers: &[Broker], access: &Access) -> Snapshots {
    let mut snapshots = Snapshots::new();
    for broker in brokers {
        if let Some(snapshot) = ask_one(broker, access).await {
            snapshots.insert(broker.name.clone(), snapshot);
        }
    }
    snapshots
}

async fn ask_one(broker: &Broker, access: &Access) -> Option<Snapshot> {
    let client = RemotingClient::connect(broker.address, &access.options()).await.ok()?;
    let code = RequestCode::GET_BROKER_RUNTIME_INFO;
    let reply =
        setup::ask_broker(&client, &broker.name, code, &AskForStages, "to tell its state").await.ok()?;
    let facts: KvTable = body::parse(reply.body()).ok()?;
    Snapshot::of(&facts.table)
}
