//! The places in Rust. Each is a way of getting to a system call that makes a stack hard to follow,
//! or hard to name.

mod server;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::{panic, thread};

static PORT: OnceLock<u16> = OnceLock::new();
static STREAM: Mutex<Option<TcpStream>> = Mutex::new(None);

/// What a place does twice: connect first, send a query the second time.
#[inline(never)]
fn call_server() -> u32 {
    let mut stream = STREAM.lock().unwrap_or_else(PoisonError::into_inner);
    match &mut *stream {
        None => {
            let port = *PORT.get().expect("a port");
            *stream = Some(TcpStream::connect(("127.0.0.1", port)).expect("a connection"));
            1
        }
        Some(stream) => stream.write(server::QUERY).expect("a request") as u32,
    }
}

mod shop {
    use super::*;

    // --- Traits

    pub trait Connection {
        fn request(&mut self, query: &str) -> u32;
    }

    pub struct Encrypted(pub u32);

    impl Connection for Encrypted {
        #[inline(never)]
        fn request(&mut self, query: &str) -> u32 {
            self.0 += call_server();
            self.0 + query.len() as u32
        }
    }

    #[inline(never)]
    fn through(connection: &mut dyn Connection) -> u32 {
        connection.request("orders") + 1
    }

    pub fn trait_object() {
        black_box(through(&mut Encrypted(1)));
    }

    pub struct Logged<T>(pub T);

    impl<T: Display> Display for Logged<T> {
        #[inline(never)]
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let n = call_server();
            write!(f, "{} {n}", self.0)
        }
    }

    /// Below the library's formatting.
    pub fn formatting() {
        black_box(format!("{:>30}", Logged("orders")));
    }

    // --- Generics and closures

    #[inline(never)]
    fn apply<F: Fn(u32) -> u32, const N: u32>(function: F) -> u32 {
        function(N) + N
    }

    pub fn closure() {
        let base = black_box(4);
        black_box(apply::<_, 7>(|n| n + base + call_server()));
    }

    pub fn boxed_closure() {
        let functions: Vec<Box<dyn Fn(u32) -> u32>> = vec![Box::new(|n| n + call_server())];
        for function in black_box(&functions) {
            black_box(function(2) + 1);
        }
    }

    pub fn iterator() {
        let orders = BTreeMap::from([(1, "one")]);
        let total: u32 = orders.iter().filter(|o| *o.0 > 0).map(|(n, _)| n + call_server()).sum();
        black_box(total);
    }

    pub fn sorting() {
        let mut orders = black_box(vec![2u32, 1]);
        orders.sort_by_key(|n| if *n == 2 { call_server() } else { 0 });
        black_box(orders);
    }

    #[inline(always)]
    fn innermost_inlined(n: u32) -> u32 {
        call_server() * n
    }

    #[inline(always)]
    fn middle_inlined(n: u32) -> u32 {
        innermost_inlined(black_box(n) + 1) + 2
    }

    #[inline(never)]
    pub fn inlined() {
        black_box(middle_inlined(black_box(3)) + 1);
    }

    // --- Panics

    struct Guard;

    impl Drop for Guard {
        #[inline(never)]
        fn drop(&mut self) {
            black_box(call_server());
        }
    }

    #[inline(never)]
    fn fails(n: u32) {
        let _guard = Guard;
        assert!(n == 0, "no such order");
    }

    /// The value is dropped while the stack is being unwound, below the unwinder's own frames.
    pub fn drop_while_unwinding() {
        assert!(panic::catch_unwind(|| fails(black_box(1))).is_err());
    }

    thread_local! {
        static DEPTH: RefCell<u32> = const { RefCell::new(1) };
    }

    pub fn thread_local_access() {
        DEPTH.with_borrow_mut(|depth| *depth += call_server());
    }

    pub fn in_thread() {
        let worker = thread::Builder::new().name("worker".into());
        let handle = worker.spawn(|| black_box(call_server()) + 1).expect("a thread");
        black_box(handle.join().expect("an answer"));
    }

    pub fn in_scope() {
        let base = black_box(1);
        thread::scope(|scope| {
            scope.spawn(|| black_box(call_server() + base));
        });
    }
}

const PLACES: [(&str, fn()); 12] = [
    ("trait_object", shop::trait_object),
    ("formatting", shop::formatting),
    ("closure", shop::closure),
    ("boxed_closure", shop::boxed_closure),
    ("iterator", shop::iterator),
    ("sorting", shop::sorting),
    ("inlined", shop::inlined),
    ("drop_while_unwinding", shop::drop_while_unwinding),
    ("thread_local_access", shop::thread_local_access),
    ("in_thread", shop::in_thread),
    ("in_scope", shop::in_scope),
    ("constant", || {
        black_box(call_server());
    }),
];

/// Reads until the server is ready for a request.
fn await_ready(stream: &mut TcpStream) {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.ends_with(server::READY) {
        let length = stream.read(&mut buffer).expect("an answer");
        assert_ne!(length, 0, "the server closed the connection");
        answer.extend_from_slice(&buffer[..length]);
    }
}

fn main() {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok());
    PORT.set(port.expect("a port")).expect("set once");
    panic::set_hook(Box::new(|_| ()));
    let mut kept: Vec<TcpStream> = Vec::new();
    server::serve(&PLACES.map(|(name, _)| name), |wanted| {
        if wanted == "requests" {
            let stream = kept.last_mut().expect("a connection");
            for _ in 0..1000 {
                stream.write_all(server::QUERY).expect("a request");
                await_ready(stream);
            }
            return stream.as_raw_fd();
        }
        let (wanted, uses) = server::place(wanted);
        let (_, enter) = PLACES.iter().find(|(name, _)| *name == wanted).expect("such a place");
        enter();
        let opened = || STREAM.lock().unwrap_or_else(PoisonError::into_inner);
        if uses {
            let mut stream = opened();
            let stream = stream.as_mut().expect("a connection");
            stream.write_all(server::STARTUP).expect("a greeting");
            await_ready(stream);
        }
        if uses {
            enter();
            await_ready(opened().as_mut().expect("a connection"));
        }
        kept.push(opened().take().expect("a connection"));
        kept.last().map(AsRawFd::as_raw_fd).expect("just kept")
    });
}
