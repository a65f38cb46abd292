//! Names of classes.
//!
//! A class has its name, and a singleton class the object that it is of, in one of its fields, in a
//! field of a structure behind it, or, to 3.1, in a table there. Where, is found by the classes
//! `Object` and `String`, whose names are known.

use std::mem::discriminant;

use crate::languages::ruby::find::Place;
use crate::languages::ruby::object::{CLASS, MODULE, TextForm, is, text};
use crate::languages::target::Target;

/// In an object: its class.
const CLASS_OF: u64 = 8;
/// In a class, to 3.1: the structure behind it.
const BEHIND: u64 = 24;
/// Where fields are looked for in a class and in what is behind it.
const SIZE: u64 = 320;
/// In a table (`struct st_table`): where its entries begin, where they end, and their address.
const TABLE_START: u64 = 32;
const TABLE_END: u64 = 40;
const TABLE_ENTRIES: u64 = 48;
/// An entry of a table: a hash, a key, and a value.
const ENTRY_SIZE: u64 = 24;
const ENTRY_KEY: u64 = 8;
const ENTRY_VALUE: u64 = 16;
/// Most entries of a table that are looked at.
const MAX_ENTRIES: u64 = 64;
/// Longest name of a class, in bytes.
const MAX_NAME: u64 = 256;

/// Where a class keeps something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Field {
    /// In itself.
    Own(u64),
    /// In the structure behind it.
    Behind(u64),
    /// In a table of that structure, under a key.
    Table(u64, u64),
}

/// Where classes keep their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClassLayout {
    name: Field,
    /// In a singleton class: the object that it is of.
    attached: Option<Field>,
}

impl ClassLayout {
    /// The layout by which the classes `Object` and `String` have their names, if strings keep
    /// their bytes in this form.
    pub(crate) fn find(place: &Place, form: TextForm, target: &dyn Target) -> Option<Self> {
        let [object, string] = place.classes.map(|variable| target.u64(variable));
        let (object, string) = (object?, string?);
        let is_named = |value, name: &str| {
            text(value, form, MAX_NAME, target).is_some_and(|text| text == name)
        };
        let name =
            fields_with(object, &|value| is_named(value, "Object"), target).into_iter().find(
                |field| field.of(string, target).is_some_and(|value| is_named(value, "String")),
            )?;
        let [of_object, of_string] = [object, string].map(|class| target.u64(class + CLASS_OF));
        let attached = fields_with(of_object?, &|value| value == object, target)
            .into_iter()
            // What lies behind a class that is smaller may happen to fit; releases keep both alike.
            .filter(|field| discriminant(field) == discriminant(&name))
            .find(|field| field.of(of_string.unwrap_or(0), target) == Some(string));
        Some(Self { name, attached })
    }

    /// What comes before a method's name: `Shop#`, or `Shop.` for a class's own methods; `None` for
    /// classes without a name.
    pub(crate) fn prefix(&self, class: u64, form: TextForm, target: &dyn Target) -> Option<String> {
        let is_class = |class| is(class, CLASS, target) || is(class, MODULE, target);
        if !is_class(class) {
            return None;
        }
        let attached = self.attached.and_then(|field| field.of(class, target));
        // Only a singleton class's own object has it as its class.
        let attached = attached
            .filter(|&object| is_class(object) && target.u64(object + CLASS_OF) == Some(class));
        let (class, mark) = attached.map_or((class, '#'), |object| (object, '.'));
        let name = text(self.name.of(class, target)?, form, MAX_NAME, target)?;
        let is_constant = name.starts_with(|first: char| first.is_uppercase());
        is_constant.then(|| format!("{name}{mark}"))
    }
}

impl Field {
    fn of(self, class: u64, target: &dyn Target) -> Option<u64> {
        let behind = || target.u64(class.checked_add(BEHIND)?);
        match self {
            Self::Own(offset) => target.u64(class.checked_add(offset)?),
            Self::Behind(offset) => target.u64(behind()?.checked_add(offset)?),
            Self::Table(offset, key) => {
                let table = target.u64(behind()?.checked_add(offset)?)?;
                let mut entries = entries(table, target)?.into_iter();
                entries.find(|entry| entry.0 == key).map(|entry| entry.1)
            }
        }
    }
}

/// All fields of a class whose value is wanted.
fn fields_with(class: u64, is_wanted: &dyn Fn(u64) -> bool, target: &dyn Target) -> Vec<Field> {
    let offsets = || (0..SIZE).step_by(8);
    let holds = |field: &Field| field.of(class, target).is_some_and(is_wanted);
    let own = offsets().skip(2).map(Field::Own).filter(holds);
    let behind = offsets().map(Field::Behind).filter(holds);
    let in_tables = offsets().flat_map(|offset| {
        let table = Field::Behind(offset).of(class, target);
        let entries = table.and_then(|table| entries(table, target)).unwrap_or_default();
        let wanted = entries.into_iter().filter(|entry| is_wanted(entry.1));
        wanted.map(move |entry| Field::Table(offset, entry.0)).collect::<Vec<_>>()
    });
    own.chain(behind).chain(in_tables).collect()
}

/// The keys and values of a table.
fn entries(table: u64, target: &dyn Target) -> Option<Vec<(u64, u64)>> {
    if !table.is_multiple_of(8) {
        return None;
    }
    let field = |offset| target.u64(table.checked_add(offset)?);
    let (start, end, first) = (field(TABLE_START)?, field(TABLE_END)?, field(TABLE_ENTRIES)?);
    if start > end || end > MAX_ENTRIES {
        return None;
    }
    let entry = |index: u64| {
        let at = first.checked_add(index * ENTRY_SIZE)?;
        let key = target.u64(at.checked_add(ENTRY_KEY)?)?;
        Some((key, target.u64(at.checked_add(ENTRY_VALUE)?)?))
    };
    (start..end).map(entry).collect()
}
