//! `pgsocktrace ls`: who is connected to which server right now, by one look at the kernel's list
//! of sockets. It needs neither a trace nor the kernel programs.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};

use crate::clock;
use crate::engine::detect::{Thresholds, plural};
use crate::engine::snapshot::RunInfo;
use crate::engine::{Beginning, Engine};
use crate::model::time::Clock;
use crate::model::{Event, Fact, ProcessKey};
use crate::outputs::text::Paint;
use crate::outputs::{Format, OutputError, json, text};
use crate::sources::elsewhere;
use crate::sources::inventory::{Inventory, InventoryError, Scope};
use crate::sources::postgres::{Dsn, SessionPoller};
use crate::sources::procfs;
use crate::sources::procfs::name::CommPattern;

/// How long the servers' answers are waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// Most lines about connections elsewhere.
const MAX_ELSEWHERE: usize = 5;

/// What to list, and how.
#[derive(Clone, Debug)]
pub struct LsSettings {
    /// Server ports.
    pub ports: Vec<u16>,
    /// Only connections of these processes; none for all.
    pub pids: Vec<u32>,
    /// Only those of processes with these names; none for all.
    pub comm: Vec<CommPattern>,
    /// PostgreSQL servers that are asked for their sessions.
    pub servers: Vec<Dsn>,
    /// Text or JSON.
    pub format: Format,
    /// Colours of the text.
    pub paint: Paint,
}

/// Why nothing can be listed.
#[derive(Debug, thiserror::Error)]
pub enum LsError {
    /// The kernel does not list its sockets.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// None of the processes exists.
    #[error("there is no process with PID {0}")]
    NoProcess(String),
    /// The servers cannot be asked.
    #[error("the servers cannot be queried")]
    Servers(#[source] io::Error),
    /// It cannot be printed.
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// Lists the connections that there are, on `out`.
///
/// # Errors
///
/// When the kernel does not list its sockets, no process that was asked for exists, or `out` cannot
/// be written.
pub async fn ls(settings: &LsSettings, out: &mut impl Write) -> Result<(), LsError> {
    let mut servers = SessionPoller::start(&settings.servers).map_err(LsError::Servers)?;
    servers.ask();
    let scope = scope(&settings.pids)?;
    let mut inventory = Inventory::take(&settings.ports, &scope, &HashSet::new())?;
    let of_nobody = inventory
        .sockets
        .iter()
        .filter(|socket| socket.held_by.is_empty() && !socket.tcp_state.closed_by_process())
        .count();
    // What cannot be read does not matter when all that is listed has its process.
    let unread = inventory.unread_processes.describe().filter(|_| of_nobody > 0);
    for gap in inventory.unread_reason.iter().chain(&unread) {
        log::warn!("{gap}");
    }
    let complete = inventory.complete() && unread.is_none();
    let own = std::process::id();
    let wanted = |process: &ProcessKey| process.pid != own && has_name(*process, &settings.comm);
    inventory.sockets.retain(|socket| socket.held_by.iter().any(wanted));

    let mut engine = Engine::new(beginning(&settings.ports, inventory.sockets.len()));
    let holders: BTreeSet<_> =
        inventory.sockets.iter().flat_map(|socket| socket.held_by.iter().copied()).collect();
    for info in holders.into_iter().filter_map(|holder| procfs::describe(holder).ok()) {
        engine.take(&Fact::Process(info), clock::now());
    }
    engine.take(&Fact::Event(inventory.into_event()), clock::now());
    ask(&mut servers, &mut engine).await;

    let snapshot = engine.snapshot(clock::now(), true);
    let written = match settings.format {
        Format::Text => text::write_listing(out, settings.paint, &snapshot),
        Format::Json | Format::Ndjson => json::write_listing(out, &snapshot, complete),
    };
    written.and_then(|()| out.flush()).map_err(OutputError::from)?;
    if of_nobody > 0 && !complete && settings.pids.is_empty() {
        log::warn!(
            "{} more of processes that this user may not look into; run it with sudo",
            plural(of_nobody, "connection")
        );
    }
    match elsewhere::look(&settings.ports, &scope) {
        Ok(found) => found
            .iter()
            .filter(|one| has_name(one.process, &settings.comm))
            .take(MAX_ELSEWHERE)
            .for_each(|one| log::info!("{one}")),
        Err(error) => log::debug!("other ports cannot be looked at: {error}"),
    }
    Ok(())
}

fn scope(pids: &[u32]) -> Result<Scope, LsError> {
    if pids.is_empty() {
        return Ok(Scope::default());
    }
    let (there, gone): (Vec<u32>, Vec<u32>) =
        pids.iter().partition(|&&pid| procfs::identify(pid).is_ok());
    let gone: Vec<_> = gone.iter().map(u32::to_string).collect();
    if there.is_empty() {
        return Err(LsError::NoProcess(gone.join(", ")));
    }
    if !gone.is_empty() {
        log::warn!("there is no process with PID {}", gone.join(", "));
    }
    Ok(Scope { pids: Some(there.into_iter().collect()) })
}

fn has_name(process: ProcessKey, names: &[CommPattern]) -> bool {
    let matches = |comm: &str| names.iter().any(|pattern| pattern.matches(comm));
    names.is_empty() || procfs::describe(process).is_ok_and(|info| matches(&info.comm))
}

/// Asks the servers for their sessions, and waits no longer than a look is worth.
async fn ask(servers: &mut SessionPoller, engine: &mut Engine) {
    let deadline = Instant::now() + PATIENCE;
    while !servers.is_idle() {
        let asked = tokio::select! {
            asked = servers.answer() => asked,
            () = sleep_until(deadline) => {
                log::warn!("a server has not answered within {} s", PATIENCE.as_secs());
                return;
            }
        };
        if let Some(answer) = asked.answer {
            let (server, at, answer) = (asked.server, asked.at, Box::new(answer));
            let event = Event::ServerSessions { server, at, answer };
            engine.take(&Fact::Event(event), clock::now());
        }
    }
}

/// A run that lasts for a moment.
fn beginning(ports: &[u16], connections: usize) -> Beginning {
    let system = rustix::system::uname();
    let started_at = SystemTime::now();
    Beginning {
        run: RunInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: system.nodename().to_string_lossy().into_owned(),
            kernel: system.release().to_string_lossy().into_owned(),
            hooks: std::collections::BTreeMap::new(),
            ports: ports.to_vec(),
            started_at,
        },
        clock: Clock::new(clock::now(), started_at),
        thresholds: Thresholds {
            silent_after: Duration::from_secs(60),
            interval: Duration::from_secs(10),
            limit: None,
            fail_on_leak: false,
        },
        capacity: connections.max(1),
    }
}
