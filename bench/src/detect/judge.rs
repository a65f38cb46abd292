//! Compares what a trace reported with what the program did.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::manifest::Scenario;

/// Everything that was seen of one run.
#[derive(Debug, Default)]
pub(super) struct Observation {
    /// When connections leaked, in milliseconds since 1970, and their local ports (0: not known).
    pub(super) leaks: Vec<(i64, u16)>,
    /// When the tracer was ready, in milliseconds since 1970.
    pub(super) attached: i64,
    /// The tracer's lines, and when they came.
    pub(super) lines: Vec<(i64, Value)>,
    /// When the run ended.
    pub(super) ended: i64,
}

/// What became of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Connections that leaked.
    pub(super) leaked: usize,
    /// Time from the third leak, or from the tracer's arrival if that was later, to the first
    /// finding about a leaked connection, in milliseconds.
    pub(super) detected_after: Option<i64>,
    /// Whether a suspicion names a leaked connection, or the report says that it cannot know about
    /// connections older than the trace.
    pub(super) said_so: bool,
    /// The reasons of the findings about leaked connections.
    pub(super) reasons: BTreeSet<String>,
    /// Of the leaked connections that had the time to be found, how many were.
    pub(super) named: Option<(usize, usize)>,
    /// Whom the standing findings name.
    pub(super) culprit: Culprit,
    /// Findings that accuse an innocent connection, in the tracer's words.
    pub(super) false_accusations: Vec<String>,
}

/// Whom findings name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Culprit {
    /// Nobody.
    #[default]
    Nobody,
    /// The function that leaks, and no other.
    Right,
    /// Another one.
    Wrong(String),
}

impl Outcome {
    /// Whether the leak was found.
    pub(super) fn found(&self) -> bool {
        self.detected_after.is_some()
    }
}

/// Whether a finding weighs as much as one about the pattern's leak has to.
pub(super) fn is_grave(scenario: &Scenario, finding: &Value) -> bool {
    finding["severity"] == "leak" || finding["severity"] == scenario.pattern.severity.as_str()
}

/// Judges a run; `patience` is how long after its leak a connection may stay unnoticed, in
/// milliseconds.
pub(super) fn judge(scenario: &Scenario, seen: &Observation, patience: i64) -> Outcome {
    let ports = ports(&seen.lines);
    let leaked: BTreeSet<u16> = seen.leaks.iter().map(|&(_, port)| port).collect();
    // Where the program does not know its ports, each accused connection counts as leaked.
    let all_known = !leaked.contains(&0) && !leaked.is_empty();
    let is_leaked = |id: u64| !all_known || ports.get(&id).is_none_or(|port| leaked.contains(port));
    let mut outcome = Outcome { leaked: seen.leaks.len(), ..Outcome::default() };
    let third = seen.leaks.get(2).map(|&(at, _)| at.max(seen.attached));
    let mut accused = BTreeMap::new();
    for (at, line) in &seen.lines {
        if line["event"] != "finding" {
            continue;
        }
        let members = members(line);
        let guilty = scenario.leaks() && members.iter().any(|&id| is_leaked(id));
        outcome.said_so |= guilty && line["severity"] == "suspect";
        if !is_grave(scenario, line) {
            continue;
        }
        let innocents: Vec<u64> =
            members.iter().copied().filter(|&id| !scenario.leaks() || !is_leaked(id)).collect();
        if guilty {
            outcome.reasons.insert(line["reason"].as_str().unwrap_or("?").to_owned());
            outcome.detected_after.get_or_insert(at - third.unwrap_or(*at));
        }
        if !innocents.is_empty() && line["severity"] == "leak" {
            accused
                .entry(line["id"].to_string())
                .or_insert_with(|| sentence(line, innocents.len()));
        }
    }
    outcome.false_accusations = accused.into_values().collect();

    let report = seen.lines.iter().rev().find(|(_, line)| line["event"] == "report");
    let Some((_, report)) = report else { return outcome };
    outcome.said_so |= report["verdict"]["unknown_older"].as_u64().is_some_and(|count| count > 0);
    let none = Vec::new();
    let standing: Vec<&Value> = report["findings"]
        .as_array()
        .unwrap_or(&none)
        .iter()
        .filter(|finding| is_grave(scenario, finding) && finding["retracted_at"].is_null())
        .collect();
    if let Some(expected) = &scenario.pattern.culprit {
        outcome.culprit = culprit(&standing, expected);
    }
    if all_known && scenario.pattern.severity == "leak" {
        let named: BTreeSet<u16> = standing
            .iter()
            .flat_map(|f| members(f))
            .filter_map(|id| ports.get(&id).copied())
            .collect();
        let due: BTreeSet<u16> = seen
            .leaks
            .iter()
            .filter(|&&(at, _)| at.max(seen.attached) + patience < seen.ended)
            .map(|&(_, port)| port)
            .collect();
        outcome.named = Some((due.intersection(&named).count(), due.len()));
    }
    outcome
}

/// The local ports of the connections, by their ids.
fn ports(lines: &[(i64, Value)]) -> BTreeMap<u64, u16> {
    let port = |connection: &Value| {
        let local = connection["local"].as_str()?.rsplit_once(':')?.1;
        Some((connection["id"].as_u64()?, local.parse().ok()?))
    };
    let none = Vec::new();
    lines
        .iter()
        .flat_map(|(_, line)| {
            let table = line["connections"].as_array().unwrap_or(&none);
            port(line).into_iter().chain(table.iter().filter_map(port))
        })
        .collect()
}

