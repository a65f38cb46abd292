//! temporary
use crate::cli::TraceArgs;
use crate::event::{Event, ProcessKey, StackId, Timestamp};
use crate::findings::{Change, Ledger};
use crate::kernel::Tracer;
use crate::process::ProcessInfo;
use crate::stacks::Stack;
use crate::table::ConnectionTable;
use std::collections::HashMap;
use std::sync::Arc;
pub(super) struct Scene<'a> {
    pub(super) table: &'a ConnectionTable,
    pub(super) ledger: &'a Ledger,
    pub(super) stacks: &'a HashMap<StackId, Arc<Stack>>,
    pub(super) processes: &'a HashMap<ProcessKey, ProcessInfo>,
    pub(super) now: Timestamp,
}
pub(super) struct Output;
impl Output {
    pub(super) fn new(_: &TraceArgs, _: &Tracer) -> Self {
        Self
    }
    pub(super) fn event(&mut self, _e: &Event, _t: &ConnectionTable) -> anyhow::Result<()> {
        Ok(())
    }
    pub(super) fn judgement(&mut self, c: &[Change], s: &Scene<'_>) -> anyhow::Result<()> {
        for c in c {
            let kind = match c {
                Change::Opened(_) => "NEW",
                Change::Updated(..) => "UPD",
                Change::Retracted(..) => "RET",
            };
            let f = c.finding();
            let cul = f.verdict.stack.as_ref().and_then(|i| s.stacks.get(i)).and_then(|st| {
                st.culprit
                    .and_then(|c| st.frames.get(c))
                    .map(|f| format!("{:?} {:?}:{:?}", f.function, f.file, f.line))
            });
            println!(
                "{kind} {} {} {:?} {} [{}] {:?} {cul:?}",
                f.id,
                f.verdict.reason,
                f.verdict.severity,
                f.verdict.evidence,
                f.verdict.connections.len(),
                f.verdict.stack_of
            );
        }
        println!("-- {} connections, {:?}", s.table.connections().count(), s.table.losses());
        Ok(())
    }
    pub(super) fn report(&mut self, s: &Scene<'_>) -> anyhow::Result<()> {
        println!("=== report {}", s.ledger.open().len());
        let _ = (s.processes, s.now);
        Ok(())
    }
}
