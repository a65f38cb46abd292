//! What both shops need: settings, pauses, and the way to say that a connection is gone.

use std::{
    env,
    error::Error,
    future::Future,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use tokio::{io::AsyncReadExt as _, net::TcpStream, time::sleep};

/// What may go wrong in a handler.
pub(crate) type Done = Result<(), Box<dyn Error + Send + Sync>>;

/// Begins with the pattern.
pub(crate) type Begin = Box<dyn FnOnce()>;

/// A whole number from the environment.
pub(crate) fn setting(name: &str) -> u64 {
    env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("{name} is missing"))
}

/// Whether connections are to be encrypted.
pub(crate) fn encrypted() -> bool {
    env::var("PGSSLMODE").is_ok_and(|mode| mode == "require")
}

/// A number below `most`, different each time.
pub(crate) fn random(most: u64) -> u64 {
    static STATE: AtomicU64 = AtomicU64::new(0);
    let time =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.subsec_nanos());
    let mut x = STATE.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed) ^ u64::from(time);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (x ^ (x >> 31)) % most
}

/// Sleeps, varied by a third to either side.
pub(crate) async fn pause(milliseconds: u64) {
    sleep(Duration::from_millis(milliseconds * (67 + random(66)) / 100)).await;
}

/// Tells the test that a connection is gone; its port is 0 where it is not known.
pub(crate) fn leaked(port: i32) {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    println!("leak {} {port}", since.as_millis());
}

/// Whether the program has been told to lose no more connections.
pub(crate) static ENOUGH: AtomicBool = AtomicBool::new(false);

/// Follows a pattern, with pauses, until that has been enough.
pub(crate) fn follow<F, W>(milliseconds: u64, work: W)
where
    F: Future<Output = Done> + Send + 'static,
    W: Fn() -> F + Send + 'static,
{
    every(milliseconds, move || {
        let work = (!ENOUGH.load(Ordering::Relaxed)).then(&work);
        async move {
            match work {
                Some(work) => work.await,
                None => Ok(()),
            }
        }
    });
}

/// Does something for ever, with pauses.
pub(crate) fn every<F, W>(milliseconds: u64, work: W)
where
    F: Future<Output = Done> + Send + 'static,
    W: Fn() -> F + Send + 'static,
{
    tokio::spawn(async move {
        loop {
            if let Err(error) = work().await {
                eprintln!("{error}");
            }
            pause(milliseconds).await;
        }
    });
}

/// Asks somebody who never answers.
pub(crate) async fn wait_for_provider() -> Done {
    let mut provider =
        TcpStream::connect(("127.0.0.1", u16::try_from(setting("CORPUS_HOLE"))?)).await?;
    provider.read_u8().await?;
    Ok(())
}
