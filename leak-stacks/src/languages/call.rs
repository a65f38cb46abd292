//! Named calls, as languages give them.

use crate::stack::Frame;

/// A function call that a runtime has named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Call {
    /// The function's name, with its classes or packages.
    pub(crate) function: Option<String>,
    /// What [`Frame::module`] is to say: the source file, for languages whose libraries the culprit
    /// rules know by their files; `None`, for those whose libraries they know by function names.
    pub(crate) module: Option<String>,
    /// Source file.
    pub(crate) file: Option<String>,
    /// Line that is executed, from 1.
    pub(crate) line: Option<u32>,
    /// Place in the function's own code, such as its bytecode; 0 where there is none.
    pub(crate) offset: u64,
}

impl From<Call> for Frame {
    fn from(call: Call) -> Self {
        let Call { function, module, file, line, offset } = call;
        Self { function, module, file, line, address: offset }
    }
}

/// What a frame was named: the calls of it, innermost first, if it is more than one that a compiler
/// has inlined; none when the frame is to be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named<T> {
    /// The calls.
    pub(crate) calls: Vec<T>,
    /// Whether the same address or frame has the same name for as long as the process runs its
    /// program. Code that is compiled at run time is moved, and names for it may come later.
    pub(crate) is_lasting: bool,
}
