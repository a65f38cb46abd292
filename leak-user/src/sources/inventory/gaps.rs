//! What an inventory does not show, and why.

use std::io;

use crate::sources::kernel::capabilities;

/// Processes whose file descriptors could not be read: who holds a connection may be missing.
#[derive(Debug, Default)]
pub struct UnreadProcesses {
    count: usize,
    first: Option<(u32, io::Error)>,
}

impl UnreadProcesses {
    pub(super) fn add(&mut self, count: usize, first: Option<(u32, io::Error)>) {
        self.count += count;
        if self.first.is_none() {
            self.first = first;
        }
    }

    /// Says which, and why; `None` when there are none.
    #[must_use]
    pub fn describe(&self) -> Option<String> {
        self.described(capabilities::lacks("SYS_PTRACE"))
    }

    fn described(&self, lacks_capability: bool) -> Option<String> {
        let (pid, error) = self.first.as_ref()?;
        let others = match self.count {
            0 | 1 => String::new(),
            2 => " and of 1 other process".to_owned(),
            count => format!(" and of {} other processes", count - 1),
        };
        // With the capability something else is in the way, such as a security module.
        let advice = if lacks_capability { "; CAP_SYS_PTRACE allows it" } else { "" };
        Some(format!(
            "the file descriptors of process {pid}{others} cannot be read ({error}), so it is not \
             known which connections they hold{advice}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_named_and_no_advice_given_that_does_not_apply() {
        let refused = |pid| Some((pid, io::Error::from_raw_os_error(libc::EACCES)));
        let mut unread = UnreadProcesses::default();
        assert_eq!(unread.described(true), None);
        unread.add(1, refused(7));
        unread.add(2, refused(8));
        let said = unread.described(false).unwrap();
        assert!(said.contains("process 7 and of 2 other processes cannot be read"), "{said}");
        assert!(said.contains("Permission denied") && !said.contains("CAP_"), "{said}");
        assert!(unread.described(true).unwrap().ends_with("; CAP_SYS_PTRACE allows it"));
    }
}
