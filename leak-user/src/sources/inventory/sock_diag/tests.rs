use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

use netlink_packet_core::NLM_F_DUMP_INTR;

use crate::sources::inventory::sock_diag::*;

/// A connection over loopback: the client's end, the server's, and the server's port.
fn connected(address: &str) -> (TcpStream, TcpStream, u16) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let end = listener.local_addr().unwrap();
    let client = TcpStream::connect(end).unwrap();
    (client, listener.accept().unwrap().0, end.port())
}

/// The one socket with that remote port, once it satisfies `condition`.
#[track_caller]
fn listed(port: u16, condition: impl Fn(&DiagSocket) -> bool) -> DiagSocket {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let found = dump(&[port]).unwrap();
        if let [socket] = found.as_slice()
            && condition(socket)
        {
            return *socket;
        }
        assert!(Instant::now() < deadline, "not so: {found:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn is_this(socket: &DiagSocket, client: &TcpStream) {
    assert_eq!(socket.id.0, rustix::net::sockopt::socket_cookie(client).unwrap());
    assert_eq!(socket.inode, rustix::fs::fstat(client.as_fd()).unwrap().st_ino);
    assert_eq!(socket.endpoints.local, client.local_addr().unwrap());
    assert_eq!(socket.endpoints.remote, client.peer_addr().unwrap());
}

#[test]
fn payload_and_nothing_else_is_counted() {
    for address in ["127.0.0.1", "::1"] {
        let (mut client, mut server, port) = connected(address);
        let fresh = listed(port, |socket| socket.state == TcpState::Established);
        is_this(&fresh, &client);
        assert_eq!((fresh.unread_bytes, fresh.activity.bytes_received), (0, 0), "{fresh:?}");
        assert_eq!(fresh.activity.bytes_sent, 0, "the SYN is no payload");
        assert!(fresh.activity.since_send.unwrap() < Duration::from_secs(5), "{fresh:?}");
        assert!(fresh.activity.since_receive.unwrap() < Duration::from_secs(5), "{fresh:?}");

        client.write_all(&[7; 100]).unwrap();
        server.read_exact(&mut [0; 100]).unwrap();
        server.write_all(&[7; 30]).unwrap();
        client.read_exact(&mut [0; 10]).unwrap();
        let used = listed(port, |socket| socket.unread_bytes == 20);
        assert_eq!((used.activity.bytes_sent, used.activity.bytes_received), (100, 30));
        assert_eq!(used.id, fresh.id);
    }
}

#[test]
fn each_direction_has_its_own_silence() {
    let (mut client, mut server, port) = connected("127.0.0.1");
    client.write_all(b"x").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    server.write_all(b"x").unwrap();
    let activity = listed(port, |socket| socket.unread_bytes == 1).activity;
    let (send, receive) = (activity.since_send.unwrap(), activity.since_receive.unwrap());
    assert!(send >= receive + Duration::from_millis(200), "{activity:?}");
    assert!(send < Duration::from_secs(10), "{activity:?}");
}

#[test]
fn the_servers_fin_is_no_payload() {
    let (mut client, mut server, port) = connected("127.0.0.1");
    server.write_all(b"bye").unwrap();
    drop(server);
    let closed = listed(port, |socket| socket.state == TcpState::CloseWait);
    is_this(&closed, &client);
    assert_eq!((closed.unread_bytes, closed.activity.bytes_received), (3, 3), "{closed:?}");
    client.read_to_end(&mut Vec::new()).unwrap();
    let read = listed(port, |socket| socket.unread_bytes == 0);
    assert_eq!(read.activity.bytes_received, 3, "{read:?}");
}

#[test]
fn the_clients_fin_is_no_payload() {
    let (mut client, _server, port) = connected("127.0.0.1");
    client.write_all(b"bye").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let half_closed = listed(port, |socket| socket.state == TcpState::FinWait2);
    is_this(&half_closed, &client);
    assert_eq!(half_closed.activity.bytes_sent, 3, "neither SYN nor FIN is payload");
}

#[test]
fn a_closed_connection_is_listed_while_it_has_bytes_to_send() {
    let (mut client, mut server, port) = connected("127.0.0.1");
    client.set_nonblocking(true).unwrap();
    while client.write(&[0; 65_536]).is_ok() {}
    let before = listed(port, |socket| socket.state == TcpState::Established);
    drop(client);
    let orphan = listed(port, |socket| socket.state == TcpState::FinWait1);
    assert_eq!((orphan.id, orphan.inode), (before.id, 0));
    // Once everything is sent, only a stub remains, which is not a connection.
    io::copy(&mut server, &mut io::sink()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !dump(&[port]).unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the stub is listed");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_handshake_under_way_has_no_times() {
    // A full accept queue leaves further connections in SYN_SENT.
    let address = rustix::net::SocketAddrAny::from("127.0.0.1:0".parse::<SocketAddr>().unwrap());
    let tcp = |flags| {
        let stream = rustix::net::SocketType::STREAM;
        rustix::net::socket_with(rustix::net::AddressFamily::INET, stream, flags, None).unwrap()
    };
    let listener = tcp(rustix::net::SocketFlags::CLOEXEC);
    rustix::net::bind(&listener, &address).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let end = rustix::net::getsockname(&listener).unwrap();
    let port = SocketAddr::try_from(end.clone()).unwrap().port();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let client = tcp(rustix::net::SocketFlags::NONBLOCK);
            let _ = rustix::net::connect(&client, &end);
            client
        })
        .collect();
    let found = dump(&[port]).unwrap();
    let waiting: Vec<_> = found.iter().filter(|s| s.state == TcpState::SynSent).collect();
    assert!(!waiting.is_empty() && found.len() == clients.len(), "{found:?}");
    assert!(waiting.iter().all(|socket| socket.activity == Activity::default()), "{found:?}");
}

