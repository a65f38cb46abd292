//! Having stacks resolved, and learning from them.

use std::io;
use std::sync::Arc;

use crate::clock;
use crate::engine::Fact;
use crate::model::{ConnectionId, Event, StackRole, Timestamp};
use crate::sources::kernel::decode;
use crate::trace::collector::Collector;
use crate::trace::resolver::{Answer, Task};
use leak_stacks::{Quality, RawStack, TruncationReason};

/// A stack that came out truncated makes the kernel programs copy this many times as much.
const STACK_GROWTH: u32 = 2;

/// Stacks of uses that go well which are resolved each interval, of one group and in all: what the
/// others do shows what those that lose connections do not.
const SAMPLES_OF_GROUP: usize = 8;
const MAX_SAMPLES: usize = 128;

impl Collector {
    /// Has the latest request's stack resolved for each connection that is on its way to being
    /// called silent, and for some that are in use.
    pub(super) fn resolve_last_uses(&mut self) -> io::Result<()> {
        let silent_for = self.engine.thresholds().silent_after / 2;
        let now = clock::now();
        let table = self.engine.table();
        let mut wanting: Vec<_> = table.wanting_stack(silent_for, now).collect();
        let since = now.before(self.engine.thresholds().interval);
        let samples = table.wanting_sample(since, SAMPLES_OF_GROUP);
        wanting.extend(samples.into_iter().take(MAX_SAMPLES));
        for (id, request) in wanting {
            let role = StackRole::LastUsedBy { request };
            let stack = self.recorded(id, request);
            if stack.is_err() {
                // An older one would accuse an innocent.
                let event = Event::StackResolved { id, role, stack: None, goroutine: None };
                self.tell(&Fact::Event(event))?;
            }
            let at = self.opened_at(id);
            self.resolve(id, role, at, stack);
        }
        Ok(())
    }

    /// Tells the latest uses of every connection, if that was asked for, and has their stacks resolved.
    pub(in crate::trace) fn take_uses(&mut self) -> io::Result<()> {
        if self.uses == 0 {
            return Ok(());
        }
        let ids: Vec<_> = self.engine.table().connections().map(|known| known.id).collect();
        for id in ids {
            let kept = self.tracer.uses(id);
            let uses = kept.map(|kept| decode::uses(&kept, self.uses)).unwrap_or_default();
            let requests: Vec<_> = uses.iter().map(|one| one.request).collect();
            self.tell(&Fact::Event(Event::Uses { id, uses }))?;
            for request in requests {
                // One that was not recorded stays unknown.
                let (role, at) = (StackRole::UsedBy { request }, self.opened_at(id));
                let stack = self.recorded(id, request);
                self.resolve(id, role, at, stack);
            }
        }
        Ok(())
    }

    /// A request's stack, as it was recorded.
    fn recorded(&self, id: ConnectionId, request: u64) -> Result<RawStack, TruncationReason> {
        let recorded = self.tracer.recorded_stack(id, request);
        recorded
            .ok_or(TruncationReason::NotRecorded)
            .and_then(|(header, bytes)| decode::raw_stack(&header, &bytes))
    }

    /// When a connection was opened, which tells it from others that used the same socket.
    fn opened_at(&self, id: ConnectionId) -> Timestamp {
        let known = self.engine.table().get(id);
        known.and_then(|connection| connection.opened_at).unwrap_or_default()
    }

    /// Has a stack resolved, or counts that there is none.
    pub(super) fn resolve(
        &mut self,
        id: ConnectionId,
        role: StackRole,
        at: Timestamp,
        stack: Result<RawStack, TruncationReason>,
    ) {
        let asked = stack.and_then(|stack| match self.resolver.resolve(id, role, at, stack) {
            true => Ok(()),
            false => Err(TruncationReason::TooManyWaiting),
        });
        if let Err(missing) = asked {
            self.stack_counts.add(Quality::None, Some(missing));
        }
    }

    /// Goes on without a thread of the resolver's that does not come back.
    pub(in crate::trace) fn replace_stuck(&mut self) {
        self.resolver.replace_stuck();
    }

    /// What the resolver has found out next.
    pub(in crate::trace) async fn answer(&mut self) -> Option<Answer> {
        self.resolver.answer().await
    }

    /// Takes in what the resolver has found out: a stack, and how to copy its process's stacks.
    pub(in crate::trace) fn take_answer(&mut self, answer: Option<Answer>) -> anyhow::Result<()> {
        let Some(Answer { task, profile, stack }) = answer else {
            anyhow::bail!("the resolver's thread has died");
        };
        if let Some(profile) = profile {
            self.tracer.set_profile(task.process().pid, profile);
        }
        let (Task::Resolve { process, id, role, at }, Some((wanted, resolved))) = (task, stack)
        else {
            return Ok(());
        };
        let quality = resolved.stack.as_ref().map_or(Quality::None, |stack| stack.quality);
        self.stack_counts.add(quality, resolved.truncation);
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
            self.tell(&Fact::Stack(Arc::clone(stack)))?;
        }
        let stack = resolved.stack.map(|stack| stack.id);
        let event = Event::StackResolved { id, role, stack, goroutine: resolved.goroutine };
        Ok(self.tell(&Fact::Event(event))?)
    }

    /// Whether every stack asked for has been answered.
    pub(in crate::trace) fn stacks_are_resolved(&self) -> bool {
        self.resolver.is_idle()
    }
}
