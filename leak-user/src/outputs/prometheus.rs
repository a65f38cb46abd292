//! What Prometheus scrapes: `/metrics`, `/healthz`, `/readyz`, and the flame graph.
//!
//! At the end of each interval the event loop leaves the figures of that moment on a board, and a server
//! on a thread of its own shows what lies there. So a scrape waits for nothing but its own page, and
//! nobody who scrapes, fast or slow, holds up the trace. A page is made by the first who asks for it in an
//! interval; a thousand scrapes a second copy it.
//!
//! Labels are names of processes, addresses of servers and, with Kubernetes, pods: never a PID, a port
//! of a client or the text of a stack. How many sets of labels are told apart is bounded.

mod accept;
mod accounts;
mod address;
mod board;
mod families;
mod figures;
mod group;
mod http;
mod label;
mod names;
mod openmetrics;
mod own;
mod pages;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

pub use address::{AddressError, ListenAddress};
pub use figures::Tracing;
pub use label::{Label, LabelError};

use crate::engine::snapshot::Snapshot;
use crate::model::Timestamp;
use crate::outputs::flamegraph::{By, Flames};
use accounts::Accounts;
use board::Board;
use figures::Figures;
use own::OwnCost;
use pages::Pages;

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be served at {address}: {source}; choose another --metrics-addr")]
pub struct ServeError {
    address: SocketAddr,
    source: io::Error,
}

/// The event loop's side.
pub struct Exporter {
    address: SocketAddr,
    labels: Arc<[Label]>,
    accounts: Accounts,
    board: Arc<Board>,
}

impl Exporter {
    /// Begins to listen, and to answer. Until something is published there are no metrics, and
    /// `/readyz` says so.
    ///
    /// # Errors
    ///
    /// When it cannot listen there.
    pub fn start(
        address: ListenAddress,
        labels: &[Label],
        interval: Duration,
    ) -> Result<Self, ServeError> {
        let ListenAddress(address) = address;
        let failed = |source| ServeError { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let board = Arc::new(Board::new(interval));
        http::serve(listener, Arc::clone(&board)).map_err(failed)?;
        Ok(Self { address, labels: labels.into(), accounts: Accounts::default(), board })
    }

    /// Where it listens: the port is the real one, also where any was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The event loop has turned.
    pub fn turned(&self, now: Timestamp) {
        self.board.turned(now);
    }

    /// Takes in how everything stands at the end of an interval, for whoever asks next.
    pub fn publish(&mut self, snapshot: &Snapshot<'_>, tracing: Tracing) {
        self.accounts.observe(snapshot);
        let own = OwnCost::measure();
        let figures = Figures::new(snapshot, self.accounts.balance(), tracing, own);
        let flames = By::ALL.map(|by| Flames::of(snapshot, by));
        self.board.post(Pages::new(figures, Arc::clone(&self.labels), flames));
    }
}
