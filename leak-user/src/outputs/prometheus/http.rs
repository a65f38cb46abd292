//! The HTTP/1.1 server on its own thread. All resources that a client can use are bounded.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::background::background;
use crate::clock;
use crate::outputs::flamegraph::By;
use crate::outputs::prometheus::accept::prefers_openmetrics;
use crate::outputs::prometheus::board::Board;
use crate::outputs::prometheus::pages::Page;

/// Maximum number of concurrent connections; one more, and the oldest is closed.
const MAX_CONNECTIONS: usize = 128;
/// Time limit for receiving a request, and for an idle connection between two requests.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum age of a connection: it is closed after the next response.
const LIFETIME: Duration = Duration::from_secs(300);
/// Time limit for a client to read the last response.
const LAST_RESPONSE: Duration = Duration::from_secs(10);
/// Time limit for a client that reads nothing of a response; then the kernel closes the connection.
const STUCK: Duration = Duration::from_secs(30);
/// Maximum size of a request's head in bytes.
const MAX_HEAD: usize = 16 << 10;
/// Number of threads that render pages.
const MAKERS: usize = 4;

/// Serves `board` until the process ends.
pub(super) fn serve(listener: StdListener, board: Arc<Board>) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    background("metrics", MAKERS, || accept(listener, board))
}

async fn accept(listener: StdListener, board: Arc<Board>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return log::error!("metrics are not served: {error}"),
    };
    let mut open = VecDeque::<AbortHandle>::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                open.retain(|connection| !connection.is_finished());
                // Whoever has been here for longest has had its answer, or has asked for nothing:
                // clients that rest must not keep out those that look after our health.
                if open.len() >= MAX_CONNECTIONS
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                open.push_back(tokio::spawn(converse(stream, Arc::clone(&board))).abort_handle());
            }
            Err(error) => {
                // No file descriptors are free. Some will be later; the pause avoids a busy loop.
                log::debug!("a client of the metrics cannot be taken: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves one client's connection.
async fn converse(stream: TcpStream, board: Arc<Board>) {
    let stuck = u32::try_from(STUCK.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = set_tcp_user_timeout(&stream, stuck) {
        log::debug!("a client of the metrics may get stuck: {error}");
    }
    let answer = service_fn(move |request| answer(Arc::clone(&board), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = sleep(LIFETIME) => {
            connection.as_mut().graceful_shutdown();
            timeout(LAST_RESPONSE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        log::debug!("a client of the metrics: {error}");
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(board: Arc<Board>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let known = ["/", "/metrics", "/healthz", "/readyz", "/flamegraph.svg"];
    let path = request.uri().path();
    if !known.contains(&path) {
        return Ok(say(StatusCode::NOT_FOUND, "there is no such page; see /\n"));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = say(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(refusal);
    }
    Ok(match path {
        "/healthz" if board.is_alive(clock::now()) => say(StatusCode::OK, "ok\n"),
        "/healthz" => say(StatusCode::SERVICE_UNAVAILABLE, "the event loop stands still\n"),
        "/readyz" if board.latest().is_some() => say(StatusCode::OK, "ok\n"),
        "/readyz" => say(StatusCode::SERVICE_UNAVAILABLE, NOT_READY),
        "/metrics" => {
            let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
            let openmetrics = accept.is_some_and(prefers_openmetrics);
            show(&board, if openmetrics { Page::OpenMetrics } else { Page::Text }).await
        }
        "/flamegraph.svg" => match by(request.uri().query()) {
            Some(by) => show(&board, Page::FlameGraph(by)).await,
            None => say(StatusCode::BAD_REQUEST, "by=last_used_by or by=opened_by\n"),
        },
        _ => index(),
    })
}

const NOT_READY: &str = "no inventory has been taken yet\n";

/// Returns the latest interval's page; renders it on another thread if necessary.
async fn show(board: &Board, page: Page) -> Answer {
    let Some(pages) = board.latest() else {
        return say(StatusCode::SERVICE_UNAVAILABLE, NOT_READY);
    };
    let made = match pages.made(page) {
        Some(made) => Ok(made),
        None => tokio::task::spawn_blocking(move || pages.make(page)).await,
    };
    let body = match made {
        Ok(body) => body,
        Err(error) => {
            log::warn!("a page of the metrics cannot be made: {error}");
            return say(StatusCode::INTERNAL_SERVER_ERROR, "the page cannot be made\n");
        }
    };
    let mut answer = with_type(StatusCode::OK, page.content_type(), body);
    answer.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    answer
}

/// The flame graph that a query selects; `None` for an invalid query.
fn by(query: Option<&str>) -> Option<By> {
    match query.unwrap_or_default() {
        "" => Some(By::default()),
        "by=last_used_by" => Some(By::LastUsedBy),
        "by=opened_by" => Some(By::OpenedBy),
        _ => None,
    }
}

fn index() -> Answer {
    let page = "<!DOCTYPE html>\n<title>pgsocktrace</title>\n<h1>pgsocktrace</h1>\n<ul>\n\
        <li><a href=\"/metrics\">metrics</a>\n\
        <li>open connections by the code that <a href=\"/flamegraph.svg?by=last_used_by\">used them \
        last</a>, or that <a href=\"/flamegraph.svg?by=opened_by\">opened them</a>\n\
        <li><a href=\"/healthz\">health</a>, <a href=\"/readyz\">readiness</a>\n</ul>\n";
    with_type(StatusCode::OK, "text/html; charset=utf-8", Bytes::from_static(page.as_bytes()))
}

fn say(status: StatusCode, text: &'static str) -> Answer {
    with_type(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

fn with_type(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    // The flame graph embeds its script and style; block all other sources.
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'";
    for (name, value) in [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests;
