//! The live members of one consumer group, and the one subscription they share.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use apogee_net::body::{ConsumeFromWhere, ConsumeType, ConsumerData, MessageModel, SubscriptionData};
use apogee_net::io::ConnectionId;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::Member;
use crate::shard::filter::Subscription;
use crate::shard::filter::sql::EXPRESSION_BYTES_MAX;

/// Fingerprints that one group is known by. Clients that consume as this group but differ in their other groups have
/// one each; at the limit the oldest is forgotten, and its clients are asked for their subscriptions again.
const FINGERPRINTS_MAX: usize = 16;

/// A group with at least one member (`ConsumerGroupInfo`).
#[derive(Debug)]
pub struct ConsumerGroup {
    consume_type: ConsumeType,
    message_model: MessageModel,
    consume_from_where: ConsumeFromWhere,
    /// The group's configuration wants members to be notified.
    notifies: bool,
    pub(super) members: BTreeMap<ConnectionId, Member>,
    subscriptions: FxHashMap<Box<str>, Subscription>,
    /// Memory of `subscriptions`, about.
    pub(super) subscription_bytes: usize,
    /// Of heartbeats that `subscriptions` come from, oldest first.
    fingerprints: SmallVec<[i32; 4]>,
}

/// Topics that a group wants since a heartbeat, and those it wants no more.
#[derive(Debug, Default)]
pub(super) struct TopicsChange {
    pub(super) added: Vec<Box<str>>,
    pub(super) removed: Vec<Box<str>>,
}

impl TopicsChange {
    pub(super) fn is_none(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

impl ConsumerGroup {
    pub(super) fn new(data: &ConsumerData, notifies: bool) -> Self {
        Self {
            consume_type: data.consume_type,
            message_model: data.message_model,
            consume_from_where: data.consume_from_where,
            notifies,
            members: BTreeMap::new(),
            subscriptions: FxHashMap::default(),
            subscription_bytes: 0,
            fingerprints: SmallVec::new(),
        }
    }

    pub fn consume_type(&self) -> ConsumeType {
        self.consume_type
    }

    pub fn message_model(&self) -> MessageModel {
        self.message_model
    }

    pub fn consume_from_where(&self) -> ConsumeFromWhere {
        self.consume_from_where
    }

    /// What the group wants of a topic; `None` if it does not subscribe to it.
    pub fn subscription(&self, topic: &str) -> Option<&Subscription> {
        self.subscriptions.get(topic)
    }

    /// All topics of the group, in no order.
    pub fn subscriptions(&self) -> impl ExactSizeIterator<Item = &Subscription> {
        self.subscriptions.values()
    }

    /// Members by connection, oldest connection first.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (ConnectionId, &Member)> {
        self.members.iter().map(|(connection, member)| (*connection, member))
    }

    /// Members whose connections are younger than one.
    pub fn members_after(
        &self,
        after: Option<ConnectionId>,
    ) -> impl Iterator<Item = (ConnectionId, &Member)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.members.range((from, Bound::Unbounded)).map(|(connection, member)| (*connection, member))
    }

    pub fn has_connection(&self, connection: ConnectionId) -> bool {
        self.members.contains_key(&connection)
    }

    /// The oldest connection of a client.
    pub fn member(&self, client_id: &str) -> Option<(ConnectionId, &Member)> {
        self.members().find(|(_, member)| member.client_id() == client_id)
    }

    /// Ids of the members in ascending order, each once: a client that has just reconnected is here with both
    /// connections, but queues are shared out among clients.
    pub fn client_ids(&self) -> impl Iterator<Item = &str> {
        self.members.values().map(Member::client_id).collect::<BTreeSet<_>>().into_iter()
    }

    /// Whom to tell that members or subscriptions have changed. Nobody in broadcasting groups: their members do not
    /// share queues.
    pub(super) fn to_notify(&self) -> Vec<ConnectionId> {
        match self.message_model {
            MessageModel::Clustering if self.notifies => self.members.keys().copied().collect(),
            MessageModel::Clustering | MessageModel::Broadcasting => Vec::new(),
        }
    }

    /// The latest heartbeat wins where members differ.
    pub(super) fn update_kind(&mut self, data: &ConsumerData, notifies: bool) {
        self.consume_type = data.consume_type;
        self.message_model = data.message_model;
        self.consume_from_where = data.consume_from_where;
        self.notifies = notifies;
    }

    /// Takes over the subscriptions of a heartbeat (`ConsumerGroupInfo#updateSubscription`): new topics are added, those
    /// with a larger version replaced, those that are missing removed. Returns the topics that were added or removed; a
    /// replaced one is no reason for members to share out queues again, for versions grow each time they have done so.
    pub(super) fn update_subscriptions(
        &mut self,
        wanted: &[SubscriptionData],
        fingerprint: i32,
    ) -> TopicsChange {
        let mut change = TopicsChange::default();
        let mut filters_changed = false;
        for data in wanted {
            match self.subscriptions.get_mut(data.topic.as_str()) {
                None => {
                    self.subscriptions.insert(data.topic.as_str().into(), Subscription::new(data.clone()));
                    change.added.push(data.topic.as_str().into());
                }
                Some(known) if data.sub_version > known.data().sub_version => {
                    let newer = Subscription::new(data.clone());
                    filters_changed |= !newer.wants_the_same_as(known);
                    *known = newer;
                }
                Some(_) => {}
            }
        }
        let topics: BTreeSet<&str> = wanted.iter().map(|data| data.topic.as_str()).collect();
        let unwanted = self.subscriptions.extract_if(|topic, _| !topics.contains(&**topic));
        change.removed = unwanted.map(|(topic, _)| topic).collect();
        self.subscription_bytes = self.subscriptions.values().map(|known| bytes_of(known.data())).sum();

        if !change.is_none() || filters_changed {
            self.fingerprints.clear();
        }
        if fingerprint != 0 && !self.knows_fingerprint(fingerprint) {
            if self.fingerprints.len() == FINGERPRINTS_MAX {
                self.fingerprints.remove(0);
            }
            self.fingerprints.push(fingerprint);
        }
        change
    }

    /// Whether the subscriptions are those that a client left out of a heartbeat with this fingerprint.
    pub(super) fn knows_fingerprint(&self, fingerprint: i32) -> bool {
        self.fingerprints.contains(&fingerprint)
    }
}

/// Memory of a compiled expression in terms of its text, at most: `a=1OR` makes three nodes.
const COMPILED_BYTES_PER_BYTE: usize = 32;

/// Memory that a subscription takes in a group, about.
pub(super) fn bytes_of(data: &SubscriptionData) -> usize {
    let tags: usize = data.tags_set.iter().map(|tag| tag.len() + size_of::<String>()).sum();
    let texts = 2 * data.topic.len() + data.sub_string.len() + data.expression_type.len();
    // A longer text is none.
    let compiled = match data.is_tag_expression() {
        true => 0,
        false => data.sub_string.len().min(EXPRESSION_BYTES_MAX) * COMPILED_BYTES_PER_BYTE,
    };
    let codes = size_of_val(data.code_set.as_slice());
    size_of::<(Box<str>, Subscription)>() + texts + tags + codes + compiled
}
