//! Offsets of the fields that the kernel programs read in this kernel's structures.

use bytemuck::{Pod, Zeroable};

use crate::size;

/// Byte offsets, read from the running kernel's BTF at start. Zeroes until the programs are loaded.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// `struct sock`: `__sk_common.skc_dport`, network order.
    pub sk_dport: u32,
    /// `struct sock`: `__sk_common.skc_num`, host order.
    pub sk_num: u32,
    /// `struct sock`: `__sk_common.skc_family`.
    pub sk_family: u32,
    /// `struct sock`: `__sk_common.skc_rcv_saddr`, IPv4.
    pub sk_rcv_saddr: u32,
    /// `struct sock`: `__sk_common.skc_daddr`, IPv4.
    pub sk_daddr: u32,
    /// `struct sock`: `__sk_common.skc_v6_rcv_saddr`.
    pub sk_v6_rcv_saddr: u32,
    /// `struct sock`: `__sk_common.skc_v6_daddr`.
    pub sk_v6_daddr: u32,
    /// `struct sock`: `__sk_common.skc_cookie`; 0 until something asks for the cookie.
    pub sk_cookie: u32,
    /// `struct sock`: `sk_protocol`, 16 bits.
    pub sk_protocol: u32,
    /// `struct sock`: `sk_err`, 32 bits.
    pub sk_err: u32,
    /// `struct tcp_sock`: `copied_seq`, up to where the process has read the stream, 32 bits.
    pub tcp_copied_seq: u32,
    /// `struct tcp_sock`: `rcv_nxt`, up to where the stream has come, 32 bits.
    pub tcp_rcv_nxt: u32,
    /// `struct task_struct`: `thread.fsbase`, the thread register.
    pub task_fsbase: u32,
    /// `struct task_struct`: `pid`, the thread's number.
    pub task_pid: u32,
    /// `struct task_struct`: `tgid`.
    pub task_tgid: u32,
    /// `struct task_struct`: `flags`.
    pub task_flags: u32,
    /// `struct task_struct`: `group_leader`.
    pub task_group_leader: u32,
    /// `struct task_struct`: `start_boottime` (`real_start_time` before 5.5), nanoseconds.
    pub task_start_boottime: u32,
    /// `struct task_struct`: `io_uring`, not null once the task has used io_uring; 0: this kernel
    /// has no such field.
    pub task_io_uring: u32,
    /// `struct task_struct`: `files`.
    pub task_files: u32,
    /// `struct task_struct`: `mm`.
    pub task_mm: u32,
    /// `struct mm_struct`: `start_stack`.
    pub mm_start_stack: u32,
    /// `struct files_struct`: `fdt`.
    pub files_fdt: u32,
    /// `struct fdtable`: `fd`, an array of `struct file *`.
    pub fdtable_fd: u32,
    /// `struct file`: `private_data`, a socket's `struct socket *`.
    pub file_private_data: u32,
    /// `struct socket`: `sk`.
    pub socket_sk: u32,
    /// `struct pt_regs`: the instruction pointer.
    pub regs_ip: u32,
    /// `struct pt_regs`: the stack pointer.
    pub regs_sp: u32,
    /// `struct pt_regs`: the frame pointer.
    pub regs_bp: u32,
    /// `struct pt_regs`: `rbx`, which functions preserve.
    pub regs_bx: u32,
    /// `struct pt_regs`: `r12`, which functions preserve.
    pub regs_r12: u32,
    /// `struct pt_regs`: `r13`, which functions preserve.
    pub regs_r13: u32,
    /// `struct pt_regs`: `r14`, which functions preserve.
    pub regs_r14: u32,
    /// `struct pt_regs`: `r15`, which functions preserve.
    pub regs_r15: u32,
    /// `struct pt_regs`: the number of the system call under way.
    pub regs_syscall: u32,
    /// `struct pt_regs`: the first argument of the system call under way.
    pub regs_arg0: u32,
    /// `struct pt_regs`: the second argument of the system call under way.
    pub regs_arg1: u32,
    /// `struct pt_regs`: the third argument of the system call under way.
    pub regs_arg2: u32,
}
size!(Layout, 38 * 4);
