//! Which clients are alive: members of producer and consumer groups, by connection.
//!
//! A client says every 30 s, in a heartbeat, which groups it belongs to and what its consumer groups subscribe to. It
//! leaves by saying so, by its connection's end, or by [`SILENCE_MS_MAX`] without heartbeat (RocketMQ's
//! `ConsumerManager` and `ProducerManager`). The other members of a consumer group must hear of it at once, for they
//! share its queues out among themselves: methods return whom to send NOTIFY_CONSUMER_IDS_CHANGED, never to a
//! connection that has just left.
//!
//! Nothing here is logged: after a restart clients reconnect and say it all again.

mod consumer_group;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::Arc;

use apogee_net::body::{ConsumerData, HeartbeatData};
use apogee_net::header::Language;
use apogee_net::io::ConnectionId;
use rustc_hash::FxHashMap;

pub use self::consumer_group::ConsumerGroup;
use self::consumer_group::{TopicsChange, bytes_of};

/// A member that was silent longer has left, and its connection is closed (`CHANNEL_EXPIRED_TIMEOUT`).
pub const SILENCE_MS_MAX: i64 = 120_000;

/// Memberships of one shard: a client in three groups has three. At the limit new ones are refused.
pub const MEMBERSHIPS_MAX: usize = 262_144;

/// Memory for the subscriptions of all groups of one shard, about: some 200,000 of the usual length. A heartbeat that
/// would go beyond it is refused.
pub const SUBSCRIPTION_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Longest client id or producer group. Client ids hold an address, a process id and a unit; producer groups of tracing
/// clients hold those of the clients they trace.
pub const NAME_BYTES_MAX: usize = 1024;

/// Memberships that one [`ClientTable::expire`] looks at, but for those of its last connection: some 100 µs.
const EXAMINED_PER_CALL: usize = 1024;

/// Who sends a heartbeat.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    pub connection: ConnectionId,
    pub address: SocketAddr,
    pub client_id: &'a str,
    pub language: Language,
    pub version: i32,
}

/// One client in one group.
#[derive(Debug)]
pub struct Member {
    address: SocketAddr,
    client_id: Box<str>,
    language: Language,
    version: i32,
    heard_ms: i64,
}

impl Member {
    /// Where its connection comes from.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// When its last heartbeat came.
    pub fn heard_ms(&self) -> i64 {
        self.heard_ms
    }

    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    pub fn language(&self) -> Language {
        self.language
    }

    pub fn version(&self) -> i32 {
        self.version
    }

    fn is_silent(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.heard_ms) > SILENCE_MS_MAX
    }
}

/// What a heartbeat says about subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscriptions {
    /// They are all there. The fingerprint stands for them in later heartbeats; 0 for clients that do not do that.
    Full { fingerprint: i32 },
    /// They were left out, because they are still those of the fingerprint (heartbeats of the second form).
    LeftOut { fingerprint: i32 },
}

impl Subscriptions {
    pub fn of(heartbeat: &HeartbeatData) -> Self {
        let fingerprint = heartbeat.heartbeat_fingerprint;
        match heartbeat.without_sub {
            false => Self::Full { fingerprint },
            true => Self::LeftOut { fingerprint },
        }
    }
}

/// Members of a group that must share out its queues again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    pub group: String,
    pub connections: Vec<ConnectionId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// False if subscriptions were left out that this group does not have: the client must send them in full
    /// (`IS_SUB_CHANGE`).
    pub knows_subscriptions: bool,
    pub notify: Option<Notify>,
}

/// Members that were silent for too long. They are in no group any more.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// To be closed.
    pub connections: Vec<ConnectionId>,
    pub notify: Vec<Notify>,
    /// All members were looked at.
    pub is_complete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    #[error("heartbeat without client id")]
    NoClientId,
    #[error("{what} of {len} bytes is longer than {NAME_BYTES_MAX}")]
    NameTooLong { what: &'static str, len: usize },
    #[error("this broker has {MEMBERSHIPS_MAX} group members already")]
    TooManyMembers,
    #[error("subscriptions need more than {SUBSCRIPTION_BYTES_MAX} bytes on this broker")]
    TooManySubscriptions,
}

/// Groups of one connection; with none it has no entry.
#[derive(Debug, Default)]
struct Memberships {
    consumer_groups: BTreeSet<Box<str>>,
    producer_groups: BTreeSet<Box<str>>,
}

