//! Judging made-up histories.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::detect::{
    PriorAccusations, Reason, Stacks, Thresholds, Verdict, View, evaluate,
};
use crate::engine::senders::Senders;
use crate::engine::testing::{World, secs};
use crate::model::StackId;
use leak_stacks::{Frame, Language, Quality, Stack};

pub(super) const THRESHOLDS: Thresholds = Thresholds {
    silent_after: Duration::from_secs(60),
    interval: Duration::from_secs(10),
    limit: Some(100),
    fail_on_leak: false,
};

/// Judges `world` at second `at` with the default thresholds and no former findings.
pub(super) fn judge(world: &World, at: f64) -> Vec<Verdict> {
    judge_with(world, &Stacks::new(), &THRESHOLDS, at)
}

/// The same with these stacks and thresholds.
pub(super) fn judge_with(
    world: &World,
    stacks: &Stacks,
    thresholds: &Thresholds,
    at: f64,
) -> Vec<Verdict> {
    judge_again(world, stacks, thresholds, &PriorAccusations::new(), at)
}

/// The same with former findings.
pub(crate) fn judge_again(
    world: &World,
    stacks: &Stacks,
    thresholds: &Thresholds,
    prior: &PriorAccusations,
    at: f64,
) -> Vec<Verdict> {
    let senders = Senders::default();
    let view = View::new(&world.table, &world.memory, stacks, &senders, thresholds, prior);
    evaluate(view, secs(at))
}

/// Stacks of these names, each of one function of the application in Python.
pub(super) fn named_stacks(names: &[&str]) -> Stacks {
    let stack = |name: &&str| {
        let frame = Frame {
            function: Some((*name).to_owned()),
            module: None,
            file: Some("/srv/shop/app.py".into()),
            line: Some(1),
            address: 0,
        };
        let stack = Stack {
            id: StackId::from(*name),
            quality: Quality::Complete,
            truncation: None,
            language: Language::Python,
            frames: vec![frame],
            culprit: Some(0),
            callers: Vec::new(),
        };
        (stack.id, Arc::new(stack))
    };
    names.iter().map(stack).collect()
}

/// The same with what is known of who sends which statement, and nothing else.
pub(super) fn judge_knowing(world: &World, senders: &Senders, at: f64) -> Vec<Verdict> {
    let (stacks, prior) = (Stacks::new(), PriorAccusations::new());
    let view = View::new(&world.table, &world.memory, &stacks, senders, &THRESHOLDS, &prior);
    evaluate(view, secs(at))
}

/// The verdicts with `reason`.
pub(super) fn find(verdicts: &[Verdict], reason: Reason) -> Vec<&Verdict> {
    verdicts.iter().filter(|verdict| verdict.reason == reason).collect()
}
