//! Where V8's objects and frames have what is needed, in the release that a process runs.
//!
//! Most of it V8 tells itself. What a release leaves out is taken from the one before, as long as
//! what it tells of the same object agrees; that it holds is seen when objects are read, by their
//! types.

use crate::languages::v8::metadata::Metadata;

/// Offsets in objects are in bytes from their beginning, those in frames from the frame pointer.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) frame: FrameLayout,
    pub(crate) types: Types,
    pub(crate) map_type: u64,
    pub(crate) function_shared: u64,
    pub(crate) shared: SharedLayout,
    pub(crate) scope: ScopeLayout,
    pub(crate) script: ScriptLayout,
    pub(crate) bytecode: BytecodeLayout,
    pub(crate) code: CodeLayout,
    pub(crate) strings: StringLayout,
}

/// Frames of JavaScript calls.
#[derive(Debug)]
pub(crate) struct FrameLayout {
    pub(crate) context: i64,
    pub(crate) function: i64,
    pub(crate) bytecode: i64,
    /// Of the interpreter: where in the bytecode it is.
    pub(crate) bytecode_offset: i64,
    /// Of what is not optimised: the function's feedback, in either of these slots.
    pub(crate) feedback: [i64; 2],
}

/// Instance types.
#[derive(Debug)]
pub(crate) struct Types {
    pub(crate) map: u16,
    pub(crate) functions: std::ops::RangeInclusive<u16>,
    pub(crate) shared: u16,
    pub(crate) shared_wrapper: Option<u16>,
    pub(crate) scope: u16,
    pub(crate) script: u16,
    pub(crate) bytecode: u16,
    pub(crate) interpreter_data: u16,
    pub(crate) code: u16,
    /// What holds machine code, where that is an object of its own.
    pub(crate) instructions: Option<u16>,
    /// What a function has in place of bytecode that it has not or no longer.
    pub(crate) uncompiled: [Option<u16>; 4],
    pub(crate) feedback: u16,
    pub(crate) list: u16,
    pub(crate) byte_arrays: [Option<u16>; 2],
    pub(crate) arrays: [Option<u16>; 6],
    /// Strings are all below this one.
    pub(crate) first_non_string: u16,
}

/// `SharedFunctionInfo`: what all closures of a function have in common.
#[derive(Debug)]
pub(crate) struct SharedLayout {
    /// What it runs.
    pub(crate) data: u64,
    pub(crate) name_or_scope: u64,
    pub(crate) script: u64,
    /// `UncompiledData`'s: where the function begins, and behind it where it ends.
    pub(crate) uncompiled_start: u64,
    /// `FeedbackVector`'s.
    pub(crate) of_feedback: u64,
}

/// `ScopeInfo`, whose length varies.
#[derive(Debug)]
pub(crate) struct ScopeLayout {
    /// Words before the names of the variables.
    pub(crate) first_names: u64,
    /// Whether where the function begins and ends in its script is right before the names.
    pub(crate) has_positions_first: bool,
}

/// `Script`.
#[derive(Debug)]
pub(crate) struct ScriptLayout {
    pub(crate) source: u64,
    pub(crate) name: u64,
    pub(crate) line_offset: u64,
    pub(crate) line_ends: u64,
    /// A list of what its functions' closures share.
    pub(crate) functions: u64,
}

/// `BytecodeArray`.
#[derive(Debug)]
pub(crate) struct BytecodeLayout {
    pub(crate) data: u64,
    pub(crate) positions: u64,
    /// How many bytes its registers take in a frame.
    pub(crate) frame_size: u64,
}

/// `Code`: what the compilers make.
#[derive(Debug)]
pub(crate) struct CodeLayout {
    /// Of optimised code what it can be left by; of baseline code its bytecode.
    pub(crate) data: u64,
    /// Of optimised code its positions in scripts; of baseline code those in its bytecode.
    pub(crate) positions: u64,
    pub(crate) flags: u64,
    pub(crate) size: u64,
    /// A pointer to its instructions; `None` when they lie in it.
    pub(crate) start: Option<u64>,
    /// Where instructions begin in what holds them.
    pub(crate) instructions: u64,
    pub(crate) kind_mask: u32,
    pub(crate) kind_baseline: u32,
    /// Which words of a deoptimisation's data have the literals, the function, the inlined calls.
    pub(crate) literals: u64,
    pub(crate) shared: u64,
    pub(crate) inlined: u64,
}

/// `String` in its forms.
#[derive(Debug)]
pub(crate) struct StringLayout {
    pub(crate) length: u64,
    pub(crate) characters: u64,
    pub(crate) first: u64,
    pub(crate) second: u64,
    pub(crate) actual: u64,
    pub(crate) parent: u64,
    pub(crate) offset: u64,
    pub(crate) resource: u64,
}

