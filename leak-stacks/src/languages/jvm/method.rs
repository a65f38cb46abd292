//! Methods: their classes, names, source files and lines.

use std::rc::Rc;

use crate::languages::jvm::layout::{Layout, Number};
use crate::languages::jvm::lines::line_at;
use crate::languages::target::Target;

/// Longest name, in bytes.
const MAX_NAME: usize = 512;
/// Longest table of lines.
const MAX_LINES: u64 = 256 << 10;
/// What a constant that is text is tagged with (JVM specification, table 4.4-A).
const TEXT: u8 = 1;
/// Flag of a method with a table of lines.
const HAS_LINES: u64 = 1;
/// From `invokevirtual` to `invokedynamic`.
const CALLS: std::ops::RangeInclusive<u8> = 0xb6..=0xba;
/// Above the specification's own instructions: those that the interpreter puts in their stead.
const REWRITTEN: std::ops::RangeInclusive<u8> = 0xca..=0xff;

/// A method, as far as it can be told.
#[derive(Debug)]
pub(crate) struct Method {
    /// Where its definition lies, and its constants: other ones are another method's.
    identity: [u64; 2],
    /// Its class's name and its own, as Java's own traces show them.
    pub(crate) name: Rc<str>,
    pub(crate) file: Option<Rc<str>>,
    /// Made up by the VM to get from one method to another; Java's own traces leave it out, too.
    pub(crate) is_hidden: bool,
    bytecode: u64,
    code_size: u32,
    lines: Option<Box<[u8]>>,
    excess: u8,
}

impl Method {
    /// What tells the method at `address` from others that may come to lie there.
    pub(crate) fn identity_at(
        address: u64,
        layout: &Layout,
        target: &dyn Target,
    ) -> Option<[u64; 2]> {
        let definition = pointer(layout.method.definition, address, target)?;
        Some([definition, pointer(layout.method.constants, definition, target)?])
    }

    pub(crate) fn is(&self, identity: [u64; 2]) -> bool {
        self.identity == identity
    }

    /// Reads the method at `address`; `None` when something does not fit.
    pub(crate) fn read(address: u64, layout: &Layout, target: &dyn Target) -> Option<Self> {
        let identity = Self::identity_at(address, layout, target)?;
        let [definition, constants] = identity;
        let method = &layout.method;
        let code_size = u32::try_from(method.code_size.read(definition, target)?).ok()?;
        let size = method.size.read(definition, target)?.checked_mul(8)?;
        let used = method.header.checked_add(code_size.into())?;
        let pool = Pool::read(constants, layout, target)?;
        let class = pool.class_name()?;
        let own = pool.text(method.name.read(definition, target)?)?;
        let rest = size.checked_sub(used)?;
        let has_lines = method.flags.read(definition, target)? & HAS_LINES != 0;
        let bytecode = definition.checked_add(method.header)?;
        let lines = || {
            let length = usize::try_from(rest.min(MAX_LINES)).ok()?;
            target.bytes(bytecode.checked_add(code_size.into())?, length)
        };
        Some(Self {
            identity,
            name: format!("{}.{own}", class.shown).into(),
            file: pool.file().map(Into::into),
            is_hidden: class.is_hidden,
            bytecode,
            code_size,
            lines: has_lines.then(lines).flatten().map(Vec::into_boxed_slice),
            excess: layout.excess,
        })
    }

    /// Where in its bytecode an instruction's address is; `None`: not in it.
    pub(crate) fn place_of(&self, instruction: u64) -> Option<u32> {
        let place = u32::try_from(instruction.checked_sub(self.bytecode)?).ok()?;
        (place < self.code_size).then_some(place)
    }

    /// Whether a place is one in its bytecode.
    pub(crate) fn has(&self, place: u32) -> bool {
        place < self.code_size
    }

    /// Whether it has bytecode: a native method has none.
    pub(crate) fn is_native(&self) -> bool {
        self.code_size == 0
    }

    /// Whether the instruction at a place calls a method.
    pub(crate) fn calls_at(&self, place: u32, target: &dyn Target) -> bool {
        let instruction = || target.u8(self.bytecode.checked_add(place.into())?);
        self.has(place)
            && instruction().is_some_and(|code| CALLS.contains(&code) || REWRITTEN.contains(&code))
    }

    /// The line of the instruction at a place.
    pub(crate) fn line_at(&self, place: u32) -> Option<u32> {
        line_at(self.lines.as_deref()?, place, self.excess)
    }
}

