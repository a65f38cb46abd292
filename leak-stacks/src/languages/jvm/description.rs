//! What HotSpot says of itself: tables of its structures' fields and types, which `libjvm.so`
//! exports for debuggers (`vmStructs.cpp`).

use std::cell::RefCell;
use std::collections::HashMap;

use crate::languages::target::Target;

/// Most rows of a table that are read. JDK 17 has some 2,000.
const MAX_ROWS: u64 = 16 << 10;
/// Longest name.
const MAX_NAME: usize = 160;
/// Most bytes of names that are read, in pages of this size.
const PAGE: usize = 4096;
const MAX_PAGES: usize = 1024;

/// What `libjvm.so` exports: the tables' addresses, the distance of their rows, and where in a row
/// what stands.
pub(crate) const EXPORTS: [&str; 12] = [
    "gHotSpotVMStructs",
    "gHotSpotVMStructEntryArrayStride",
    "gHotSpotVMStructEntryTypeNameOffset",
    "gHotSpotVMStructEntryFieldNameOffset",
    "gHotSpotVMStructEntryTypeStringOffset",
    "gHotSpotVMStructEntryIsStaticOffset",
    "gHotSpotVMStructEntryOffsetOffset",
    "gHotSpotVMStructEntryAddressOffset",
    "gHotSpotVMTypes",
    "gHotSpotVMTypeEntryArrayStride",
    "gHotSpotVMTypeEntryTypeNameOffset",
    "gHotSpotVMTypeEntrySizeOffset",
];

/// A field of a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// Its offset; of a static one, its address.
    pub(crate) place: u64,
    /// Bytes that a number in it takes.
    pub(crate) width: u8,
    pub(crate) is_static: bool,
}

/// The tables.
#[derive(Debug, Default)]
pub(crate) struct Description {
    fields: HashMap<String, HashMap<String, Field>>,
    sizes: HashMap<String, u64>,
}

impl Description {
    /// Reads the tables, given where each of [`EXPORTS`] is.
    pub(crate) fn read(exports: [u64; EXPORTS.len()], target: &dyn Target) -> Option<Self> {
        let [structs, stride, owner, name, kind, is_static, offset, address, types @ ..] = exports;
        let [types, type_stride, type_name, type_size] = types;
        let names = Names { target, pages: RefCell::default() };
        let mut description = Self::default();
        let at = |place| target.u64(place);
        let [owner, name, kind] = [at(owner)?, at(name)?, at(kind)?];
        let [is_static, offset, address] = [at(is_static)?, at(offset)?, at(address)?];
        rows(at(structs)?, at(stride)?, |row| {
            let word = |column: u64| target.u64(row.checked_add(column)?);
            let owner = word(owner)?;
            if owner == 0 {
                return Some(false);
            }
            let is_static = word(is_static)? as u32 != 0;
            let field = Field {
                place: word(if is_static { address } else { offset })?,
                width: width(&names.at(word(kind)?)?),
                is_static,
            };
            let fields = description.fields.entry(names.at(owner)?).or_default();
            fields.insert(names.at(word(name)?)?, field);
            Some(true)
        })?;
        let [type_name, type_size] = [at(type_name)?, at(type_size)?];
        rows(at(types)?, at(type_stride)?, |row| {
            let word = |column: u64| target.u64(row.checked_add(column)?);
            let name = word(type_name)?;
            if name == 0 {
                return Some(false);
            }
            description.sizes.insert(names.at(name)?, word(type_size)?);
            Some(true)
        })?;
        Some(description)
    }

    /// Tables with these rows.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn made_up<'a>(
        fields: impl Iterator<Item = (&'a str, &'a str, Field)>,
        sizes: &[(&str, u64)],
    ) -> Self {
        let mut description = Self::default();
        for (owner, name, field) in fields {
            description.fields.entry(owner.to_owned()).or_default().insert(name.to_owned(), field);
        }
        description.sizes = sizes.iter().map(|&(name, size)| (name.to_owned(), size)).collect();
        description
    }

    /// The field of an object.
    pub(crate) fn field(&self, owner: &str, name: &str) -> Option<Field> {
        let field = *self.fields.get(owner)?.get(name)?;
        // Structures are small; what claims more would lead elsewhere.
        (!field.is_static && field.place < 1 << 16).then_some(field)
    }

    /// The offset of an object's field.
    pub(crate) fn offset(&self, owner: &str, name: &str) -> Option<u64> {
        Some(self.field(owner, name)?.place)
    }

    /// The address of a variable.
    pub(crate) fn variable(&self, owner: &str, name: &str) -> Option<u64> {
        let field = *self.fields.get(owner)?.get(name)?;
        field.is_static.then_some(field.place)
    }

    /// How many bytes an object takes.
    pub(crate) fn size(&self, name: &str) -> Option<u64> {
        self.sizes.get(name).copied().filter(|&size| size < 1 << 16)
    }
}

/// Takes rows until one says that it is behind the last.
fn rows(first: u64, stride: u64, mut take: impl FnMut(u64) -> Option<bool>) -> Option<()> {
    if !(8..=256).contains(&stride) {
        return None;
    }
    for index in 0..MAX_ROWS {
        let row = first.checked_add(index * stride)?;
        if !take(row)? {
            return Some(());
        }
    }
    None
}

/// Bytes of a number of this type of C++.
fn width(kind: &str) -> u8 {
    match kind.strip_prefix("volatile ").unwrap_or(kind) {
        "bool" | "u1" | "jbyte" | "signed char" | "unsigned char" => 1,
        "u2" | "jushort" | "short" | "unsigned short" | "int16_t" | "uint16_t" => 2,
        "int" | "jint" | "uint" | "juint" | "u4" | "int32_t" | "uint32_t" | "unsigned int" => 4,
        _ => 8,
    }
}

/// The names lie close together, so pages of them are kept while the tables are read.
struct Names<'a> {
    target: &'a dyn Target,
    pages: RefCell<HashMap<u64, Vec<u8>>>,
}

impl Names<'_> {
    /// The name at `address`; an empty one where there is none.
    fn at(&self, address: u64) -> Option<String> {
        if address == 0 {
            return Some(String::new());
        }
        let mut pages = self.pages.borrow_mut();
        let mut name = Vec::new();
        while name.len() < MAX_NAME {
            let at = address.checked_add(name.len() as u64)?;
            let number = at / PAGE as u64;
            if !pages.contains_key(&number) {
                if pages.len() >= MAX_PAGES {
                    return None;
                }
                pages.insert(number, self.target.bytes(number * PAGE as u64, PAGE)?);
            }
            let rest = pages.get(&number)?.get(usize::try_from(at).ok()? % PAGE..)?;
            let end = rest.iter().position(|&byte| byte == 0);
            name.extend_from_slice(rest.get(..end.unwrap_or(rest.len()))?);
            if end.is_some() {
                break;
            }
        }
        name.truncate(MAX_NAME);
        String::from_utf8(name).ok()
    }
}
