//! Call frame information: the rules in `.eh_frame` and `.debug_frame` by which a frame's caller is
//! found (DWARF 5, section 6.4; System V ABI for x86-64, section 4.2.4).
//!
//! Rules can be programs, and an untrusted file may hold endless ones. So the length of an entry
//! and the steps of an expression are bounded.

use gimli::{
    BaseAddresses, CfaRule, DebugFrame, EhFrame, EhFrameHdr, EndianSlice, EvaluationResult,
    FrameDescriptionEntry, LittleEndian, Location, Register, RegisterRule, UnwindContext,
    UnwindExpression, UnwindSection,
};

use crate::bytes::u32_at;
use crate::processor::{RETURN_ADDRESS, STACK_POINTER};
use crate::unwind::registers::Registers;

/// Contents of a section, shared by the rules and their index.
pub(crate) type Bytes = std::sync::Arc<[u8]>;
type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// x86-64's.
const ADDRESS_SIZE: u8 = 8;
/// Longest rules of one function that are read, in bytes.
const MAX_FDE: u32 = 256 << 10;
/// Longest common part of rules that is read, in bytes; compilers write some dozens.
const MAX_CIE: u32 = 1 << 10;
/// Most functions of a file that are listed.
const MAX_FUNCTIONS: usize = 4 << 20;
/// Most operations of an expression that are followed; compilers write up to ten.
const MAX_OPERATIONS: u32 = 256;

/// What the rules say of a frame's caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outward {
    /// It will go on at this address.
    Caller(u64),
    /// It was interrupted at this address by a signal.
    Interrupted(u64),
    /// There is none.
    Root,
    /// It cannot be known: a rule needs memory or a register that nobody has.
    Unknown,
}

/// Where the sections lie in memory, in the file's own numbering.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Places {
    pub(crate) frames: u64,
    pub(crate) table: u64,
    pub(crate) text: u64,
    pub(crate) got: u64,
}

/// One section of rules.
#[derive(Debug)]
pub(crate) struct Cfi {
    data: Bytes,
    kind: Kind,
    bases: BaseAddresses,
    index: Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    EhFrame,
    DebugFrame,
}

/// How the rules of an address are found.
#[derive(Debug)]
enum Index {
    /// By the search table that the linker wrote, `.eh_frame_hdr`.
    Written(Bytes),
    /// By first addresses and offsets in the section, in the order of the addresses.
    Listed(Vec<(u64, u32)>),
}

impl Cfi {
    /// The rules of an `.eh_frame`, with the linker's search table if there is one.
    pub(crate) fn eh_frame(data: Bytes, table: Option<Bytes>, places: Places) -> Self {
        let bases = BaseAddresses::default()
            .set_eh_frame(places.frames)
            .set_eh_frame_hdr(places.table)
            .set_text(places.text)
            .set_got(places.got);
        let is_usable = |table: &Bytes| {
            let parsed = EhFrameHdr::new(table, LittleEndian).parse(&bases, ADDRESS_SIZE);
            parsed.is_ok_and(|header| header.table().is_some())
        };
        let written = table.filter(is_usable).map(Index::Written);
        let index = written.unwrap_or_else(|| {
            Index::Listed(listed(&eh_frame(&data), &data, Kind::EhFrame, &bases))
        });
        Self { data, kind: Kind::EhFrame, bases, index }
    }

    /// The rules of a `.debug_frame`.
    pub(crate) fn debug_frame(data: Bytes) -> Self {
        let bases = BaseAddresses::default();
        let index = listed(&debug_frame(&data), &data, Kind::DebugFrame, &bases);
        Self { data, kind: Kind::DebugFrame, bases, index: Index::Listed(index) }
    }

    /// Size in memory.
    pub(crate) fn bytes(&self) -> u64 {
        let index = match &self.index {
            Index::Written(table) => table.len(),
            Index::Listed(entries) => entries.len() * size_of::<(u64, u32)>(),
        };
        (self.data.len() + index) as u64
    }

    /// Goes from the frame at `address` to its caller; `None` when no rule covers the address.
    /// The registers change only when a caller is found.
    pub(crate) fn step(
        &self,
        address: u64,
        registers: &mut Registers,
        memory: &impl Fn(u64) -> Option<u64>,
    ) -> Option<Outward> {
        match self.kind {
            Kind::EhFrame => self.step_in(&eh_frame(&self.data), address, registers, memory),
            Kind::DebugFrame => self.step_in(&debug_frame(&self.data), address, registers, memory),
        }
    }