/// A pointer that is not null, and leads to a word.
fn pointer(field: Number, base: u64, target: &dyn Target) -> Option<u64> {
    field.read(base, target).filter(|&at| at != 0 && at.is_multiple_of(8))
}

/// A class's name.
struct ClassName {
    shown: String,
    is_hidden: bool,
}

/// The constants of a class.
struct Pool<'a> {
    address: u64,
    class: u64,
    tags: u64,
    count: u64,
    layout: &'a Layout,
    target: &'a dyn Target,
}

impl<'a> Pool<'a> {
    /// The constants at `address`, if their class says that they are its own.
    fn read(address: u64, layout: &'a Layout, target: &'a dyn Target) -> Option<Self> {
        let class = pointer(layout.class.class, address, target)?;
        if layout.class.constants.read(class, target)? != address {
            return None;
        }
        let tags = pointer(layout.class.tags, address, target)?;
        let count = layout.class.count.read(address, target)?;
        Some(Self { address, class, tags, count, layout, target })
    }

    /// A constant that is text.
    fn text(&self, index: u64) -> Option<String> {
        let class = &self.layout.class;
        if index == 0 || index >= self.count {
            return None;
        }
        let tag = self.tags.checked_add(class.array)?.checked_add(index)?;
        if self.target.u8(tag)? != TEXT {
            return None;
        }
        let slot = self.address.checked_add(class.header)?.checked_add(index * 8)?;
        symbol(self.target.u64(slot)?, self.layout, self.target)
    }

    fn class_name(&self) -> Option<ClassName> {
        let name = self.layout.class.name.read(self.class, self.target)?;
        Some(shown(&symbol(name, self.layout, self.target)?))
    }

    fn file(&self) -> Option<String> {
        let class = &self.layout.class;
        let of_pool = class.file_of_pool.and_then(|index| index.read(self.address, self.target));
        let of_class = || class.file_of_class?.read(self.class, self.target);
        self.text(of_pool.or_else(of_class)?)
    }
}

/// The text of a symbol.
fn symbol(address: u64, layout: &Layout, target: &dyn Target) -> Option<String> {
    // The lowest bit of a slot of constants marks what is none yet.
    let address = address & !1;
    let length = target.u16(address.checked_add(layout.class.symbol_length)?)?;
    let length = usize::from(length);
    if length == 0 || length > MAX_NAME {
        return None;
    }
    let text = target.bytes(address.checked_add(layout.class.symbol_text)?, length)?;
    let text = String::from_utf8(text).ok()?;
    (!text.contains(char::is_control)).then_some(text)
}

/// A class's name as Java's own traces show it, without what differs from run to run.
///
/// Classes that the VM makes for lambdas have no place in the source; they call the method that has
/// the lambda's body.
fn shown(name: &str) -> ClassName {
    const LAMBDA: &str = "$$Lambda";
    const FORMS: [&str; 3] = ["LambdaForm$", "DirectMethodHandle$Holder", "Invokers$Holder"];
    let name = name.split(['+']).next().unwrap_or(name);
    let name = match name.split_once("/0x") {
        Some((name, _)) => name,
        None => name,
    };
    let is_form = name
        .strip_prefix("java/lang/invoke/")
        .is_some_and(|name| FORMS.iter().any(|form| name.starts_with(form)));
    let (shown, is_lambda) = match name.find(LAMBDA) {
        Some(at) => (name.get(..at + LAMBDA.len()).unwrap_or(name), true),
        None => (name, false),
    };
    ClassName { shown: shown.replace('/', "."), is_hidden: is_form || is_lambda }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_traces_show_them() {
        for (name, expected, is_hidden) in [
            ("com/acme/Shop$Cart", "com.acme.Shop$Cart", false),
            ("Shop$$Lambda$14+0x00007f00dc000a00", "Shop$$Lambda", true),
            ("Shop$$Lambda+0x00007f00dc000a00", "Shop$$Lambda", true),
            ("Shop$$Lambda$3", "Shop$$Lambda", true),
            ("java/lang/invoke/LambdaForm$MH+0x1", "java.lang.invoke.LambdaForm$MH", true),
            (
                "java/lang/invoke/DirectMethodHandle$Holder",
                "java.lang.invoke.DirectMethodHandle$Holder",
                true,
            ),
            ("java/lang/invoke/MethodHandle", "java.lang.invoke.MethodHandle", false),
        ] {
            let class = shown(name);
            assert_eq!((class.shown.as_str(), class.is_hidden), (expected, is_hidden), "{name}");
        }
    }
}
