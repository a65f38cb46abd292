//! Works out whom the connections of a verdict blame.

use std::collections::{BTreeSet, HashMap};

use crate::engine::detect::blame::Blame;
use crate::engine::detect::contrast::{Blamed, Contrast};
use crate::engine::detect::view::shown_stack;
use crate::engine::detect::{CodeKey, Culprit, CulpritFrom, Reason, StackOf, View};
use crate::engine::table::{Connection, PoolKey};
use crate::model::ConnectionId;

/// Fewest connections that only their opener used and that together name it.
const LEAST_OPENED: usize = 3;

impl<'a> View<'a> {
    /// Whom each of the connections blames that are accused of `reason`.
    pub(super) fn blame(&self, reason: Reason, accused: &[&'a Connection]) -> Vec<Blame> {
        let evidence = if is_about_lost_uses(reason) {
            self.evidence_by_pool(accused)
        } else {
            HashMap::new()
        };
        let blame = |connection: &&'a Connection| {
            let key = || self.table().pool_of(connection).key;
            let of_pool = if evidence.is_empty() { None } else { evidence.get(&key()) };
            self.blame_one(reason, connection, of_pool)
        };
        accused.iter().map(blame).collect()
    }

    fn blame_one(
        &self,
        reason: Reason,
        connection: &Connection,
        of_pool: Option<&(Contrast, Option<CodeKey>)>,
    ) -> Blame {
        let (mut stack_of, mut stack) = shown_stack(connection);
        let by_opener = match of_pool {
            Some((_, opener)) => {
                opener.is_some() && reason != Reason::Silent && self.hides_its_user(connection)
            }
            None => reason == Reason::UnclosedAtExit && self.cause(stack.as_ref()).is_none(),
        };
        if by_opener && stack_of == StackOf::LastUsedBy {
            (stack_of, stack) = (StackOf::OpenedBy, connection.callers.opened_by);
        }
        let culprit = self.culprit(stack_of, stack.as_ref());
        let cause = self.cause(stack.as_ref());
        let blame = Blame { stack_of, stack, cause, culprit, uses: None };
        let (Some(id), StackOf::LastUsedBy, Some((contrast, _))) = (stack, stack_of, of_pool)
        else {
            return blame;
        };
        let Some(calls) = self.calls(&id) else { return blame };
        let could_rest = matches!(reason, Reason::Abandoned | Reason::Growing | Reason::Silent);
        let is_at_rest = could_rest && connection.is_idle();
        let (blamed, uses) = contrast.blame(id, &calls, !is_at_rest);
        let call = match blamed {
            Blamed::Call(at) => calls.get(at),
            Blamed::Nobody => None,
        };
        Blame {
            cause: call.map(|call| call.code.clone()),
            culprit: call.map(|call| Culprit { frame: call.frame, from: CulpritFrom::LastUse }),
            uses,
            ..blame
        }
    }

