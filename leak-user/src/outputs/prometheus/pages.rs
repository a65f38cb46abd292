//! The rendered figures of an interval. A page is rendered on the first request and then kept.

use std::sync::{Arc, OnceLock};

use hyper::body::Bytes;
use prometheus::{Encoder as _, Registry, TextEncoder};

use crate::outputs::flamegraph::{By, Flames};
use crate::outputs::prometheus::families::Families;
use crate::outputs::prometheus::figures::Figures;
use crate::outputs::prometheus::label::Label;
use crate::outputs::prometheus::openmetrics;

/// A page that clients can request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// Metrics in Prometheus's own text format.
    Text,
    /// Metrics in the OpenMetrics format.
    OpenMetrics,
    /// The flame graph.
    FlameGraph(By),
}

impl Page {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => openmetrics::CONTENT_TYPE,
            Self::FlameGraph(_) => "image/svg+xml",
        }
    }
}

/// All pages of one interval. Rendering needs no lock that the event loop takes.
#[derive(Debug)]
pub(super) struct Pages {
    figures: Arc<Figures>,
    labels: Arc<[Label]>,
    flames: [Flames; By::ALL.len()],
    text: OnceLock<Bytes>,
    openmetrics: OnceLock<Bytes>,
    pictures: [OnceLock<Bytes>; By::ALL.len()],
}

impl Pages {
    pub(super) fn new(
        figures: Figures,
        labels: Arc<[Label]>,
        flames: [Flames; By::ALL.len()],
    ) -> Self {
        Self {
            figures: Arc::new(figures),
            labels,
            flames,
            text: OnceLock::new(),
            openmetrics: OnceLock::new(),
            pictures: Default::default(),
        }
    }

    /// The page, if it is rendered already.
    pub(super) fn made(&self, page: Page) -> Option<Bytes> {
        self.place(page).get().cloned()
    }

    /// Renders the page unless it is rendered already. This may take long with many series.
    pub(super) fn make(&self, page: Page) -> Bytes {
        let made = self.place(page).get_or_init(|| match page {
            Page::Text => self.text(),
            Page::OpenMetrics => openmetrics::encode(&self.gather()).into(),
            Page::FlameGraph(by) => self.flames[by as usize].svg().into(),
        });
        made.clone()
    }

    fn place(&self, page: Page) -> &OnceLock<Bytes> {
        match page {
            Page::Text => &self.text,
            Page::OpenMetrics => &self.openmetrics,
            Page::FlameGraph(by) => &self.pictures[by as usize],
        }
    }

    fn text(&self) -> Bytes {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.gather(), &mut text) {
            log::warn!("the metrics cannot be written: {error}");
        }
        text.into()
    }

    fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        let registry = Registry::new();
        let families =
            Families { figures: Arc::clone(&self.figures), labels: Arc::clone(&self.labels) };
        if let Err(error) = registry.register(Box::new(families)) {
            log::warn!("the metrics cannot be collected: {error}");
        }
        registry.gather()
    }
}
