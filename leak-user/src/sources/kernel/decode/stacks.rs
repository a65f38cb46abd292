//! Decodes copied stacks.

use leak_common::stack::StackHeader;
use leak_stacks::{RawStack, Shortfall};

use crate::sources::kernel::decode::fields::process_key;

/// Takes a copied stack out of its record.
///
/// # Errors
///
/// When nothing was copied, with the reason.
pub fn raw_stack(header: &StackHeader, bytes: &[u8]) -> Result<RawStack, Shortfall> {
    let copied = bytes.get(..header.len as usize).unwrap_or_default();
    if copied.is_empty() {
        // The programs check the budget before they decide how much to copy.
        return Err(if header.wanted == 0 {
            Shortfall::OverBudget
        } else {
            Shortfall::UnreadableStack
        });
    }
    Ok(RawStack {
        process: process_key(header.tgid, header.process_start_ns),
        tid: header.tid,
        image: header.image,
        ip: header.ip,
        sp: header.sp,
        bp: header.bp,
        preserved: header.preserved,
        wanted: header.wanted,
        goroutine_window: header.goroutine,
        python: header.python.iter().take(header.python_len as usize).copied().collect(),
        python_whole: header.python_whole != 0,
        python_tag: header.python_tag,
        bytes: copied.to_vec(),
    })
}
