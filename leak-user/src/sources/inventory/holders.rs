//! Finds the processes that hold a socket among their file descriptors.

use std::collections::{HashMap, HashSet};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Dir, Mode, OFlags, openat, readlinkat_raw};
use rustix::io::Errno;

use crate::model::ProcessKey;
use crate::sources::procfs::is_gone;
use leak_stacks::Stat;

/// Bytes to read of a descriptor's link: `socket:[4294967295]` fits, and anything longer is a path.
const LINK_LENGTH: usize = 32;

/// The holders of sockets.
///
/// Socket inodes are unique on the whole host, not per network namespace: sockfs is mounted once.
/// The number has 32 bits and wraps after as many sockets, pipes and the like.
#[derive(Debug, Default)]
pub(in crate::sources) struct Holders {
    /// The processes that hold each inode. An inode that no process holds is missing.
    pub(in crate::sources) by_inode: HashMap<u64, Vec<ProcessKey>>,
    /// Processes whose file descriptors could not be read.
    pub(in crate::sources) unreadable: usize,
    /// The first of them, and why.
    pub(in crate::sources) first_unreadable: Option<(u32, io::Error)>,
}

/// Finds which of `pids` hold the sockets with these inodes.
///
/// This costs one readlink(2) for each descriptor of each process. Processes that exit meanwhile
/// are skipped. The open directory pins a process, so a reused PID cannot mix up two processes.
#[must_use]
pub(in crate::sources) fn holders(
    inodes: &HashSet<u64>,
    pids: impl IntoIterator<Item = u32>,
) -> Holders {
    let mut found = Holders::default();
    if inodes.is_empty() {
        return found;
    }
    for pid in pids {
        // A process that is just ending may refuse once, and be gone at the next attempt.
        match sockets_held(pid, inodes).or_else(|_| sockets_held(pid, inodes)) {
            Ok(Some((key, held))) => {
                for inode in held {
                    found.by_inode.entry(inode).or_default().push(key);
                }
            }
            Ok(None) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => {
                found.unreadable += 1;
                found.first_unreadable.get_or_insert((pid, error));
            }
        }
    }
    found
}

fn sockets_held(pid: u32, wanted: &HashSet<u64>) -> io::Result<Option<(ProcessKey, HashSet<u64>)>> {
    let process = directory(CWD, &format!("/proc/{pid}"))?;
    let mut held = HashSet::new();
    let mut descriptors = collect(&process, "fd", wanted, &mut held).or_else(none_if_missing)?;
    if descriptors == 0 {
        // If the main thread has exited while others run, only those show the descriptors.
        for task in names(&directory(&process, "task")?)? {
            let path = format!("task/{task}/fd");
            descriptors = collect(&process, &path, wanted, &mut held).or_else(none_if_missing)?;
            if descriptors > 0 {
                break;
            }
        }
    }
    if held.is_empty() {
        return Ok(None);
    }
    let stat = openat(&process, "stat", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut line = Vec::new();
    io::Read::read_to_end(&mut std::fs::File::from(stat), &mut line)?;
    let stat = Stat::parse(&line).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some((ProcessKey { pid, start_ticks: stat.start_ticks }, held)))
}

/// Adds the wanted sockets of one descriptor table. Returns the number of its descriptors.
fn collect(
    process: &OwnedFd,
    path: &str,
    wanted: &HashSet<u64>,
    held: &mut HashSet<u64>,
) -> io::Result<usize> {
    let table = directory(process, path)?;
    let mut descriptors = 0;
    for entry in Dir::read_from(&table)? {
        let entry = entry?;
        let mut buffer = [MaybeUninit::uninit(); LINK_LENGTH];
        let link = match readlinkat_raw(&table, entry.file_name(), &mut buffer) {
            Ok((link, _)) => link,
            // Closed meanwhile, or `.` and `..`, which are not links.
            Err(Errno::NOENT | Errno::INVAL) => continue,
            Err(error) => return Err(error.into()),
        };
        descriptors += 1;
        held.extend(socket_inode(link).filter(|inode| wanted.contains(inode)));
    }
    Ok(descriptors)
}

