use std::rc::Rc;
use std::time::Duration;

use apogee_net::body::{self, TopicRouteData};
use apogee_net::client::RemotingClient;
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::io::Signal;
use apogee_net::request::GetRouteInfoRequest;
use futures_lite::future;

use super::link::{Access, Link};
use super::setup::resolve;
use crate::cluster;

/// Pause between two questions while a broker is away; a NameServer can bear it.
const ASK_PAUSE: Duration = Duration::from_millis(100);
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// Follows the masters of one thread's brokers: asks a NameServer for the route now and then, and at once and again and
/// again while a connection is broken.
///
/// Stock clients only ask now and then (`pollNameServerInterval`, 30 s), and go on with what they have.
pub(super) struct RouteWatch {
    pub(super) namesrv: Vec<String>,
    pub(super) access: Access,
    pub(super) topic: Rc<str>,
    pub(super) interval: Duration,
    /// Broker names, and the links that go to their masters.
    pub(super) links: Vec<(Rc<str>, Rc<Link>)>,
    /// The links' own.
    pub(super) broke: Rc<Signal>,
}

impl RouteWatch {
    /// Runs for ever.
    pub(super) async fn run(self) {
        let mut client = None;
        loop {
            if self.links.iter().any(|(_, link)| link.is_down()) {
                glommio::timer::sleep(ASK_PAUSE).await;
            } else {
                let interval = async {
                    glommio::timer::sleep(self.interval).await;
                };
                future::or(self.broke.wait(), interval).await;
            }
            if let Some(route) = self.ask(&mut client).await {
                self.follow(&route);
            }
        }
    }

    /// A master that is not in the route may come back where it was, or in a later route.
    fn follow(&self, route: &TopicRouteData) {
        for (broker, link) in &self.links {
            let Some(registered) = cluster::master_address(route, broker) else { continue };
            match resolve(registered) {
                Ok(address) => link.move_to(address),
                Err(error) => {
                    tracing::warn!(%broker, %error, "the route names a master that cannot be found")
                }
            }
        }
    }

    /// `None` if no NameServer gives a route now. A topic without brokers has none.
    async fn ask(&self, client: &mut Option<Rc<RemotingClient>>) -> Option<TopicRouteData> {
        if client.as_ref().is_none_or(|client| client.is_closed()) {
            *client = self.connect().await;
        }
        let request = GetRouteInfoRequest {
            topic: &self.topic,
            accept_standard_json_only: true,
            zone_name: None,
            zone_mode: false,
        };
        let asked =
            client.as_ref()?.call(RequestCode::GET_ROUTEINFO_BY_TOPIC, &request, [], ASK_TIMEOUT).await;
        let Ok(reply) = asked else {
            // Another one next time, if this one only seems to live.
            *client = None;
            return None;
        };
        if reply.code() != ResponseCode::SUCCESS {
            return None;
        }
        body::parse(reply.body()).ok()
    }

    async fn connect(&self) -> Option<Rc<RemotingClient>> {
        for given in &self.namesrv {
            let Ok(address) = resolve(given) else { continue };
            if let Ok(client) = RemotingClient::connect(address, &self.access.options()).await {
                return Some(client);
            }
        }
        None
    }
}
