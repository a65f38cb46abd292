use leak_stacks::ticks_from_boottime;

use crate::sources::procfs::*;

#[test]
fn own_identity_agrees_with_the_clock() {
    let pid = std::process::id();
    let key = identify(pid).unwrap();
    let info = describe(key).unwrap();
    assert_eq!(info.key, key);
    assert_eq!(info.exe.as_deref(), std::env::current_exe().unwrap().to_str());
    assert!(!info.comm.is_empty() && !info.comm.ends_with('\n'));
    let age = info.started_at.unwrap().elapsed().unwrap();
    assert!(age < Duration::from_secs(3600), "this test began {age:?} ago?");
}

#[test]
fn a_reused_pid_is_another_process() {
    let key = identify(std::process::id()).unwrap();
    let other = ProcessKey { start_ticks: key.start_ticks + 1, ..key };
    assert!(matches!(describe(other), Err(ProcessError::Gone { .. })));
}

#[test]
fn a_vanished_process_is_gone() {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    assert!(matches!(identify(pid), Err(ProcessError::Gone { pid: gone }) if gone == pid));
    let key = ProcessKey { pid, start_ticks: 1 };
    assert!(matches!(describe(key), Err(ProcessError::Gone { .. })));
}

#[test]
fn boot_time_becomes_ticks() {
    let per_tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
    assert_eq!(ticks_from_boottime(0), 0);
    assert_eq!(ticks_from_boottime(per_tick - 1), 0);
    assert_eq!(ticks_from_boottime(per_tick), 1);
    assert_eq!(ticks_from_boottime(1234 * per_tick + per_tick / 2), 1234);
    // The kernel's own arithmetic, on a process whose start lies between two readings.
    let now = || {
        let now = clock_gettime(ClockId::Boottime);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    };
    let before = now();
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let key = identify(child.id()).unwrap();
    let after = now();
    child.kill().unwrap();
    child.wait().unwrap();
    let possible = ticks_from_boottime(before)..=ticks_from_boottime(after);
    assert!(possible.contains(&key.start_ticks), "{key:?} not in {possible:?}");
}

#[test]
fn descendants_are_found_over_generations() {
    let mut shell = std::process::Command::new("sh")
        .args(["-c", "sh -c 'sleep 60; :' & wait"])
        .spawn()
        .unwrap();
    let roots = HashSet::from([shell.id()]);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let found = loop {
        let found = with_descendants(&roots).unwrap();
        if found.len() >= 3 || std::time::Instant::now() > deadline {
            break found;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    for &pid in &found {
        // The last ones may have ended by themselves once their child was gone.
        let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    shell.wait().unwrap();
    assert_eq!(found.len(), 3, "the shell, its shell and sleep: {found:?}");
    assert!(!found.contains(&std::process::id()));
}

#[test]
fn the_pid_inside_the_innermost_namespace() {
    let status = |pids: &str| format!("Name:\ta\nNSpid:{pids}\nNSpgid:\t9\n");
    assert_eq!(innermost_pid(&status("\t4242\t17\t1")), Some(1));
    assert_eq!(innermost_pid(&status("\t4242\t17")), Some(17));
    assert_eq!(innermost_pid(&status("\t4242")), None, "it is in the one of procfs");
    for text in ["", "NSpid:", "NSpid:\tx\ty", "Name:\tNSpid:\n"] {
        assert_eq!(innermost_pid(text), None, "{text}");
    }
    // A name cannot pass for the line: the kernel escapes its line ends.
    assert_eq!(describe(identify(std::process::id()).unwrap()).unwrap().container_pid, None);
}