    /// Whether `address` lies in code to which signal handlers return.
    pub(crate) fn is_signal_return(&self, address: u64) -> bool {
        let is = |entry: FrameDescriptionEntry<Slice<'_>>| entry.is_signal_trampoline();
        match self.kind {
            Kind::EhFrame => self.entry(&eh_frame(&self.data), address).is_some_and(is),
            Kind::DebugFrame => self.entry(&debug_frame(&self.data), address).is_some_and(is),
        }
    }

    /// Whether there are rules for `address`.
    pub(crate) fn covers(&self, address: u64) -> bool {
        match self.kind {
            Kind::EhFrame => self.entry(&eh_frame(&self.data), address).is_some(),
            Kind::DebugFrame => self.entry(&debug_frame(&self.data), address).is_some(),
        }
    }

    /// Whether the rules of a function begin at `address`.
    pub(crate) fn begins_at(&self, address: u64) -> bool {
        let begins = |entry: FrameDescriptionEntry<Slice<'_>>| entry.initial_address() == address;
        match self.kind {
            Kind::EhFrame => self.entry(&eh_frame(&self.data), address).is_some_and(begins),
            Kind::DebugFrame => self.entry(&debug_frame(&self.data), address).is_some_and(begins),
        }
    }

    fn entry<'a, S: UnwindSection<Slice<'a>>>(
        &'a self,
        section: &S,
        address: u64,
    ) -> Option<FrameDescriptionEntry<Slice<'a>>> {
        let offset = match &self.index {
            Index::Written(table) => {
                let header = EhFrameHdr::new(table, LittleEndian);
                let header = header.parse(&self.bases, ADDRESS_SIZE).ok()?;
                let table = header.table()?;
                let pointer = table.lookup(address, &self.bases).ok()?;
                table.pointer_to_offset(pointer).ok()?.0
            }
            Index::Listed(entries) => {
                let after = entries.partition_point(|(start, _)| *start <= address);
                usize::try_from(entries.get(after.checked_sub(1)?)?.1).ok()?
            }
        };
        parsed(section, &self.data, self.kind, &self.bases, offset).filter(|e| e.contains(address))
    }

    fn step_in<'a, S: UnwindSection<Slice<'a>>>(
        &'a self,
        section: &S,
        address: u64,
        registers: &mut Registers,
        memory: &impl Fn(u64) -> Option<u64>,
    ) -> Option<Outward> {
        let entry = self.entry(section, address)?;
        let frame = Frame { section, entry: &entry, registers, memory };
        let Some(caller) = frame.caller(&self.bases, address) else {
            return Some(Outward::Unknown);
        };
        let Some(caller) = caller else { return Some(Outward::Root) };
        let ip = caller.ip();
        *registers = caller;
        Some(match (ip, entry.is_signal_trampoline()) {
            (0, _) => Outward::Root,
            (ip, true) => Outward::Interrupted(ip),
            (ip, false) => Outward::Caller(ip),
        })
    }
}

fn eh_frame(data: &[u8]) -> EhFrame<Slice<'_>> {
    let mut section = EhFrame::new(data, LittleEndian);
    section.set_address_size(ADDRESS_SIZE);
    section
}

fn debug_frame(data: &[u8]) -> DebugFrame<Slice<'_>> {
    let mut section = DebugFrame::new(data, LittleEndian);
    section.set_address_size(ADDRESS_SIZE);
    section
}

/// Lists all entries of a section.
fn listed<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    data: &[u8],
    kind: Kind,
    bases: &BaseAddresses,
) -> Vec<(u64, u32)> {
    let mut entries = Vec::new();
    let mut offset = 0;
    // A length of zero ends the section; one of all ones begins an entry of 64-bit DWARF, which
    // nobody emits for rules.
    while let Some(length) = u32_at(data, offset).filter(|l| *l != 0 && *l != u32::MAX) {
        if entries.len() >= MAX_FUNCTIONS {
            break;
        }
        if let Some(entry) = parsed(section, data, kind, bases, offset)
            && let Ok(place) = u32::try_from(offset)
        {
            entries.push((entry.initial_address(), place));
        }
        offset = offset.saturating_add(4).saturating_add(length as usize);
    }
    entries.sort_unstable();
    entries
}