/// A group without members has no entry. Each membership stands in its group and in `connections`.
#[derive(Debug, Default)]
pub struct ClientTable {
    consumer_groups: FxHashMap<Arc<str>, ConsumerGroup>,
    /// Consumer groups by the topics that they subscribe to.
    subscribers: FxHashMap<Box<str>, BTreeSet<Arc<str>>>,
    /// In order, so that whoever goes through all of them can pause between two.
    producer_groups: BTreeMap<Box<str>, BTreeMap<ConnectionId, Member>>,
    /// Connections of the clients in producer groups; of one that has several, the newest.
    producer_connections: FxHashMap<Box<str>, ConnectionId>,
    /// The member of a producer group that had its turn last.
    last_turns: FxHashMap<Box<str>, ConnectionId>,
    /// In order, so that silent ones can be looked for little by little.
    connections: BTreeMap<ConnectionId, Memberships>,
    /// The connection that was looked at last; none at the beginning of a round.
    examined: Option<ConnectionId>,
    memberships: usize,
    subscription_bytes: usize,
}

impl ClientTable {
    /// A consumer group with live members.
    pub fn consumer_group(&self, group: &str) -> Option<&ConsumerGroup> {
        self.consumer_groups.get(group)
    }

    /// Consumer groups with a subscription to a topic, ordered by name, behind one of them.
    pub fn subscribers(&self, topic: &str, after: Option<&str>) -> impl Iterator<Item = &Arc<str>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let groups = self.subscribers.get(topic);
        groups.into_iter().flat_map(move |groups| groups.range::<str, _>((from, Bound::Unbounded)))
    }

    /// The first producer group from a name on.
    pub fn producer_group_from(&self, from: Bound<&str>) -> Option<&str> {
        self.producer_groups.range::<str, _>((from, Bound::Unbounded)).next().map(|(group, _)| &**group)
    }

    /// The live members of a producer group, oldest connection first, behind one of them.
    pub fn producers_after(
        &self,
        group: &str,
        after: Option<ConnectionId>,
    ) -> impl Iterator<Item = (ConnectionId, &Member)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let members = self.producer_groups.get(group);
        let members = members.into_iter().flat_map(move |members| members.range((from, Bound::Unbounded)));
        members.map(|(connection, member)| (*connection, member))
    }

    /// The live members of a producer group, oldest connection first.
    pub fn producers(&self, group: &str) -> impl Iterator<Item = (ConnectionId, &Member)> {
        let members = self.producer_groups.get(group).into_iter().flatten();
        members.map(|(connection, member)| (*connection, member))
    }

    /// Where a client in any producer group is reached (`ProducerManager#findChannel`).
    pub fn producer_connection(&self, client_id: &str) -> Option<ConnectionId> {
        self.producer_connections.get(client_id).copied()
    }

    /// A live member of a producer group; each has its turn (`ProducerManager#getAvailableChannel`).
    pub fn next_producer(&mut self, group: &str) -> Option<ConnectionId> {
        let members = self.producer_groups.get(group)?;
        let behind = |last: &ConnectionId| members.range((Bound::Excluded(*last), Bound::Unbounded)).next();
        let next = self.last_turns.get(group).and_then(behind).or_else(|| members.first_key_value());
        let (connection, _) = next.expect("a group has members");
        match self.last_turns.get_mut(group) {
            Some(last) => *last = *connection,
            None => drop(self.last_turns.insert(group.into(), *connection)),
        }
        Some(*connection)
    }

    /// A heartbeat names `client` as a member of a consumer group (`ConsumerManager#registerConsumer` and
    /// `#registerConsumerWithoutSub`). `notifies`: the group's `notifyConsumerIdsChangedEnable`.
    pub fn register_consumer(
        &mut self,
        client: Client<'_>,
        data: &ConsumerData,
        subscriptions: Subscriptions,
        notifies: bool,
        now_ms: i64,
    ) -> Result<Registered, ClientError> {
        check_client(client)?;
        let known = self.consumer_groups.get(data.group_name.as_str());
        let is_member = known.is_some_and(|known| known.members.contains_key(&client.connection));
        if !is_member && self.memberships >= MEMBERSHIPS_MAX {
            return Err(ClientError::TooManyMembers);
        }
        let group_bytes = known.map_or(0, |known| known.subscription_bytes);
        if let Subscriptions::Full { .. } = subscriptions {
            let wanted: usize = data.subscription_data_set.iter().map(bytes_of).sum();
            if self.subscription_bytes - group_bytes + wanted > SUBSCRIPTION_BYTES_MAX {
                return Err(ClientError::TooManySubscriptions);
            }
        }

        let name = data.group_name.as_str();
        let group = match self.consumer_groups.get_mut(name) {
            Some(group) => {
                group.update_kind(data, notifies);
                group
            }
            None => self.consumer_groups.entry(name.into()).or_insert(ConsumerGroup::new(data, notifies)),
        };
        let members_changed = heard_from(&mut group.members, client, now_ms);
        let (topics, knows_subscriptions) = match subscriptions {
            Subscriptions::Full { fingerprint } => {
                (group.update_subscriptions(&data.subscription_data_set, fingerprint), true)
            }
            Subscriptions::LeftOut { fingerprint } => {
                (TopicsChange::default(), group.knows_fingerprint(fingerprint))
            }
        };
        self.subscription_bytes = self.subscription_bytes - group_bytes + group.subscription_bytes;
        let notify = match members_changed || !topics.is_none() {
            true => notify(name, group),
            false => None,
        };
        for topic in &topics.removed {
            self.unsubscribe(topic, name);
        }
        if !topics.added.is_empty() {
            let (name, _) = self.consumer_groups.get_key_value(name).expect("it was found or made just now");
            for topic in topics.added {
                self.subscribers.entry(topic).or_default().insert(Arc::clone(name));
            }
        }
        if !is_member {
            self.memberships += 1;
            self.connections.entry(client.connection).or_default().consumer_groups.insert(name.into());
        }
        Ok(Registered { knows_subscriptions, notify })
    }

    /// A heartbeat names `client` as a member of a producer group (`ProducerManager#registerProducer`).
    pub fn register_producer(
        &mut self,
        client: Client<'_>,
        group: &str,
        now_ms: i64,
    ) -> Result<(), ClientError> {
        check_client(client)?;
        if group.len() > NAME_BYTES_MAX {
            return Err(ClientError::NameTooLong { what: "producer group", len: group.len() });
        }
        if let Some(members) = self.producer_groups.get_mut(group)
            && let Some(known) = members.get(&client.connection)
        {
            if *known.client_id != *client.client_id
                && self.producer_connections.get(&known.client_id) == Some(&client.connection)
            {
                self.producer_connections.remove(&known.client_id);
            }
            if heard_from(members, client, now_ms) {
                self.producer_connections.insert(client.client_id.into(), client.connection);
            }
            return Ok(());
        }
        if self.memberships >= MEMBERSHIPS_MAX {
            return Err(ClientError::TooManyMembers);
        }
        heard_from(self.producer_groups.entry(group.into()).or_default(), client, now_ms);
        self.producer_connections.insert(client.client_id.into(), client.connection);
        self.memberships += 1;
        self.connections.entry(client.connection).or_default().producer_groups.insert(group.into());
        Ok(())
    }

    /// A client leaves a consumer group and stays connected.
    pub fn unregister_consumer(&mut self, connection: ConnectionId, group: &str) -> Option<Notify> {
        let of_connection = self.connections.get_mut(&connection)?;
        if !of_connection.consumer_groups.remove(group) {
            return None;
        }
        self.drop_if_in_no_group(connection);
        self.remove_consumer(connection, group);
        self.consumer_groups.get(group).and_then(|left| notify(group, left))
    }

    /// A client leaves a producer group and stays connected.
    pub fn unregister_producer(&mut self, connection: ConnectionId, group: &str) {
        let Some(of_connection) = self.connections.get_mut(&connection) else { return };
        if of_connection.producer_groups.remove(group) {
            self.drop_if_in_no_group(connection);
            self.remove_producer(connection, group);
        }
    }

    /// A client leaves all its groups.
    pub fn on_connection_closed(&mut self, connection: ConnectionId) -> Vec<Notify> {
        let left = self.remove_connection(connection);
        self.notify_all(left)
    }

    /// Removes members that were silent for too long, looking at some more of them at each call; a round begins every
    /// 10 s. A connection that is silent in one of its groups leaves all of them, as it is to be closed.
    pub fn expire(&mut self, now_ms: i64) -> Expired {
        let from = self.examined.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut looked_at = 0;
        let mut silent = Vec::new();
        for (connection, groups) in self.connections.range((from, Bound::Unbounded)) {
            if looked_at >= EXAMINED_PER_CALL {
                break;
            }
            looked_at += groups.consumer_groups.len() + groups.producer_groups.len();
            self.examined = Some(*connection);
            if self.is_silent(*connection, groups, now_ms) {
                silent.push(*connection);
            }
        }
        let is_complete = looked_at < EXAMINED_PER_CALL;
        if is_complete {
            self.examined = None;
        }
        let mut left = BTreeSet::new();
        for connection in &silent {
            left.extend(self.remove_connection(*connection));
        }
        Expired { connections: silent, notify: self.notify_all(left), is_complete }
    }

    fn is_silent(&self, connection: ConnectionId, groups: &Memberships, now_ms: i64) -> bool {
        let mut consumers =
            groups.consumer_groups.iter().map(|group| &self.consumer_groups[&**group].members);
        let mut producers = groups.producer_groups.iter().map(|group| &self.producer_groups[&**group]);
        consumers.any(|members| members[&connection].is_silent(now_ms))
            || producers.any(|members| members[&connection].is_silent(now_ms))
    }

    /// The consumer groups that the connection was in.
    fn remove_connection(&mut self, connection: ConnectionId) -> BTreeSet<Box<str>> {
        let Memberships { consumer_groups, producer_groups } =
            self.connections.remove(&connection).unwrap_or_default();
        for group in &consumer_groups {
            self.remove_consumer(connection, group);
        }
        for group in &producer_groups {
            self.remove_producer(connection, group);
        }
        consumer_groups
    }

    fn remove_consumer(&mut self, connection: ConnectionId, name: &str) {
        let group = self.consumer_groups.get_mut(name).expect("a membership has its group");
        assert!(group.members.remove(&connection).is_some(), "{connection} was no member of {name:?}");
        self.memberships -= 1;
        if group.members.is_empty() {
            self.subscription_bytes -= group.subscription_bytes;
            let group = self.consumer_groups.remove(name).expect("looked at just now");
            for subscription in group.subscriptions() {
                self.unsubscribe(&subscription.data().topic, name);
            }
        }
    }

    fn unsubscribe(&mut self, topic: &str, group: &str) {
        let groups = self.subscribers.get_mut(topic).expect("a subscription stands with its topic");
        assert!(groups.remove(group), "{group:?} did not subscribe to {topic:?}");
        if groups.is_empty() {
            self.subscribers.remove(topic);
        }
    }

    fn remove_producer(&mut self, connection: ConnectionId, name: &str) {
        let members = self.producer_groups.get_mut(name).expect("a membership has its group");
        let Some(Member { client_id, .. }) = members.remove(&connection) else {
            panic!("{connection} was no member of {name:?}");
        };
        self.memberships -= 1;
        if members.is_empty() {
            self.producer_groups.remove(name);
            self.last_turns.remove(name);
        }
        let left = self.connections.get(&connection).into_iter().flat_map(|left| &left.producer_groups);
        let mut members = left.filter_map(|group| self.producer_groups.get(group)?.get(&connection));
        let produces_still = members.any(|member| member.client_id == client_id);
        if !produces_still && self.producer_connections.get(&client_id) == Some(&connection) {
            self.producer_connections.remove(&client_id);
        }
    }

    fn drop_if_in_no_group(&mut self, connection: ConnectionId) {
        let left = &self.connections[&connection];
        if left.consumer_groups.is_empty() && left.producer_groups.is_empty() {
            self.connections.remove(&connection);
        }
    }

    fn notify_all(&self, groups: BTreeSet<Box<str>>) -> Vec<Notify> {
        let alive = groups.iter().filter_map(|name| Some((name, self.consumer_groups.get(&**name)?)));
        alive.filter_map(|(name, group)| notify(name, group)).collect()
    }
}

fn check_client(client: Client<'_>) -> Result<(), ClientError> {
    match client.client_id.len() {
        0 => Err(ClientError::NoClientId),
        len if len > NAME_BYTES_MAX => Err(ClientError::NameTooLong { what: "client id", len }),
        _ => Ok(()),
    }
}

/// True if the members are others than before.
fn heard_from(members: &mut BTreeMap<ConnectionId, Member>, client: Client<'_>, now_ms: i64) -> bool {
    let Client { connection, address, client_id, language, version } = client;
    if let Some(member) = members.get_mut(&connection)
        && *member.client_id == *client_id
    {
        member.heard_ms = now_ms;
        return false;
    }
    let member = Member { address, client_id: client_id.into(), language, version, heard_ms: now_ms };
    members.insert(connection, member);
    true
}

fn notify(name: &str, group: &ConsumerGroup) -> Option<Notify> {
    let connections = group.to_notify();
    (!connections.is_empty()).then(|| Notify { group: name.to_owned(), connections })
}
