//! From options to the settings of whatever is to be run.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::ColorChoice;

use crate::cli::{Cli, Command, KubernetesArgs, PictureArgs, ReplayArgs, TraceArgs};
use crate::demo;
use crate::engine::detect::Thresholds;
use crate::outputs::ndjson::{EventKind, Events};
use crate::outputs::text::{Look, Paint, Screen, Terminal, Zone};
use crate::outputs::{FlamegraphSettings, MetricsSettings, OutputSettings, PrintTo, Printed};
use crate::replay::ReplaySettings;
use crate::sources::kernel::TracerSettings;
use crate::sources::kubernetes::Kubernetes;
use crate::sources::procfs::selection::Selection;
use crate::trace::{CommandLine, TraceSettings};

/// Bytes of stack that are copied of a process about which nothing is known yet.
const STACK_BYTES: u32 = 8 << 10;

/// What `-` stands for.
const STDIN: &str = "/dev/stdin";

impl Cli {
    /// What the kernel programs are told.
    #[must_use]
    pub fn kernel_settings(&self) -> TracerSettings {
        let TraceArgs { port, pid, children, uses, resources, .. } = self.tracing();
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
        let args = self.tracing();
        let &TraceArgs { interval, silent_after, limit, fail_on_leak, .. } = args;
        let run = match &self.command {
            Some(Command::Run(run)) => Some(run),
            _ => None,
        };
        let to = match run.map(|run| &run.report) {
            None => PrintTo::Stdout,
            Some(None) => PrintTo::Stderr,
            Some(Some(file)) => PrintTo::File(file.clone()),
        };
        let metrics = args.metrics_addr.map(|address| MetricsSettings {
            address,
            labels: args.label.clone(),
            interval,
        });
        TraceSettings {
            kernel: self.kernel_settings(),
            command: run.and_then(|run| run.command_line()),
            selection: args.selection.selection(),
            thresholds: Thresholds { silent_after, interval, limit, fail_on_leak },
            suppress: args.ci.suppressions(),
            duration: args.duration,
            driver_frames: args.driver_frames.clone(),
            waiting: args.waiting,
            servers: args.pg_dsn.concat(),
            kubernetes: args.kubernetes.settings(),
            outputs: OutputSettings {
                format: args.output.into(),
                printed: self.printed(to, run.is_some(), &args.events),
                record: args.record.clone(),
                learn: args.learn.clone(),
                metrics,
                flamegraph: args.picture.settings(),
                ci: args.ci.settings(run.is_some() && is_workflow()),
            },
        }
    }
}

impl Cli {
    /// How to trace the demo's service, which is this program, with its server on `port`.
    #[must_use]
    pub fn demo_settings(&self, program: PathBuf, port: u16) -> TraceSettings {
        let settings = self.trace_settings();
        let printed = self.printed(PrintTo::Stdout, true, &[]);
        let arguments = vec!["demo-service".into(), port.to_string().into()];
        TraceSettings {
            kernel: TracerSettings { ports: vec![port], ..settings.kernel },
            command: Some(CommandLine { program: program.into(), arguments }),
            selection: Selection::default(),
            thresholds: Thresholds {
                silent_after: demo::SILENT_AFTER,
                interval: demo::INTERVAL,
                limit: None,
                fail_on_leak: false,
            },
            duration: Some(demo::LASTS),
            driver_frames: demo::DRIVER.parse().into_iter().collect(),
            servers: Vec::new(),
            outputs: OutputSettings {
                printed: Printed {
                    // On a terminal the leaks can be watched as they grow.
                    only_report: self.quiet > 0 || !printed.look.screen.redraws,
                    ..printed
                },
                ..settings.outputs
            },
            ..settings
        }
    }

    fn look(&self, terminal: Option<Terminal>) -> Look {
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let redraws = terminal.is_some() && !is_dumb();
        Look {
            paint: self.paint(terminal.is_some()),
            screen: Screen { terminal, columns, redraws },
            frames: self.frames.into(),
            verbose: self.verbose > 0,
            zone: Zone::Local,
        }
    }

    /// Colours for what is printed to a file, which may be a terminal.
    #[must_use]
    pub fn paint(&self, is_terminal: bool) -> Paint {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = is_dumb();
        Paint::new(match self.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => is_terminal && !dumb && !is_set("NO_COLOR"),
        })
    }

    fn printed(&self, to: PrintTo, only_report: bool, events: &[EventKind]) -> Printed {
        let terminal = match to {
            PrintTo::Stdout => std::io::stdout().is_terminal().then_some(Terminal::Stdout),
            PrintTo::Stderr => std::io::stderr().is_terminal().then_some(Terminal::Stderr),
            PrintTo::File(_) | PrintTo::Nowhere => None,
        };
        Printed {
            look: self.look(terminal),
            events: Events::new(events.to_vec()),
            only_report: only_report || self.quiet > 0,
            to: if self.quiet > 1 { PrintTo::Nowhere } else { to },
        }
    }

    /// What to replay, and how.
    #[must_use]
    pub fn replay_settings(&self, args: &ReplayArgs) -> ReplaySettings {
        ReplaySettings {
            file: if args.file.as_os_str() == "-" { STDIN.into() } else { args.file.clone() },
            silent_after: args.silent_after,
            limit: args.limit,
            fail_on_leak: args.fail_on_leak,
            suppress: args.ci.suppressions(),
            outputs: OutputSettings {
                format: args.output.into(),
                printed: self.printed(PrintTo::Stdout, false, &args.events),
                record: None,
                learn: None,
                metrics: None,
                flamegraph: args.picture.settings(),
                ci: args.ci.settings(false),
            },
        }
    }
}

/// Whether the terminal understands nothing but text.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|name| name == "dumb")
}

/// Whether this is a step of a workflow of GitHub's.
fn is_workflow() -> bool {
    std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true")
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
