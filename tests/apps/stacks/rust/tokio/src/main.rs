//! The places in asynchronous Rust: functions that wait for one another, in tasks of tokio's
//! runtime.

#[path = "../../server.rs"]
mod server;

use std::future::Future;
use std::hint::black_box;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::OnceLock;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

static PORT: OnceLock<u16> = OnceLock::new();
static STREAM: Mutex<Option<TcpStream>> = Mutex::const_new(None);

/// What a place does twice: connect first, send a query the second time.
async fn call_server() -> io::Result<u32> {
    let mut stream = STREAM.lock().await;
    match &mut *stream {
        None => {
            let port = *PORT.get().expect("a port");
            *stream = Some(TcpStream::connect(("127.0.0.1", port)).await?);
            Ok(1)
        }
        Some(stream) => {
            stream.write_all(server::QUERY).await?;
            Ok(2)
        }
    }
}

mod shop {
    use super::*;

    async fn load(order: u32) -> io::Result<u32> {
        let rows = call_server().await?;
        Ok(rows + order)
    }

    pub async fn checkout(order: u32) -> io::Result<u32> {
        let price = load(black_box(order) + 1).await?;
        Ok(price * 2)
    }

    pub trait Repository {
        fn find(&self, order: u32) -> Pin<Box<dyn Future<Output = io::Result<u32>> + Send + '_>>;
    }

    pub struct Orders(pub u32);

    impl Repository for Orders {
        fn find(&self, order: u32) -> Pin<Box<dyn Future<Output = io::Result<u32>> + Send + '_>> {
            Box::pin(async move { Ok(load(order).await? + self.0) })
        }
    }

    impl Orders {
        pub async fn refund(&self, order: u32) -> io::Result<u32> {
            Ok(self.0 + load(order).await?)
        }
    }

    pub async fn with<F, T>(function: F) -> io::Result<u32>
    where
        F: FnOnce(u32) -> T,
        T: Future<Output = io::Result<u32>>,
    {
        function(3).await
    }
}

const NAMES: [&str; 7] =
    ["checkout", "task", "boxed", "method", "closure", "several_tasks", "blocking_thread"];

async fn enter(name: &str) -> io::Result<u32> {
    match name {
        "checkout" => shop::checkout(1).await,
        "task" => tokio::spawn(shop::checkout(2)).await?,
        "boxed" => {
            let orders: Box<dyn shop::Repository + Send + Sync> = Box::new(shop::Orders(1));
            tokio::spawn(async move { orders.find(3).await }).await?
        }
        "method" => tokio::spawn(async { shop::Orders(4).refund(1).await }).await?,
        "closure" => tokio::spawn(shop::with(|n| async move { Ok(call_server().await? + n) })).await?,
        "several_tasks" => {
            let mut tasks = JoinSet::new();
            tasks.spawn(async { shop::checkout(5).await });
            tasks.join_next().await.expect("one task")?
        }
        "blocking_thread" => {
            let handle = tokio::runtime::Handle::current();
            tokio::task::spawn_blocking(move || handle.block_on(shop::checkout(6))).await?
        }
        other => panic!("no such place: {other}"),
    }
}

async fn await_ready(stream: &mut TcpStream) -> io::Result<()> {
    let mut answer = Vec::new();
    while !answer.ends_with(server::READY) {
        assert_ne!(stream.read_buf(&mut answer).await?, 0, "the server closed the connection");
    }
    Ok(())
}

async fn request_much(stream: &mut TcpStream) -> io::Result<()> {
    for _ in 0..1000 {
        stream.write_all(server::QUERY).await?;
        await_ready(stream).await?;
    }
    Ok(())
}

async fn visit(wanted: &str) -> io::Result<TcpStream> {
    let (name, uses) = server::place(wanted);
    enter(name).await?;
    if uses {
        let mut stream = STREAM.lock().await;
        let stream = stream.as_mut().expect("a connection");
        stream.write_all(server::STARTUP).await?;
        await_ready(stream).await?;
    }
    if uses {
        enter(name).await?;
        await_ready(STREAM.lock().await.as_mut().expect("a connection")).await?;
    }
    Ok(STREAM.lock().await.take().expect("a connection"))
}

fn main() {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok());
    PORT.set(port.expect("a port")).expect("set once");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_io().build();
    let runtime = runtime.expect("a runtime");
    let mut kept: Vec<TcpStream> = Vec::new();
    server::serve(&NAMES, |name| {
        if name == "requests" {
            let stream = kept.last_mut().expect("a connection");
            runtime.block_on(request_much(stream)).expect("answers");
            return stream.as_raw_fd();
        }
        kept.push(runtime.block_on(visit(name)).expect("a place"));
        kept.last().map(AsRawFd::as_raw_fd).expect("just kept")
    });
}
