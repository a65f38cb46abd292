//! A picture of the open connections: the wider a function, the more of them it has opened, or used
//! last.

mod sink;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use inferno::flamegraph::color::{BasicPalette, Color, PaletteMap};
use inferno::flamegraph::{Options, Palette, from_lines};

pub use sink::Flamegraph;

use crate::engine::snapshot::Snapshot;
use crate::engine::table::Connection;
use crate::model::{ProcessKey, StackId};
use leak_stacks::{Frame, Quality, Stack};

/// Which of a connection's stacks is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// The one that sent the last request: it names who leaks.
    #[default]
    LastUsedBy,
    /// The one that called `connect()`.
    OpenedBy,
}

impl By {
    /// Both.
    pub const ALL: [Self; 2] = [Self::LastUsedBy, Self::OpenedBy];

    fn stack(self, connection: &Connection) -> Option<&StackId> {
        match self {
            Self::LastUsedBy => connection.callers.last_used_by.as_ref(),
            Self::OpenedBy => connection.callers.opened_by.as_ref(),
        }
    }

    /// Why a connection has no such stack.
    fn excuse(self, connection: &Connection) -> &'static str {
        match self {
            Self::LastUsedBy
                if connection.requests.count == 0 && connection.opened_before_trace() =>
            {
                "[not used while traced]"
            }
            Self::LastUsedBy if connection.requests.count == 0 => "[never used]",
            Self::OpenedBy if connection.opened_before_trace() => "[opened before the trace]",
            _ => "[stack unknown]",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::LastUsedBy => "Open connections by the code that used them last",
            Self::OpenedBy => "Open connections by the code that opened them",
        }
    }
}

/// Connections of one process that have the stack, or the lack of one, in common.
#[derive(Clone, Debug)]
struct Bundle {
    process: String,
    stack: Result<Arc<Stack>, &'static str>,
    count: usize,
}

/// The open connections of one moment.
#[derive(Clone, Debug)]
pub struct Flames {
    by: By,
    bundles: Vec<Bundle>,
}

