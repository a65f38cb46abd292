//! Parses BTF, the kernel's type information, to find the offsets of the fields that the kernel
//! programs read.
//!
//! The format is described in the kernel's Documentation/bpf/btf.rst. Every read is checked against
//! the input's length, so damaged input gives an error or no answer. Parsing a whole kernel's BTF
//! takes milliseconds; nothing is copied but one offset per type.

mod layout;

/// The running kernel's BTF.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const MIN_HEADER_LENGTH: usize = 24;
const TYPE_LENGTH: usize = 12;
const MEMBER_LENGTH: usize = 12;
const PARAMETER_LENGTH: usize = 8;
/// Deepest nesting of typedefs and qualifiers, and of anonymous members.
const MAX_DEPTH: usize = 16;
/// Most members to visit in the search for one; `task_struct` has some 300.
const MAX_MEMBERS: usize = 100_000;

/// Why BTF cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file cannot be read.
    #[error("cannot read {KERNEL_BTF}: {0}; this needs a kernel built with CONFIG_DEBUG_INFO_BTF")]
    Unreadable(std::io::Error),
    /// It is not BTF, or BTF for another byte order.
    #[error("the kernel's type information is not BTF")]
    NotBtf,
    /// It is truncated or inconsistent.
    #[error("the kernel's type information is damaged at byte {offset}")]
    Damaged {
        /// Where.
        offset: usize,
    },
    /// It has a kind of type that this program does not know.
    #[error(
        "the kernel's type information has the unknown kind {kind}; a newer release may know it"
    )]
    UnknownKind {
        /// The kind's number.
        kind: u32,
    },
    /// A structure or a field of it is missing.
    #[error("this kernel's `struct {structure}` has no `{field}`; please report this kernel")]
    Missing {
        /// The structure.
        structure: &'static str,
        /// The path of the field.
        field: String,
    },
}

/// Parsed BTF, borrowing the bytes.
#[derive(Debug)]
pub struct Btf<'a> {
    /// The type section.
    types: &'a [u8],
    /// The string section.
    strings: &'a [u8],
    /// Offset of each type in `types`. The first has id 1, since 0 is `void`.
    offsets: Vec<u32>,
}

/// The kinds of types that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Kind {
    Struct = 4,
    Union = 5,
    Typedef = 8,
    Volatile = 9,
    Const = 10,
    Restrict = 11,
    Func = 12,
    FuncProto = 13,
    TypeTag = 18,
}

/// The fixed part of a type.
#[derive(Clone, Copy, Debug)]
struct Type {
    name: u32,
    kind: u32,
    /// The upper byte of members' offsets is the size of a bit field.
    kind_flag: bool,
    count: usize,
    /// The size in bytes, or the id of the type that it refers to.
    size_or_type: u32,
    /// Offset of its members or parameters.
    body: usize,
}

/// Reads the running kernel's BTF for [`Btf::parse`].
///
/// # Errors
///
/// When the file cannot be read.
pub fn read_kernel() -> Result<Vec<u8>, BtfError> {
    std::fs::read(KERNEL_BTF).map_err(BtfError::Unreadable)
}

