//! Having stacks resolved, and learning from them.

use std::io;
use std::sync::Arc;

use super::Collector;
use crate::engine::Fact;
use crate::event::{Event, StackRole};
use crate::pipeline::resolver::{Answer, ResolvedStack};
use crate::{clock, decode};

/// A stack that came out truncated makes the kernel programs copy this many times as much.
const STACK_GROWTH: u32 = 2;

impl Collector {
    /// Has the latest request's stack resolved for each connection that is on its way to being
    /// called silent.
    pub(super) fn resolve_last_uses(&mut self) -> io::Result<()> {
        let silent_for = self.engine.thresholds().silent_after / 2;
        let wanting: Vec<_> = self.engine.table().wanting_stack(silent_for, clock::now()).collect();
        for (id, request) in wanting {
            let role = StackRole::LastUsedBy { request };
            let known = self.engine.table().get(id);
            let at = known.and_then(|connection| connection.opened_at).unwrap_or_default();
            let record = self.slots.get(&id).and_then(|&slot| self.tracer.recorded_stack(slot));
            let stack = record
                .filter(|(header, _)| header.cookie == id.0 && header.request == request)
                .and_then(|(header, bytes)| decode::raw_stack(&header, &bytes));
            match stack {
                Some(stack) => self.resolver.resolve(id, role, at, stack),
                // It was not recorded, and an older one would accuse an innocent.
                None => {
                    let event = Event::StackResolved { id, role, stack: None, goroutine: None };
                    self.tell(Fact::Event(event))?;
                }
            }
        }
        Ok(())
    }

    /// What the resolver has found out next.
    pub(in crate::pipeline) async fn answer(&mut self) -> Option<Answer> {
        self.resolver.answer().await
    }

    /// Takes in what the resolver has found out: a stack, and how to copy its process's stacks.
    pub(in crate::pipeline) fn take_answer(
        &mut self,
        answer: Option<Answer>,
    ) -> anyhow::Result<()> {
        let Some(Answer { process, profile, stack }) = answer else {
            anyhow::bail!("the resolver's thread has died");
        };
        if let Some(profile) = profile {
            self.tracer.set_profile(process.pid, profile);
        }
        let Some(ResolvedStack { id, role, at, wanted, resolved }) = stack else {
            return Ok(());
        };
        let opened_at = self.engine.table().get(id).and_then(|connection| connection.opened_at);
        if opened_at.is_some_and(|opened_at| opened_at != at) {
            // The socket has begun another connection meanwhile.
            return Ok(());
        }
        if resolved.frames_wanted_more {
            self.tracer.set_stack_bytes(process.pid, wanted.saturating_mul(STACK_GROWTH));
        }
        if let Some(stack) = &resolved.stack
            && !self.engine.has_stack(stack)
        {
            self.tell(Fact::Stack(Arc::clone(stack)))?;
        }
        let stack = resolved.stack.map(|stack| stack.id.clone());
        let event = Event::StackResolved { id, role, stack, goroutine: resolved.goroutine };
        Ok(self.tell(Fact::Event(event))?)
    }

    /// Whether every stack asked for has been answered.
    pub(in crate::pipeline) fn stacks_are_resolved(&self) -> bool {
        self.resolver.is_idle()
    }
}
