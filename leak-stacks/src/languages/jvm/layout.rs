//! Where HotSpot's structures have what is needed, in the release that a process runs.
//!
//! All of it is taken from the VM's own description, by name. Where releases differ, the fields
//! that are there tell which it is.

use crate::languages::jvm::description::{Description, Field};
use crate::languages::target::Target;

/// Words of the interpreter's frames, from the frame pointer (`frame_x86.hpp`).
pub(crate) const INTERPRETED_METHOD: i64 = -3;
pub(crate) const INTERPRETED_SENDER: i64 = -1;

/// First release in which the compressed numbers leave out the byte 0.
const WITHOUT_ZERO: u32 = 20;

/// A number in an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number(Field);

impl Number {
    fn of(description: &Description, owner: &str, name: &str) -> Option<Self> {
        description.field(owner, name).map(Self)
    }

    /// What it is in the object at `base`.
    pub(crate) fn read(self, base: u64, target: &dyn Target) -> Option<u64> {
        let address = base.checked_add(self.0.place)?;
        Some(match self.0.width {
            1 => target.u8(address)?.into(),
            2 => target.u16(address)?.into(),
            4 => target.u32(address)?.into(),
            _ => target.u64(address)?,
        })
    }

    /// The place so far from `base` as it says; `None` when it says that there is none.
    fn place(self, base: u64, target: &dyn Target) -> Option<u64> {
        /// Larger than any compiled method.
        const MOST: u64 = 64 << 20;
        let offset = self.read(base, target).filter(|&offset| offset <= MOST)?;
        base.checked_add(offset)
    }
}

/// Where something is: the object has a pointer to it, or how far it is from somewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    Pointer(Number),
    /// So far from the object.
    Offset(Number),
    /// From what the object has a pointer to.
    FromPointer(Number, Number),
    /// From the place that is so far from the object.
    FromOffset(Number, Number),
}

impl Place {
    /// Its address, of the object at `base`.
    pub(crate) fn find(self, base: u64, target: &dyn Target) -> Option<u64> {
        match self {
            Self::Pointer(pointer) => pointer.read(base, target).filter(|&at| at != 0),
            Self::Offset(offset) => offset.place(base, target),
            Self::FromPointer(pointer, offset) => {
                let from = pointer.read(base, target).filter(|&at| at != 0)?;
                from.checked_add(offset.read(base, target)?)
            }
            Self::FromOffset(place, offset) => {
                place.place(base, target)?.checked_add(offset.read(base, target)?)
            }
        }
    }
}

/// Where the list of code heaps is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Heaps {
    /// The variable with the only one, to JDK 8.
    One(u64),
    /// The variable with a growable array of them, and where its length and its elements are.
    Many { array: u64, length: Number, elements: Number },
}

/// A code heap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeapLayout {
    pub(crate) low: u64,
    pub(crate) high: u64,
    pub(crate) segments: u64,
    pub(crate) shift: Number,
    /// Size of what precedes each blob.
    pub(crate) header: u64,
    pub(crate) length: Number,
    pub(crate) is_used: Number,
}

/// A piece of code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlobLayout {
    pub(crate) name: Number,
    pub(crate) frame_size: Number,
    pub(crate) code: Place,
}

/// A compiled method.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompiledLayout {
    pub(crate) method: Number,
    /// Where to execution returns when the method is to be left for the interpreter, and the same
    /// at calls of method handles.
    pub(crate) deoptimized: [Option<Place>; 2],
    /// Where in the frame the place is kept that it had returned to.
    pub(crate) original: Number,
    /// Descriptions of places in the code, and where they end.
    pub(crate) places: (Place, Place),
    pub(crate) scopes: Place,
    pub(crate) metadata: Place,
}

/// A description of a place in the code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlaceLayout {
    pub(crate) size: u64,
    pub(crate) code: u64,
    pub(crate) scope: u64,
}

/// A method and what it is defined by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MethodLayout {
    pub(crate) definition: Number,
    pub(crate) constants: Number,
    /// Words that the definition takes.
    pub(crate) size: Number,
    pub(crate) flags: Number,
    pub(crate) code_size: Number,
    pub(crate) name: Number,
    /// Size of the definition, behind which the bytecode lies.
    pub(crate) header: u64,
}

/// A class and its constants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClassLayout {
    pub(crate) tags: Number,
    pub(crate) count: Number,
    pub(crate) class: Number,
    /// Size of the pool's head, behind which the constants lie.
    pub(crate) header: u64,
    pub(crate) constants: Number,
    pub(crate) name: Number,
    /// In the pool or, to JDK 14, in the class.
    pub(crate) file_of_pool: Option<Number>,
    pub(crate) file_of_class: Option<Number>,
    /// From an array of bytes to the first.
    pub(crate) array: u64,
    /// Where a symbol has its length, and its text.
    pub(crate) symbol_length: u64,
    pub(crate) symbol_text: u64,
}