    /// For each pool, the contrast of its uses, and the code that opened and used what is accused
    /// where stacks of uses do not lead to the application.
    fn evidence_by_pool(
        &self,
        accused: &[&'a Connection],
    ) -> HashMap<PoolKey, (Contrast, Option<CodeKey>)> {
        let ids: BTreeSet<ConnectionId> = accused.iter().map(|connection| connection.id).collect();
        let mut pools: HashMap<PoolKey, Vec<&Connection>> = HashMap::new();
        for connection in accused {
            pools.entry(self.table().pool_of(connection).key).or_default().push(connection);
        }
        let evidence = |(key, members): (PoolKey, Vec<&Connection>)| {
            // Uses of what is accused may be those of the code that keeps it.
            let others = self.reused_stacks(&key).into_iter().filter(|(id, _)| !ids.contains(id));
            let returned = others.filter_map(|(_, stack)| self.calls(stack)).collect();
            let last = |member: &&Connection| self.calls(member.callers.last_used_by.as_ref()?);
            let kept = members.iter().filter_map(last).collect();
            let opener = self.only_opener(&key, &members, &ids);
            (key, (Contrast::new(returned, kept), opener))
        };
        pools.into_iter().map(evidence).collect()
    }

    /// The code that opened all of `members` whose user is hidden, and that used whatever it opened
    /// in this pool at once and only then: whoever has a connection opened is its first user.
    fn only_opener(
        &self,
        pool: &PoolKey,
        members: &[&Connection],
        accused: &BTreeSet<ConnectionId>,
    ) -> Option<CodeKey> {
        let hidden: Vec<_> = members.iter().filter(|member| self.hides_its_user(member)).collect();
        let opener = |one: &Connection| self.cause(one.callers.opened_by.as_ref());
        let first = opener(hidden.first()?)?;
        let is_alone = |one: &Connection| {
            let used_for = one.opened_at.map(|at| one.silent_since().since(at));
            used_for.is_some_and(|time| time <= self.grace())
        };
        let agree = hidden.len() >= LEAST_OPENED
            && hidden.iter().all(|one| is_alone(one) && opener(one).as_ref() == Some(&first));
        let is_others = |one: &Connection| {
            !accused.contains(&one.id)
                && !is_alone(one)
                && opener(one).as_ref() == Some(&first)
                && self.table().pool_of(one).key == *pool
        };
        (agree && !self.table().connections().any(is_others)).then_some(first)
    }

    /// Whether the stack of its last use is known and does not lead to the application, while that
    /// of its opening does.
    fn hides_its_user(&self, connection: &Connection) -> bool {
        let callers = &connection.callers;
        let (Some(used), Some(opened)) = (&callers.last_used_by, &callers.opened_by) else {
            return false;
        };
        self.cause(Some(used)).is_none() && self.calls(opened).is_some()
    }
}

/// Whether the connections of its verdicts may have been kept by the code that used them last.
/// Others wait, or never were in a pool.
fn is_about_lost_uses(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Abandoned
            | Reason::Growing
            | Reason::IdleInTransaction
            | Reason::UnreadResult
            | Reason::Silent
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::engine::detect::testing::{THRESHOLDS, find, judge_with};
    use crate::engine::detect::{CulpritFrom, CulpritUses, Reason, StackOf, Stacks};
    use crate::engine::testing::World;
    use crate::model::{StackId, WireState};
    use leak_stacks::{Frame, Language, Quality, Stack};

    /// Stacks of these names, each with the calls of the application in it, each in a line.
    fn stacks(named: &[(&str, &[(&str, u32)])]) -> Stacks {
        let stack = |&(name, calls): &(&str, &[(&str, u32)])| {
            let frame = |&(function, line): &(&str, u32)| Frame {
                function: Some(function.into()),
                module: None,
                file: Some("/srv/shop/app.py".into()),
                line: Some(line),
                address: 0,
            };
            let stack = Stack {
                id: StackId::from(name),
                quality: Quality::Complete,
                truncation: None,
                language: Language::Python,
                frames: calls.iter().map(frame).collect(),
                culprit: (!calls.is_empty()).then_some(0),
                callers: (1..calls.len()).collect(),
            };
            (stack.id, Arc::new(stack))
        };
        named.iter().map(stack).collect()
    }

    /// A pool that loses a connection every 10 s after a use by `lost`, while `work` uses another.
    fn leaking(lost: &str, work: &str) -> World {
        let mut world = World::new();
        world.open(0, 1.0);
        for number in 1..=12 {
            let at = 10.0 * number as f64;
            world.open(number, at);
            world.request(number, at + 0.1, lost, WireState::Idle);
            world.request(0, at + 0.2, work, WireState::Idle);
        }
        world
    }

    #[test]
    fn a_helper_is_not_blamed_for_its_caller() {
        let stacks = stacks(&[
            ("lost", &[("by_id", 9), ("refund", 50), ("serve", 3)]),
            ("work", &[("by_id", 9), ("show", 20), ("serve", 3)]),
        ]);
        let verdicts = judge_with(&leaking("lost", "work"), &stacks, &THRESHOLDS, 130.0);
        let found = find(&verdicts, Reason::Abandoned)[0];
        let culprit = found.culprit.unwrap();
        assert_eq!((culprit.frame, culprit.from), (1, CulpritFrom::LastUse));
        let returned = found.culprit_uses.unwrap().returned;
        assert_eq!(returned, 0);
    }

    #[test]
    fn code_that_gives_back_is_only_the_last_user() {
        let stacks = stacks(&[("list", &[("list", 7), ("serve", 3)])]);
        let verdicts = judge_with(&leaking("list", "list"), &stacks, &THRESHOLDS, 130.0);
        let found = find(&verdicts, Reason::Abandoned)[0];
        assert_eq!((found.culprit, found.stack), (None, Some(StackId::from("list"))));
        let CulpritUses { returned, kept } = found.culprit_uses.unwrap();
        assert!(returned >= 5 && kept >= 3, "{returned} {kept}");
        let step = found.next_step(None).unwrap();
        assert!(step.contains("does not use it"), "{step}");
    }

    #[test]
    fn where_the_user_is_hidden_the_opener_is_named_if_it_is_the_only_user() {
        let named = |lost: &str| {
            let mut world = leaking(lost, "work");
            for number in 1..=12 {
                world.opened_by(number, "connect");
            }
            let stacks = stacks(&[
                ("task", &[]),
                ("connect", &[("statement", 5), ("serve", 3)]),
                ("work", &[("show", 20), ("serve", 3)]),
            ]);
            let verdicts = judge_with(&world, &stacks, &THRESHOLDS, 130.0);
            let found = find(&verdicts, Reason::Abandoned)[0];
            (found.stack_of, found.culprit.map(|culprit| culprit.from))
        };
        assert_eq!(named("task"), (StackOf::OpenedBy, Some(CulpritFrom::Opener)));
        assert_eq!(named("work").0, StackOf::LastUsedBy);
    }
}