fn members(finding: &Value) -> Vec<u64> {
    let ids = finding["connections"].as_array();
    ids.map(|ids| ids.iter().filter_map(Value::as_u64).collect()).unwrap_or_default()
}

fn sentence(finding: &Value, innocents: usize) -> String {
    format!(
        "{innocents} innocent of {}, {}: {} ({})",
        members(finding).len(),
        finding["reason"].as_str().unwrap_or("?"),
        finding["evidence"].as_str().unwrap_or("?"),
        finding["culprit"]["function"].as_str().unwrap_or("nobody named")
    )
}

fn culprit(findings: &[&Value], expected: &str) -> Culprit {
    let named: Vec<&str> =
        findings.iter().filter_map(|finding| finding["culprit"]["function"].as_str()).collect();
    match named.iter().find(|name| !plain(name).contains(&plain(expected))) {
        Some(wrong) => Culprit::Wrong((*wrong).to_owned()),
        None if named.is_empty() => Culprit::Nobody,
        None => Culprit::Right,
    }
}

/// A name without what languages write differently: `exportInvoices` is `export_invoices`.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::detect::manifest::Manifest;

    /// A scenario of the corpus by its title.
    fn scenario(title: &str) -> Scenario {
        let root = support::workspace::root();
        let all = Manifest::read(root).unwrap().scenarios(1).unwrap();
        all.into_iter().find(|one| one.title() == title).unwrap()
    }

    /// Connections 1 to 9 have the local ports 1001 to 1009.
    fn established() -> Vec<(i64, Value)> {
        let line = |id: u64| {
            let local = format!("127.0.0.1:{}", 1000 + id);
            (0, json!({"event": "connection_established", "id": id, "local": local}))
        };
        (1..10).map(line).collect()
    }

    fn finding(severity: &str, connections: &[u64], function: Option<&str>) -> Value {
        json!({
            "event": "finding", "id": "1", "reason": "abandoned", "severity": severity, "evidence": "5 silent",
            "connections": connections, "retracted_at": null,
            "culprit": function.map(|function| json!({"function": function})),
        })
    }

    /// Connections 1, 2 and 3 leaked at 1, 2 and 3 s; the finding came at 9 s.
    fn judged(title: &str, finding: &Value) -> Outcome {
        let mut lines = established();
        lines.push((9000, finding.clone()));
        lines.push((20_000, json!({"event": "report", "findings": [finding], "connections": []})));
        let leaks = vec![(1000, 1001), (2000, 1002), (3000, 1003)];
        let seen = Observation { leaks, lines, attached: 500, ended: 20_000 };
        judge(&scenario(title), &seen, 7000)
    }

    #[test]
    fn times_count_from_a_late_arrival() {
        let mut lines = established();
        lines.push((9000, finding("leak", &[1], None)));
        let leaks = vec![(1000, 1001), (2000, 1002), (3000, 1003)];
        let seen = Observation { leaks, lines, attached: 8000, ended: 20_000 };
        assert_eq!(judge(&scenario("go-pq/rows/late"), &seen, 7000).detected_after, Some(1000));
    }

    #[test]
    fn what_is_missed_may_be_said() {
        let said = |report: Value, severity: &str| {
            let mut lines = established();
            lines.push((9000, finding(severity, &[1], None)));
            lines.push((20_000, report));
            let leaks = vec![(1000, 1001), (2000, 1002), (3000, 1003)];
            let seen = Observation { leaks, lines, attached: 4000, ended: 20_000 };
            judge(&scenario("go-pq/rows/over"), &seen, 7000).said_so
        };
        let report = |older: u64| json!({"event": "report", "findings": [], "connections": [], "verdict": {"unknown_older": older}});
        assert!(said(report(3), "info") && said(report(0), "suspect"));
        assert!(!said(report(0), "info"));
    }

    #[test]
    fn a_leak_is_found_and_named() {
        let outcome = judged(
            "go-pq/not_returned",
            &finding("leak", &[1, 2], Some("main.(*store).customerReport")),
        );
        assert_eq!(outcome.detected_after, Some(6000));
        assert_eq!(outcome.culprit, Culprit::Right);
        assert_eq!(outcome.named, Some((2, 3)));
        assert!(outcome.false_accusations.is_empty());
    }

    #[test]
    fn an_innocent_connection_is_a_false_accusation() {
        let outcome = judged("go-pq/not_returned", &finding("leak", &[3, 4], Some("main.other")));
        assert!(outcome.found());
        assert_eq!(outcome.culprit, Culprit::Wrong("main.other".to_owned()));
        assert_eq!(outcome.false_accusations.len(), 1);
        assert!(outcome.false_accusations[0].starts_with("1 innocent of 2"), "{outcome:?}");
        assert!(!judged("go-pq/not_returned", &finding("leak", &[4], None)).found());
    }

    #[test]
    fn every_accusation_of_a_healthy_program_is_false() {
        let outcome = judged("go-pq/steady", &finding("leak", &[4], None));
        assert!(!outcome.found());
        assert_eq!(outcome.false_accusations.len(), 1);
        let outcome = judged("go-pq/steady", &finding("suspect", &[4], None));
        assert!(outcome.false_accusations.is_empty());
    }

    #[test]
    fn a_suspicion_finds_only_a_hanging_connect() {
        let suspicion = finding("suspect", &[1], None);
        assert!(!judged("go-pq/rows", &suspicion).found());
        assert!(judged("go-pq/connect_hang", &suspicion).found());
    }
}
