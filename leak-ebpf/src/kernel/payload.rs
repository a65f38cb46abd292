//! Finds the bytes that the system call under way has transferred in the process's memory.
//!
//! The hooks run when the bytes have been transferred but the call has not returned, so the
//! registers saved at its entry still name its buffer. Calls without a buffer (`sendfile`,
//! `splice`) and io_uring, whose transfers run inside any call, cannot be read: their bytes are
//! counted, and [`Payload::is_visible`] is false.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::bpf_probe_read_user;
use aya_ebpf::helpers::generated::bpf_probe_read_user as read_user;
use bytemuck::{Pod, Zeroable};

use super::sock::Sock;
use super::task::{Registers, Task};
use crate::maps::constant;
use crate::verifier::{hide, zeroed};

/// The system calls of x86-64 that transfer bytes, from `arch/x86/entry/syscalls/syscall_64.tbl`.
mod call {
    pub(super) const READ: u64 = 0;
    pub(super) const WRITE: u64 = 1;
    pub(super) const READV: u64 = 19;
    pub(super) const WRITEV: u64 = 20;
    pub(super) const SENDTO: u64 = 44;
    pub(super) const RECVFROM: u64 = 45;
    pub(super) const SENDMSG: u64 = 46;
    pub(super) const RECVMSG: u64 = 47;
    pub(super) const RECVMMSG: u64 = 299;
    pub(super) const SENDMMSG: u64 = 307;
    pub(super) const PREADV2: u64 = 327;
    pub(super) const PWRITEV2: u64 = 328;
}

/// Most buffers of a vectored call that are followed.
const MAX_BUFFERS: u64 = 8;
/// `struct user_msghdr`: `msg_iov`, then `msg_iovlen`.
const MSGHDR_IOV: u64 = 16;
/// How many bytes of a stream's end are remembered: PostgreSQL's `ReadyForQuery` has six.
const TAIL: u64 = 6;
/// The low six bytes.
const TAIL_MASK: u64 = 0xffff_ffff_ffff;

/// The first bytes that a call transferred.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Head {
    /// The bytes; zeroes after `len`.
    pub(crate) bytes: [u8; 16],
    /// How many of them were transferred.
    pub(crate) len: u64,
}

impl Head {
    /// A 32-bit number in network order at byte 0, 4, 8 or 12.
    #[inline(always)]
    pub(crate) fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes([
            self.bytes[at],
            self.bytes[at + 1],
            self.bytes[at + 2],
            self.bytes[at + 3],
        ])
    }
}

/// Copies up to `N` of the `len` bytes at a user address and returns how many.
///
/// Not inlined, so that there are registers enough: before Linux 6.9 the verifier forgets the
/// bounds of a value that is spilled to the stack.
#[inline(never)]
pub(crate) fn copy<const N: usize>(address: u64, len: u64, to: &mut [u8; N]) -> u32 {
    let len = len.min(N as u64) as u32;
    // SAFETY: the length is at most the array's; the helper checks the user's address.
    let failed = unsafe { read_user(to.as_mut_ptr().cast(), len, address as *const _) };
    if failed == 0 { len } else { 0 }
}

/// `struct iovec`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Buffer {
    /// Its address in the process.
    pub(crate) base: u64,
    /// Its length.
    pub(crate) len: u64,
}

/// The bytes that the call under way has transferred.
#[derive(Clone, Copy)]
pub(crate) struct Payload {
    /// The only buffer, or the array of buffers.
    address: u64,
    /// How many buffers the array has; 0: `address` is the only buffer.
    buffers: u64,
    /// How many bytes were transferred.
    len: u64,
}

impl Payload {
    /// The `len` bytes that the running system call has transferred over `sock`.
    #[inline(always)]
    pub(crate) fn of_current_call(sock: impl Sock, len: u64) -> Self {
        let task = Task::current();
        let registers = task.registers();
        // io_uring's transfers run inside whatever call comes next, whose buffer is not theirs.
        if task.uses_io_uring()
            && !task.descriptor_is(registers.at(constant!(LAYOUT.regs_arg0)), sock)
        {
            return Self { address: 0, buffers: 0, len };
        }
        let argument = registers.at(constant!(LAYOUT.regs_arg1));
        let (address, buffers) = match registers.at(constant!(LAYOUT.regs_syscall)) {
            call::READ | call::WRITE | call::SENDTO | call::RECVFROM => (argument, 0),
            call::READV | call::WRITEV | call::PREADV2 | call::PWRITEV2 => {
                (argument, third_argument(registers))
            }
            call::SENDMSG | call::RECVMSG => message(argument),
            // With several messages it is not known which one is being transferred.
            call::SENDMMSG | call::RECVMMSG if third_argument(registers) == 1 => message(argument),
            _ => (0, 0),
        };
        Self { address, buffers, len }
    }

    /// The bytes of a call that had transferred `offset` bytes before: visible only in a single
    /// buffer.
    #[inline(always)]
    pub(crate) fn after(self, offset: u64) -> Self {
        if offset == 0 {
            return self;
        }
        let is_seen = self.buffers == 0 && self.address != 0;
        let address = if is_seen { self.address.wrapping_add(offset) } else { 0 };
        Self { address, buffers: 0, len: self.len }
    }

    /// Whether the bytes can be read.
    #[inline(always)]
    pub(crate) fn is_visible(&self) -> bool {
        self.address != 0 && self.buffers <= MAX_BUFFERS
    }

    /// How many bytes were transferred.
    #[inline(always)]
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The first buffer that holds any of the bytes.
    #[inline(always)]
    pub(crate) fn first(&self) -> Buffer {
        if self.buffers == 0 {
            return Buffer { base: self.address, len: self.len };
        }
        self.first_of_several()
    }

