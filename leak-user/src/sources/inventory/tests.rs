use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use crate::model::TcpState;
use crate::sources::inventory::*;
use crate::sources::procfs::identify;

fn connected() -> (TcpStream, TcpStream, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let end = listener.local_addr().unwrap();
    let client = TcpStream::connect(end).unwrap();
    (client, listener.accept().unwrap().0, end.port())
}

fn id(socket: impl AsFd) -> ConnectionId {
    ConnectionId(rustix::net::sockopt::socket_cookie(socket).unwrap())
}

fn only(pid: u32) -> Scope {
    Scope { pids: Some(HashSet::from([pid])) }
}

fn take(port: u16, scope: &Scope, known: &[ConnectionId]) -> Inventory {
    Inventory::take(&[port], scope, &known.iter().copied().collect()).unwrap()
}

#[test]
fn a_connection_of_this_process() {
    let me = identify(std::process::id()).unwrap();
    let started = clock::now();
    let (mut client, mut server, port) = connected();
    client.write_all(b"query").unwrap();
    server.read_exact(&mut [0; 5]).unwrap();
    server.write_all(b"answer").unwrap();
    client.peek(&mut [0; 6]).unwrap();
    for scope in [Scope::default(), only(me.pid)] {
        let inventory = take(port, &scope, &[]);
        let [socket] = inventory.sockets.as_slice() else { panic!("{inventory:?}") };
        assert_eq!(socket.id, id(&client));
        assert_eq!(socket.endpoints.local, client.local_addr().unwrap());
        assert_eq!(socket.tcp_state, TcpState::Established);
        assert_eq!((socket.unread_bytes, socket.bytes_sent, socket.bytes_received), (6, 5, 6));
        assert!(socket.held_by.contains(&me), "{socket:?}");
        // The kernel counts in jiffies, which are at most 10 ms.
        let slack = Duration::from_millis(20);
        assert!(inventory.began >= started && inventory.began <= clock::now());
        for used in [socket.last_send, socket.last_receive] {
            assert!(used.after(slack) >= started && used <= clock::now(), "{used:?} {started:?}");
        }
    }
}

#[test]
fn silence_is_counted_back_from_the_dump() {
    let (client, _server, port) = connected();
    let established = clock::now();
    std::thread::sleep(Duration::from_millis(400));
    let inventory = take(port, &only(std::process::id()), &[]);
    let socket = &inventory.sockets[0];
    assert_eq!(socket.id, id(&client));
    for used in [socket.last_send, socket.last_receive] {
        let error = used.since(established).max(established.since(used));
        assert!(error < Duration::from_millis(100), "never used: since the handshake: {socket:?}");
    }
}

#[test]
fn scope_leaves_out_what_others_hold_unless_it_is_known() {
    let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let (client, _server, port) = connected();
    let me = identify(std::process::id()).unwrap();
    let scope = only(other.id());
    let without = take(port, &scope, &[]);
    let with = take(port, &scope, &[id(&client)]);
    other.kill().unwrap();
    other.wait().unwrap();
    // The process in scope has exited, so known connections are searched for everywhere.
    let afterwards = take(port, &scope, &[id(&client)]);
    assert!(without.sockets.is_empty() && without.complete(), "{without:?}");
    for inventory in [with, afterwards] {
        assert_eq!(inventory.sockets.len(), 1, "{inventory:?}");
        assert!(inventory.sockets[0].held_by.contains(&me), "{inventory:?}");
    }
}

#[test]
fn a_child_that_inherited_is_named() {
    let (client, _server, port) = connected();
    let copy = rustix::io::dup(&client).unwrap();
    rustix::io::fcntl_setfd(&copy, rustix::io::FdFlags::empty()).unwrap();
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let keys = [std::process::id(), child.id()].map(|pid| identify(pid).unwrap());
    let inventory = take(port, &only(std::process::id()), &[]);
    child.kill().unwrap();
    child.wait().unwrap();
    let held_by = &inventory.sockets[0].held_by;
    assert!(keys.iter().all(|key| held_by.contains(key)), "{held_by:?} lacks one of {keys:?}");
}

#[test]
fn a_connection_that_nobody_holds_stays_when_known() {
    let (mut client, _server, port) = connected();
    let known = id(&client);
    client.set_nonblocking(true).unwrap();
    while client.write(&[0; 65_536]).is_ok() {}
    drop(client);
    let scope = only(std::process::id());
    let inventory = take(port, &scope, &[known]);
    assert_eq!(inventory.sockets.len(), 1, "{inventory:?}");
    assert_eq!(inventory.sockets[0].tcp_state, TcpState::FinWait1);
    assert_eq!(inventory.sockets[0].held_by, []);
    assert!(take(port, &scope, &[]).sockets.is_empty());
}

#[test]
fn a_process_that_never_was_leaves_an_empty_list() {
    let (_client, _server, port) = connected();
    let inventory = take(port, &only(u32::MAX), &[]);
    assert!(inventory.sockets.is_empty() && inventory.complete(), "{inventory:?}");
}

/// Starts a process that connects to itself in a new network namespace. Returns the process, the
/// port and the cookie.
fn connected_in_a_namespace() -> Option<(std::process::Child, u16, ConnectionId)> {
    let script = "import socket, sys, time, fcntl, struct\n\
        up = struct.pack('16sh14x', b'lo', 1)\n\
        s = socket.socket(); fcntl.ioctl(s, 0x8914, up)\n\
        l = socket.create_server(('127.0.0.1', 0))\n\
        c = socket.create_connection(l.getsockname())\n\
        cookie = struct.unpack('Q', c.getsockopt(socket.SOL_SOCKET, 57, 8))[0]\n\
        print(l.getsockname()[1], cookie, flush=True)\n\
        time.sleep(60)";
    let mut child = std::process::Command::new("unshare")
        .args(["--net", "python3", "-c", script])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .ok()?;
    let mut line = String::new();
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut { output }, &mut line).unwrap();
    let mut numbers = line.split_whitespace().map(|number| number.parse::<u64>().unwrap());
    let (Some(port), Some(cookie)) = (numbers.next(), numbers.next()) else {
        child.wait().unwrap();
        return None;
    };
    Some((child, u16::try_from(port).unwrap(), ConnectionId(cookie)))
}

#[test]
fn other_network_namespaces_are_entered_and_left_alone() {
    let Some((mut child, port, cookie)) = connected_in_a_namespace() else {
        panic!("making a network namespace needs root, unshare and python3");
    };
    let namespace = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let before = namespace();
    let key = identify(child.id()).unwrap();
    let all = take(port, &Scope::default(), &[]);
    let scoped = take(port, &only(child.id()), &[]);
    let elsewhere = take(port, &only(std::process::id()), &[]);
    child.kill().unwrap();
    child.wait().unwrap();
    for inventory in [all, scoped] {
        let found = inventory.sockets.iter().find(|socket| socket.id == cookie);
        assert_eq!(found.expect("the connection is found").held_by, [key]);
        assert_eq!(inventory.unread_reason, None);
        assert!(matches!(inventory.into_event(), Event::Inventory { complete: true, .. }));
    }
    assert!(elsewhere.sockets.is_empty());
    assert_eq!(namespace(), before, "the caller's namespace must not change");
}
