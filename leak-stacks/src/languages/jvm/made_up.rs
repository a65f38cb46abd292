//! A small VM in a few pages of memory, laid out as JDK 17's, for tests and fuzzing.

use crate::languages::jvm::code::CodeCache;
use crate::languages::jvm::description::{Description, Field};
use crate::languages::jvm::frames::Found;
use crate::languages::jvm::layout::Layout;
use crate::languages::jvm::{HotSpot, lines};
use crate::languages::target::Target;
pub(crate) use crate::languages::target::made_up::{BASE, Image};
use crate::unwind::registers::Registers;

/// Where the code heap lies in it.
pub(crate) const HEAP: u64 = 0x1000;

/// Fields of objects: owner, name, offset, width.
const FIELDS: [(&str, &str, u64, u8); 43] = [
    ("GrowableArrayBase", "_len", 0, 4),
    ("GrowableArray<int>", "_data", 8, 8),
    ("CodeHeap", "_memory", 8, 8),
    ("CodeHeap", "_segmap", 120, 8),
    ("CodeHeap", "_log2_segment_size", 256, 4),
    ("VirtualSpace", "_low_boundary", 0, 8),
    ("VirtualSpace", "_high_boundary", 8, 8),
    ("HeapBlock", "_header", 0, 8),
    ("HeapBlock::Header", "_length", 0, 8),
    ("HeapBlock::Header", "_used", 8, 1),
    ("CodeBlob", "_name", 96, 8),
    ("CodeBlob", "_frame_size", 28, 4),
    ("CodeBlob", "_code_begin", 32, 8),
    ("CompiledMethod", "_method", 112, 8),
    ("CompiledMethod", "_scopes_data_begin", 120, 8),
    ("CompiledMethod", "_deopt_handler_begin", 128, 8),
    ("CompiledMethod", "_deopt_mh_handler_begin", 136, 8),
    ("nmethod", "_orig_pc_offset", 300, 4),
    ("nmethod", "_metadata_offset", 260, 4),
    ("nmethod", "_scopes_pcs_offset", 268, 4),
    ("nmethod", "_dependencies_offset", 272, 4),
    ("PcDesc", "_pc_offset", 0, 4),
    ("PcDesc", "_scope_decode_offset", 4, 4),
    ("Method", "_constMethod", 8, 8),
    ("ConstMethod", "_constants", 8, 8),
    ("ConstMethod", "_constMethod_size", 24, 4),
    ("ConstMethod", "_flags", 28, 2),
    ("ConstMethod", "_code_size", 32, 2),
    ("ConstMethod", "_name_index", 34, 2),
    ("ConstantPool", "_tags", 8, 8),
    ("ConstantPool", "_length", 60, 4),
    ("ConstantPool", "_pool_holder", 24, 8),
    ("ConstantPool", "_source_file_name_index", 54, 2),
    ("InstanceKlass", "_constants", 232, 8),
    ("Klass", "_name", 24, 8),
    ("Array<u1>", "_data", 4, 8),
    ("Symbol", "_length", 4, 2),
    ("Symbol", "_body", 6, 8),
    // Of other releases, which must not count.
    ("nmethod", "_entry_bci", 192, 4),
    ("nmethod", "_compile_id", 304, 4),
    ("CodeBlob", "_size", 12, 4),
    ("CodeBlob", "_data_offset", 24, 4),
    ("InstanceKlass", "_methods", 408, 8),
];
/// Variables: owner, name, place from [`BASE`].
const VARIABLES: [(&str, &str, u64); 3] = [
    ("CodeCache", "_heaps", 0),
    ("StubRoutines", "_call_stub_return_address", 8),
    ("Abstract_VM_Version", "_vm_major_version", 16),
];
const SIZES: [(&str, u64); 4] =
    [("HeapBlock", 16), ("PcDesc", 16), ("ConstMethod", 48), ("ConstantPool", 72)];

pub(crate) fn description() -> Description {
    let fields = FIELDS.iter().map(|&(owner, name, place, width)| {
        (owner, name, Field { place, width, is_static: false })
    });
    let variables = VARIABLES.iter().map(|&(owner, name, place)| {
        (owner, name, Field { place: BASE + place, width: 8, is_static: true })
    });
    Description::made_up(fields.chain(variables), &SIZES)
}

/// The VM in this memory.
pub(crate) fn vm(target: &dyn Target) -> Option<HotSpot> {
    let layout = Layout::of(&description(), target)?;
    let cache = CodeCache::find(&layout, target)?;
    let call_stub_return = target.u64(layout.call_stub_return)?;
    Some(HotSpot {
        layout,
        cache,
        call_stub_return,
        remembered: Default::default(),
        threads: Default::default(),
    })
}

/// Reads any bytes as the memory of a VM, and as its compressed numbers.
pub(crate) fn fuzz(data: &[u8]) {
    let image = Image(data);
    lines::line_at(data, 7, 0);
    lines::line_at(data, 7, 1);
    let tables = std::array::from_fn(|index| BASE + 8 * index as u64);
    Description::read(tables, &image);
    let Some(mut vm) = vm(&image) else { return };
    for step in 0..64 {
        let at = BASE + HEAP + step * 0x88;
        let mut registers = Registers::new(at, BASE, BASE + 64);
        let found =
            vm.frames(&image).step(at, &mut registers, &|at| (&image as &dyn Target).u64(at));
        match found {
            Some((Found::Compiled { code, returns_to }, _)) => {
                vm.compiled(code, returns_to, &image);
            }
            Some((Found::Interpreted { method, instruction }, _)) => {
                vm.interpreted(method, instruction, &image);
            }
            Some((Found::Stub, _)) | None => {}
        }
    }
}
