//! A collector that makes metric families from an interval's figures.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::outputs::prometheus::figures::Figures;
use crate::outputs::prometheus::group::{Group, Idle, LabelSet};
use crate::outputs::prometheus::label::{Label, of_pod};
use crate::outputs::prometheus::names;
use crate::outputs::prometheus::names::{IDLE_BUCKETS, Name};

/// The source revision of this build, if the build set it.
const REVISION: &str = match option_env!("PGSOCKTRACE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Collects the figures of one interval.
pub(super) struct Families {
    pub(super) figures: Arc<Figures>,
    /// Labels of every series.
    pub(super) labels: Arc<[Label]>,
}

impl Collector for Families {
    /// Describes nothing, because the labels of a family differ between series.
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut out = Builder { labels: &self.labels, families: Vec::new() };
        let figures = &*self.figures;
        out.groups(figures);
        out.judgement(figures);
        out.health(figures);
        out.servers(figures);
        out.itself(figures);
        out.families
    }
}

type Labels<'a> = Vec<(&'a str, &'a str)>;

/// Builds a list of families.
struct Builder<'a> {
    labels: &'a [Label],
    families: Vec<MetricFamily>,
}

impl Builder<'_> {
    fn groups(&mut self, figures: &Figures) {
        let groups: Vec<_> = figures
            .balance
            .groups
            .iter()
            .map(|(set, group)| (GroupLabels::new(set, figures.balance.kubernetes), group))
            .collect();
        let mut each = |name: &Name, value: &dyn Fn(&Group) -> f64| {
            self.family(name, groups.iter().map(|(set, group)| (set.with([]), value(group))));
        };
        each(&names::CONNECTIONS_OPENED, &|group| group.opened as f64);
        each(&names::CONNECTIONS_CLOSED, &|group| group.closed as f64);
        each(&names::CONNECT_FAILURES, &|group| group.failures as f64);
        each(&names::SILENT_CONNECTIONS, &|group| group.silent as f64);
        each(&names::OLDEST_SILENCE, &|group| group.oldest.as_secs_f64());
        let states = groups.iter().flat_map(|(set, group)| {
            let states = group.states.iter();
            states.map(|(state, count)| (set.with([("state", *state)]), *count as f64))
        });
        self.family(&names::OPEN_CONNECTIONS, states);
        let pools = || groups.iter().filter_map(|(set, group)| Some((set, group, group.pools?)));
        let connections = pools().flat_map(|(set, _, pool)| {
            let states = [("in_use", pool.in_use), ("idle", pool.idle)];
            states.map(|(state, count)| (set.with([("state", state)]), count as f64))
        });
        self.family(&names::POOL_CONNECTIONS, connections);
        let max = pools().filter_map(|(set, _, pool)| Some((set.with([]), pool.max? as f64)));
        self.family(&names::POOL_MAX, max);
        let waiting = pools().map(|(set, _, pool)| (set.with([]), pool.waiting as f64));
        self.family(&names::POOL_WAITING, waiting);
        let waited =
            groups.iter().filter(|(_, group)| group.pools.is_some() || group.pool_wait > 0);
        let waited = waited.map(|(set, group)| {
            (set.with([]), Duration::from_nanos(group.pool_wait).as_secs_f64())
        });
        self.family(&names::POOL_WAIT, waited);
        let suspected = groups.iter().flat_map(|(set, group)| {
            group.suspected.iter().map(|((reason, severity), count)| {
                let labels = [("reason", reason.name()), ("severity", severity.name())];
                (set.with(labels), *count as f64)
            })
        });
        self.family(&names::SUSPECTED_LEAKED, suspected);
        let waiting: Vec<_> = figures
            .waiting
            .iter()
            .map(|(set, count)| (GroupLabels::new(set, figures.balance.kubernetes), *count))
            .collect();
        let waiting = waiting.iter().map(|(set, count)| (set.with([]), *count as f64));
        self.family(&names::WAITING_THREADS, waiting);
        let idle = groups.iter().map(|(set, group)| (set.with([]), histogram(&group.idle)));
        let idle = idle.map(|(labels, histogram)| {
            let mut metric = self.metric(&labels);
            metric.set_histogram(histogram);
            metric
        });
        let idle = idle.collect();
        self.push(&names::CONNECTION_IDLE, idle);
    }

    fn judgement(&mut self, figures: &Figures) {
        let by_reason = |value: fn(&crate::engine::findings::Count) -> u64| {
            let findings = figures.findings.iter();
            findings
                .map(move |(reason, count)| (vec![("reason", reason.name())], value(count) as f64))
        };
        self.family(&names::FINDINGS, by_reason(|count| count.found));
        self.family(&names::FINDINGS_RETRACTED, by_reason(|count| count.retracted));
    }

    fn health(&mut self, figures: &Figures) {
        let health = &figures.health;
        let kinds = health.kinds.iter();
        self.by(&names::EVENTS, "kind", kinds.clone().map(|kind| (kind.name, kind.sent)));
        let others = [("undecodable", health.undecodable), ("unseen_call", health.unseen_calls)];
        let lost = kinds.map(|kind| (kind.name, kind.lost)).chain(others);
        self.by(&names::EVENTS_LOST, "kind", lost);
        let (losses, copies, stacks) = (&figures.losses, &health.copies, &health.stacks);
        let full = [
            ("connections", health.table_full),
            ("stack_slots", copies.no_slot),
            ("table", losses.refused),
        ];
        self.by(&names::MAP_FULL, "kind", full);
        let reconciled =
            [("added", losses.added), ("closed", losses.closed), ("corrected", losses.corrected)];
        self.by(&names::RECONCILED, "kind", reconciled);
        let qualities =
            [("complete", stacks.complete), ("truncated", stacks.truncated), ("none", stacks.none)];
        self.by(&names::STACKS, "quality", qualities);
        let copies = [
            ("recorded", copies.recorded),
            ("over_budget", copies.over_budget),
            ("no_slot", copies.no_slot),
            ("unreadable", copies.unreadable),
        ];
        self.by(&names::STACK_COPIES, "result", copies);
        let programs = &health.programs;
        let counted = programs.iter().filter_map(|of| Some((&of.program, of.counted?)));
        let time = counted
            .clone()
            .map(|(program, (time, _))| (labelled("program", program), time.as_secs_f64()));
        self.family(&names::BPF_RUN_TIME, time);
        let count =
            counted.map(|(program, (_, count))| (labelled("program", program), count as f64));
        self.family(&names::BPF_RUN_COUNT, count);
        if let Some(cores) = health.cost.kernel_cores() {
            self.one(&names::BPF_CORES, cores);
        }
        let skipped = programs.iter().filter_map(|of| Some((&of.program, of.skipped?)));
        let skipped = skipped.map(|(program, count)| (labelled("program", program), count as f64));
        self.family(&names::BPF_SKIPPED, skipped);
    }

    fn servers(&mut self, figures: &Figures) {
        let servers = figures.servers.iter();
        let up =
            servers.clone().map(|server| (labelled("server", &server.name), f64::from(server.up)));
        self.family(&names::SERVER_UP, up);
        let used = servers
            .clone()
            .filter_map(|server| Some((labelled("server", &server.name), server.used? as f64)));
        self.family(&names::SERVER_USED, used);
        let max = servers
            .filter_map(|server| Some((labelled("server", &server.name), f64::from(server.max?))));
        self.family(&names::SERVER_MAX, max);
    }

    fn itself(&mut self, figures: &Figures) {
        let info = vec![("version", figures.version.as_str()), ("revision", REVISION)];
        self.family(&names::BUILD_INFO, [(info, 1.0)]);
        self.one(&names::INTERVAL, figures.interval.as_secs_f64());
        self.one(&names::LAST_EVALUATION, unix_time(figures.evaluated_at));
        self.one(&names::SERIES_FOLDED, figures.balance.folded as f64);
        if let Some(limit) = figures.limit {
            self.one(&names::CONNECTION_LIMIT, limit as f64);
        }
        if let Some(own) = &figures.health.own {
            self.one(&names::PROCESS_CPU, own.cpu.as_secs_f64());
            self.one(&names::PROCESS_MEMORY, own.resident_bytes as f64);
            self.one(&names::PROCESS_VIRTUAL, own.virtual_bytes as f64);
            self.one(&names::PROCESS_START, unix_time(own.started_at));
        }
    }

    fn one(&mut self, name: &Name, value: f64) {
        self.family(name, [(Vec::new(), value)]);
    }

    fn by<'a>(
        &mut self,
        name: &Name,
        label: &'a str,
        values: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        let labelled = |(value, number): (&'a str, u64)| (vec![(label, value)], number as f64);
        self.family(name, values.into_iter().map(labelled));
    }

    fn family<'a>(&mut self, name: &Name, series: impl IntoIterator<Item = (Labels<'a>, f64)>) {
        let metric = |(labels, value): (Labels<'a>, f64)| {
            let mut metric = self.metric(&labels);
            if name.kind == MetricType::COUNTER {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            } else {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            metric
        };
        let metrics = series.into_iter().map(metric).collect();
        self.push(name, metrics);
    }

    fn metric(&self, labels: &[(&str, &str)]) -> Metric {
        let common = self.labels.iter().map(|label| (label.name.as_str(), label.value.as_str()));
        Metric::from_label(labels.iter().copied().chain(common).map(pair).collect())
    }

    fn push(&mut self, name: &Name, metrics: Vec<Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(name.full());
        family.set_help(name.help.to_owned());
        family.set_field_type(name.kind);
        family.set_metric(metrics);
        self.families.push(family);
    }
}

