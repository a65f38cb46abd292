use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream as Client};
use std::time::Instant;

use crate::outputs::prometheus::{Exporter, ListenAddress};
use crate::outputs::testing::Run;
use crate::outputs::{MetricsSettings, Sink as _};

use crate::outputs::prometheus::http::*;

/// Settings of a server at this address.
fn settings(address: ListenAddress) -> MetricsSettings {
    MetricsSettings { address, labels: Vec::new(), interval: Duration::from_secs(10) }
}

fn exporter(published: bool) -> Exporter {
    let address = "0".parse().unwrap();
    let mut exporter = Exporter::start(&settings(address)).unwrap();
    if published {
        let mut run = Run::new();
        run.turn(200.0);
        exporter.interval(&run.snapshot(200.0), &[]).unwrap();
    }
    exporter
}

/// Sends `request`, and reads until the server closes the connection.
fn converse(address: SocketAddr, request: &str) -> String {
    let mut client = Client::connect(address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

fn ask(exporter: &Exporter, line: &str) -> (String, String) {
    let request = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = converse(exporter.address, &request);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[track_caller]
fn status(head: &str, status: u16) {
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
}

#[test]
fn pages() {
    let exporter = exporter(true);
    let (head, body) = ask(&exporter, "GET /metrics");
    status(&head, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("pgsocktrace_open_connections{"));
    let (head, svg) = ask(&exporter, "GET /flamegraph.svg");
    status(&head, 200);
    assert!(head.contains("content-type: image/svg+xml") && svg.contains("</svg>"));
    let (_, other) = ask(&exporter, "GET /flamegraph.svg?by=opened_by");
    assert!(svg.contains("used them last") && other.contains("that opened them"));
    status(&ask(&exporter, "GET /flamegraph.svg?by=size").0, 400);
    status(&ask(&exporter, "GET /").0, 200);
    status(&ask(&exporter, "GET /readyz").0, 200);
    status(&ask(&exporter, "GET /healthz").0, 200);
}

#[test]
fn openmetrics_for_those_who_accept_it() {
    let exporter = exporter(true);
    let line = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n\r\n";
    let answer = converse(exporter.address, line);
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"));
    assert!(answer.ends_with("# EOF\n"));
}

#[test]
fn before_the_first_inventory_it_lives_but_is_not_ready() {
    let exporter = exporter(false);
    status(&ask(&exporter, "GET /healthz").0, 200);
    for page in ["/readyz", "/metrics", "/flamegraph.svg"] {
        status(&ask(&exporter, &format!("GET {page}")).0, 503);
    }
}

#[test]
fn a_loop_that_stands_still_is_not_healthy() {
    let mut exporter = exporter(true);
    exporter.alive(clock::now().before(Duration::from_secs(60)));
    let (head, body) = ask(&exporter, "GET /healthz");
    status(&head, 503);
    assert!(body.contains("stands still"));
}

#[test]
fn head_has_the_length_and_no_body() {
    let exporter = exporter(true);
    let (_, body) = ask(&exporter, "GET /metrics");
    let (head, none) = ask(&exporter, "HEAD /metrics");
    status(&head, 200);
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    assert!(none.is_empty());
}

#[test]
fn wrong_requests_are_answered_as_they_deserve() {
    let exporter = exporter(true);
    status(&ask(&exporter, "GET /metrics/").0, 404);
    status(&ask(&exporter, "GET /../../etc/passwd").0, 404);
    let (head, _) = ask(&exporter, "POST /metrics");
    status(&head, 405);
    assert!(head.contains("allow: GET, HEAD"), "{head}");
    status(&ask(&exporter, "DELETE /nothing").0, 404);
    status(&converse(exporter.address, "nonsense\r\n\r\n"), 400);
    status(&converse(exporter.address, "GET / HTTP/1.1\r\nbad header\r\n\r\n"), 400);
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(MAX_HEAD * 4));
    let mut client = Client::connect(exporter.address).unwrap();
    // The server may close the connection before all bytes are sent.
    let _ = client.write_all(long.as_bytes());
    let mut answer = [0; 12];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431");
}

#[test]
fn a_connection_serves_many_requests() {
    let exporter = exporter(true);
    let keep = "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(9);
    let last = "HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answers = converse(exporter.address, &format!("{keep}{last}"));
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 10);
}

#[test]
fn slow_clients_are_let_go_and_keep_nobody_out() {
    let exporter = exporter(true);
    let slow: Vec<Client> = (0..MAX_CONNECTIONS * 2)
        .map(|_| {
            let mut client = Client::connect(exporter.address).unwrap();
            client.write_all(b"GET /metrics HTTP/1.1\r\nHost:").unwrap();
            client
        })
        .collect();
    status(&ask(&exporter, "GET /metrics").0, 200);
    let began = Instant::now();
    for mut client in slow {
        client.set_read_timeout(Some(REQUEST_TIMEOUT * 2)).unwrap();
        let mut answer = Vec::new();
        // The server closes the connection: with status 408, without a response, or, when it made
        // room for another, with a reset.
        let _ = client.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
    assert!(began.elapsed() < REQUEST_TIMEOUT * 2);
}

#[test]
fn a_port_in_use_is_said() {
    let first = exporter(false);
    let again = first.address.to_string().parse().unwrap();
    let error = Exporter::start(&settings(again)).err().unwrap().to_string();
    assert!(error.contains(&first.address.to_string()), "{error}");
    assert!(error.contains("in use") && error.contains("--metrics-addr"), "{error}");
}
