//! The documented schema, field by field: what must be there even when it is unknown.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// A field's type. `Or…` may also be `null`.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    TextOrNull,
    Time,
    TimeOrNull,
    Number,
    NumberOrNull,
    Flag,
    List,
    Map,
    MapOrNull,
}

use Kind::{Flag, List, Map, MapOrNull, Number, NumberOrNull, Text, TextOrNull, Time, TimeOrNull};

const DOCUMENT: &[(&str, Kind)] = &[
    ("schema", Text),
    ("version", Text),
    ("host", Text),
    ("kernel", Text),
    ("hooks", Map),
    ("started_at", Time),
    ("ended_at", Time),
    ("ports", List),
    ("events", Map),
    ("stack_quality", Map),
    ("stack_copies", Map),
    ("skipped_runs", Number),
    ("cost", Map),
    ("processes", List),
    ("connections", List),
    ("stacks", Map),
    ("findings", List),
    ("servers", List),
];

const EVENTS: &[(&str, Kind)] = &[("received", Number), ("lost", Number), ("reconciled", Number)];

const STACK_QUALITY: &[(&str, Kind)] =
    &[("complete", Number), ("truncated", Number), ("none", Number), ("reasons", Map)];

const STACK_COPIES: &[(&str, Kind)] =
    &[("recorded", Number), ("over_budget", Number), ("no_slot", Number), ("unreadable", Number)];

/// The kernel tells only those with `CAP_SYS_ADMIN` what its programs cost; nothing is told in a
/// recording that breaks off before the first judgement.
const COST: &[(&str, Kind)] = &[("kernel_cores", NumberOrNull), ("collector_cores", NumberOrNull)];

/// A process may be gone before its name and start can be read.
const PROCESS: &[(&str, Kind)] = &[
    ("pid", Number),
    ("container_pid", NumberOrNull),
    ("started_at", TimeOrNull),
    ("comm", TextOrNull),
    ("exe", TextOrNull),
    ("container_id", TextOrNull),
    ("pod_uid", TextOrNull),
    ("pod", MapOrNull),
    ("open", Number),
    ("opened_total", Number),
    ("closed_total", Number),
    ("peak_open", Number),
    ("refused", Map),
];

/// A connection that was found when its process had closed it already belongs to nobody.
const CONNECTION: &[(&str, Kind)] = &[
    ("id", Number),
    ("pid", NumberOrNull),
    ("tid", NumberOrNull),
    ("goroutine", NumberOrNull),
    ("held_by", List),
    ("local", Text),
    ("remote", Text),
    ("destination", MapOrNull),
    ("tcp_state", Text),
    ("wire", Map),
    ("opened_at", TimeOrNull),
    ("opened_before_trace", Flag),
    ("silent_ms", Number),
    ("bytes_sent", Number),
    ("bytes_received", Number),
    ("unread_bytes", NumberOrNull),
    ("opened_since_silent", Number),
    ("opened_by", TextOrNull),
    ("last_used_by", TextOrNull),
    ("last_used_goroutine", NumberOrNull),
    ("server", MapOrNull),
];

/// What a connection's server says of it.
const SESSION: &[(&str, Kind)] = &[
    ("server", Text),
    ("pid", Number),
    ("user", TextOrNull),
    ("database", TextOrNull),
    ("application_name", TextOrNull),
    ("state", TextOrNull),
    ("state_ms", NumberOrNull),
    ("xact_ms", NumberOrNull),
    ("backend_started_at", TimeOrNull),
    ("wait_event_type", TextOrNull),
    ("wait_event", TextOrNull),
    ("query", TextOrNull),
];

const SERVER: &[(&str, Kind)] = &[
    ("server", Text),
    ("status", Text),
    ("message", TextOrNull),
    ("asked_at", Time),
    ("version", TextOrNull),
    ("max_connections", NumberOrNull),
    ("superuser_reserved", NumberOrNull),
    ("reserved", NumberOrNull),
    ("used", NumberOrNull),
    ("traced", NumberOrNull),
    ("full", Flag),
    ("hidden", Number),
    ("cut", Flag),
    ("answers", Number),
    ("refusals", Number),
    ("failures", Number),
    ("applications", List),
    ("unowned", List),
];

