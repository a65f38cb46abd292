//! The registers of a frame, as far as they are known.

use gimli::Register;

use crate::processor::{FRAME_POINTER, GENERAL, PRESERVED, RETURN_ADDRESS, STACK_POINTER};
use crate::raw::RawStack;

/// Registers in DWARF's numbering; those that nobody told are unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registers {
    ip: u64,
    sp: u64,
    general: [Option<u64>; GENERAL],
}

impl Registers {
    /// Knows these three alone.
    pub(crate) fn new(ip: u64, sp: u64, bp: u64) -> Self {
        let mut registers = Self { ip, sp, general: [None; GENERAL] };
        registers.set_bp(bp);
        registers
    }

    /// Knows what was copied with the stack.
    pub(crate) fn of(raw: &RawStack) -> Self {
        if !raw.registers_known {
            return Self { ip: raw.ip, sp: raw.sp, general: [None; GENERAL] };
        }
        let mut registers = Self::new(raw.ip, raw.sp, raw.bp);
        for (register, value) in PRESERVED.into_iter().zip(raw.preserved) {
            registers.set(register, Some(value));
        }
        registers
    }

    pub(crate) fn ip(&self) -> u64 {
        self.ip
    }

    pub(crate) fn sp(&self) -> u64 {
        self.sp
    }

    /// Goes to the caller at `ip`, of whose other registers nothing is known.
    pub(crate) fn leave(&mut self, ip: u64, sp: u64, bp: Option<u64>) {
        *self = Self { ip, sp, general: [None; GENERAL] };
        self.set(FRAME_POINTER, bp);
    }

    pub(crate) fn set_ip(&mut self, ip: u64) {
        self.ip = ip;
    }

    pub(crate) fn set_sp(&mut self, sp: u64) {
        self.sp = sp;
    }

    pub(crate) fn set_bp(&mut self, bp: u64) {
        self.set(FRAME_POINTER, Some(bp));
    }

    pub(crate) fn get(&self, register: Register) -> Option<u64> {
        match register {
            STACK_POINTER => Some(self.sp),
            RETURN_ADDRESS => Some(self.ip),
            Register(number) => *self.general.get(usize::from(number))?,
        }
    }

    /// Sets a general register other than the stack pointer, which is never unknown.
    pub(crate) fn set(&mut self, register: Register, value: Option<u64>) {
        if let Some(place) = self.general.get_mut(usize::from(register.0)) {
            *place = value;
        }
    }

    /// Forgets what a called function need not restore.
    pub(crate) fn forget_scratch(&mut self) {
        for (number, value) in (0u16..).zip(&mut self.general) {
            let register = Register(number);
            if register != FRAME_POINTER && !PRESERVED.contains(&register) {
                *value = None;
            }
        }
    }
}