/// A thread, and where it notes that it has left Java.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread {
    pub(crate) os_thread: Number,
    /// In what that points to, the thread's number for the kernel.
    pub(crate) number: Number,
    pub(crate) anchor_sp: Number,
    pub(crate) anchor_pc: Number,
    pub(crate) anchor_fp: Number,
}

/// Where the list of threads is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ThreadList {
    /// The variable with it, and where it has its length and its elements; since JDK 10.
    Array { variable: u64, length: Number, elements: Number },
    /// The variable with the first, and where each has the next.
    Chain { variable: u64, next: Number },
}

/// Where the threads are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Threads {
    pub(crate) list: ThreadList,
    pub(crate) thread: Thread,
}

/// All of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) heaps: Heaps,
    pub(crate) heap: HeapLayout,
    pub(crate) blob: BlobLayout,
    pub(crate) compiled: CompiledLayout,
    pub(crate) place: PlaceLayout,
    pub(crate) method: MethodLayout,
    pub(crate) class: ClassLayout,
    /// `None`: the VM does not describe them.
    pub(crate) threads: Option<Threads>,
    /// The variable with the address that Java code returns to when C++ has called it.
    pub(crate) call_stub_return: u64,
    /// Where an interpreter's frame has the address of its bytecode, in words.
    pub(crate) bytecode: i64,
    /// What compressed numbers have added to each byte.
    pub(crate) excess: u8,
}

impl Layout {
    /// The layout by the description; `None`: the release is not understood.
    pub(crate) fn of(vm: &Description, target: &dyn Target) -> Option<Self> {
        let number = |owner, name| Number::of(vm, owner, name);
        let heaps = match vm.variable("CodeCache", "_heaps") {
            Some(array) => Heaps::Many {
                array,
                length: number("GenericGrowableArray", "_len")
                    .or_else(|| number("GrowableArrayBase", "_len"))?,
                elements: number("GrowableArray<int>", "_data")?,
            },
            None => Heaps::One(vm.variable("CodeCache", "_heap")?),
        };
        let is_old = matches!(heaps, Heaps::One(_));
        let release = target.u32(vm.variable("Abstract_VM_Version", "_vm_major_version")?)?;
        Some(Self {
            heaps,
            heap: HeapLayout::of(vm)?,
            blob: BlobLayout::of(vm)?,
            compiled: CompiledLayout::of(vm)?,
            place: PlaceLayout {
                size: vm.size("PcDesc").filter(|&size| size >= 8)?,
                code: vm.offset("PcDesc", "_pc_offset")?,
                scope: vm.offset("PcDesc", "_scope_decode_offset")?,
            },
            method: MethodLayout::of(vm)?,
            class: ClassLayout::of(vm)?,
            threads: Threads::of(vm),
            call_stub_return: vm.variable("StubRoutines", "_call_stub_return_address")?,
            // The class's mirror came in with JDK 9.
            bytecode: if is_old { -7 } else { -8 },
            // JDK 8's VM counts otherwise, and is release 25.
            excess: u8::from(!is_old && release >= WITHOUT_ZERO),
        })
    }
}

impl Threads {
    /// Where they are by the description.
    pub(crate) fn of(vm: &Description) -> Option<Self> {
        let number = |owner, name| Number::of(vm, owner, name);
        let array = || {
            Some(ThreadList::Array {
                variable: vm.variable("ThreadsSMRSupport", "_java_thread_list")?,
                length: number("ThreadsList", "_length")?,
                elements: number("ThreadsList", "_threads")?,
            })
        };
        let chain = || {
            Some(ThreadList::Chain {
                variable: vm.variable("Threads", "_thread_list")?,
                next: number("JavaThread", "_next")?,
            })
        };
        let anchor = vm.offset("JavaThread", "_anchor")?;
        let in_anchor = |name| {
            let field = vm.field("JavaFrameAnchor", name)?;
            Some(Number(Field { place: field.place.checked_add(anchor)?, ..field }))
        };
        Some(Self {
            list: array().or_else(chain)?,
            thread: Thread {
                os_thread: number("Thread", "_osthread")
                    .or_else(|| number("JavaThread", "_osthread"))?,
                number: number("OSThread", "_thread_id")?,
                anchor_sp: in_anchor("_last_Java_sp")?,
                anchor_pc: in_anchor("_last_Java_pc")?,
                anchor_fp: in_anchor("_last_Java_fp")?,
            },
        })
    }
}

