//! V8 in a few pages of memory, laid out as Node.js 20's, for tests and fuzzing.

use crate::languages::target::Target;
use crate::languages::target::made_up::{BASE, Image};
use crate::languages::v8::code::BytecodeSizes;
use crate::languages::v8::frames::{Frame, Region};
use crate::languages::v8::heap::Heap;
use crate::languages::v8::layout::Layout;
use crate::languages::v8::metadata::Metadata;
use crate::languages::v8::{V8, noted, positions, safepoints};
use crate::time::Timestamp;

/// Where the roots are, and where stacks may begin.
pub(crate) const ROOTS: u64 = BASE + 0x80;
pub(crate) const STACK: u64 = BASE + 0x2000;

/// What V8 exports.
const CONSTANTS: [(&str, i32); 63] = [
    ("HeapObjectTag", 1),
    ("HeapObjectTagMask", 3),
    ("SmiTag", 0),
    ("SmiTagMask", 1),
    ("SmiShiftSize", 31),
    ("StringRepresentationMask", 7),
    ("SeqStringTag", 0),
    ("ConsStringTag", 1),
    ("ExternalStringTag", 2),
    ("SlicedStringTag", 3),
    ("ThinStringTag", 5),
    ("StringEncodingMask", 8),
    ("OneByteStringTag", 8),
    ("off_fp_context", -8),
    ("off_fp_function", -16),
    ("off_fp_bytecode_array", -32),
    ("off_fp_bytecode_offset", -40),
    ("type_Map__MAP_TYPE", 255),
    ("type_JSFunction__JS_FUNCTION_TYPE", 2066),
    ("type_SharedFunctionInfo__SHARED_FUNCTION_INFO_TYPE", 262),
    ("type_ScopeInfo__SCOPE_INFO_TYPE", 261),
    ("type_Script__SCRIPT_TYPE", 167),
    ("type_BytecodeArray__BYTECODE_ARRAY_TYPE", 191),
    ("type_InterpreterData__INTERPRETER_DATA_TYPE", 159),
    ("type_Code__CODE_TYPE", 245),
    ("type_InstructionStream__INSTRUCTION_STREAM_TYPE", 252),
    ("type_FeedbackVector__FEEDBACK_VECTOR_TYPE", 249),
    ("type_ByteArray__BYTE_ARRAY_TYPE", 190),
    ("type_FixedArray__FIXED_ARRAY_TYPE", 175),
    ("type_WeakFixedArray__WEAK_FIXED_ARRAY_TYPE", 240),
    ("type_WeakArrayList__WEAK_ARRAY_LIST_TYPE", 274),
    ("type_UncompiledDataWithPreparseData__UNCOMPILED_DATA_WITH_PREPARSE_DATA_TYPE", 222),
    ("class_UncompiledData__start_position__int32_t", 16),
    ("FirstNonstringType", 128),
    ("scopeinfo_idx_first_vars", 3),
    ("CodeKindFieldMask", 15),
    ("CodeKindBaseline", 11),
    ("class_Map__instance_type__uint16_t", 12),
    ("class_JSFunction__shared__SharedFunctionInfo", 24),
    ("class_SharedFunctionInfo__name_or_scope_info__Object", 16),
    ("class_SharedFunctionInfo__script_or_debug_info__HeapObject", 32),
    ("class_Script__source__Object", 8),
    ("class_Script__name__Object", 16),
    ("class_Script__line_ends__Object", 56),
    ("class_Script__eval_from_position__SMI", 80),
    ("class_BytecodeArray__data__uintptr_t", 54),
    ("class_InstructionStream__instruction_start__uintptr_t", 16),
    ("class_String__length__int32_t", 12),
    ("class_SeqOneByteString__chars__char", 16),
    ("class_SeqTwoByteString__chars__char", 16),
    ("class_ConsString__first__String", 16),
    ("class_ConsString__second__String", 24),
    ("class_ThinString__actual__String", 16),
    ("class_SlicedString__parent__String", 16),
    ("class_SlicedString__offset__SMI", 24),
    ("class_ExternalString__resource__Object", 16),
    // What is assumed where V8 does not tell it.
    ("DeoptimizationDataLiteralArrayIndex", 2),
    ("DeoptimizationDataSharedFunctionInfoIndex", 6),
    ("DeoptimizationDataInliningPositionsIndex", 7),
    // Of other releases, which must not count.
    ("LastContextType", 214),
    ("class_Code__relocation_info__ByteArray", 8),
    ("class_Map__prototype__HeapObject", 24),
    ("frametype_EntryFrame", 1),
];

/// V8 that exports these constants besides, where a bytecode takes one byte, and the fifth three.
pub(crate) fn v8(more: &[(&str, i32)]) -> Option<V8> {
    let constants: Vec<_> = CONSTANTS.iter().chain(more).copied().collect();
    let layout = Layout::of(&Metadata::made_up(&constants))?;
    let row = std::array::from_fn::<u8, 16, _>(|code| if code == 5 { 3 } else { 1 });
    let bytecode_sizes = BytecodeSizes::new([row; 3].concat());
    Some(V8::new("/usr/bin/node".into(), layout, bytecode_sizes))
}

/// The names and lines of the calls in a frame, given its frame pointer.
pub(crate) fn calls(
    v8: &mut V8,
    bp: u64,
    returns_to: u64,
    region: Region,
    target: &dyn Target,
) -> Option<Vec<(String, Option<u32>)>> {
    let word = |at| target.u64(at);
    let frame = Frame {
        bp,
        sp: bp.checked_sub(0x60)?,
        returns_to,
        region,
        word: &word,
        sizes: &v8.bytecode_sizes,
        roots: Some(ROOTS),
        now: Timestamp(0),
    };
    let found = frame.find(&mut v8.index, &mut v8.maps, Heap { layout: &v8.layout, target })?;
    let calls = v8.calls(noted(found), target)?;
    Some(calls.into_iter().map(|call| (call.function.unwrap_or_default(), call.line)).collect())
}

/// Reads any bytes as the memory of V8, and as its tables.
pub(crate) fn fuzz(data: &[u8]) {
    let image = Image(data);
    positions::position_at(data, 7);
    positions::bytecode_offset_at(data, 7, (0..9).map(|_| 1));
    safepoints::call_of_exit(data, 90, 60);
    let Some(mut v8) = v8(&[]) else { return };
    for region in [Region::Library, Region::Compiled] {
        for step in 0..8 {
            let returns_to = BASE + 0x1800 + step * 0x19;
            calls(&mut v8, STACK + step * 0x80, returns_to, region, &image);
        }
    }
}
