//! Finds the offsets of the fields that the kernel programs read.

use leak_common::layout::Layout;

use crate::sources::kernel::btf::{Btf, BtfError, Kind, Type};

/// The names of registers on one architecture. Everything that depends on the architecture is here:
/// supporting another one takes another constant.
struct Registers {
    instruction_pointer: &'static str,
    stack_pointer: &'static str,
    frame_pointer: &'static str,
    /// The other callee-saved registers, in the order of
    /// [`StackHeader`](leak_common::stack::StackHeader).
    preserved: [&'static str; 5],
    syscall: &'static str,
    arguments: [&'static str; 3],
    /// Path in `task_struct` to the register that points to thread-local storage.
    thread: &'static str,
}

/// arch/x86/include/asm/ptrace.h and processor.h.
const X86_64: Registers = Registers {
    instruction_pointer: "ip",
    stack_pointer: "sp",
    frame_pointer: "bp",
    preserved: ["bx", "r12", "r13", "r14", "r15"],
    syscall: "orig_ax",
    arguments: ["di", "si", "dx"],
    thread: "thread.fsbase",
};

const RCV_SADDR: &str = "__sk_common.skc_rcv_saddr";
const DADDR: &str = "__sk_common.skc_daddr";

impl Btf<'_> {
    /// Finds every field that the kernel programs read, for x86-64.
    ///
    /// # Errors
    ///
    /// When a structure or a field is missing.
    pub fn layout(&self) -> Result<Layout, BtfError> {
        let sock = |v6_rcv_saddr, v6_daddr| {
            let paths = [
                "__sk_common.skc_dport",
                "__sk_common.skc_num",
                "__sk_common.skc_family",
                RCV_SADDR,
                DADDR,
                v6_rcv_saddr,
                v6_daddr,
                "__sk_common.skc_cookie",
                "sk_protocol",
                "sk_err",
            ];
            self.offsets_in("sock", paths)
        };
        let [dport, num, family, rcv_saddr, daddr, rest @ ..] =
            sock("__sk_common.skc_v6_rcv_saddr", "__sk_common.skc_v6_daddr")
                // Without IPv6 in the kernel there are no IPv6 sockets, so these two are never
                // read.
                .or_else(|_| sock(RCV_SADDR, DADDR))?;
        let [v6_rcv_saddr, v6_daddr, cookie, protocol, err] = rest;
        let [copied_seq, rcv_nxt] = self.offsets_in("tcp_sock", ["copied_seq", "rcv_nxt"])?;
        let task = |start| {
            let paths =
                [X86_64.thread, "pid", "tgid", "flags", "group_leader", "files", "mm", start];
            self.offsets_in("task_struct", paths)
        };
        // The name before Linux 5.5.
        let [fsbase, pid, tgid, flags, group_leader, files, mm, start_boottime] =
            task("start_boottime").or_else(|error| task("real_start_time").map_err(|_| error))?;
        // Without io_uring in the kernel the field is missing and not needed.
        let [io_uring] = self.offsets_in("task_struct", ["io_uring"]).unwrap_or_default();
        let [start_stack] = self.offsets_in("mm_struct", ["start_stack"])?;
        let [fdt] = self.offsets_in("files_struct", ["fdt"])?;
        let [fd] = self.offsets_in("fdtable", ["fd"])?;
        let [private_data] = self.offsets_in("file", ["private_data"])?;
        let [socket_sk] = self.offsets_in("socket", ["sk"])?;
        let [arg0, arg1, arg2] = X86_64.arguments;
        let [bx, r12, r13, r14, r15] = self.offsets_in("pt_regs", X86_64.preserved)?;
        let [ip, sp, bp, syscall, arg0, arg1, arg2] = self.offsets_in(
            "pt_regs",
            [
                X86_64.instruction_pointer,
                X86_64.stack_pointer,
                X86_64.frame_pointer,
                X86_64.syscall,
                arg0,
                arg1,
                arg2,
            ],
        )?;
        Ok(Layout {
            sk_dport: dport,
            sk_num: num,
            sk_family: family,
            sk_rcv_saddr: rcv_saddr,
            sk_daddr: daddr,
            sk_v6_rcv_saddr: v6_rcv_saddr,
            sk_v6_daddr: v6_daddr,
            sk_cookie: cookie,
            sk_protocol: protocol,
            sk_err: err,
            tcp_copied_seq: copied_seq,
            tcp_rcv_nxt: rcv_nxt,
            task_fsbase: fsbase,
            task_pid: pid,
            task_tgid: tgid,
            task_flags: flags,
            task_group_leader: group_leader,
            task_start_boottime: start_boottime,
            task_io_uring: io_uring,
            task_files: files,
            task_mm: mm,
            mm_start_stack: start_stack,
            files_fdt: fdt,
            fdtable_fd: fd,
            file_private_data: private_data,
            socket_sk,
            regs_ip: ip,
            regs_sp: sp,
            regs_bp: bp,
            regs_bx: bx,
            regs_r12: r12,
            regs_r13: r13,
            regs_r14: r14,
            regs_r15: r15,
            regs_syscall: syscall,
            regs_arg0: arg0,
            regs_arg1: arg1,
            regs_arg2: arg2,
        })
    }

    /// Offsets of fields, given as dotted paths, within one structure. BTF may have several
    /// structures of the same name, and offsets from two of them must not be mixed.
    fn offsets_in<const N: usize>(
        &self,
        structure: &'static str,
        paths: [&str; N],
    ) -> Result<[u32; N], BtfError> {
        let mut missing = BtfError::Missing { structure, field: paths.join("`, `") };
        let mut nearest = 0;
        for candidate in self.named(Kind::Struct, structure) {
            let mut offsets = [0; N];
            let mut found = 0;
            for (slot, path) in offsets.iter_mut().zip(paths) {
                let Some(offset) = self.path(&candidate, path) else { break };
                *slot = offset;
                found += 1;
            }
            if found == N {
                return Ok(offsets);
            }
            if found >= nearest
                && let Some(path) = paths.get(found)
            {
                nearest = found;
                missing = BtfError::Missing { structure, field: (*path).to_owned() };
            }
        }
        Err(missing)
    }

    fn path(&self, structure: &Type, path: &str) -> Option<u32> {
        let mut structure = *structure;
        let mut offset = 0_u32;
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            let (within, found) = self.field(&structure, name)?;
            offset = offset.checked_add(within)?;
            if names.peek().is_some() {
                structure = self.structure(found)?;
            }
        }
        Some(offset)
    }
}
