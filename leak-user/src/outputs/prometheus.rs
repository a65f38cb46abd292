//! What Prometheus scrapes: `/metrics`, `/healthz`, `/readyz`, and the flame graph.
//!
//! At the end of each interval the event loop leaves the figures of that moment on a board, and a
//! server on a thread of its own shows what lies there. So a scrape waits for nothing but its own
//! page, and nobody who scrapes, fast or slow, holds up the trace. A page is made by the first who
//! asks for it in an interval; a thousand scrapes a second copy it.
//!
//! Labels are names of processes, addresses of servers and, with Kubernetes, pods: never a PID, a
//! port of a client or the text of a stack. How many sets of labels are told apart is bounded.

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
mod pages;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

pub use address::{AddressError, ListenAddress};
pub use label::{Label, LabelError};

use crate::engine::findings::Change;
use crate::engine::snapshot::Snapshot;
use crate::model::Timestamp;
use crate::outputs::flamegraph::{By, Flames};
use crate::outputs::{MetricsSettings, OutputError, Sink};
use accounts::Accounts;
use board::Board;
use figures::Figures;
use pages::Pages;

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be served at {address}: {source}; choose another --metrics-addr")]
struct ServeError {
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
    /// Begins to listen, and to answer. Until an interval is over there are no metrics, and
    /// `/readyz` says so.
    ///
    /// # Errors
    ///
    /// When it cannot listen there.
    pub fn start(settings: &MetricsSettings) -> Result<Self, OutputError> {
        let ListenAddress(address) = settings.address;
        let failed = |source| OutputError::other(ServeError { address, source });
        let listener = TcpListener::bind(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let board = Arc::new(Board::new(settings.interval));
        http::serve(listener, Arc::clone(&board)).map_err(failed)?;
        let labels = settings.labels.as_slice().into();
        let exporter = Self { address, labels, accounts: Accounts::default(), board };
        log::info!("serving metrics at http://{}/metrics", exporter.address);
        Ok(exporter)
    }
}

impl Sink for Exporter {
    fn interval(&mut self, snapshot: &Snapshot<'_>, _: &[Change]) -> Result<(), OutputError> {
        self.accounts.observe(snapshot);
        let figures = Figures::new(snapshot, self.accounts.balance());
        let flames = By::ALL.map(|by| Flames::of(snapshot, by));
        self.board.post(Pages::new(figures, Arc::clone(&self.labels), flames));
        Ok(())
    }

    fn alive(&mut self, now: Timestamp) {
        self.board.turned(now);
    }
}
