//! `/proc/PID/stat`: which process has a PID, and which of its programs it runs. This is the one
//! reader of it, also for the collector.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use crate::process::ProcessKey;

/// Longest line that is read. All fields together take less than 1,200 bytes.
const MAX_LENGTH: u64 = 4096;
/// Longest `/proc/stat` that is read: it has a line for each processor and a number for each
/// interrupt.
const MAX_BOOT: u64 = 1 << 20;

/// The fields that are wanted of `/proc/PID/stat`, proc_pid_stat(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Field 3: it has exited, and only its parent has not noticed yet.
    pub has_exited: bool,
    /// Field 4.
    pub parent: u32,
    /// Field 22, in clock ticks since boot.
    pub start_ticks: u64,
    /// Field 28: where the main thread's stack began when the process executed its program; see
    /// [`RawStack::image`](crate::raw::RawStack::image). The kernel tells it only to those who may
    /// look into the process, others get 0.
    pub image: u64,
}

impl Stat {
    /// Reads the line. The name, field 2, may hold anything, `) ` and broken UTF-8 included, so
    /// counting begins after the last parenthesis.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let name_end = line.iter().rposition(|&byte| byte == b')')?;
        let rest = std::str::from_utf8(line.get(name_end + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let has_exited = matches!(fields.next()?, "Z" | "X");
        let parent = fields.next()?.parse().ok()?;
        let start_ticks = fields.nth(17)?.parse().ok()?;
        let image = fields.nth(5).and_then(|field| field.parse().ok()).unwrap_or(0);
        Some(Self { has_exited, parent, start_ticks, image })
    }

    /// Reads that of the process which has this PID now.
    ///
    /// # Errors
    ///
    /// When procfs refuses, or (`InvalidData`) holds something else than proc_pid_stat(5) promises.
    pub fn read(pid: u32) -> io::Result<Self> {
        let line = read_bounded(&format!("/proc/{pid}/stat"), MAX_LENGTH)?;
        Self::parse(&line)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no start time in stat"))
    }
}

fn read_bounded(path: &str, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Start time of the process that has this PID now, in clock ticks since boot.
pub(crate) fn start_ticks(pid: u32) -> io::Result<u64> {
    Stat::read(pid).map(|stat| stat.start_ticks)
}

/// Device and inode behind `/proc/PID/exe`.
pub(crate) fn executable_identity(pid: u32) -> Option<(u64, u64)> {
    let metadata = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// When the process started, in seconds of the wall clock.
pub(crate) fn wall_clock_start(process: ProcessKey) -> Option<i64> {
    let stat = String::from_utf8(read_bounded("/proc/stat", MAX_BOOT).ok()?).ok()?;
    let boot: i64 = stat.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()?;
    let since_boot = process.start_ticks.checked_mul(nanoseconds_per_tick())? / 1_000_000_000;
    boot.checked_add(i64::try_from(since_boot).ok()?)
}

/// Clock ticks that procfs counts start times in for a kernel time since boot, as
/// `nsec_to_clock_t` in the kernel's `kernel/time/time.c` does.
///
/// `task_struct.start_boottime` thus becomes [`ProcessKey::start_ticks`].
#[must_use]
pub fn ticks_from_boottime(nanoseconds: u64) -> u64 {
    nanoseconds / nanoseconds_per_tick()
}

/// How long one of procfs's clock ticks is.
#[must_use]
pub fn nanoseconds_per_tick() -> u64 {
    1_000_000_000 / rustix::param::clock_ticks_per_second().clamp(1, 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat_line(name: &str) -> Vec<u8> {
        let mut line = format!("7 ({name}) S 3 ");
        for field in 5..22 {
            line += &format!("{field} ");
        }
        line += "987654 23 24 25 26 27 4096 29\n";
        line.into_bytes()
    }

    #[test]
    fn names_cannot_disturb_the_fields() {
        let expected = Stat { has_exited: false, parent: 3, start_ticks: 987_654, image: 4096 };
        for name in ["sh", "a) S 1 2 3", "a b", "(((", ")))", "", "x\n) R"] {
            assert_eq!(Stat::parse(&stat_line(name)), Some(expected), "{name:?}");
        }
        let mut broken = stat_line("ab");
        broken[4] = 0xff;
        assert_eq!(Stat::parse(&broken), Some(expected), "names need not be UTF-8");
    }

    #[test]
    fn cut_lines_are_refused() {
        let line = stat_line("sh");
        let enough = line.windows(6).position(|part| part == b"987654").unwrap();
        for length in 0..=enough {
            assert_eq!(Stat::parse(&line[..length]), None);
        }
    }

    #[test]
    fn own_start_is_in_the_past() {
        let process = ProcessKey {
            pid: std::process::id(),
            start_ticks: start_ticks(std::process::id()).unwrap(),
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let age = now.as_secs() as i64 - wall_clock_start(process).unwrap();
        assert!((-2..3600).contains(&age), "{age}");
    }
}