impl HeapLayout {
    fn of(vm: &Description) -> Option<Self> {
        let memory = vm.offset("CodeHeap", "_memory")?;
        let within = vm.offset("HeapBlock", "_header")?;
        let number = |name| {
            let field = vm.field("HeapBlock::Header", name)?;
            // `size_t` has no width of its own among the types' names that are known to be short.
            Some(Number(Field { place: field.place.checked_add(within)?, ..field }))
        };
        Some(Self {
            low: memory.checked_add(vm.offset("VirtualSpace", "_low_boundary")?)?,
            high: memory.checked_add(vm.offset("VirtualSpace", "_high_boundary")?)?,
            segments: vm
                .offset("CodeHeap", "_segmap")?
                .checked_add(vm.offset("VirtualSpace", "_low_boundary")?)?,
            shift: Number::of(vm, "CodeHeap", "_log2_segment_size")?,
            header: vm.size("HeapBlock")?,
            length: number("_length")?,
            is_used: number("_used")?,
        })
    }
}

impl BlobLayout {
    fn of(vm: &Description) -> Option<Self> {
        let number = |name| Number::of(vm, "CodeBlob", name);
        Some(Self {
            name: number("_name")?,
            frame_size: number("_frame_size")?,
            code: number("_code_begin")
                .map(Place::Pointer)
                .or_else(|| number("_code_offset").map(Place::Offset))?,
        })
    }
}

impl CompiledLayout {
    fn of(vm: &Description) -> Option<Self> {
        let own = |name| Number::of(vm, "nmethod", name);
        // Its base class from JDK 9 to 22.
        let base = |name| Number::of(vm, "CompiledMethod", name);
        let blob = |name| Number::of(vm, "CodeBlob", name);
        let places = own("_scopes_pcs_offset")?;
        let deoptimized = [
            ["_deoptimize_offset", "_deopt_handler_offset", "_deopt_handler_entry_offset"],
            ["_deoptimize_mh_offset", "_deopt_mh_handler_offset", ""],
        ];
        let pointers = ["_deopt_handler_begin", "_deopt_mh_handler_begin"];
        let [first, second] = deoptimized.map(|names| names.into_iter().find_map(own));
        let [first_pointer, second_pointer] = pointers.map(base);
        let either = |offset: Option<Number>, pointer: Option<Number>| {
            offset.map(Place::Offset).or_else(|| pointer.map(Place::Pointer))
        };
        let deoptimized = [either(first, first_pointer), either(second, second_pointer)];
        let (places, scopes, metadata) = match own("_immutable_data") {
            // Since JDK 23 what never changes lies apart, and since 25 what the collector changes.
            Some(apart) => {
                let scopes = own("_scopes_data_offset")?;
                let metadata = match blob("_mutable_data") {
                    Some(changing) => Place::FromPointer(changing, blob("_relocation_size")?),
                    None => Place::FromOffset(blob("_data_offset")?, own("_metadata_offset")?),
                };
                let within = |offset| Place::FromPointer(apart, offset);
                ((within(places), within(scopes)), within(scopes), metadata)
            }
            None => {
                let scopes = own("_scopes_data_offset")
                    .map(Place::Offset)
                    .or_else(|| base("_scopes_data_begin").map(Place::Pointer))?;
                let ends = Place::Offset(own("_dependencies_offset")?);
                ((Place::Offset(places), ends), scopes, Place::Offset(own("_metadata_offset")?))
            }
        };
        Some(Self {
            method: own("_method").or_else(|| base("_method"))?,
            deoptimized,
            original: own("_orig_pc_offset")?,
            places,
            scopes,
            metadata,
        })
    }
}

impl MethodLayout {
    fn of(vm: &Description) -> Option<Self> {
        let number = |name| Number::of(vm, "ConstMethod", name);
        Some(Self {
            definition: Number::of(vm, "Method", "_constMethod")?,
            constants: number("_constants")?,
            size: number("_constMethod_size")?,
            flags: number("_flags").or_else(|| number("_flags._flags"))?,
            code_size: number("_code_size")?,
            name: number("_name_index")?,
            header: vm.size("ConstMethod")?,
        })
    }
}

impl ClassLayout {
    fn of(vm: &Description) -> Option<Self> {
        let pool = |name| Number::of(vm, "ConstantPool", name);
        let class = |name| Number::of(vm, "InstanceKlass", name);
        let packed = || vm.offset("Symbol", "_length_and_refcount")?.checked_add(2);
        Some(Self {
            tags: pool("_tags")?,
            count: pool("_length")?,
            class: pool("_pool_holder")?,
            header: vm.size("ConstantPool")?,
            constants: class("_constants")?,
            name: Number::of(vm, "Klass", "_name")?,
            file_of_pool: pool("_source_file_name_index"),
            file_of_class: class("_source_file_name_index"),
            array: vm.offset("Array<u1>", "_data")?,
            symbol_length: vm.offset("Symbol", "_length").or_else(packed)?,
            symbol_text: vm.offset("Symbol", "_body")?,
        })
    }
}