/// Where arrays have their length and their elements.
pub(crate) const ARRAY_LENGTH: u64 = 8;
pub(crate) const ARRAY_DATA: u64 = 16;
/// The same of lists, whose length is what they have room for.
pub(crate) const LIST_USED: u64 = 16;
pub(crate) const LIST_DATA: u64 = 24;
/// Functions that are not compiled.
const UNCOMPILED: [&str; 4] = [
    "UncompiledDataWithPreparseDataAndJob__UNCOMPILED_DATA_WITH_PREPARSE_DATA_AND_JOB_TYPE",
    "UncompiledDataWithPreparseData__UNCOMPILED_DATA_WITH_PREPARSE_DATA_TYPE",
    "UncompiledDataWithoutPreparseDataWithJob__UNCOMPILED_DATA_WITHOUT_PREPARSE_DATA_WITH_JOB_TYPE",
    "UncompiledDataWithoutPreparseData__UNCOMPILED_DATA_WITHOUT_PREPARSE_DATA_TYPE",
];
/// How many kinds of functions there are beside the plain ones.
const OTHER_FUNCTIONS: u16 = 16;

impl Layout {
    /// `None` when the metadata are none that are understood.
    pub(crate) fn of(metadata: &Metadata) -> Option<Self> {
        let constant = |name: &str| metadata.get(name);
        // 64-bit words: a pointer has 01 in its lowest bits, a small number is in the upper half.
        let tags = ["HeapObjectTag", "HeapObjectTagMask", "SmiTag", "SmiTagMask", "SmiShiftSize"];
        if tags.map(constant) != [Some(1), Some(3), Some(0), Some(1), Some(31)] {
            return None;
        }
        let strings = [
            ("StringRepresentationMask", 7),
            ("SeqStringTag", 0),
            ("ConsStringTag", 1),
            ("ExternalStringTag", 2),
            ("SlicedStringTag", 3),
            ("ThinStringTag", 5),
            ("StringEncodingMask", 8),
            ("OneByteStringTag", 8),
        ];
        if strings.iter().any(|&(name, value)| constant(name) != Some(value)) {
            return None;
        }
        Some(Self {
            frame: FrameLayout::of(metadata)?,
            types: Types::of(metadata)?,
            map_type: metadata.offset(&["Map__instance_type__uint16_t"])?,
            function_shared: metadata.offset(&["JSFunction__shared__SharedFunctionInfo"])?,
            shared: SharedLayout::of(metadata)?,
            scope: ScopeLayout::of(metadata)?,
            script: ScriptLayout::of(metadata)?,
            bytecode: BytecodeLayout::of(metadata)?,
            code: CodeLayout::of(metadata)?,
            strings: StringLayout::of(metadata)?,
        })
    }
}

impl FrameLayout {
    fn of(metadata: &Metadata) -> Option<Self> {
        let slot = |name: &str| {
            let offset = metadata.get(&format!("off_fp_{name}"))?;
            (-256..0).contains(&offset).then_some(i64::from(offset))
        };
        let bytecode_offset = slot("bytecode_offset")?;
        Some(Self {
            context: slot("context")?,
            function: slot("function")?,
            bytecode: slot("bytecode_array")?,
            bytecode_offset,
            feedback: [bytecode_offset, bytecode_offset - 8],
        })
    }
}

impl Types {
    fn of(metadata: &Metadata) -> Option<Self> {
        let kind = |name: &str| metadata.instance_type(name);
        let number = |name: &str| u16::try_from(metadata.get(name)?).ok();
        let function = kind("JSFunction__JS_FUNCTION_TYPE")?;
        let last =
            number("LastJSFunctionType").or_else(|| function.checked_add(OTHER_FUNCTIONS))?;
        Some(Self {
            map: kind("Map__MAP_TYPE")?,
            functions: function..=last,
            shared: kind("SharedFunctionInfo__SHARED_FUNCTION_INFO_TYPE")?,
            shared_wrapper: kind("SharedFunctionInfoWrapper__SHARED_FUNCTION_INFO_WRAPPER_TYPE"),
            scope: kind("ScopeInfo__SCOPE_INFO_TYPE")?,
            script: kind("Script__SCRIPT_TYPE")?,
            bytecode: kind("BytecodeArray__BYTECODE_ARRAY_TYPE")?,
            interpreter_data: kind("InterpreterData__INTERPRETER_DATA_TYPE")?,
            code: kind("Code__CODE_TYPE")?,
            instructions: kind("InstructionStream__INSTRUCTION_STREAM_TYPE"),
            uncompiled: UNCOMPILED.map(kind),
            feedback: kind("FeedbackVector__FEEDBACK_VECTOR_TYPE")?,
            list: kind("WeakArrayList__WEAK_ARRAY_LIST_TYPE")?,
            byte_arrays: [
                kind("ByteArray__BYTE_ARRAY_TYPE"),
                kind("TrustedByteArray__TRUSTED_BYTE_ARRAY_TYPE"),
            ],
            arrays: [
                kind("FixedArray__FIXED_ARRAY_TYPE"),
                kind("WeakFixedArray__WEAK_FIXED_ARRAY_TYPE"),
                kind("TrustedFixedArray__TRUSTED_FIXED_ARRAY_TYPE"),
                kind("ProtectedFixedArray__PROTECTED_FIXED_ARRAY_TYPE"),
                kind("TrustedWeakFixedArray__TRUSTED_WEAK_FIXED_ARRAY_TYPE"),
                kind("ProtectedWeakFixedArray__PROTECTED_WEAK_FIXED_ARRAY_TYPE"),
            ],
            first_non_string: number("FirstNonstringType")?,
        })
    }
}

