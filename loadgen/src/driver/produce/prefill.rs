//! What is written before the run: as fast as it goes, measured by nobody, in the ledger all the same.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use apogee_net::code::RequestCode;
use apogee_net::io::{Chunk, Signal};
use futures_lite::future;

use super::Publisher;
use crate::driver::link::Link;
use crate::scenario::IN_FLIGHT_BYTES_MAX;
use crate::schedule::StreamId;
use crate::stop::StopFlag;

/// Requests in flight to one queue meanwhile.
const DEPTH: u32 = 64;

const LOOK_UP: Duration = Duration::from_millis(50);

impl Publisher {
    /// Writes so many messages to the stream; ends early if the connection breaks or on `stop`.
    pub(in crate::driver) async fn prefill(
        self: Rc<Self>,
        link: Rc<Link>,
        stream: StreamId,
        messages: u64,
        stop: StopFlag,
    ) {
        let in_flight = Rc::new(Cell::new(0u32));
        let answered = Rc::new(Signal::default());
        let wait = || {
            future::or(answered.wait(), async {
                glommio::timer::sleep(LOOK_UP).await;
            })
        };
        for _ in 0..messages {
            let is_full = || link.client().is_some_and(|client| client.unsent_bytes() > IN_FLIGHT_BYTES_MAX);
            while in_flight.get() >= DEPTH || is_full() {
                wait().await;
            }
            let Some(client) = link.client().filter(|_| !stop.is_set()) else { break };
            let stamp = self.books.tally.borrow_mut().plan_prefill(stream, 0);
            let properties = self.properties(&stamp);
            let request = self.request(&self.routes[&stream], &stamp, &properties, false);
            let body = [Chunk::from(self.body(&stamp))];
            in_flight.set(in_flight.get() + 1);
            let (books, in_flight, answered) = (self.books.clone(), in_flight.clone(), answered.clone());
            client.start(RequestCode::SEND_MESSAGE_V2, &request, body, self.timeout, move |result| {
                books.on_publish_reply(&stamp, &result);
                in_flight.set(in_flight.get() - 1);
                answered.raise();
            });
        }
        while in_flight.get() > 0 {
            wait().await;
        }
    }
}
