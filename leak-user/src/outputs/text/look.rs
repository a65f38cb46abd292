//! What text is to look like: colours, width, how much of stacks, and whose time.

use std::io;

use crate::outputs::text::style::Paint;
use crate::outputs::text::zone::Zone;

/// The width where nobody says how wide it is: in a pipe and in a file.
const WIDTH: usize = 100;
/// Text in fewer columns would be no text.
const LEAST_WIDTH: usize = 40;

/// What text is to look like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// With colours or without.
    pub paint: Paint,
    /// What it is shown on.
    pub screen: Screen,
    /// How much of stacks is shown.
    pub frames: Frames,
    /// Tell also what few want to know.
    pub verbose: bool,
    /// Whose time of day.
    pub zone: Zone,
}

impl Look {
    /// How many columns a line may have.
    pub(super) fn width(&self) -> usize {
        let of_terminal = || Some(usize::from(self.screen.size()?.ws_col)).filter(|&of| of > 0);
        self.screen.columns.or_else(of_terminal).unwrap_or(WIDTH).max(LEAST_WIDTH)
    }

    /// How many lines the terminal shows at once; `None` when it is none, or is not to be redrawn.
    pub(super) fn height(&self) -> Option<usize> {
        let rows = self.screen.redraws.then(|| self.screen.size())??.ws_row;
        Some(usize::from(rows)).filter(|&rows| rows > 0)
    }
}

/// How much of stacks is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Frames {
    /// The application's calls; those of drivers and runtimes are counted.
    #[default]
    Application,
    /// All calls.
    All,
}

/// What text is shown on; by default no terminal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Screen {
    /// The terminal, if it is one.
    pub terminal: Option<Terminal>,
    /// Its width, where the user has set it.
    pub columns: Option<usize>,
    /// It is a terminal on which the cursor can go up.
    pub redraws: bool,
}

impl Screen {
    fn size(&self) -> Option<rustix::termios::Winsize> {
        match self.terminal? {
            Terminal::Stdout => rustix::termios::tcgetwinsize(io::stdout()),
            Terminal::Stderr => rustix::termios::tcgetwinsize(io::stderr()),
        }
        .ok()
    }
}

/// Which of the program's outputs a terminal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}
