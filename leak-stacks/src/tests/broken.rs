//! Broken and malicious binaries, through the whole of the resolver: none makes it panic, run for
//! long or take much memory, and each costs no more than its own stack.
//!
//! This process maps them as code, so that a stack can lie in them without anybody running them.

mod bombs;
mod image;

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::image::Image;
use crate::Timestamp;
use crate::tests::key;
use crate::{Quality, RawStack, Resolver, Stack};

/// How long one binary may take, in an unoptimised build on a machine that is busy with other
/// tests.
const MOST_TIME: Duration = Duration::from_secs(60);
/// Most memory that a process may take that resolves one stack of one binary, in KiB; of these the
/// test program itself takes some 60,000.
const MOST_MEMORY: u64 = 1_000_000;
/// Bytes of a binary that are mapped.
const MAPPED: usize = 1 << 16;

/// A file mapped as code.
struct Mapped(*mut libc::c_void);

impl Mapped {
    fn new(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let flags = libc::MAP_PRIVATE;
        let rights = libc::PROT_READ | libc::PROT_EXEC;
        // SAFETY: a new mapping at an address of the kernel's choice, which nothing reads.
        let at =
            unsafe { libc::mmap(std::ptr::null_mut(), MAPPED, rights, flags, file.as_raw_fd(), 0) };
        assert_ne!(at, libc::MAP_FAILED);
        Self(at)
    }

    /// A stack whose every frame lies somewhere in it.
    fn stack(&self) -> RawStack {
        let sp = 0x7ffc_0000_0000;
        let word = |i: u64| match i % 3 {
            0 => sp + 8 * i + 16,
            step => self.0 as u64 + 0x100 * step + 16 * i % MAPPED as u64,
        };
        RawStack {
            process: key(std::process::id()),
            tid: 0,
            image: 0,
            ip: self.0 as u64 + 0x1010,
            sp,
            bp: sp + 64,
            preserved: [0; 5],
            registers_known: true,
            entry: None,
            wanted: 4096,
            wanted_most: false,
            goroutine_window: vec![0; 64],
            interpreter_frames: Vec::new(),
            interpreter_whole: false,
            interpreter_tag: 0,
            bytes: (0..512).flat_map(|i| word(i).to_le_bytes()).collect(),
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        unsafe { libc::munmap(self.0, MAPPED) };
    }
}

/// Resolves a stack in the file at `path`.
fn resolve(path: &Path, resolver: &mut Resolver) -> Arc<Stack> {
    let mapped = Mapped::new(path);
    let raw = mapped.stack();
    // What was mapped there before is forgotten.
    resolver.forget(raw.process);
    let began = Instant::now();
    let stack = resolver.resolve(&raw, Timestamp(0)).stack.unwrap();
    assert!(began.elapsed() < MOST_TIME, "{}: {:?}", path.display(), began.elapsed());
    stack
}

fn compiled(directory: &Path, name: &str, arguments: &[&str]) -> Image {
    let (source, program) = (directory.join("shop.c"), directory.join(name));
    fs::write(&source, crate::tests::C_PROGRAM).unwrap();
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-g"]).args(arguments).arg("-o").args([&program, &source]);
    assert!(gcc.status().unwrap().success());
    Image(fs::read(program).unwrap())
}

#[test]
fn broken_binaries_cost_one_stack() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broken");
    let go = crate::tests::compiled_go(directory.path(), &["-ldflags", "-s -w"]);
    let originals = [
        compiled(directory.path(), "plain", &[]),
        compiled(directory.path(), "compressed", &["-gz=zlib"]),
        Image(fs::read(go).unwrap()),
    ];
    let mut resolver = Resolver::new(Arc::default());
    let mut count = 0;
    for original in &originals {
        for broken in original.broken() {
            fs::write(&path, broken.0).unwrap();
            resolve(&path, &mut resolver);
            count += 1;
        }
    }
    assert!(count > 300, "{count}");
    // None of them has cost another stack.
    let own = std::thread::spawn(crate::tests::outermost).join().unwrap();
    let own = resolver.resolve(&own, Timestamp(0)).stack.unwrap();
    assert_eq!(own.quality, Quality::Complete);
}

#[test]
fn what_is_no_binary_has_no_names() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("noise");
    for content in [&[][..], b"#!/bin/sh\n", &[0xff; 70_000], b"\x7fELF\x02\x01"] {
        fs::write(&path, content).unwrap();
        let stack = resolve(&path, &mut Resolver::new(Arc::default()));
        assert!(stack.frames.iter().all(|frame| frame.function.is_none()), "{:?}", stack.frames);
        assert_ne!(stack.quality, Quality::Complete);
    }
}

#[test]
fn what_bombs_are_made_of_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    bombs::control(&path);
    let stack = resolve(&path, &mut Resolver::new(Arc::default()));
    let innermost = &stack.frames[0];
    assert_eq!(innermost.function, None, "it is its own origin, which has no name");
    assert!(innermost.file.as_deref().is_some_and(|file| file.ends_with("a.c")), "{innermost:?}");
}

/// The bombs, each in a process of its own: so its memory is known, and it ends whatever happens.
#[test]
fn bombs_do_not_go_off() {
    const BOMB: &str = "PGSOCKTRACE_TEST_BOMB";
    if let Some(path) = std::env::var_os(BOMB) {
        resolve(Path::new(&path), &mut Resolver::new(Arc::default()));
        let memory = most_memory();
        eprintln!("{} MiB", memory >> 10);
        assert!(memory < MOST_MEMORY, "{memory} KiB");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bomb");
    for (name, bomb) in bombs::ALL {
        bomb(&path);
        let name_here = "tests::broken::bombs_do_not_go_off";
        let began = Instant::now();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name_here, "--nocapture"])
            .env(BOMB, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        assert!(succeeds(&mut child, MOST_TIME * 2), "{name} after {:?}", began.elapsed());
        eprintln!("{name}: {:?}", began.elapsed());
    }
}

/// Whether a child succeeds in time.
fn succeeds(child: &mut Child, bound: Duration) -> bool {
    let until = Instant::now() + bound;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        if Instant::now() > until {
            child.kill().unwrap();
            child.wait().unwrap();
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The most memory that this process has taken, in KiB.
fn most_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
