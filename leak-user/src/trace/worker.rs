//! A worker thread that serves requests in order, and that can be replaced when a request hangs.
//!
//! A thread that waits for a dead file system cannot be ended. Its successor takes over the waiting
//! requests; the old thread ends if it ever returns.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Serves one request. Created and called on the worker's thread.
pub(super) type Service<T, R> = Box<dyn FnMut(T, R)>;

/// A handle on the thread.
pub(super) struct Worker<R, T> {
    name: &'static str,
    requests: Sender<(T, R)>,
    shared: Arc<Shared<R, T>>,
    begin: Arc<dyn Fn() -> Service<T, R> + Send + Sync>,
}

struct Shared<R, T> {
    incoming: Mutex<Receiver<(T, R)>>,
    at_work: Mutex<AtWork<T>>,
}

struct AtWork<T> {
    /// Only the thread of this generation serves requests.
    generation: usize,
    /// Threads that were given up and have not returned.
    left_behind: usize,
    /// Whether there is a thread that serves requests.
    is_served: bool,
    /// The current request, and when it began.
    task: Option<(T, Instant)>,
}

/// Ignores poisoning: no thread panics while it holds one of the locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<R: Send + 'static, T: Copy + Send + 'static> Worker<R, T> {
    /// Starts the thread, which calls `begin` once and serves requests with the result. The thread
    /// ends when this is dropped.
    pub(super) fn start(
        name: &'static str,
        begin: impl Fn() -> Service<T, R> + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let (requests, incoming) = mpsc::channel();
        let shared = Shared {
            incoming: Mutex::new(incoming),
            at_work: Mutex::new(AtWork {
                generation: 0,
                left_behind: 0,
                is_served: false,
                task: None,
            }),
        };
        let worker = Self { name, requests, shared: Arc::new(shared), begin: Arc::new(begin) };
        worker.restart()?;
        Ok(worker)
    }

    /// The sender for requests, each with its task.
    pub(super) fn requests(&self) -> &Sender<(T, R)> {
        &self.requests
    }

    /// Number of threads that were given up and have not returned since.
    pub(super) fn left_behind(&self) -> usize {
        lock(&self.shared.at_work).left_behind
    }

    /// Whether there is a thread that serves requests.
    pub(super) fn is_served(&self) -> bool {
        lock(&self.shared.at_work).is_served
    }

    /// Gives up the thread if its request has taken longer than `limit`, and returns the request's
    /// task. No requests are served until [`Worker::restart`].
    pub(super) fn give_up(&self, limit: Duration) -> Option<T> {
        let mut at_work = lock(&self.shared.at_work);
        let (task, _) = at_work.task.take_if(|(_, since)| since.elapsed() > limit)?;
        at_work.generation += 1;
        at_work.left_behind += 1;
        at_work.is_served = false;
        Some(task)
    }

    /// As if its thread had been given up.
    #[cfg(test)]
    pub(super) fn lose_thread(&self) {
        let mut at_work = lock(&self.shared.at_work);
        at_work.generation += 1;
        at_work.is_served = false;
    }

    /// Starts a thread that serves requests, in place of the one that was given up.
    pub(super) fn restart(&self) -> std::io::Result<()> {
        let (shared, begin) = (Arc::clone(&self.shared), Arc::clone(&self.begin));
        let mut at_work = lock(&self.shared.at_work);
        let generation = at_work.generation;
        let body = move || shared.serve(generation, begin());
        thread::Builder::new().name(self.name.into()).spawn(body)?;
        at_work.is_served = true;
        Ok(())
    }
}

impl<R, T: Copy> Shared<R, T> {
    fn serve(&self, generation: usize, mut service: Service<T, R>) {
        while lock(&self.at_work).generation == generation {
            // Only the current generation's thread locks the receiver, so it never waits for the
            // lock.
            let Ok((task, request)) = lock(&self.incoming).recv() else { return };
            lock(&self.at_work).task = Some((task, Instant::now()));
            service(task, request);
            let mut at_work = lock(&self.at_work);
            if at_work.generation == generation {
                at_work.task = None;
            } else {
                at_work.left_behind -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(20);

    #[test]
    fn a_request_that_does_not_end_costs_itself_and_no_other() {
        let (done, served) = mpsc::channel();
        let (begun, stuck) = mpsc::channel();
        let (release, held) = mpsc::channel();
        let held = Arc::new(Mutex::new(held));
        let worker = Worker::start("worker", move || {
            let (done, begun, held) = (done.clone(), begun.clone(), Arc::clone(&held));
            Box::new(move |_, request: u32| {
                if request == 1 {
                    begun.send(()).unwrap();
                    lock(&held).recv().unwrap();
                }
                done.send(request).unwrap();
            })
        })
        .unwrap();
        for request in [0, 1, 2, 3] {
            worker.requests().send((request * 10, request)).unwrap();
        }
        assert_eq!(served.recv_timeout(BOUND), Ok(0));
        // `give_up` concerns the current request: wait until that is request 1.
        stuck.recv_timeout(BOUND).unwrap();
        assert_eq!(worker.give_up(BOUND), None, "the request is within its time limit");
        thread::sleep(Duration::from_millis(1));
        assert_eq!((worker.give_up(Duration::ZERO), worker.left_behind()), (Some(10), 1));
        assert!(!worker.is_served());
        assert!(served.recv_timeout(Duration::from_millis(50)).is_err(), "no thread serves");
        worker.restart().unwrap();
        assert_eq!((served.recv_timeout(BOUND), served.recv_timeout(BOUND)), (Ok(2), Ok(3)));
        // The old thread finishes its request, and takes no further ones.
        release.send(()).unwrap();
        assert_eq!(served.recv_timeout(BOUND), Ok(1));
        while worker.left_behind() > 0 {
            thread::yield_now();
        }
        worker.requests().send((40, 4)).unwrap();
        assert_eq!(served.recv_timeout(BOUND), Ok(4));
    }
}