#[test]
fn ipv4_over_an_ipv6_socket_is_ipv4() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect(("::ffff:127.0.0.1", port)).unwrap();
    let socket = listed(port, |socket| socket.state == TcpState::Established);
    assert_eq!(socket.id.0, rustix::net::sockopt::socket_cookie(&client).unwrap());
    assert_eq!(socket.endpoints.remote, listener.local_addr().unwrap());
}

#[test]
fn only_the_ports_asked_for() {
    let (_client, _server, port) = connected("127.0.0.1");
    let (_other_client, _other_server, other) = connected("127.0.0.1");
    assert_eq!(dump(&[port]).unwrap().len(), 1);
    assert_eq!(dump(&[port, other, port]).unwrap().len(), 2, "no socket twice");
    assert_eq!(dump(&[]).unwrap(), []);
    assert_eq!(dump(&[0]).unwrap(), []);
}

#[test]
fn many_datagrams_make_one_list() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let end = listener.local_addr().unwrap();
    let pairs: Vec<_> =
        (0..400).map(|_| (TcpStream::connect(end).unwrap(), listener.accept().unwrap())).collect();
    assert_eq!(dump(&[end.port()]).unwrap().len(), pairs.len());
}

fn header(length: u32, kind: u16, flags: u16) -> Vec<u8> {
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes
}

/// An answer with one socket and its `tcp_info`.
fn answer() -> Vec<u8> {
    let mut bytes = header(16 + 72 + 4 + 136, 20, 0);
    bytes.extend([AF_INET, 1, 0, 0]);
    bytes.resize(16 + 72, 0);
    bytes.extend(140_u16.to_ne_bytes());
    bytes.extend(2_u16.to_ne_bytes());
    bytes.resize(16 + 72 + 140, 9);
    bytes
}

#[test]
fn refusals_and_interruptions_are_told_apart() {
    let end = |kind, flags, code: i32| {
        let mut bytes = header(20, kind, flags);
        bytes.extend(code.to_ne_bytes());
        bytes
    };
    let read = |bytes: &[u8]| {
        let mut dump = Dump::default();
        dump.read(bytes, DiagSocket::read).map(|()| dump)
    };
    assert!(read(&end(3, 0, 0)).unwrap().done);
    assert!(read(&end(3, NLM_F_DUMP_INTR, 0)).unwrap().interrupted);
    assert!(matches!(read(&end(2, 0, -libc::ENOENT)), Err(DiagError::Unsupported)));
    assert!(matches!(read(&end(3, 0, -libc::EPERM)), Err(DiagError::Refused(_))));
    assert!(matches!(read(&end(2, 0, i32::MIN)), Err(DiagError::Refused(_))));
    let two = [answer(), answer(), end(3, 0, 0)].concat();
    assert_eq!(read(&two).unwrap().sockets.len(), 2);
    let after_the_end = [end(3, 0, 0), vec![1, 2, 3]].concat();
    assert!(read(&after_the_end).unwrap().done);
}

#[test]
fn nothing_the_kernel_could_say_panics() {
    let whole = answer();
    for length in 0..whole.len() {
        let _ = Dump::default().read(&whole[..length], DiagSocket::read);
    }
    for at in 0..whole.len() {
        for value in [0, 1, 2, 3, 0x7f, 0x80, 0xff] {
            let mut broken = whole.clone();
            broken[at] = value;
            let _ = Dump::default().read(&broken, DiagSocket::read);
        }
    }
    for length in 0..136 {
        let _ = Activity::new(&vec![0xff; length], TcpState::Closing);
    }
    assert!(matches!(
        Dump::default().read(&header(4, 20, 0), DiagSocket::read),
        Err(DiagError::Malformed(_))
    ));
}
