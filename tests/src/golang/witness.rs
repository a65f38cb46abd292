//! Compares a traced stack with the one that the Go runtime reports.

use anyhow::{Context, Result, bail, ensure};

use crate::report::{Frame, Stack};

/// Packages whose functions are called between the program's `runtime.Stack` and the kernel.
const BELOW: [&str; 5] =
    ["net.", "internal/poll.", "syscall.", "runtime/internal/syscall", "internal/runtime/syscall"];

/// The output of `runtime.Stack`, without the frame of the function that called it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// The goroutine's number.
    pub goroutine: u64,
    frames: Vec<Seen>,
    /// The output has the innermost frames only.
    is_cut: bool,
}

/// A frame: function, file and line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen(String, String, u32);

/// The result of comparing a traced stack with the runtime's.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Frames that are the same.
    pub right: u32,
    /// Frames in the longer of both stacks.
    pub of: u32,
    /// Frames of the runtime's stack that the traced stack has.
    pub traced: u32,
    /// Whether the program's innermost function is right, with its line.
    pub names_the_caller: bool,
    /// Both stacks side by side, innermost frame first.
    pub text: String,
}

impl Witness {
    /// Parses the output of `runtime.Stack`.
    pub fn read(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        let first = lines.next().context("there is no stack")?;
        let number = first.strip_prefix("goroutine ").and_then(|rest| rest.split(' ').next());
        let goroutine = number.context("the stack has no goroutine number")?.parse()?;
        let (mut frames, mut is_cut) = (Vec::new(), false);
        while let Some(call) = lines.next() {
            // The runtime elides frames in the middle of the stack: only those before the gap
            // count.
            if call.contains("frames elided") {
                is_cut = true;
                break;
            }
            if call.starts_with("created by ") {
                break;
            }
            let Some((name, _)) = call.rsplit_once('(') else { bail!("no call: {call}") };
            let place = lines.next().context("a call has no place")?.trim_start();
            let place = place.split(" +0x").next().unwrap_or(place);
            let (file, line) = place.rsplit_once(':').context("a place has no line")?;
            frames.push(Seen(name.to_owned(), file.to_owned(), line.parse()?));
        }
        ensure!(frames.len() > 1, "the stack has no caller: {text}");
        frames.remove(0);
        Ok(Self { goroutine, frames, is_cut })
    }

    /// The number of frames.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.frames.len()).unwrap_or(u32::MAX)
    }

    /// Compares a traced stack, frame by frame.
    ///
    /// The program asks the runtime before the call, so the runtime's stack lacks the library
    /// functions that lead into the kernel: the traced stack must have such functions further in,
    /// and no others. The runtime omits its own internals, which the traced stack may show, and
    /// type parameters.
    #[must_use]
    pub fn compare(&self, stack: &Stack) -> Comparison {
        let traced: Vec<Seen> = stack.frames.iter().map(seen).collect();
        let start = traced.iter().position(|Seen(name, ..)| name.starts_with("main."));
        let (below, above) = traced.split_at(start.unwrap_or(traced.len()));
        let is_below =
            |Seen(name, ..): &Seen| BELOW.iter().any(|package| name.starts_with(package));
        let leads_there = !below.is_empty() && below.iter().all(is_below);
        let mut above: Vec<Seen> =
            above.iter().filter(|seen| !is_internal(&seen.0)).cloned().collect();
        if self.is_cut {
            above.truncate(self.frames.len());
        }
        let same = self.frames.iter().zip(&above).filter(|(told, traced)| told == traced).count();
        let of = self.frames.len().max(above.len());
        let right = if leads_there { same } else { 0 };
        let mut text = format!("quality {}; further in: {below:?}\n", stack.quality);
        for index in 0..of {
            let (told, traced) = (self.frames.get(index), above.get(index));
            let mark = if told == traced { ' ' } else { '!' };
            text.push_str(&format!("{mark} told {told:?}\n{mark}   is {traced:?}\n"));
        }
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let names_the_caller = leads_there && self.frames.first() == above.first();
        let (right, of, traced) = (count(right), count(of), count(above.len()));
        Comparison { right, of, traced, names_the_caller, text }
    }
}

