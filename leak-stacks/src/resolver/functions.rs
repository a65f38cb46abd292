//! The code of functions that are known by their names.

use std::fs::File;
use std::io::Read;
use std::rc::Rc;

use crate::binary::elf::read_exact;
use crate::binary::facts::Source;
use crate::binary::store::Binary;
use crate::binary::symbol_table::extents_of;
use crate::bytes::base_name;
use crate::process::ProcessKey;
use crate::process::maps::MapsEntry;
use crate::process::snapshot::MAX_MAPS;
use crate::resolver::Resolver;
use crate::resolver::programs::{Program, Programs};
use crate::time::Timestamp;

/// Most files of one process that are looked into.
const MAX_FILES: usize = 16;
/// Most bytes of a function.
const MAX_CODE: u64 = 512;

impl Resolver {
    /// The code of the functions with these names, from each file that the process has mapped and
    /// that has all of them: of the libraries whose names begin with `library`, and of the
    /// executable where there are none. What is longer than 512 bytes is cut.
    pub fn functions<const N: usize>(
        &mut self,
        process: ProcessKey,
        library: &str,
        names: [&str; N],
        now: Timestamp,
    ) -> Vec<[Vec<u8>; N]> {
        let found = self.functions_seen(process, library, names, now);
        if found.is_empty() && self.is_outdated(process, library) && self.look(process, now).is_ok()
        {
            return self.functions_seen(process, library, names, now);
        }
        found
    }

    /// Whether the process has executed another program since it was looked at, or loaded such a
    /// library.
    fn is_outdated(&self, process: ProcessKey, library: &str) -> bool {
        let program = self.processes.get(&process).and_then(Programs::latest);
        program.is_some_and(|program| {
            let was_loaded =
                program.modules.iter().any(|one| is_named(one.path.as_deref(), library));
            program.modules.is_replaced(process.pid)
                || (!was_loaded && has_loaded(process.pid, library))
        })
    }

    fn functions_seen<const N: usize>(
        &mut self,
        process: ProcessKey,
        library: &str,
        names: [&str; N],
        now: Timestamp,
    ) -> Vec<[Vec<u8>; N]> {
        if self.first_sight(process, now).is_err() {
            return Vec::new();
        }
        let program = self.processes.get(&process).and_then(Programs::latest);
        let binaries = program.map(|program| files(program, library)).unwrap_or_default();
        let mut found = Vec::new();
        for binary in binaries {
            self.binaries.touch(&binary);
            found.extend(binary.read_with(|source| code_of(source, names)).flatten());
        }
        self.binaries.trim();
        found
    }
}

fn is_named(path: Option<&str>, library: &str) -> bool {
    path.is_some_and(|path| base_name(path).starts_with(library))
}

/// Whether a process has such a library now.
fn has_loaded(pid: u32, library: &str) -> bool {
    let mut text = Vec::new();
    let maps = File::open(format!("/proc/{pid}/maps"));
    if maps.and_then(|maps| maps.take(MAX_MAPS).read_to_end(&mut text)).is_err() {
        return false;
    }
    let text = String::from_utf8_lossy(&text);
    let mut entries = text.lines().filter_map(MapsEntry::parse);
    entries.any(|entry| is_named(entry.path, library))
}

fn files(program: &Program, library: &str) -> Vec<Rc<Binary>> {
    let mut found: Vec<Rc<Binary>> = Vec::new();
    for mapping in program.modules.iter() {
        let named = is_named(mapping.path.as_deref(), library);
        let Some(binary) = mapping.binary.as_ref().filter(|_| named) else { continue };
        if found.len() < MAX_FILES && !found.iter().any(|known| Rc::ptr_eq(known, binary)) {
            found.push(Rc::clone(binary));
        }
    }
    if found.is_empty() {
        found.extend(program.modules.executable().cloned());
    }
    found
}

fn code_of<const N: usize>(source: &Source<'_>, names: [&str; N]) -> Option<[Vec<u8>; N]> {
    let mut code = [const { Vec::new() }; N];
    for (code, extent) in code.iter_mut().zip(extents_of(source, names)) {
        let (address, size) = extent?;
        let (offset, held) = source.elf.code_at(address)?;
        // The symbols of hand-written code may have no size.
        let size = if size == 0 { MAX_CODE } else { size };
        let length = usize::try_from(size.min(held).min(MAX_CODE)).ok()?;
        *code = read_exact(source.file, offset, length).ok()?;
    }
    Some(code)
}
