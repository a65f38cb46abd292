//! The registers of a frame, as far as they are known.

use gimli::{Register, X86_64};

use super::raw::RawStack;

/// Registers that have a number in the unwind rules: `rax` to `r15`.
const GENERAL: usize = 16;

/// Registers of x86-64 in DWARF's numbering; those that nobody told are unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registers {
    ip: u64,
    sp: u64,
    general: [Option<u64>; GENERAL],
}

impl Registers {
    /// Knows these three alone.
    pub(super) fn new(ip: u64, sp: u64, bp: u64) -> Self {
        let mut registers = Self { ip, sp, general: [None; GENERAL] };
        registers.set_bp(bp);
        registers
    }

    /// Knows what the kernel programs copy.
    pub(super) fn of(raw: &RawStack) -> Self {
        const PRESERVED: [Register; 5] =
            [X86_64::RBX, X86_64::R12, X86_64::R13, X86_64::R14, X86_64::R15];
        let mut registers = Self::new(raw.ip, raw.sp, raw.bp);
        for (register, value) in PRESERVED.into_iter().zip(raw.preserved) {
            registers.set(register, Some(value));
        }
        registers
    }

    pub(super) fn ip(&self) -> u64 {
        self.ip
    }

    pub(super) fn sp(&self) -> u64 {
        self.sp
    }

    /// Goes to the caller at `ip`, of whose other registers nothing is known.
    pub(super) fn leave(&mut self, ip: u64, sp: u64, bp: Option<u64>) {
        *self = Self { ip, sp, general: [None; GENERAL] };
        self.set(X86_64::RBP, bp);
    }

    pub(super) fn set_ip(&mut self, ip: u64) {
        self.ip = ip;
    }

    pub(super) fn set_sp(&mut self, sp: u64) {
        self.sp = sp;
    }

    pub(super) fn set_bp(&mut self, bp: u64) {
        self.set(X86_64::RBP, Some(bp));
    }

    pub(super) fn get(&self, register: Register) -> Option<u64> {
        match register {
            X86_64::RSP => Some(self.sp),
            X86_64::RA => Some(self.ip),
            Register(number) => *self.general.get(usize::from(number))?,
        }
    }

    /// Sets a general register other than the stack pointer, which is never unknown.
    pub(super) fn set(&mut self, register: Register, value: Option<u64>) {
        if let Some(place) = self.general.get_mut(usize::from(register.0)) {
            *place = value;
        }
    }

    /// Forgets what a called function need not restore (System V ABI, figure 3.4).
    pub(super) fn forget_scratch(&mut self) {
        const KEPT: [Register; 6] =
            [X86_64::RBX, X86_64::RBP, X86_64::R12, X86_64::R13, X86_64::R14, X86_64::R15];
        for (number, value) in (0u16..).zip(&mut self.general) {
            if !KEPT.contains(&Register(number)) {
                *value = None;
            }
        }
    }
}
