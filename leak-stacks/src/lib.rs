//! From the registers and stack bytes of a thread, and its process, to named calls.
//!
//! [`Resolver`] is the door. It takes a [`RawStack`], unwinds it, names its frames and picks the
//! culprit: the innermost frame that belongs to the application. Whoever copies stacks learns from
//! [`Resolver::profile`] what to copy and to note of each process. What goes in and comes out is
//! plain data, so that this work can be done in another process; a [`ProcessSnapshot`] also carries
//! open files.
//!
//! | room | what it does |
//! |---|---|
//! | `process` | reads `/proc`: identity, mappings, memory, options; holds files open |
//! | `binary` | ELF files, their symbols and debug files, and facts worked out from them |
//! | `unwind` | from a frame to its caller: unwind rules, the code itself, frame pointers |
//! | `languages` | runtimes: how their frames are found, left and named |
//! | `culprit` | the rules that tell an application's code from runtimes and drivers |
//! | `sources` | texts in the sources of interpreted programs |
//! | `resolver` | ties them together |
//!
//! [`Resolver::uses_of_texts`] goes the other way: from a text to the code that has it.
//! [`Resolver::functions`] has the code of functions by their names.
//!
//! A file imports from its own room's floor or lower ones, and no files import each other in a
//! circle; the tests of the crate `structure` hold that. To add a language, see the trait
//! `Language` in `languages/language.rs`.
//!
//! Other crates are used where they keep the limits below: gimli parses unwind rules, blazesym
//! reads symbols and lines (from a copy, see `binary/symbols.rs`), iced-x86 decodes instructions,
//! globset matches rules. framehop would unwind by the same rules but does not tell a copy that is
//! too short from a stack that has ended, and procfs reads whole files without a limit.
//!
//! # Limits
//!
//! All files and memory that are read are untrusted. Nothing is read through a memory mapping,
//! because whoever truncates the file would kill us with SIGBUS. Nothing is allocated on a file's
//! word before it is known that the file is that long.
//!
//! | what | most | beyond it |
//! |---|---|---|
//! | processes known | 8,192 | no stacks of further ones: `too_many_processes` |
//! | programs of one process, executed one after the other | 3 | the oldest is forgotten |
//! | `/proc/PID/maps` | 16 MiB, 8,192 executable mappings, 1,024 different files | the rest is unknown: `unmapped_address`, `unreadable_file` |
//! | files held open | 4,096, closed with the last process that runs them | `unreadable_file` |
//! | sections kept in memory, over all files | 384 MiB | the least recently used are read again |
//! | ELF headers of one file | 4,096 segments, 4,096 sections, names of 256 bytes | the file is unusable: `unreadable_file` |
//! | one section, also once decompressed | 128 MiB | it counts as missing |
//! | file with symbols | 16 GiB; symbols 256 MiB | no symbols |
//! | debug information | 256 MiB stored, 512 MiB decompressed, 8 MiB of lines for one unit | symbols only |
//! | unwind rules | those that jump are refused | they count as missing: `no_unwind_information` |
//! | calls of one stack | 512 | `too_many_calls` |
//! | threads that are looked at | 4,096 of one process, 65,536 goroutines, 32 KiB of a thread's stack | the rest is not looked at; the stack is truncated |
//! | goroutines that are listed | as many as are asked for; stacks of 256 KiB | the list is cut; the stack is cut |
//! | Go's tables | 131,072 steps for one function, names of 1,024 bytes, 64 nested inlined calls | no name, or the walk ends |
//! | perf maps | 32 MiB and 262,144 symbols each, 524,288 symbols over all processes | the rest has no names; those of other processes are read again |
//! | HotSpot | tables of 16,384 rows, names of 512 bytes, 64 nested inlined methods, tables of 4 MiB of places and 256 KiB of lines, 4,096 methods remembered | the call has no name, or the walk ends |
//! | PHP | names of 512 bytes, paths of 4,096, 8 MiB of variables searched for its globals, 4,096 calls remembered of a process | the call has no name |
//! | CPython | names of 512 characters, paths of 1,024, line tables of 256 KiB | the call has no name |
//! | texts | 4,194,304 instructions and 256 MiB of code looked at for them, 1,048,576 references kept for each binary, 8 KiB of a text, 1,024 uses told at once | the rest is not found |
//! | functions | 16 files of a process, 512 bytes of each | the rest is not there |
//! | sources | 512 directories, 1,024 files of up to 512 KiB, 16 MiB of all | the rest is not searched |
//! | one request to the resolver | 20 s | the file is left alone for good: `unresponsive_file` |
//! | threads that hang in a read | 8 | no more stacks are resolved, and a warning says so |
//!
//! A panic in a parser costs the stack that led to it. Only the time limit bounds how much memory
//! other crates' parsers of debug information take for what they expand from a file of these sizes.

mod binary;
mod bytes;
mod counts;
mod culprit;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod guarded;
mod languages;
mod process;
mod processor;
mod raw;
mod resolver;
mod sources;
mod stack;
#[cfg(test)]
mod tests;
mod texts;
mod time;
mod truncation;
mod unwind;

pub use self::counts::StackCounts;
pub use self::culprit::acquire::waits_for_connection;
pub use self::culprit::driver_frames::{DriverFrames, DriverFramesError};
pub use self::culprit::glob::{Glob, GlobError};
pub use self::culprit::is_application;
pub use self::languages::go::{GoProgram, Goroutine, GoroutineState, Goroutines};
pub use self::languages::runtimes::advice;
pub use self::process::ProcessKey;
pub use self::process::memory::Memory as ProcessMemory;
pub use self::process::snapshot::{
    MappingReader, ModulesError, Observer, ProcessSnapshot, SnapshotData,
};
pub use self::process::stat::{Stat, nanoseconds_per_tick, ticks_from_boottime};
pub use self::process::watchdog::ReadWatchdog;
pub use self::raw::{
    CopyLength, GOROUTINE_WINDOW, GOROUTINE_WINDOW_START, InterpreterFrame, InterpreterProfile,
    PRESERVED_REGISTERS, PROFILE_PARAMETERS, RawStack, RuntimeEntry, StackProfile, walker,
};
pub use self::resolver::{BlockedThread, Resolved, Resolver, ThreadId, ThreadsSeen, WantedThreads};
pub use self::stack::{Frame, Language, Quality, Stack, StackId};
pub use self::texts::{TextMatch, TextUse, TextUser, WantedTexts};
pub use self::time::Timestamp;
pub use self::truncation::TruncationReason;
