//! What identifies a finding from run to run.

use std::fmt;
use std::str::FromStr;

use crate::engine::detect::Reason;
use leak_stacks::Frame;

/// Identifies a finding by its reason and its code: the same in every run, whatever the PID, the
/// line and the directory of the build. It is written as 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Of a reason and the function to blame; where none is named, of the program.
    pub(crate) fn new(reason: Reason, culprit: Option<&Frame>, comm: Option<&str>) -> Self {
        let function = culprit.and_then(|frame| frame.function.as_deref());
        let place = culprit.and_then(|frame| frame.file.as_deref().or(frame.module.as_deref()));
        let place = place.map(|path| path.rsplit('/').next().unwrap_or(path));
        let program = if function.is_none() { comm } else { None };
        let parts = [Some(reason.name()), function, place.filter(|_| function.is_some()), program];
        Self(parts.into_iter().fold(FNV_BASIS, |hash, part| add(hash, part.unwrap_or_default())))
    }
}

/// FNV-1a, whose numbers are the same in every version of every library.
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// Adds a part and a NUL, so that parts cannot run into each other.
fn add(hash: u64, part: &str) -> u64 {
    let bytes = part.bytes().chain([0]);
    bytes.fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A text that is no fingerprint.
#[derive(Debug, thiserror::Error)]
#[error("a fingerprint has 16 hexadecimal digits")]
pub struct NoFingerprint;

impl FromStr for Fingerprint {
    type Err = NoFingerprint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_written_so = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| is_written_so);
        number.map(Self).ok_or(NoFingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: Option<&str>, file: &str, line: u32) -> Frame {
        let (function, file) = (function.map(str::to_owned), Some(file.to_owned()));
        Frame { function, module: None, file, line: Some(line), address: line.into() }
    }

    fn of(reason: Reason, frame: &Frame, comm: &str) -> Fingerprint {
        Fingerprint::new(reason, Some(frame), Some(comm))
    }

    #[test]
    fn reason_function_and_file_make_it_and_nothing_else() {
        let here = of(Reason::Abandoned, &frame(Some("report"), "/home/a/src/report.go", 41), "x");
        let there = of(Reason::Abandoned, &frame(Some("report"), "/ci/report.go", 57), "y");
        assert_eq!(here, there, "another directory, line and name of the program");
        let file = of(Reason::Abandoned, &frame(Some("report"), "other.go", 41), "x");
        let function = of(Reason::Abandoned, &frame(Some("pay"), "report.go", 41), "x");
        let reason = of(Reason::Growing, &frame(Some("report"), "report.go", 41), "x");
        assert!([file, function, reason].iter().all(|other| *other != here));
    }

    #[test]
    fn programs_stand_for_unnamed_code() {
        let of = |comm| Fingerprint::new(Reason::Growing, None, Some(comm));
        assert_ne!(of("orders"), of("billing"));
        let unnamed = frame(None, "a.so", 1);
        assert_eq!(Fingerprint::new(Reason::Growing, Some(&unnamed), Some("orders")), of("orders"));
    }

    #[test]
    fn it_is_written_down_for_years() {
        let known = of(Reason::Abandoned, &frame(Some("report"), "report.go", 41), "x");
        assert_eq!(known.to_string(), "6793287b680a4441");
        assert_eq!("6793287b680a4441".parse::<Fingerprint>().unwrap(), known);
        assert!("+123456789abcdef".parse::<Fingerprint>().is_err());
    }
}
