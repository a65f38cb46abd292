//! Runtimes of which only the name is known: their code is named by perf maps, if they write any.

use crate::culprit::language_of;
use crate::languages::language::{Language, Process, Runtime};
use crate::process::options::is_given;
use crate::raw::{CopyLength, StackProfile};
use crate::stack;

/// A runtime that the executable's name tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recognised {
    language: stack::Language,
    copy_length: CopyLength,
    frame_pointers: FramePointers,
    advice: &'static str,
}

/// Whether the code that a runtime compiles keeps frame pointers.
#[derive(Clone, Copy, Debug)]
enum FramePointers {
    Kept,
    NotKept,
    /// Only with this option, on the command line or in an environment variable.
    KeptWith(&'static str),
}

pub(crate) const JAVA: Recognised = Recognised {
    language: stack::Language::Java,
    copy_length: CopyLength::Generous,
    // In the environment: JAVA_TOOL_OPTIONS and its likes.
    frame_pointers: FramePointers::KeptWith("-XX:+PreserveFramePointer"),
    advice: "start it with -XX:+PreserveFramePointer, and run `jcmd PID Compiler.perfmap`",
};
pub(crate) const DENO: Recognised = Recognised {
    language: stack::Language::Deno,
    copy_length: CopyLength::Most,
    frame_pointers: FramePointers::Kept,
    advice: "start it with --v8-flags=--perf-basic-prof,--interpreted-frames-native-stack",
};
pub(crate) const BUN: Recognised = Recognised {
    language: stack::Language::Bun,
    copy_length: CopyLength::Most,
    frame_pointers: FramePointers::Kept,
    advice: "Bun writes no perf map; run by Node.js or Deno, they have names",
};
pub(crate) const DOTNET: Recognised = Recognised {
    language: stack::Language::Dotnet,
    copy_length: CopyLength::Usual,
    frame_pointers: FramePointers::Kept,
    advice: "start it with DOTNET_PerfMapEnabled=1 in its environment",
};
pub(crate) const BEAM: Recognised = Recognised {
    language: stack::Language::Beam,
    copy_length: CopyLength::Usual,
    frame_pointers: FramePointers::NotKept,
    advice: "start it with +JPperf true",
};

impl Language for Recognised {
    fn find(&mut self, process: &Process<'_>) -> Option<Box<dyn Runtime>> {
        let executable = process.modules.executable_path.as_deref();
        if language_of(std::iter::empty(), executable) != self.language {
            return None;
        }
        let keeps_frame_pointers = match self.frame_pointers {
            FramePointers::Kept => true,
            FramePointers::NotKept => false,
            FramePointers::KeptWith(option) => is_given(process.key.pid, option),
        };
        Some(Box::new(Present { copy_length: self.copy_length, keeps_frame_pointers }))
    }

    fn value(&self) -> Option<stack::Language> {
        Some(self.language)
    }

    fn advice(&self) -> Option<&'static str> {
        Some(self.advice)
    }
}

/// Such a runtime in a process.
#[derive(Debug)]
struct Present {
    copy_length: CopyLength,
    keeps_frame_pointers: bool,
}

impl Runtime for Present {
    fn profile(&self) -> StackProfile {
        StackProfile { copy_length: self.copy_length, ..StackProfile::default() }
    }

    fn keeps_frame_pointers(&self) -> Option<bool> {
        Some(self.keeps_frame_pointers)
    }
}
