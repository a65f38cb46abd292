//! The HTTP endpoints for Prometheus: `/metrics`, `/healthz`, `/readyz`, and the flame graph.
//!
//! At the end of each interval, the event loop publishes the interval's figures, and a server on
//! another thread renders them. So scrapes never delay the trace, and the trace never delays a
//! scrape. The first request in an interval renders a page; later requests copy it.
//!
//! Labels are names of processes, addresses of servers and, with Kubernetes, pods: never a PID, a
//! client's port or a stack. The number of label sets is bounded.

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

/// The error of a server that cannot start.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be served at {address}: {source}; choose another --metrics-addr")]
struct ServeError {
    address: SocketAddr,
    source: io::Error,
}

/// The event loop's handle on the server.
pub struct Exporter {
    address: SocketAddr,
    labels: Arc<[Label]>,
    accounts: Accounts,
    board: Arc<Board>,
}

impl Exporter {
    /// Starts the server. Until the first interval ends there are no metrics, and `/readyz` fails.
    ///
    /// # Errors
    ///
    /// If it cannot listen at the address.
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
