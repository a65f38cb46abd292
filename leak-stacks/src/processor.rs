//! What the crate knows of the processor, x86-64. Machine code itself is read in
//! [`crate::unwind::emulate`] and [`crate::binary::references`] only.

use gimli::{Register, X86_64};

use crate::raw::PRESERVED_REGISTERS;

/// `e_machine` in the header of an ELF file.
pub(crate) const MACHINE: u16 = 62;
/// `R_X86_64_RELATIVE`: the relocation that adds only the address the file was loaded at.
pub(crate) const RELATIVE_RELOCATION: u32 = 8;

pub(crate) const STACK_POINTER: Register = X86_64::RSP;
pub(crate) const FRAME_POINTER: Register = X86_64::RBP;
pub(crate) const RETURN_ADDRESS: Register = X86_64::RA;
/// Number of registers that have a number in the unwind rules: `rax` to `r15`.
pub(crate) const GENERAL: usize = 16;
/// Callee-saved registers besides the stack pointer and the frame pointer (System V ABI, figure
/// 3.4), in the order of [`RawStack::preserved`](crate::raw::RawStack::preserved).
pub(crate) const PRESERVED: [Register; PRESERVED_REGISTERS] =
    [X86_64::RBX, X86_64::R12, X86_64::R13, X86_64::R14, X86_64::R15];

/// `mov $15, %rax; syscall`: the code that signal handlers return to, as C libraries write it.
/// Debuggers recognise it by these bytes too, so no C library writes it differently.
pub(crate) const SIGNAL_RETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
/// Where the kernel saves an interrupted program's registers, relative to the stack pointer at
/// [`SIGNAL_RETURN`]: `struct sigcontext` in a `struct ucontext` of the kernel's
/// arch/x86/include/uapi/asm.
pub(crate) const INTERRUPTED: [(Register, u64); 16] = [
    (X86_64::R8, 40),
    (X86_64::R9, 48),
    (X86_64::R10, 56),
    (X86_64::R11, 64),
    (X86_64::R12, 72),
    (X86_64::R13, 80),
    (X86_64::R14, 88),
    (X86_64::R15, 96),
    (X86_64::RDI, 104),
    (X86_64::RSI, 112),
    (X86_64::RBP, 120),
    (X86_64::RBX, 128),
    (X86_64::RDX, 136),
    (X86_64::RAX, 144),
    (X86_64::RCX, 152),
    (X86_64::RSP, 160),
];
/// Where it saves the instruction pointer.
pub(crate) const INTERRUPTED_IP: u64 = 168;