/// The labels of a group, with the pod's label names made valid for Prometheus.
struct GroupLabels<'a> {
    set: &'a LabelSet,
    pod: Vec<(String, &'a str)>,
}

impl<'a> GroupLabels<'a> {
    fn new(set: &'a LabelSet, kubernetes: bool) -> Self {
        let mut pod: Vec<(String, &str)> = Vec::new();
        if kubernetes {
            let named = set.pod.as_ref();
            let (namespace, name, container) = named.map_or(("", "", ""), |pod| {
                (pod.namespace.as_str(), pod.name.as_str(), pod.container.as_str())
            });
            pod.extend([
                ("namespace".to_owned(), namespace),
                ("pod".to_owned(), name),
                ("container".to_owned(), container),
            ]);
        }
        for (name, value) in set.pod.iter().flat_map(|pod| &pod.labels) {
            let name = of_pod(name);
            // Two label names may become equal; the first one is kept.
            if pod.iter().all(|(known, _)| *known != name) {
                pod.push((name, value));
            }
        }
        Self { set, pod }
    }

    fn with<'b, const N: usize>(&'b self, more: [(&'b str, &'b str); N]) -> Labels<'b> {
        let LabelSet { comm, destination, pod: _ } = self.set;
        let own = [("comm", comm.as_str()), ("destination", destination.as_str())];
        // What is not of one server has none.
        let own = own.into_iter().filter(|(name, value)| *name == "comm" || !value.is_empty());
        let pod = self.pod.iter().map(|(name, value)| (name.as_str(), *value));
        own.chain(pod).chain(more).collect()
    }
}

fn labelled<'a>(name: &'a str, value: &'a str) -> Labels<'a> {
    vec![(name, value)]
}

fn pair((name, value): (&str, &str)) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    // Names are strangers' text, and a terminal obeys what it reads.
    pair.set_value(value.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}"));
    pair
}

fn histogram(idle: &Idle) -> Histogram {
    let mut below = 0;
    // The encoders add the `+Inf` bucket.
    let buckets = IDLE_BUCKETS.into_iter().zip(&idle.buckets).map(|(bound, count)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(below);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(idle.buckets.iter().sum());
    histogram.set_sample_sum(idle.sum);
    histogram
}

fn unix_time(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

#[cfg(test)]
mod tests;
