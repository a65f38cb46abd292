//! A shop's back office in Rust: by deadpool and tokio-postgres, or by sqlx, as `CORPUS_DRIVER`
//! says.
//!
//! Argument: the pattern; it begins at a line on stdin, a leak ends at another.

mod kit;
mod pooled;
mod sqlx_shop;

use std::{process::exit, sync::atomic::Ordering};

use tokio::io::{AsyncBufReadExt as _, BufReader};

#[tokio::main(worker_threads = 2)]
async fn main() -> kit::Done {
    rustls::crypto::ring::default_provider().install_default().map_err(|_| "no cryptography")?;
    let pattern = std::env::args().nth(1).ok_or("a pattern is missing")?;
    let driver = std::env::var("CORPUS_DRIVER")?;
    let begin: kit::Begin = match driver.as_str() {
        "deadpool" => pooled::prepare(&pattern)?,
        "sqlx" => sqlx_shop::prepare(&pattern).await?,
        _ => return Err("an unknown driver".into()),
    };
    println!("ready");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    lines.next_line().await?;
    begin();
    while lines.next_line().await?.is_some() {
        kit::ENOUGH.store(true, Ordering::Relaxed);
    }
    exit(0)
}
