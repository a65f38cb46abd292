//! Identity of a stack: a hash that is the same for the same code in every process and run.

use crate::binary::symbols::Symbol;
use crate::bytes::base_name;
use crate::culprit::is_interpreter;
use crate::languages::call::Call;

/// FNV-1a with 64 bits (Fowler, Noll, Vo). Its nine lines stand here because identities must not
/// change with a dependency's release.
#[derive(Debug)]
pub(crate) struct Identity(u64);

impl Identity {
    /// That of a stack without frames.
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn value(&self) -> u64 {
        self.0
    }

    /// Adds what is the same for the same code in every process: its place in the file and what is
    /// called there, or the name of code compiled at run time. Such code without a name says
    /// nothing, as it is elsewhere as soon as it is compiled again; nor do interpreters say more,
    /// which come and go with what they run. One leak must not be reported as many.
    ///
    /// Names count beside places: files of one name are made by anybody, and who gave them a debug
    /// file of his own must not put his names into others' stacks.
    pub(crate) fn add_code(
        &mut self,
        module: Option<&str>,
        in_file: Option<u64>,
        symbols: &[Symbol],
        address: u64,
    ) {
        let symbol = symbols.first();
        let function = symbol.and_then(|s| s.function.as_deref());
        if function.is_some_and(is_interpreter) {
            return;
        }
        match (module, in_file, function) {
            (Some(module), Some(in_file), _) => {
                self.add(base_name(module).as_bytes());
                self.add(&in_file.to_le_bytes());
                for Symbol { function, file, line } in symbols {
                    self.add(function.as_deref().unwrap_or_default().as_bytes());
                    self.add(file.as_deref().unwrap_or_default().as_bytes());
                    self.add(&line.unwrap_or(0).to_le_bytes());
                }
            }
            (_, _, Some(name)) => {
                self.add(name.as_bytes());
                self.add(symbol.and_then(|s| s.file.as_deref()).unwrap_or_default().as_bytes());
            }
            (Some(_), None, None) => self.add(&address.to_le_bytes()),
            (None, _, None) => {}
        }
    }

    /// Adds a call that a runtime has named, or could not name.
    pub(crate) fn add_call(&mut self, call: Option<&Call>) {
        match call {
            Some(call) => {
                self.add(call.file.as_deref().unwrap_or_default().as_bytes());
                self.add(call.function.as_deref().unwrap_or_default().as_bytes());
                self.add(&call.line.unwrap_or(0).to_le_bytes());
            }
            None => self.add(&[]),
        }
    }

    /// The identity of these calls.
    pub(crate) fn of_calls(calls: &[Option<Call>]) -> u64 {
        let mut identity = Self::new();
        calls.iter().for_each(|call| identity.add_call(call.as_ref()));
        identity.0
    }

    /// Adds `bytes` and an end mark, so that neighbours cannot run together.
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain([&0xff]) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
