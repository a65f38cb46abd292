//! Boots one virtual machine and follows it until it ends.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use support::process::{Guarded, Signal, ensure_not_stopped};

use super::outcome::{Ending, Outcome};
use super::protocol::PLAN;

/// Interval for polling the machine.
const POLL: Duration = Duration::from_millis(100);
/// Time limit for the kernel to start its first process. Under emulation this takes a few seconds.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// Time limit for a machine without output: longer than any test waits.
const SILENCE_LIMIT: Duration = Duration::from_secs(600);
/// Time limit for a whole run.
const LIMIT: Duration = Duration::from_secs(40 * 60);
/// The kernel's message when it panics.
const PANIC: &str = "Kernel panic";

/// A machine that is not booted yet.
pub(super) struct Machine<'a> {
    /// Name of the run and of its plan.
    pub(super) name: &'a str,
    /// The bootable kernel image.
    pub(super) kernel: &'a Path,
    /// The initramfs.
    pub(super) image: &'a Path,
    /// Additional parameters of the kernel's command line.
    pub(super) parameters: &'a str,
    /// Derives the machine's time from its number of instructions. Such a machine has one
    /// processor, and is slower.
    pub(super) counts: bool,
    /// The directory for the console log and the results.
    pub(super) directory: &'a Path,
}

impl Machine<'_> {
    /// Boots the machine, runs the plan, and returns the outcome. Keeps the results; keeps the
    /// console log unless all went well.
    pub(super) fn run(&self, mut tell: impl FnMut(&str)) -> Result<Outcome> {
        let console = self.directory.join(format!("{}.console", self.name));
        let results = self.directory.join(format!("{}.results", self.name));
        for file in [&console, &results] {
            File::create(file).with_context(|| file.display().to_string())?;
        }
        let mut emulator = Guarded::spawn(&mut self.command(&console, &results), Signal::KILL)?;
        let mut tail = Tail { path: results, read: 0, rest: Vec::new() };
        let (mut outcome, began) = (Outcome::new(), Instant::now());
        let mut heard = began;
        outcome.ending = loop {
            ensure_not_stopped()?;
            // Checked before the results are read, so that no results are missed.
            let has_ended = emulator.child().try_wait()?.is_some();
            for line in tail.lines()? {
                heard = Instant::now();
                tell(&line);
                outcome.hear(&line);
            }
            if outcome.is_done() && has_ended {
                break Ending::Whole;
            }
            if has_panicked(&console)? {
                break Ending::Panic;
            }
            if has_ended {
                break Ending::Early;
            }
            let limit = if outcome.release.is_some() { SILENCE_LIMIT } else { BOOT_LIMIT };
            if heard.elapsed() > limit || began.elapsed() > LIMIT {
                break Ending::Hang;
            }
            thread::sleep(POLL);
        };
        outcome.seconds = began.elapsed().as_secs();
        if outcome.is_well() {
            fs::remove_file(console)?;
        }
        Ok(outcome)
    }

    /// The emulated processor. Where instructions are counted, it is an old model without fast copy
    /// instructions: which of these the newest model has, and so how the kernel copies, depends on
    /// QEMU's release.
    fn processor(&self) -> &'static str {
        if self.counts { "Nehalem-v1" } else { "max" }
    }

    fn command(&self, console: &Path, results: &Path) -> Command {
        let mut command = Command::new("nice");
        command.args(["-n", "5", "qemu-system-x86_64"]);
        // Emulated, because nested virtualisation is not reliable.
        if self.counts {
            // A fixed start date makes runs identical.
            command.args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
            command.args(["-rtc", "base=2026-01-01,clock=vm", "-smp", "1"]);
        } else {
            command.args(["-accel", "tcg,thread=multi", "-smp", "2"]);
        }
        command.args(["-cpu", self.processor(), "-m", "2048", "-nodefaults", "-no-reboot"]);
        command.args(["-display", "none", "-kernel"]).arg(self.kernel);
        command.arg("-initrd").arg(self.image);
        command.arg("-append").arg(format!(
            "console=ttyS0 loglevel=5 panic=-1 no_timer_check rdinit=/init {PLAN}={} {}",
            self.name, self.parameters
        ));
        for file in [console, results] {
            command.arg("-serial").arg(format!("file:{}", file.display()));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

fn has_panicked(console: &Path) -> Result<bool> {
    Ok(String::from_utf8_lossy(&fs::read(console)?).contains(PANIC))
}

/// Reads the lines that are appended to a file.
struct Tail {
    path: PathBuf,
    read: u64,
    rest: Vec<u8>,
}

impl Tail {
    fn lines(&mut self) -> Result<Vec<String>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read))?;
        self.read += file.read_to_end(&mut self.rest)? as u64;
        let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else {
            return Ok(Vec::new());
        };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        let text = String::from_utf8_lossy(&whole);
        Ok(text.lines().map(|line| line.trim_end_matches('\r').to_owned()).collect())
    }
}