impl<'a> Btf<'a> {
    /// Parses raw BTF, such as [`KERNEL_BTF`].
    ///
    /// # Errors
    ///
    /// When the input is not BTF, is damaged, or has an unknown kind of type.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        if u16_at(bytes, 0) != Some(MAGIC) {
            return Err(BtfError::NotBtf);
        }
        let word = |at| u32_at(bytes, at).map(|word| word as usize);
        let section = |at: usize| -> Option<&'a [u8]> {
            let header = word(4).filter(|&length| length >= MIN_HEADER_LENGTH)?;
            let start = header.checked_add(word(at)?)?;
            bytes.get(start..start.checked_add(word(at + 4)?)?)
        };
        let types = section(8).ok_or(BtfError::Damaged { offset: 8 })?;
        let strings = section(16).ok_or(BtfError::Damaged { offset: 16 })?;
        let mut offsets = Vec::new();
        let mut at = 0;
        while at < types.len() {
            let damaged = BtfError::Damaged { offset: at };
            let Some(found) = type_at(types, at) else { return Err(damaged) };
            let Ok(offset) = u32::try_from(at) else { return Err(damaged) };
            offsets.push(offset);
            at = found.body + body_length(&found)?;
        }
        if at > types.len() {
            return Err(BtfError::Damaged { offset: types.len() });
        }
        Ok(Self { types, strings, offsets })
    }

    /// Whether the kernel has a function of this name that programs may attach to.
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        self.named(Kind::Func, name).next().is_some()
    }

    /// Whether the kernel has this tracepoint for BTF programs (`tp_btf`).
    #[must_use]
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.named(Kind::Typedef, &format!("btf_trace_{name}")).next().is_some()
    }

    /// The number of parameters of a kernel function. For an fexit program it is also the index of
    /// the return value among the arguments.
    #[must_use]
    pub fn function_arity(&self, function: &str) -> Option<usize> {
        self.prototype(function).map(|prototype| prototype.count)
    }

    fn prototype(&self, function: &str) -> Option<Type> {
        self.named(Kind::Func, function).find_map(|function| {
            self.get(function.size_or_type).filter(|found| found.kind == Kind::FuncProto as u32)
        })
    }

    /// Byte offset and type of a field of the structure or of its anonymous members.
    fn field(&self, structure: &Type, name: &str) -> Option<(u32, u32)> {
        let mut budget = MAX_MEMBERS;
        self.field_within(structure, name, 0, &mut budget)
    }

    fn field_within(
        &self,
        structure: &Type,
        name: &str,
        depth: usize,
        budget: &mut usize,
    ) -> Option<(u32, u32)> {
        if depth > MAX_DEPTH {
            return None;
        }
        for index in 0..structure.count {
            *budget = budget.checked_sub(1)?;
            let at = structure.body + index * MEMBER_LENGTH;
            let member_name = u32_at(self.types, at)?;
            let member_type = u32_at(self.types, at + 4)?;
            let offset = byte_offset(u32_at(self.types, at + 8)?, structure.kind_flag);
            if self.is_name(member_name, name) {
                return Some((offset?, member_type));
            }
            if self.is_name(member_name, "")
                && let Some(inner) = self.structure(member_type)
                && let Some((inner_offset, found)) =
                    self.field_within(&inner, name, depth + 1, budget)
            {
                return Some((offset?.checked_add(inner_offset)?, found));
            }
        }
        None
    }

    /// Resolves typedefs and qualifiers to a structure or union.
    fn structure(&self, id: u32) -> Option<Type> {
        const IS_ONE: [u32; 2] = [Kind::Struct as u32, Kind::Union as u32];
        const REFERS: [u32; 5] = [
            Kind::Typedef as u32,
            Kind::Volatile as u32,
            Kind::Const as u32,
            Kind::Restrict as u32,
            Kind::TypeTag as u32,
        ];
        let mut found = self.get(id)?;
        for _ in 0..MAX_DEPTH {
            if IS_ONE.contains(&found.kind) {
                return Some(found);
            }
            if !REFERS.contains(&found.kind) {
                return None;
            }
            found = self.get(found.size_or_type)?;
        }
        None
    }

    fn named(&self, kind: Kind, name: &str) -> impl Iterator<Item = Type> {
        self.offsets
            .iter()
            .filter_map(|&at| type_at(self.types, at as usize))
            .filter(move |found| found.kind == kind as u32 && self.is_name(found.name, name))
    }

    fn get(&self, id: u32) -> Option<Type> {
        let index = (id as usize).checked_sub(1)?;
        type_at(self.types, *self.offsets.get(index)? as usize)
    }

    fn is_name(&self, at: u32, name: &str) -> bool {
        self.strings
            .get(at as usize..)
            .and_then(|rest| rest.strip_prefix(name.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }
}

fn type_at(types: &[u8], at: usize) -> Option<Type> {
    let info = u32_at(types, at + 4)?;
    Some(Type {
        name: u32_at(types, at)?,
        kind: (info >> 24) & 0x1f,
        kind_flag: info >> 31 == 1,
        count: (info & 0xffff) as usize,
        size_or_type: u32_at(types, at + 8)?,
        body: at + TYPE_LENGTH,
    })
}

/// How many bytes follow the fixed part of a type. The numbers of the kinds are in
/// include/uapi/linux/btf.h.
fn body_length(found: &Type) -> Result<usize, BtfError> {
    Ok(match found.kind {
        // Pointer, forward declaration, typedef, qualifiers, function, float, type tag.
        2 | 7..=12 | 16 | 18 => 0,
        // Integer, variable, declaration tag.
        1 | 14 | 17 => 4,
        // Array.
        3 => 12,
        // Structure, union, data section, 64-bit enumeration.
        4 | 5 | 15 | 19 => found.count * MEMBER_LENGTH,
        // Enumeration, function prototype.
        6 | 13 => found.count * PARAMETER_LENGTH,
        kind => return Err(BtfError::UnknownKind { kind }),
    })
}

/// `None` for a bit field, which has no byte offset.
fn byte_offset(bits: u32, kind_flag: bool) -> Option<u32> {
    let (bits, field_bits) = if kind_flag { (bits & 0xff_ffff, bits >> 24) } else { (bits, 0) };
    (field_bits == 0 && bits % 8 == 0).then_some(bits / 8)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests;
