//! The user who called sudo, as whom the command is to run.

use std::ffi::{CStr, CString, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt as _;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Most groups that a user can be in.
const MAX_GROUPS: usize = 65_536;
/// Room for a line of the user database.
const MAX_LINE: usize = 64 << 10;

/// A user, with what a login would give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    name: OsString,
    home: OsString,
}

impl User {
    /// The user who called sudo; `None` without sudo, and when it was root.
    pub(super) fn behind_sudo() -> io::Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
        match (number("SUDO_UID"), number("SUDO_GID")) {
            (Some(uid), Some(gid)) if uid != 0 => Self::find(uid, gid).map(Some),
            _ => Ok(None),
        }
    }

    fn find(uid: u32, gid: u32) -> io::Result<Self> {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut line = vec![0; MAX_LINE];
        let mut found = std::ptr::null_mut();
        // SAFETY: the pointers are to as much memory as is said.
        let status = unsafe {
            let (entry, line, length) = (entry.as_mut_ptr(), line.as_mut_ptr(), line.len());
            libc::getpwuid_r(uid, entry, line, length, &raw mut found)
        };
        if status != 0 {
            return Err(io::Error::from_raw_os_error(status));
        }
        if found.is_null() {
            return Err(io::Error::other(format!("there is no user with UID {uid}")));
        }
        // SAFETY: the entry was filled, and its strings are in `line`.
        let (name, home) = unsafe {
            let entry = entry.assume_init_ref();
            (CStr::from_ptr(entry.pw_name).to_owned(), CStr::from_ptr(entry.pw_dir).to_owned())
        };
        let groups = groups(&name, gid)?;
        Ok(Self {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            groups,
            name: OsString::from_vec(name.into_bytes()),
            home: OsString::from_vec(home.into_bytes()),
        })
    }

    /// The variables that a login would set.
    pub(super) fn environment(&self) -> [(&'static str, OsString); 3] {
        [("HOME", self.home.clone()), ("USER", self.name.clone()), ("LOGNAME", self.name.clone())]
    }

    /// Makes this process the user's, for good. It is for a process with one thread, after a fork.
    pub(super) fn become_it(&self) -> io::Result<()> {
        set_thread_groups(&self.groups)?;
        set_thread_res_gid(self.gid, self.gid, self.gid)?;
        Ok(set_thread_res_uid(self.uid, self.uid, self.uid)?)
    }
}

/// The groups of a user, `gid` among them.
fn groups(name: &CString, gid: u32) -> io::Result<Vec<Gid>> {
    let mut groups = vec![0; 64];
    loop {
        let mut count = i32::try_from(groups.len()).unwrap_or(i32::MAX);
        // SAFETY: the name ends with a NUL, and there is room for `count` groups.
        let listed =
            unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        if listed >= 0 {
            groups.truncate(usize::try_from(count).unwrap_or(0));
            return Ok(groups.into_iter().map(Gid::from_raw).collect());
        }
        if groups.len() >= MAX_GROUPS {
            return Err(io::Error::other("the user is in too many groups"));
        }
        groups.resize(groups.len() * 2, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_home_and_groups() {
        let root = User::find(0, 0).unwrap();
        assert_eq!((root.name.to_str(), root.home.to_str()), (Some("root"), Some("/root")));
        assert!(root.groups.contains(&Gid::ROOT));
        assert_eq!(root.environment()[0], ("HOME", "/root".into()));
        assert!(User::find(u32::MAX - 7, 0).is_err());
    }
}
