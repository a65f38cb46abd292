//! The servers' side of the text report.

use std::fmt::Write as _;
use std::io;

use crate::engine::snapshot::Snapshot;
use crate::engine::table::{Server, ServerStatus, SessionGroup, Stranger};
use crate::model::server::SessionState;
use crate::outputs::text::style::{Paint, Tone, printable};

/// Most lines about applications, and about sessions that nobody owns.
const MAX_LINES: usize = 10;

/// Writes what each server says; nothing when none was asked.
pub(super) fn write(
    out: &mut impl io::Write,
    paint: Paint,
    snapshot: &Snapshot<'_>,
) -> io::Result<()> {
    for (name, server) in snapshot.table.servers() {
        writeln!(out)?;
        write_headline(out, paint, name, server)?;
        if server.hidden > 0 {
            let note = format!(
                "  {} of its sessions are hidden from this role; grant it pg_monitor",
                server.hidden
            );
            writeln!(out, "{}", paint.tone(Tone::Suspect, &note))?;
        }
        if server.cut {
            writeln!(out, "  it has more sessions than were read")?;
        }
        write_applications(out, server)?;
        write_unowned(out, server)?;
    }
    Ok(())
}

/// The same in one line a server, for the live table.
pub(super) fn write_briefly(
    out: &mut impl io::Write,
    paint: Paint,
    snapshot: &Snapshot<'_>,
) -> io::Result<()> {
    for (name, server) in snapshot.table.servers() {
        write_headline(out, paint, name, server)?;
    }
    Ok(())
}

fn write_headline(
    out: &mut impl io::Write,
    paint: Paint,
    name: &str,
    server: &Server,
) -> io::Result<()> {
    let mut line = format!("server {}: ", printable(name));
    // Writing to a String cannot fail.
    let _ = match (&server.status, &server.settings, server.used) {
        (ServerStatus::Answering, Some(settings), Some(used)) => write!(
            line,
            "PostgreSQL {}, {used} of {} connections used, {} reserved; {} traced, {} not",
            printable(&settings.version),
            settings.max_connections,
            settings.superuser_reserved + settings.reserved,
            server.traced,
            server.unowned.values().map(|group| group.count).sum::<usize>(),
        ),
        (ServerStatus::Refusing(why), ..) => {
            write!(line, "all connections are taken: {}", printable(why))
        }
        (ServerStatus::Unreachable(why), ..) => {
            write!(line, "cannot be queried: {}", printable(why))
        }
        (ServerStatus::Answering, ..) => write!(line, "no answer yet"),
    };
    let well = server.status == ServerStatus::Answering && !server.is_full();
    writeln!(out, "{}", if well { line } else { paint.tone(Tone::Suspect, &line) })
}

fn write_applications(out: &mut impl io::Write, server: &Server) -> io::Result<()> {
    let mut applications: Vec<_> = server.applications.iter().collect();
    applications.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
    for (name, group) in applications.iter().take(MAX_LINES) {
        let name = name.as_ref().map_or_else(|| "no application_name".to_owned(), |n| printable(n));
        let SessionGroup { count, traced, .. } = group;
        writeln!(out, "  {name}: {count}, {traced} traced ({})", states(group))?;
    }
    write_more(out, applications.len())
}

fn write_unowned(out: &mut impl io::Write, server: &Server) -> io::Result<()> {
    if server.unowned.is_empty() {
        return Ok(());
    }
    writeln!(out, "  not owned by a traced process:")?;
    let mut unowned: Vec<_> = server.unowned.iter().collect();
    unowned.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
    for (stranger, group) in unowned.iter().take(MAX_LINES) {
        writeln!(out, "    {} {} ({})", group.count, described(stranger), states(group))?;
    }
    write_more(out, unowned.len())
}

fn described(stranger: &Stranger) -> String {
    let name = stranger.application_name.as_deref().map_or_else(|| "?".to_owned(), printable);
    let user = stranger.user.as_deref().map_or_else(|| "?".to_owned(), printable);
    match stranger.client {
        Some(address) => format!("{name} as {user} from {address}"),
        None => format!("{name} as {user} from a Unix socket or an unknown address"),
    }
}

fn states(group: &SessionGroup) -> String {
    let state = |(state, count): (&Option<SessionState>, &usize)| {
        format!("{count} {}", state.map_or("unknown", SessionState::name))
    };
    group.states.iter().map(state).collect::<Vec<_>>().join(", ")
}

fn write_more(out: &mut impl io::Write, lines: usize) -> io::Result<()> {
    match lines.saturating_sub(MAX_LINES) {
        0 => Ok(()),
        more => writeln!(out, "    … and {more} more"),
    }
}
