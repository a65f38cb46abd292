use std::collections::BTreeSet;

use crate::engine::detect::{DETECTORS, Reason, Severity, StackOf, detector_of, place};
use leak_stacks::Frame;

#[test]
fn every_reason_has_one_detector() {
    let found: BTreeSet<Reason> = DETECTORS.iter().map(|detector| detector.reason()).collect();
    assert_eq!(found.len(), DETECTORS.len());
    assert_eq!(found, Reason::ALL.iter().copied().collect());
}

#[test]
fn names_are_those_of_the_report() {
    let names = Reason::ALL.iter().map(|reason| (reason.name(), serde_json::json!(reason)));
    assert!(names.clone().all(|(name, json)| json == name), "{:?}", names.collect::<Vec<_>>());
    for severity in [Severity::Info, Severity::Suspect, Severity::Leak] {
        assert_eq!(serde_json::json!(severity), severity.name());
    }
}

#[test]
fn every_reason_but_silence_has_a_next_step_and_it_names_the_place() {
    let frame = Frame {
        function: Some("refund".into()),
        module: None,
        file: Some("/srv/shop/pay.py".into()),
        line: Some(7),
        address: 0,
    };
    let place = place::of(StackOf::LastUsedBy, Some(&frame));
    assert_eq!(place, "in refund (pay.py:7)");
    for &reason in Reason::ALL {
        let step = detector_of(reason).next_step(Severity::Leak, &place).unwrap_or_default();
        let placeless =
            [Reason::CloseWait, Reason::ConnectStuck, Reason::AwaitingResponse, Reason::Refused];
        assert_eq!(step.contains(&place), !placeless.contains(&reason), "{reason}: {step}");
        assert!(!step.is_empty(), "{reason}");
    }
    assert_eq!(place::of(StackOf::LastUsedBy, None), "where they were last used");
    assert_eq!(detector_of(Reason::Silent).next_step(Severity::Info, &place), None);
}