    /// Not inlined: the verifier then proves what follows once, not for each buffer that may be the
    /// one.
    #[inline(never)]
    fn first_of_several(&self) -> Buffer {
        let buffers = hide(self.buffers, self.address);
        let mut index = 0;
        while index < MAX_BUFFERS {
            if index >= buffers {
                break;
            }
            let buffer = self.buffer(index);
            if buffer.len > 0 {
                return Buffer { base: buffer.base, len: buffer.len.min(self.len) };
            }
            index += 1;
        }
        Buffer { base: 0, len: 0 }
    }

    /// The buffer that holds all of the bytes, when it is a single one.
    #[inline(always)]
    pub(crate) fn only_buffer(&self) -> Option<Buffer> {
        (self.buffers == 0).then_some(Buffer { base: self.address, len: self.len })
    }

    /// Type and length of the message whose header is at a user address.
    #[inline(always)]
    pub(crate) fn message_at(&self, address: u64) -> Option<(u8, u32)> {
        // SAFETY: the helper checks the user's address.
        let header = unsafe { bpf_probe_read_user(address as *const [u8; 5]) }.ok()?;
        Some((header[0], u32::from_be_bytes([header[1], header[2], header[3], header[4]])))
    }

    #[inline(always)]
    fn buffer(&self, index: u64) -> Buffer {
        let address = self.address.wrapping_add(index * size_of::<Buffer>() as u64);
        // SAFETY: the helper checks the user's address.
        unsafe { bpf_probe_read_user(address as *const Buffer) }
            .unwrap_or(Buffer { base: 0, len: 0 })
    }

    /// The first bytes, from the first buffer only.
    #[inline(always)]
    pub(crate) fn head(&self) -> Head {
        let buffer = self.first();
        let mut head = MaybeUninit::uninit();
        let head: &mut Head = zeroed(&mut head);
        let len = buffer.len.min(head.bytes.len() as u64);
        // SAFETY: the length is at most the array's; the helper checks the user's address.
        let failed = unsafe {
            read_user(head.bytes.as_mut_ptr().cast(), len as u32, buffer.base as *const _)
        };
        head.len = hide(if failed == 0 { len } else { 0 }, buffer.base);
        *head
    }

    /// Copies the first buffer's bytes and returns how many.
    #[inline(always)]
    pub(crate) fn copy_to<const N: usize>(&self, to: &mut [u8; N]) -> u32 {
        let buffer = self.first();
        copy(buffer.base, buffer.len, to)
    }

    /// The stream's last six bytes after this call, given those before it: the newest in the lowest
    /// byte. Some clients read the header and the rest of a message in separate calls, so the last
    /// bytes of one call are not enough. 0, which matches nothing, when memory cannot be read.
    #[inline(always)]
    pub(crate) fn tail(&self, before: u64) -> u64 {
        if self.buffers == 0 {
            return append(before, Buffer { base: self.address, len: self.len });
        }
        tail_of_several(self, before)
    }

    /// The `T` that ends `distance` bytes before the end, when all bytes are in one buffer.
    #[inline(always)]
    pub(crate) fn before_end<T: Pod>(&self, distance: u64) -> Option<T> {
        let distance = distance + size_of::<T>() as u64;
        if self.buffers != 0 || self.len < distance {
            return None;
        }
        let address = self.address.wrapping_add(self.len - distance);
        // SAFETY: the helper checks the user's address.
        unsafe { bpf_probe_read_user(address as *const T) }.ok()
    }
}

/// [`Payload::tail`] where the bytes are in several buffers. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tail_of_several(payload: *const Payload, before: u64) -> u64 {
    // SAFETY: callers pass a reference.
    let Some(payload) = (unsafe { payload.as_ref() }) else { return 0 };
    let mut tail = before;
    let mut left = payload.len;
    let buffers = hide(payload.buffers, payload.address);
    let mut index = 0;
    while index < MAX_BUFFERS {
        if index >= buffers || left == 0 {
            break;
        }
        let buffer = payload.buffer(index);
        let len = buffer.len.min(left);
        tail = hide(append(tail, Buffer { base: buffer.base, len }), buffer.base);
        left = hide(left - len, buffer.base);
        index += 1;
    }
    if left == 0 { tail } else { 0 }
}

#[inline(always)]
fn third_argument(registers: Registers) -> u64 {
    registers.at(constant!(LAYOUT.regs_arg2))
}

/// The array of buffers of the `struct user_msghdr` at a user address, and its length.
#[inline(always)]
fn message(address: u64) -> (u64, u64) {
    let vector = address.wrapping_add(MSGHDR_IOV) as *const [u64; 2];
    // SAFETY: the helper checks the user's address.
    match unsafe { bpf_probe_read_user(vector) } {
        Ok([iov, count]) if count > 0 => (iov, count),
        _ => (0, 0),
    }
}

/// The last six bytes of a stream that ended in `before` and continues with `buffer`. A single path
/// for all lengths, because the verifier follows each path again for each buffer.
#[inline(always)]
fn append(before: u64, buffer: Buffer) -> u64 {
    let len = buffer.len.min(TAIL);
    let mut bytes = 0u64;
    let from = buffer.base.wrapping_add(buffer.len - len) as *const _;
    // SAFETY: at most six bytes are written; the helper checks the user's address.
    if unsafe { read_user((&raw mut bytes).cast(), len as u32, from) } != 0 {
        return 0;
    }
    // In two steps, because for no bytes it would be a shift by all 64 bits.
    let new = (u64::from_be(bytes) >> 8) >> (8 * (7 - (len & 7)));
    ((before << (8 * (len & 7))) | new) & TAIL_MASK
}