impl Comparison {
    /// Whether both stacks are the same.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.right == self.of && self.names_the_caller
    }
}

fn seen(frame: &Frame) -> Seen {
    let name = frame.function.clone().unwrap_or_default();
    let name = match (name.find('['), name.rfind(']')) {
        (Some(open), Some(close)) if open < close => {
            format!("{}[...]{}", &name[..open], &name[close + 1..])
        }
        _ => name,
    };
    let name = if name == "runtime.gopanic" { "panic".to_owned() } else { name };
    Seen(name, frame.file.clone().unwrap_or_default(), frame.line.unwrap_or(0))
}

/// Whether the runtime omits the function from its tracebacks: see `showframe` and
/// `isExportedRuntime` in Go's src/runtime/traceback.go. Names without a package belong to code
/// that cgo generated; C functions are not on the goroutine's stack.
fn is_internal(name: &str) -> bool {
    let is_exported = |rest: &str| rest.starts_with(|c: char| c.is_ascii_uppercase());
    name != "panic"
        && (!name.contains('.') || name.strip_prefix("runtime.").is_some_and(|n| !is_exported(n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &str = "goroutine 7 [running]:\n\
        main.stack()\n\t/app/main.go:9 +0x1f\n\
        main.pay[...](...)\n\t/app/main.go:21\n\
        panic({0x1, 0x2})\n\t/go/panic.go:3 +0x5\n\
        main.main()\n\t/app/main.go:30 +0x1f\n\
        created by main.start in goroutine 1\n\t/app/main.go:40 +0x1f\n";

    fn stack(frames: &[(&str, &str, u32)]) -> Stack {
        let frame = |(name, file, line): &(&str, &str, u32)| Frame {
            function: Some((*name).to_owned()),
            module: None,
            file: Some((*file).to_owned()),
            line: Some(*line),
            address: 0,
        };
        let frames = frames.iter().map(frame).collect();
        Stack {
            quality: "complete".to_owned(),
            quality_reason: None,
            language: "go".to_owned(),
            frames,
        }
    }

    const TRACED: [(&str, &str, u32); 5] = [
        ("syscall.write", "/go/syscall.go", 1),
        ("main.pay[go.shape.int]", "/app/main.go", 21),
        ("runtime.gopanic", "/go/panic.go", 3),
        ("main.main", "/app/main.go", 30),
        ("runtime.main", "/go/proc.go", 250),
    ];

    #[test]
    fn equal_stacks_are_exact() {
        let witness = Witness::read(TOLD).unwrap();
        assert_eq!(witness.goroutine, 7);
        let compared = witness.compare(&stack(&TRACED));
        assert!(compared.is_exact(), "{}", compared.text);
        assert_eq!((compared.right, compared.of), (3, 3));
    }

    #[test]
    fn any_difference_is_seen() {
        let witness = Witness::read(TOLD).unwrap();
        for index in 0..4 {
            let mut frames = TRACED.to_vec();
            frames.remove(index);
            assert!(!witness.compare(&stack(&frames)).is_exact(), "without frame {index}");
            if index > 0 {
                let mut frames = TRACED.to_vec();
                frames[index].2 += 1;
                assert!(!witness.compare(&stack(&frames)).is_exact(), "other line in {index}");
            }
        }
        let mut frames = TRACED.to_vec();
        frames.insert(0, ("math.Sin", "/go/sin.go", 1));
        assert!(!witness.compare(&stack(&frames)).is_exact(), "a frame that cannot be");
    }

    #[test]
    fn other_text_is_refused() {
        for text in
            ["", "goroutine", "goroutine x [running]:", "goroutine 1 [running]:\nmain.a()\n"]
        {
            assert!(Witness::read(text).is_err(), "{text}");
        }
    }
}
