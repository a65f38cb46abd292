//! Threads with an event loop of their own, for what must never keep the trace waiting.

use std::{io, thread};

use tokio::runtime;

/// Runs the future that `begin` makes on a thread called `name`, until it is done. At most
/// `blocking_threads` more are started for what it does with [`tokio::task::spawn_blocking`].
///
/// # Errors
///
/// When the thread or its event loop cannot be started.
pub(crate) fn background<F: Future<Output = ()>>(
    name: &'static str,
    blocking_threads: usize,
    begin: impl FnOnce() -> F + Send + 'static,
) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(blocking_threads)
        .thread_name(name)
        .build()?;
    let body = move || runtime.block_on(async { begin().await });
    thread::Builder::new().name(name.into()).spawn(body).map(drop)
}
