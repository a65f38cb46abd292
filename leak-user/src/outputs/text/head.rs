//! The first lines: what was watched, for how long, and what it comes to.

use std::collections::{BTreeSet, HashSet};
use std::io;

use crate::engine::detect::{Scope, Severity, duration, plural};
use crate::engine::doubt::Doubt;
use crate::engine::snapshot::{RunVerdict, Snapshot};
use crate::engine::table::ServerStatus;
use crate::outputs::text::line::Line;
use crate::outputs::text::look::Look;
use crate::outputs::text::style::{Tone, printable};
use crate::outputs::text::{phrase, plural_of};

/// SQLSTATE of a server that has no slot left.
const TOO_MANY: &str = "53300";

/// Writes what was watched, and the verdict.
pub(super) fn write(
    out: &mut impl io::Write,
    look: &Look,
    snapshot: &Snapshot<'_>,
) -> io::Result<()> {
    let begun = snapshot.run.started_at;
    let (from, to) = (look.zone.date_and_time(begun), snapshot.clock.wall(snapshot.now));
    Line::new(0, 2)
        .toned(
            Tone::Strong,
            &format!("pgsocktrace {} on {}:", snapshot.run.version, snapshot.run.host),
        )
        .text(&watched(snapshot))
        .write(out, look)?;
    let (to, offset) = (look.zone.time(to), look.zone.offset(to));
    let lasted = duration(snapshot.lasted());
    Line::new(0, 2)
        .text(&format!("{from} to {to} local time ({offset}), watched for {lasted}"))
        .write(out, look)?;
    let (tone, verdict) = verdict(snapshot);
    let line = Line::new(2, 2).toned(tone, &format!("{verdict}."));
    servers(snapshot).iter().fold(line, |line, told| line.text(told)).write(out, look)
}

/// "shop (4242) → 127.0.0.1:5432", or how many there are of each.
pub(super) fn watched(snapshot: &Snapshot<'_>) -> String {
    let judged = snapshot.ledger.open().into_iter().map(|one| &one.verdict);
    let judged = judged.filter(|one| one.scope() != Scope::Server);
    let known = snapshot.table.connections().map(|one| (one.process, one.endpoints.remote));
    let all: Vec<_> = known.chain(judged.map(|one| (one.process, one.remote))).collect();
    let processes: BTreeSet<_> = all.iter().map(|(process, _)| *process).collect();
    let remotes: BTreeSet<_> = all.iter().map(|(_, remote)| *remote).collect();
    let who = match processes.len() {
        0 => {
            let ports: Vec<_> = snapshot.run.ports.iter().map(u16::to_string).collect();
            return format!("no connections to port {}", ports.join(", "));
        }
        1 => processes.iter().map(|&process| phrase::process(snapshot, process)).collect(),
        count => format!("{count} processes"),
    };
    let servers = match remotes.len() {
        1 => remotes.iter().map(|&remote| server(snapshot, remote)).collect(),
        count => plural(count, "server"),
    };
    format!("{who} → {servers}")
}

fn server(snapshot: &Snapshot<'_>, remote: std::net::SocketAddr) -> String {
    let name = snapshot.destination(remote).map(|name| printable(&format!(" ({name})")));
    format!("{remote}{}", name.unwrap_or_default())
}

/// What the run comes to, in one line without its end: "2 leaks hold 39 of 57 connections; 1
/// suspect".
pub(super) fn verdict(snapshot: &Snapshot<'_>) -> (Tone, String) {
    let RunVerdict { leaks, suspects, unknown_older } = snapshot.verdict();
    let and_suspects = match suspects {
        0 => String::new(),
        some => format!("; {}", plural(some, "suspect")),
    };
    if let Some(doubt @ Doubt::TornDown { .. }) = Doubt::about(snapshot) {
        return (Tone::Suspect, format!("{doubt}{and_suspects}"));
    }
    let older = plural(unknown_older, "silent connection");
    match (leaks, unknown_older) {
        (0, 0) if suspects == 0 => (Tone::Good, "no leak found".to_owned()),
        (0, 0) => (Tone::Suspect, format!("no leak found{and_suspects}")),
        (0, _) => {
            let told = format!("cannot tell: {older} older than the trace may be lost or at rest");
            (Tone::Suspect, format!("{told}{and_suspects}"))
        }
        (_, unknown) => {
            let held = held(snapshot, leaks);
            let unknown = match unknown {
                0 => String::new(),
                _ => format!("; {older} older than the trace may be lost or at rest"),
            };
            (Tone::Leak, format!("{}{held}{and_suspects}{unknown}", plural(leaks, "leak")))
        }
    }
}

/// " hold 39 of 57 connections"; nothing when those that they held are gone.
fn held(snapshot: &Snapshot<'_>, leaks: usize) -> String {
    let is_leak = |severity| severity == Severity::Leak;
    let leaking = snapshot.ledger.open();
    let leaking: Vec<_> =
        leaking.into_iter().filter(|finding| is_leak(finding.verdict.severity)).collect();
    let of_pools = leaking.iter().any(|finding| finding.verdict.scope() == Scope::Pool);
    let ids: HashSet<_> = leaking
        .iter()
        .flat_map(|finding| &finding.verdict.connections)
        .filter(|&&id| snapshot.table.get(id).is_some())
        .collect();
    // A pool's connections have the younger ones among them.
    let younger: usize = match of_pools {
        true => 0,
        false => leaking.iter().map(|finding| phrase::younger(finding)).sum(),
    };
    let open = snapshot.table.connections().count();
    match (ids.len() + younger).min(open) {
        0 => String::new(),
        held => {
            let hold = if leaks == 1 { "holds" } else { "hold" };
            format!(" {hold} {held} of {}", plural(open, "connection"))
        }
    }
}

/// What is known of the servers' use: a sentence for each, and for refusals.
fn servers(snapshot: &Snapshot<'_>) -> Vec<String> {
    let mut told: Vec<_> = snapshot
        .table
        .servers()
        .iter()
        .filter(|(_, server)| server.status == ServerStatus::Answering)
        .filter_map(|(name, server)| {
            let most = server.settings.as_ref()?.max_connections;
            Some(format!(
                "Server {}: {} of {most} connections used.",
                printable(name),
                server.used?
            ))
        })
        .collect();
    let tallies = snapshot.table.processes();
    let refused: u64 = tallies.filter_map(|(_, tally)| tally.refused.get(TOO_MANY)).sum();
    if refused > 0 {
        told.push(format!("Refused for want of slots: {}.", plural_of(refused, "connection")));
    }
    told
}