/// The entry at `offset`, when it is one of a function and of a credible length.
fn parsed<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    data: &[u8],
    kind: Kind,
    bases: &BaseAddresses,
    offset: usize,
) -> Option<FrameDescriptionEntry<Slice<'a>>> {
    let pointer_at = offset.checked_add(4)?;
    let pointer = usize::try_from(u32_at(data, pointer_at)?).ok()?;
    let common = match kind {
        Kind::EhFrame => pointer_at.checked_sub(pointer).filter(|_| pointer != 0)?,
        Kind::DebugFrame => pointer,
    };
    let is_credible = u32_at(data, offset)? <= MAX_FDE && u32_at(data, common)? <= MAX_CIE;
    is_credible.then_some(())?;
    section.fde_from_offset(bases, offset.into(), S::cie_from_offset).ok()
}

/// A frame and what is known of it.
struct Frame<'f, 'a, S, M> {
    section: &'f S,
    entry: &'f FrameDescriptionEntry<Slice<'a>>,
    registers: &'f Registers,
    memory: &'f M,
}

impl<'a, S, M> Frame<'_, 'a, S, M>
where
    S: UnwindSection<Slice<'a>>,
    M: Fn(u64) -> Option<u64>,
{
    /// The caller's registers; `Some(None)` when there is no caller.
    fn caller(&self, bases: &BaseAddresses, address: u64) -> Option<Option<Registers>> {
        let mut context = UnwindContext::new();
        let row =
            self.entry.unwind_info_for_address(self.section, bases, &mut context, address).ok()?;
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                self.registers.get(*register)?.wrapping_add_signed(*offset)
            }
            CfaRule::Expression(expression) => self.evaluate(expression, None)?,
        };
        let ip = match row.register(RETURN_ADDRESS) {
            None | Some(RegisterRule::Undefined) => return Some(None),
            Some(rule) => self.value(&rule, RETURN_ADDRESS, cfa)?,
        };
        let mut caller = self.registers.clone();
        caller.forget_scratch();
        caller.set_ip(ip);
        caller.set_sp(cfa);
        for (register, rule) in row.registers() {
            let value = self.value(rule, *register, cfa);
            match *register {
                RETURN_ADDRESS => {}
                STACK_POINTER => caller.set_sp(value?),
                other => caller.set(other, value),
            }
        }
        Some(Some(caller))
    }

    fn value(&self, rule: &RegisterRule<usize>, register: Register, cfa: u64) -> Option<u64> {
        match rule {
            RegisterRule::SameValue => self.registers.get(register),
            RegisterRule::Offset(offset) => (self.memory)(cfa.wrapping_add_signed(*offset)),
            RegisterRule::ValOffset(offset) => Some(cfa.wrapping_add_signed(*offset)),
            RegisterRule::Register(other) => self.registers.get(*other),
            RegisterRule::Expression(expression) => {
                (self.memory)(self.evaluate(expression, Some(cfa))?)
            }
            RegisterRule::ValExpression(expression) => self.evaluate(expression, Some(cfa)),
            RegisterRule::Constant(value) => Some(*value),
            RegisterRule::Undefined | RegisterRule::Architectural => None,
        }
    }

    /// Runs an expression on a stack that begins with `first`.
    fn evaluate(&self, expression: &UnwindExpression<usize>, first: Option<u64>) -> Option<u64> {
        let expression = expression.get(self.section).ok()?;
        let mut evaluation = expression.evaluation(self.entry.cie().encoding());
        evaluation.set_max_iterations(MAX_OPERATIONS);
        if let Some(first) = first {
            evaluation.set_initial_value(first);
        }
        let mut state = evaluation.evaluate().ok()?;
        loop {
            state = match state {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = gimli::Value::Generic(self.registers.get(register)?);
                    evaluation.resume_with_register(value).ok()?
                }
                EvaluationResult::RequiresMemory { address, size: 8, space: None, .. } => {
                    let value = gimli::Value::Generic((self.memory)(address)?);
                    evaluation.resume_with_memory(value).ok()?
                }
                _ => return None,
            };
        }
        match evaluation.as_result() {
            [piece] => match piece.location {
                Location::Address { address } => Some(address),
                Location::Value { value: gimli::Value::Generic(value) } => Some(value),
                _ => None,
            },
            _ => None,
        }
    }
}