const WIRE: &[(&str, Kind)] = &[
    ("state", Text),
    ("tls", Flag),
    ("listens", Flag),
    ("user", TextOrNull),
    ("database", TextOrNull),
    ("application_name", TextOrNull),
    ("backend_pid", NumberOrNull),
];

const STACK: &[(&str, Kind)] =
    &[("quality", Text), ("quality_reason", TextOrNull), ("language", Text), ("frames", List)];

const FRAME: &[(&str, Kind)] = &[
    ("function", TextOrNull),
    ("module", TextOrNull),
    ("file", TextOrNull),
    ("line", NumberOrNull),
];

const FINDING: &[(&str, Kind)] = &[
    ("reason", Text),
    ("severity", Text),
    ("since", Time),
    ("process", Map),
    ("remote", Text),
    ("connections", List),
    ("count", Number),
    ("evidence", Text),
    ("stack_of", TextOrNull),
    ("stack", TextOrNull),
    ("culprit", MapOrNull),
    ("next_step", TextOrNull),
    ("retracted_at", TimeOrNull),
];

/// Checks a document of `-o json`.
pub fn check(document: &Value) -> Result<()> {
    fields(document, DOCUMENT).context("the document")?;
    ensure!(document["schema"] == "pgsocktrace.report/1", "schema is {}", document["schema"]);
    fields(&document["events"], EVENTS).context("events")?;
    fields(&document["stack_quality"], STACK_QUALITY).context("stack_quality")?;
    fields(&document["stack_copies"], STACK_COPIES).context("stack_copies")?;
    fields(&document["cost"], COST).context("cost")?;
    for process in elements(&document["processes"]) {
        fields(process, PROCESS).context("processes")?;
    }
    for connection in elements(&document["connections"]) {
        fields(connection, CONNECTION).context("connections")?;
        fields(&connection["wire"], WIRE).context("wire")?;
        if !connection["server"].is_null() {
            fields(&connection["server"], SESSION).context("a connection's server")?;
        }
    }
    for server in elements(&document["servers"]) {
        fields(server, SERVER).context("servers")?;
    }
    for stack in document["stacks"].as_object().into_iter().flat_map(|stacks| stacks.values()) {
        fields(stack, STACK).context("stacks")?;
        for frame in elements(&stack["frames"]) {
            fields(frame, FRAME).context("frames")?;
            ensure!(frame.get("address").is_some(), "a frame has no address");
        }
    }
    for finding in elements(&document["findings"]) {
        fields(finding, FINDING).context("findings")?;
        ensure!(finding.get("id").is_some(), "a finding has no id");
        let stack = finding["stack"].as_str();
        ensure!(
            stack.is_none_or(|id| document["stacks"].get(id).is_some()),
            "stack {stack:?} of a finding is not in the document"
        );
    }
    Ok(())
}

fn elements(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn fields(value: &Value, expected: &[(&str, Kind)]) -> Result<()> {
    for (name, kind) in expected {
        let Some(field) = value.get(name) else {
            bail!("field {name} is missing in {value:#}");
        };
        ensure!(is(field, *kind), "field {name} is no {kind:?}: {field} in {value}");
    }
    Ok(())
}

fn is(field: &Value, kind: Kind) -> bool {
    match kind {
        Text => field.is_string(),
        Time => field.as_str().is_some_and(is_rfc3339),
        Number => field.is_number(),
        Flag => field.is_boolean(),
        List => field.is_array(),
        Map => field.is_object(),
        TextOrNull => field.is_null() || is(field, Text),
        TimeOrNull => field.is_null() || is(field, Time),
        NumberOrNull => field.is_null() || is(field, Number),
        MapOrNull => field.is_null() || is(field, Map),
    }
}

/// `2025-01-31T12:00:00.5Z` or with an offset from UTC.
fn is_rfc3339(text: &str) -> bool {
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    let bytes = text.as_bytes();
    separators.iter().all(|(at, separator)| bytes.get(*at) == Some(separator))
        && (text.ends_with('Z') || bytes.iter().skip(19).any(|byte| b"+-".contains(byte)))
}
