//! A thread for what takes long and is in no hurry: sealing, snapshots, the removal of segments.
//!
//! Not the executor's pool, whose threads have reads to do that clients wait for. One job after the other: they are
//! limited by the disk, or by a processor that the shards have a better use for.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread::JoinHandle;

use rustc_hash::FxHashMap;

use super::pool::leave_the_shards_processor;
use crate::types::LogOffset;

/// How far the thread steps back, from 0 (for nobody) to 19. With 10 it gets a tenth of a processor that is wanted by
/// others all the time: enough for sealing to keep up with what such a processor can append.
const NICENESS: libc::c_int = 10;

/// Files of segments that were removed while somebody still read them. Whoever closes a removed file last waits until
/// the file system has freed its blocks, 200 ms for 1 GiB: so that must be this thread.
pub(super) type Held = FxHashMap<LogOffset, File>;

enum Message {
    Job(Box<dyn FnOnce(&mut Held) + Send>),
    Stop,
}

/// The thread, ended when dropped: after what it was given before, of which the log limits each kind to one.
pub(super) struct Background {
    sender: BackgroundSender,
    thread: Option<JoinHandle<()>>,
}

/// For those who only leave something behind for the thread.
#[derive(Clone, Debug)]
pub(super) struct BackgroundSender(Sender<Message>);

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Message::Job(_) => "Job",
            Message::Stop => "Stop",
        })
    }
}

impl Background {
    pub(super) fn start() -> io::Result<Background> {
        let (sender, messages) = channel();
        let thread =
            std::thread::Builder::new().name("background".to_owned()).spawn(|| work_through(messages))?;
        Ok(Background { sender: BackgroundSender(sender), thread: Some(thread) })
    }

    pub(super) fn sender(&self) -> BackgroundSender {
        self.sender.clone()
    }

    /// Runs a job when those before it are done. Goes on when the future is dropped.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Held) -> T + Send + 'static,
    ) -> io::Result<T> {
        let answer = Arc::new(Mutex::new(Answer { result: None, waker: None }));
        let giving = Arc::clone(&answer);
        self.sender.send(Message::Job(Box::new(move |held| {
            let result = catch_unwind(AssertUnwindSafe(|| job(held)));
            let mut answer = giving.lock().unwrap_or_else(PoisonError::into_inner);
            answer.result = Some(result.map_err(|_| io::Error::other("panicked")));
            let waker = answer.waker.take();
            drop(answer);
            if let Some(waker) = waker {
                waker.wake();
            }
        })));
        poll_fn(|cx| {
            let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(result) = answer.result.take() {
                return Poll::Ready(result);
            }
            answer.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// Locked for as long as it takes to move a value, by a thread that does nothing else meanwhile.
struct Answer<T> {
    result: Option<io::Result<T>>,
    waker: Option<Waker>,
}

impl Drop for Background {
    fn drop(&mut self) {
        self.sender.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            // Jobs that panic are caught, so it has not.
            let _ = thread.join();
        }
    }
}

impl BackgroundSender {
    /// A removed segment is read by nobody any more.
    pub(super) fn release(&self, segment: LogOffset) {
        self.send(Message::Job(Box::new(move |held| drop(held.remove(&segment)))));
    }

    fn send(&self, message: Message) {
        // Refused, the thread is gone, and with it all that it held.
        let _ = self.0.send(message);
    }
}

fn work_through(messages: Receiver<Message>) {
    leave_the_shards_processor();
    // SAFETY: a plain system call; Linux takes it for the calling thread alone. Refused, the thread is only less polite.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
    let mut held = Held::default();
    while let Ok(Message::Job(job)) = messages.recv() {
        job(&mut held);
    }
}
