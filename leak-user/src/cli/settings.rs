//! From options to the settings of whatever is to be run.

use crate::cli::{Cli, KubernetesArgs, PictureArgs, ReplayArgs, TraceArgs};
use crate::engine::detect::Thresholds;
use crate::outputs::{FlamegraphSettings, MetricsSettings, OutputSettings};
use crate::replay::ReplaySettings;
use crate::sources::kernel::TracerSettings;
use crate::sources::kubernetes::Kubernetes;
use crate::trace::TraceSettings;

/// Bytes of stack that are copied of a process about which nothing is known yet.
const STACK_BYTES: u32 = 8 << 10;

impl Cli {
    /// What the kernel programs are told.
    #[must_use]
    pub fn kernel_settings(&self) -> TracerSettings {
        let TraceArgs { port, pid, children, uses, resources, .. } = &self.trace;
        TracerSettings {
            ports: port.clone(),
            pids: (!pid.is_empty()).then(|| pid.clone()),
            children: *children,
            ring_bytes: resources.ring_size << 20,
            max_connections: resources.max_connections,
            uses: *uses,
            max_records: resources.stack_slots.min(resources.max_connections),
            stack_bytes: STACK_BYTES,
            stack_budget_ns: u64::try_from(resources.stack_budget.as_nanos()).unwrap_or(u64::MAX),
            drop_one_in: resources.drop_one_in,
            flavour: resources.hooks.map(Into::into),
            debug_log: self.verbose > 1,
        }
    }

    /// What to trace, and how.
    #[must_use]
    pub fn trace_settings(&self) -> TraceSettings {
        let TraceArgs { interval, silent_after, limit, .. } = self.trace;
        let args = &self.trace;
        let metrics = args.metrics_addr.map(|address| MetricsSettings {
            address,
            labels: args.label.clone(),
            interval,
        });
        TraceSettings {
            kernel: self.kernel_settings(),
            comm: args.comm.clone(),
            thresholds: Thresholds { silent_after, interval, limit },
            duration: args.duration,
            driver_frames: args.driver_frames.clone(),
            waiting: args.waiting,
            servers: args.pg_dsn.concat(),
            kubernetes: args.kubernetes.settings(),
            outputs: OutputSettings {
                format: args.output.into(),
                record: args.record.clone(),
                metrics,
                flamegraph: args.picture.settings(),
            },
        }
    }
}

impl ReplayArgs {
    /// What to replay, and how.
    #[must_use]
    pub fn settings(&self) -> ReplaySettings {
        ReplaySettings {
            file: self.file.clone(),
            silent_after: self.silent_after,
            limit: self.limit,
            outputs: OutputSettings {
                format: self.output.into(),
                record: None,
                metrics: None,
                flamegraph: self.picture.settings(),
            },
        }
    }
}

impl PictureArgs {
    fn settings(&self) -> Option<FlamegraphSettings> {
        let by = self.flamegraph_by.into();
        self.flamegraph.clone().map(|file| FlamegraphSettings { file, by })
    }
}

impl KubernetesArgs {
    fn settings(&self) -> Kubernetes {
        Kubernetes {
            asked: self.asked.into(),
            node_name: self.node_name.clone(),
            pod_label: self.pod_label.clone(),
            kubelet_url: self.kubelet_url.clone(),
            kubelet_insecure_tls: self.kubelet_insecure_tls,
        }
    }
}
