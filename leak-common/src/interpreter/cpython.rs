//! CPython. A frame's `pointer` is the address of its code object; its `position` is an address or,
//! in the lower half, an index, depending on the release. It has no cookie.

use bytemuck::{Pod, Zeroable, must_cast, must_cast_ref};

use super::PARAMETERS;
use crate::size;

/// The number of this interpreter.
pub const KIND: u32 = 1;
/// Most bytes of a frame that are read at once: in every release, all fields that are recorded lie
/// within a window of this length.
pub const WINDOW: usize = 96;
/// Marks a parameter that this release does not have.
pub const ABSENT: u32 = u32::MAX;

/// How CPython keeps the calls of the running thread: the parameters of its profile. All offsets
/// are in bytes.
///
/// The path leads from the thread register to the thread's slot for Python, to its
/// `PyThreadState`, to its current frame, and from frame to frame outward.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, Default, PartialEq, Eq, Hash)]
pub struct Parameters {
    /// From the thread register, the address of the table of slots; [`ABSENT`]: the slots
    /// themselves are there.
    pub slots: u32,
    /// From the table or the thread register, the slot with the address of the `PyThreadState`; a
    /// signed number, for variables of a thread lie below its register.
    pub slot: u32,
    /// In `PyThreadState`, the pointer that leads to the current frame.
    pub frame: u32,
    /// In the structure that `frame` points to, the address of the current frame; [`ABSENT`]:
    /// `frame` points to the frame itself.
    pub control_frame: u32,
    /// In a frame, the start of the window that is read.
    pub window: u32,
    /// The window's length, a multiple of 8, at most [`WINDOW`].
    pub window_len: u32,
    /// In the window, the address of the code object; a multiple of 8.
    pub code: u32,
    /// In the window, the instruction; a multiple of 8.
    pub instruction: u32,
    /// In the window, the address of the caller's frame; a multiple of 8.
    pub previous: u32,
    /// In the window, the byte that says who owns the frame.
    pub owner: u32,
    /// Owners from this one on are those of frames that are not function calls; [`ABSENT`], which
    /// no byte reaches: there are no such frames.
    pub foreign_owners: u32,
    /// Always 0.
    pub reserved: [u32; 5],
}
size!(Parameters, 4 * PARAMETERS);

impl Parameters {
    /// The parameters of a profile of this [`KIND`].
    #[must_use]
    #[inline(always)]
    pub fn view(raw: &[u32; PARAMETERS]) -> &Self {
        must_cast_ref(raw)
    }

    /// The parameters as a profile holds them.
    #[must_use]
    pub fn raw(self) -> [u32; PARAMETERS] {
        must_cast(self)
    }
}