/// Inode of the socket that a process has under this descriptor. `table` is its `/proc/PID/fd`.
pub(in crate::sources) fn socket_of(table: impl AsFd, descriptor: u64) -> Option<u64> {
    let mut buffer = [MaybeUninit::uninit(); LINK_LENGTH];
    let (link, _) = readlinkat_raw(table, descriptor.to_string(), &mut buffer).ok()?;
    socket_inode(link)
}

/// The inode, if the descriptor is a socket.
fn socket_inode(link: &[u8]) -> Option<u64> {
    let digits = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn directory(parent: impl AsFd, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(parent, path, flags, Mode::empty())?)
}

fn names(directory: &OwnedFd) -> io::Result<Vec<u32>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        names.extend(entry?.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(names)
}

fn none_if_missing(error: io::Error) -> io::Result<usize> {
    if is_gone(&error) { Ok(0) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::sources::procfs::{all, identify};

    fn inode(socket: &impl AsFd) -> u64 {
        rustix::fs::fstat(socket).unwrap().st_ino
    }

    #[test]
    fn a_duplicated_descriptor_counts_once() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let _copy = socket.try_clone().unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let me = identify(std::process::id()).unwrap();
        let wanted = HashSet::from([inode(&socket)]);
        let found = holders(&wanted, [me.pid]);
        assert_eq!(found.by_inode, HashMap::from([(inode(&socket), vec![me])]));
        assert_eq!(found.unreadable, 0);
        assert_ne!(inode(&socket), inode(&other));
    }

    #[test]
    fn inherited_and_orphaned_sockets() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let copy = rustix::io::dup(&socket).unwrap();
        rustix::io::fcntl_setfd(&copy, rustix::io::FdFlags::empty()).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        drop(copy);
        let keys = [identify(std::process::id()).unwrap(), identify(child.id()).unwrap()];
        let inode = inode(&socket);
        let wanted = HashSet::from([inode]);
        let both = holders(&wanted, all().unwrap());
        let parent_only = holders(&wanted, [keys[0].pid]);
        drop(socket);
        let child_only = holders(&wanted, all().unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        // Other tests of this process may have forked before the copy was dropped.
        assert!(keys.iter().all(|key| both.by_inode[&inode].contains(key)), "{both:?}");
        assert_eq!(parent_only.by_inode[&inode], [keys[0]]);
        assert!(child_only.by_inode[&inode].contains(&keys[1]), "{child_only:?}");
        assert!(!child_only.by_inode[&inode].contains(&keys[0]), "{child_only:?}");
        let gone = holders(&wanted, [child.id()]);
        assert!(gone.by_inode.is_empty() && gone.unreadable == 0, "{gone:?}");
    }

    #[test]
    fn descriptors_outlive_the_first_thread() {
        // The main thread alone calls exit(2); the descriptors show only in the other thread.
        let script = "import ctypes, threading, time, socket\n\
            s = socket.socket()\n\
            print(__import__('os').fstat(s.fileno()).st_ino, flush=True)\n\
            threading.Thread(target=time.sleep, args=(60,)).start()\n\
            ctypes.CDLL(None).syscall(60, 0)";
        let child = std::process::Command::new("python3")
            .args(["-c", script])
            .stdout(std::process::Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            panic!("this needs python3; `cargo xtask setup` installs it");
        };
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        io::BufRead::read_line(&mut io::BufReader::new(output), &mut line).unwrap();
        let inode: u64 = line.trim().parse().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let main_thread = format!("/proc/{0}/task/{0}/stat", child.id());
        while !std::fs::read_to_string(&main_thread).unwrap().contains(") Z ") {
            assert!(std::time::Instant::now() < deadline, "the main thread does not exit");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let found = holders(&HashSet::from([inode]), [child.id()]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.by_inode[&inode].len(), 1);
    }

    #[test]
    fn only_sockets_links_are_read() {
        assert_eq!(socket_inode(b"socket:[42]"), Some(42));
        for link in
            [&b"socket:["[..], b"socket:[]", b"socket:[x]", b"pipe:[42]", b"", b"/socket:[4]"]
        {
            assert_eq!(socket_inode(link), None);
        }
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        assert_eq!(socket_inode(link.to_str().unwrap().as_bytes()), Some(inode(&socket)));
    }
}