impl Flames {
    /// Looks at what is open.
    #[must_use]
    pub fn of(snapshot: &Snapshot<'_>, by: By) -> Self {
        let mut counts: HashMap<(ProcessKey, Result<&StackId, &'static str>), usize> =
            HashMap::new();
        for connection in snapshot.table.connections() {
            let stack = by.stack(connection).filter(|id| snapshot.stacks.contains_key(id));
            let stack = stack.ok_or_else(|| by.excuse(connection));
            *counts.entry((connection.process, stack)).or_default() += 1;
        }
        let bundle = |((process, stack), count): ((ProcessKey, Result<&StackId, _>), usize)| {
            let stack =
                stack.and_then(|id| snapshot.stacks.get(id).cloned().ok_or("[stack unknown]"));
            Bundle { process: name_of(snapshot, process), stack, count }
        };
        Self { by, bundles: counts.into_iter().map(bundle).collect() }
    }

    /// Draws an SVG, the same for the same connections.
    #[must_use]
    pub fn svg(&self) -> Vec<u8> {
        let mut lines: BTreeMap<String, usize> = BTreeMap::new();
        for bundle in &self.bundles {
            *lines.entry(bundle.folded()).or_default() += bundle.count;
        }
        if lines.is_empty() {
            return EMPTY.into();
        }
        let lines: Vec<_> =
            lines.into_iter().map(|(stack, count)| format!("{stack} {count}")).collect();
        let mut colours = self.culprits();
        let mut options = Options::default();
        options.title = self.by.title().to_owned();
        options.subtitle = (self.by == By::LastUsedBy).then(|| LEGEND.to_owned());
        options.count_name = "connections".to_owned();
        options.colors = Palette::Basic(BasicPalette::Aqua);
        options.palette_map = Some(&mut colours);
        options.deterministic = true;
        let mut svg = Vec::new();
        match from_lines(&mut options, lines.iter().map(String::as_str), &mut svg) {
            Ok(()) => svg,
            Err(error) => {
                log::warn!("the flame graph cannot be drawn: {error}");
                EMPTY.into()
            }
        }
    }

    /// The functions to blame, for the picture that is about blame.
    fn culprits(&self) -> PaletteMap {
        let mut colours = PaletteMap::default();
        let blaming = self.bundles.iter().filter(|_| self.by == By::LastUsedBy);
        for stack in blaming.filter_map(|bundle| bundle.stack.as_ref().ok()) {
            if let Some(frame) = stack.culprit.and_then(|index| stack.frames.get(index)) {
                colours.insert(clean(&frame_name(frame)), CULPRIT);
            }
        }
        colours
    }
}

/// The colour of functions to blame.
const CULPRIT: Color = Color { r: 235, g: 90, b: 70 };

const LEGEND: &str = "red: the application\u{2019}s code that made the last request";

/// The picture of nothing.
const EMPTY: &str = "<?xml version=\"1.0\"?>\n\
    <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"600\" height=\"60\">\
    <text x=\"20\" y=\"35\" font-family=\"sans-serif\">No connection is open.</text></svg>\n";

impl Bundle {
    /// The stack as one line, the outermost call first.
    fn folded(&self) -> String {
        let mut line = clean(&self.process);
        let mut push = |name: &str| {
            line.push(';');
            line.push_str(&clean(name));
        };
        match &self.stack {
            Err(excuse) => push(excuse),
            Ok(stack) => {
                if stack.quality != Quality::Complete {
                    push("[truncated]");
                }
                stack.frames.iter().rev().for_each(|frame| push(&frame_name(frame)));
            }
        }
        keep_whole(line)
    }
}

/// What the process is called, and where it runs.
fn name_of(snapshot: &Snapshot<'_>, process: ProcessKey) -> String {
    let comm = snapshot.comm(process).unwrap_or("?");
    match snapshot.processes.get(&process).and_then(|info| info.pod.as_ref()) {
        Some(pod) => format!("{comm} in {}/{} {}", pod.namespace, pod.name, pod.container),
        None => comm.to_owned(),
    }
}

fn frame_name(frame: &Frame) -> String {
    let module = frame.module.as_deref().and_then(|path| path.rsplit('/').next());
    let mut name = match (&frame.function, module) {
        (Some(function), _) => function.clone(),
        (None, Some(module)) => format!("{module}+{:#x}", frame.address),
        (None, None) => format!("{:#x}", frame.address),
    };
    if let (Some(file), Some(line)) = (&frame.file, frame.line) {
        let file = file.rsplit('/').next().unwrap_or(file);
        // Writing to a String cannot fail.
        let _ = write!(name, " {file}:{line}");
    }
    name
}

/// A stranger's text as the name of one box: XML has no control characters, and the line has `;`
/// between names. What is mark-up in XML is escaped where the picture is drawn.
fn clean(name: &str) -> String {
    let replace = |c: char| match c {
        // U+037E looks the same.
        ';' => '\u{37e}',
        c if c.is_control() || is_no_xml(c) => '\u{fffd}',
        c => c,
    };
    let name: String = name.chars().take(LONGEST).map(replace).collect();
    if name.trim().is_empty() { "?".to_owned() } else { name }
}

/// Longest name that is shown; C++ has longer ones.
const LONGEST: usize = 512;

/// What XML 1.0 leaves out besides control characters.
fn is_no_xml(c: char) -> bool {
    matches!(c, '\u{fffe}' | '\u{ffff}')
}

/// Lines of the format may be comments, and end with one number or two: what a stranger's name
/// makes look so gets another kind of space.
fn keep_whole(mut line: String) -> String {
    const SPACE: &str = "\u{a0}";
    if line.starts_with("# ") {
        line.replace_range(1..2, SPACE);
    }
    if let Some(at) = line.rfind(' ')
        && line.bytes().skip(at + 1).all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        line.replace_range(at..=at, SPACE);
    }
    line
}

#[cfg(test)]
mod tests;
