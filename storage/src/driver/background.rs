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

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Wake};

    use super::*;

    struct Unpark(std::thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    fn wait_for<T>(future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let waker = Arc::new(Unpark(std::thread::current())).into();
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(value) => return value,
                Poll::Pending => std::thread::park(),
            }
        }
    }

    #[test]
    fn jobs_run_in_order_and_a_panic_is_an_error_of_its_own_job() {
        let background = Background::start().unwrap();
        let done = Arc::new(Mutex::new(Vec::new()));
        let note = |nth: u32| {
            let done = Arc::clone(&done);
            background.run(move |_| done.lock().unwrap().push(nth))
        };
        // Begun by their first poll.
        let mut first = pin!(note(1));
        let mut second = pin!(note(2));
        let waker = Waker::noop();
        let mut cx = Context::from_waker(waker);
        let _ = (first.as_mut().poll(&mut cx), second.as_mut().poll(&mut cx));
        let failed = wait_for(background.run(|_| panic!("wanted by the test")));
        assert_eq!(failed.unwrap_err().to_string(), "panicked");
        wait_for(note(3)).unwrap();
        assert_eq!(*done.lock().unwrap(), [1, 2, 3]);
    }

    #[test]
    fn what_was_given_is_done_before_the_end() {
        let background = Background::start().unwrap();
        let sender = background.sender();
        let done = Arc::new(Mutex::new(false));
        let noted = Arc::clone(&done);
        let mut job = Box::pin(background.run(move |_| *noted.lock().unwrap() = true));
        let _ = job.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        drop(job);
        drop(background);
        assert!(*done.lock().unwrap());
        // Too late, and no harm.
        sender.release(LogOffset(1));
    }

    #[test]
    fn a_file_is_held_until_it_is_released() {
        let background = Background::start().unwrap();
        let file = tempfile::tempfile().unwrap();
        wait_for(background.run(move |held| held.insert(LogOffset(7), file))).unwrap();
        assert_eq!(wait_for(background.run(|held| held.len())).unwrap(), 1);
        background.sender().release(LogOffset(8));
        background.sender().release(LogOffset(7));
        assert_eq!(wait_for(background.run(|held| held.len())).unwrap(), 0);
    }
}