impl SharedLayout {
    fn of(metadata: &Metadata) -> Option<Self> {
        Some(Self {
            data: 8,
            name_or_scope: metadata.offset(&[
                "SharedFunctionInfo__name_or_scope_info__Object",
                "SharedFunctionInfo__name_or_scope_info__Tagged_Object_",
                "SharedFunctionInfo__name_or_scope_info__Tagged_NameOrScopeInfoT_",
            ])?,
            script: metadata.offset(&[
                "SharedFunctionInfo__script_or_debug_info__HeapObject",
                "SharedFunctionInfo__script__Tagged_HeapObject_",
                "SharedFunctionInfo__raw_script__Tagged_Object_",
            ])?,
            uncompiled_start: metadata.offset(&["UncompiledData__start_position__int32_t"])?,
            of_feedback: 24,
        })
    }
}

impl ScopeLayout {
    fn of(metadata: &Metadata) -> Option<Self> {
        let first_names = u64::try_from(metadata.get("scopeinfo_idx_first_vars")?).ok()?;
        // Flags and two numbers of variables; newer releases then have the positions.
        let has_positions_first = match first_names {
            3 => false,
            5 => true,
            _ => return None,
        };
        Some(Self { first_names, has_positions_first })
    }
}

impl ScriptLayout {
    fn of(metadata: &Metadata) -> Option<Self> {
        let name = metadata.offset(&["Script__name__Object"])?;
        Some(Self {
            source: metadata.offset(&["Script__source__Object"])?,
            name,
            line_offset: name + 8,
            line_ends: metadata.offset(&["Script__line_ends__Object"])?,
            functions: metadata.offset(&["Script__eval_from_position__SMI"])? + 8,
        })
    }
}

impl BytecodeLayout {
    fn of(metadata: &Metadata) -> Option<Self> {
        // Since it has a wrapper its tables come in another order.
        let has_wrapper = metadata.offset(&["BytecodeArray__wrapper__Tagged_BytecodeWrapper_"]);
        let (positions, frame_size) = if has_wrapper.is_some() { (24, 48) } else { (32, 40) };
        Some(Self {
            data: metadata.offset(&["BytecodeArray__data__uintptr_t"])?,
            positions,
            frame_size,
        })
    }
}

impl CodeLayout {
    fn of(metadata: &Metadata) -> Option<Self> {
        let offset = |names: &[&str]| metadata.offset(names);
        let index = |name: &str, otherwise: u64| {
            let known = metadata.get(&format!("DeoptimizationData{name}Index"));
            known.and_then(|index| u64::try_from(index).ok()).unwrap_or(otherwise)
        };
        let constant = |name: &str| Some(metadata.get(name)?.cast_unsigned());
        let has_wrapper = offset(&["Code__wrapper__Tagged_CodeWrapper_"]).is_some();
        let outside = offset(&["InstructionStream__instruction_start__uintptr_t"]);
        let (data, positions) = if has_wrapper { (8, 16) } else { (16, 24) };
        Some(Self {
            data,
            positions,
            flags: offset(&["Code__flags__uint32_t"]).unwrap_or(48),
            size: offset(&["Code__instruction_size__int"]).unwrap_or(56),
            start: outside.map(|_| offset(&["Code__instruction_start__Address"]).unwrap_or(40)),
            instructions: outside.or_else(|| offset(&["Code__instruction_start__uintptr_t"]))?,
            kind_mask: constant("CodeKindFieldMask")?,
            kind_baseline: constant("CodeKindBaseline")?,
            literals: index("LiteralArray", 2),
            shared: index("WrappedSharedFunctionInfo", index("SharedFunctionInfo", 6)),
            inlined: index("InliningPositions", 7),
        })
    }
}

impl StringLayout {
    fn of(metadata: &Metadata) -> Option<Self> {
        let offset = |name: &str| metadata.offset(&[name]);
        let characters = offset("SeqOneByteString__chars__char")?;
        if offset("SeqTwoByteString__chars__char")? != characters {
            return None;
        }
        Some(Self {
            length: offset("String__length__int32_t")?,
            characters,
            first: offset("ConsString__first__String")?,
            second: offset("ConsString__second__String")?,
            actual: offset("ThinString__actual__String")?,
            parent: offset("SlicedString__parent__String")?,
            offset: offset("SlicedString__offset__SMI")?,
            resource: offset("ExternalString__resource__Object")?,
        })
    }
}
