//! Where code is, in words.

use crate::outputs::text::line::Line;
use crate::outputs::text::look::{Frames, Look};
use crate::outputs::text::style::Tone;
use leak_stacks::Frame;

/// How many components of a file's path tell it from others.
const COMPONENTS: usize = 2;

/// What is shown of a call: its function, or else where its code is; and its source.
pub(super) struct Place {
    pub(super) function: Option<String>,
    pub(super) source: Option<String>,
}

impl Place {
    /// With the whole path of the source where all of a stack is shown.
    pub(super) fn of(frame: &Frame, frames: Frames) -> Self {
        let source = frame.file.as_ref().map(|file| {
            let file = if frames == Frames::All { file.as_str() } else { short(file) };
            frame.line.map_or_else(|| file.to_owned(), |line| format!("{file}:{line}"))
        });
        let address = || match &frame.module {
            Some(module) => format!("{module}+{:#x}", frame.address),
            None => format!("{:#x}", frame.address),
        };
        let is_line = source.is_some() && frame.line.is_some();
        let function = frame.function.clone().or_else(|| (!is_line).then(address));
        Self { function, source }
    }

    /// Adds it to a line: the function whole, the source cut from the left if it must be.
    pub(super) fn add_to(self, line: Line, tone: Tone) -> Line {
        let line = match &self.function {
            Some(function) => line.toned(tone, function),
            None => line,
        };
        match &self.source {
            Some(source) => line.path(self.function.is_none().then_some(tone), source),
            None => line,
        }
    }
}

/// `function repo/main.go:47`; the line alone, or the address in its module, without a function.
pub(super) fn place(frame: &Frame, look: &Look) -> String {
    let Place { function, source } = Place::of(frame, look.frames);
    [function, source].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// The last components of a path.
fn short(path: &str) -> &str {
    let slashes = path.rmatch_indices('/').map(|(index, _)| index);
    slashes.skip(COMPONENTS - 1).find_map(|index| path.get(index + 1..)).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_short_unless_all_is_shown() {
        assert_eq!(short("/srv/shop/repo/main.go"), "repo/main.go");
        assert_eq!(short("repo/main.go"), "repo/main.go");
        assert_eq!(short("main.go"), "main.go");
        let frame = Frame {
            function: Some("pay".into()),
            module: Some("/srv/shop".into()),
            file: Some("/srv/shop/repo/main.go".into()),
            line: Some(47),
            address: 7,
        };
        let look = Look::default();
        assert_eq!(place(&frame, &look), "pay repo/main.go:47");
        let all = Look { frames: Frames::All, ..look };
        assert_eq!(place(&frame, &all), "pay /srv/shop/repo/main.go:47");
        let bare = Frame { function: None, file: None, line: None, ..frame };
        assert_eq!(place(&bare, &look), "/srv/shop+0x7");
    }
}
