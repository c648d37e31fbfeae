//! What can be read when all is over.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;

use apogee_net::code::RequestCode;
use apogee_net::flags::PullSysFlag;
use apogee_net::message::StoredMessages;
use apogee_net::request::PullMessageRequest;

use super::client::producer::id_of;
use super::executor::{SECOND, Scope, Us};
use super::ledger::{MessageId, Queue};
use super::remoting::Remoting;
use super::workload::HANDED;
use super::world::{QUEUES, World};

const READ_WITHIN: Us = 60 * SECOND;

impl World {
    /// Everything that anybody was told of stands where it was said to stand.
    pub(super) fn read_back(self: &Rc<Self>) {
        let places = self.ledger.places();
        let this = self.clone();
        self.finish("all places", async move {
            let remoting = this.reader();
            let mut nth = 0;
            while nth < places.len() {
                let ((queue, offset), _) = &places[nth];
                if *offset < this.first_offset(queue) {
                    nth += 1;
                    continue;
                }
                let found = this.read(&remoting, queue, *offset).await;
                assert!(!found.is_empty(), "nothing can be read at {offset} of {queue}");
                // As many of the expected ones as the answer covers.
                let end = offset + found.len() as u64;
                while let Some(((at, offset_at), id)) = places.get(nth)
                    && at == queue
                    && *offset_at < end
                {
                    let stands = found[(offset_at - offset) as usize];
                    assert_eq!(stands, Some(*id), "at {offset_at} of {queue}: {}", this.ledger.describe(*id));
                    nth += 1;
                }
            }
        });
    }

    /// What stands once in the queues that are popped from was done with once: it comes again only in place of one that was
    /// not acknowledged.
    pub(super) fn read_handed_out(self: &Rc<Self>) {
        if self.keeps_little() {
            return;
        }
        let this = self.clone();
        self.finish("the queues that are popped from", async move {
            let remoting = this.reader();
            let mut stored: BTreeMap<MessageId, u64> = BTreeMap::new();
            for broker in this.broker_names() {
                for id in 0..QUEUES {
                    let queue = Queue { topic: HANDED.to_owned(), broker: broker.clone(), id };
                    let mut offset = 0;
                    loop {
                        let found = this.read(&remoting, &queue, offset).await;
                        if found.is_empty() {
                            break;
                        }
                        offset += found.len() as u64;
                        found.into_iter().flatten().for_each(|id| *stored.entry(id).or_default() += 1);
                    }
                }
            }
            for (id, done) in this.ledger.done() {
                let stored = stored.get(&id).copied().unwrap_or(0);
                assert!(
                    done <= stored,
                    "stored {stored} times and acknowledged {done} times: {}",
                    this.ledger.describe(id)
                );
            }
        });
    }

    fn reader(&self) -> Rc<Remoting> {
        Remoting::new(&self.sim, &self.network, self.clients[0])
    }

    /// Lets time pass until it is done.
    fn finish(&self, what: &str, reading: impl Future<Output = ()> + 'static) {
        let (done, scope) = (Rc::new(Cell::new(false)), Scope::new(&self.sim));
        let is_done = done.clone();
        scope.spawn(async move {
            reading.await;
            is_done.set(true);
        });
        let deadline = self.sim.now() + READ_WITHIN;
        while !done.get() && self.sim.now() < deadline {
            self.sim.run(self.sim.now() + SECOND);
        }
        assert!(done.get(), "{what} could not be read in time");
    }

    fn broker_names(&self) -> BTreeSet<String> {
        let setups = self.nodes.iter().flat_map(|node| &node.setups);
        setups.map(|setup| setup.config.broker_name.clone()).collect()
    }

    async fn read(&self, remoting: &Rc<Remoting>, queue: &Queue, from: u64) -> Vec<Option<MessageId>> {
        let header = PullMessageRequest {
            consumer_group: "Auditors",
            topic: &queue.topic,
            queue_id: queue.id,
            queue_offset: from as i64,
            messages_max: 32,
            sys_flag: PullSysFlag::SUBSCRIPTION,
            commit_offset: 0,
            suspend_timeout_ms: 0,
            subscription: Some("*"),
            sub_version: 0,
            expression_type: Some("TAG"),
            message_bytes_max: None,
        };
        let to = self.address_of(&queue.broker);
        let call = remoting.call(to, RequestCode::PULL_MESSAGE, &header, b"", 5 * SECOND);
        let answer = call.await.unwrap_or_else(|error| panic!("{queue} cannot be read: {error:?}"));
        if !answer.is_success() {
            return Vec::new();
        }
        StoredMessages::new(&answer.body)
            .map(|message| id_of(message.expect("a whole message").body))
            .collect()
    }

    /// Where a queue begins, as its master has it.
    pub(super) fn first_offset(&self, queue: &Queue) -> u64 {
        let brokers = self.nodes.iter().flat_map(|node| node.brokers.borrow().clone());
        let mut masters = brokers.filter(|broker| broker.name() == queue.broker && broker.is_master());
        let bounds = masters.next().and_then(|master| master.bounds_of(&queue.topic, queue.id));
        bounds.map_or(0, |(first, _)| first)
    }

    fn address_of(&self, broker: &str) -> SocketAddr {
        let nodes = self.nodes.iter();
        let mut running = nodes.flat_map(|node| node.setups.iter().zip(node.brokers.borrow().clone()));
        let master = running.find(|(_, running)| running.name() == broker && running.is_master());
        if let Some((setup, _)) = master {
            return setup.config.address;
        }
        let setups = self.nodes.iter().flat_map(|node| &node.setups);
        let mut named = setups.filter(|setup| setup.config.broker_name == broker);
        named.next().unwrap_or_else(|| panic!("there is no {broker}")).config.address
    }
}
