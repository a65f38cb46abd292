use std::collections::HashMap;

use crate::sources::kernel::btf::*;

/// Writes BTF, to test the parser without a kernel.
#[derive(Default)]
struct Encoder {
    types: Vec<u8>,
    strings: Vec<u8>,
    names: HashMap<String, u32>,
    count: u32,
}

const INT: u32 = 1;

impl Encoder {
    fn name(&mut self, name: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if name.is_empty() {
            return 0;
        }
        *self.names.entry(name.to_owned()).or_insert_with(|| {
            let at = self.strings.len() as u32;
            self.strings.extend(name.as_bytes());
            self.strings.push(0);
            at
        })
    }

    fn words(&mut self, words: &[u32]) {
        self.types.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    }

    /// Adds a type, followed by `body`, and returns its id.
    fn add(&mut self, kind: u32, name: &str, count: u32, size_or_type: u32, body: &[u32]) -> u32 {
        let name = self.name(name);
        self.words(&[name, kind << 24 | count, size_or_type]);
        self.words(body);
        self.count += 1;
        self.count
    }

    /// A structure of (name, type, byte offset).
    fn structure(&mut self, name: &str, members: &[(&str, u32, u32)]) -> u32 {
        let mut body = Vec::new();
        for &(name, id, offset) in members {
            body.extend([self.name(name), id, offset * 8]);
        }
        self.add(Kind::Struct as u32, name, members.len() as u32, 4096, &body)
    }

    fn function(&mut self, name: &str, parameters: &[&str]) {
        let mut body = Vec::new();
        for name in parameters {
            body.extend([self.name(name), 1]);
        }
        let prototype = self.add(Kind::FuncProto as u32, "", parameters.len() as u32, 1, &body);
        self.add(Kind::Func as u32, name, 1, prototype, &[]);
    }

    fn finish(mut self) -> Vec<u8> {
        self.name("");
        let header = [24, 0, self.types.len() as u32, self.types.len() as u32];
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes.extend(header.iter().flat_map(|word| word.to_ne_bytes()));
        bytes.extend((self.strings.len() as u32).to_ne_bytes());
        bytes.extend(&self.types);
        bytes.extend(&self.strings);
        bytes
    }
}

/// A small kernel with everything that makes it difficult to find fields.
fn small_kernel() -> Encoder {
    kernel_with("skc_v6_", "start_boottime")
}

fn kernel_with(v6: &str, start: &str) -> Encoder {
    let mut btf = Encoder::default();
    let int = btf.add(INT, "int", 0, 4, &[32]);
    let pointer = btf.add(2, "", 0, int, &[]);
    btf.add(3, "", 0, 0, &[int, int, 4]);
    btf.add(6, "colour", 2, 4, &[0, 0, 0, 1]);
    btf.add(14, "a_variable", 0, int, &[1]);
    btf.add(15, ".data", 1, 4, &[5, 0, 4]);
    btf.add(17, "a_tag", 0, int, &[0]);
    btf.add(19, "wide", 1, 8, &[0, 0, 0]);
    let daddrs = btf.structure("", &[("skc_daddr", int, 0), ("skc_rcv_saddr", int, 4)]);
    let ports = btf.structure("", &[("skc_dport", int, 0), ("skc_num", int, 2)]);
    let ports = btf.add(Kind::Const as u32, "", 0, ports, &[]);
    let common = btf.structure(
        "sock_common",
        &[
            ("", daddrs, 0),
            ("", ports, 12),
            ("skc_family", int, 16),
            (&format!("{v6}daddr"), int, 56),
            (&format!("{v6}rcv_saddr"), int, 72),
            ("skc_cookie", int, 88),
        ],
    );
    // A second structure of the same name, without some of the fields.
    btf.structure("sock", &[("sk_protocol", int, 7), ("sk_err", int, 8)]);
    let alias = btf.add(Kind::Typedef as u32, "sock_common_t", 0, common, &[]);
    btf.structure(
        "sock",
        &[("__sk_common", alias, 8), ("sk_err", int, 200), ("sk_protocol", int, 204)],
    );
    btf.structure("tcp_sock", &[("rcv_nxt", int, 1500), ("copied_seq", int, 1504)]);
    let thread = btf.structure("thread_struct", &[("sp", int, 0), ("fsbase", int, 40)]);
    btf.structure(
        "task_struct",
        &[
            ("pid", int, 96),
            ("tgid", int, 100),
            ("flags", int, 92),
            ("group_leader", pointer, 104),
            ("files", pointer, 120),
            ("mm", pointer, 136),
            ("io_uring", pointer, 128),
            (start, int, 112),
            ("thread", thread, 1000),
        ],
    );
    btf.structure("mm_struct", &[("start_stack", int, 40)]);
    btf.structure("files_struct", &[("count", int, 0), ("fdt", pointer, 32)]);
    btf.structure("fdtable", &[("max_fds", int, 0), ("fd", pointer, 8)]);
    btf.structure("file", &[("private_data", pointer, 24)]);
    btf.structure("socket", &[("sk", pointer, 16)]);
    let names = ["bp", "dx", "si", "di", "orig_ax", "ip", "sp", "r15", "r14", "r13", "r12", "bx"];
    let registers: Vec<_> =
        names.into_iter().enumerate().map(|(index, name)| (name, int, index as u32 * 8)).collect();
    btf.structure("pt_regs", &registers);
    btf.function("tcp_recvmsg", &["sk", "msg", "len", "flags", "addr_len"]);
    btf.add(Kind::Typedef as u32, "btf_trace_sock_send_length", 0, pointer, &[]);
    btf
}

#[test]
fn every_field_is_found() {
    let bytes = small_kernel().finish();
    let layout = Btf::parse(&bytes).unwrap().layout().unwrap();
    // All fields are listed, so that a new one breaks the build here.
    let expected = leak_common::layout::Layout {
        sk_dport: 8 + 12,
        sk_num: 8 + 12 + 2,
        sk_family: 8 + 16,
        sk_rcv_saddr: 8 + 4,
        sk_daddr: 8,
        sk_v6_rcv_saddr: 8 + 72,
        sk_v6_daddr: 8 + 56,
        sk_cookie: 8 + 88,
        sk_protocol: 204,
        sk_err: 200,
        tcp_copied_seq: 1504,
        tcp_rcv_nxt: 1500,
        task_fsbase: 1040,
        task_pid: 96,
        task_tgid: 100,
        task_flags: 92,
        task_group_leader: 104,
        task_start_boottime: 112,
        task_io_uring: 128,
        task_files: 120,
        task_mm: 136,
        mm_start_stack: 40,
        files_fdt: 32,
        fdtable_fd: 8,
        file_private_data: 24,
        socket_sk: 16,
        regs_ip: 40,
        regs_sp: 48,
        regs_bp: 0,
        regs_bx: 88,
        regs_r12: 80,
        regs_r13: 72,
        regs_r14: 64,
        regs_r15: 56,
        regs_syscall: 32,
        regs_arg0: 24,
        regs_arg1: 16,
        regs_arg2: 8,
    };
    assert_eq!(layout, expected);
}

#[test]
fn functions_and_tracepoints() {
    let bytes = small_kernel().finish();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.function_arity("tcp_recvmsg"), Some(5));
    assert_eq!(btf.function_arity("tcp_recv"), None, "a beginning is not the name");
    assert!(btf.has_function("tcp_recvmsg") && !btf.has_function("sock_common_t"));
    assert!(btf.has_tracepoint("sock_send_length") && !btf.has_tracepoint("sock_send"));
}

#[test]
fn what_is_missing_is_named() {
    let mut btf = Encoder::default();
    let int = btf.add(INT, "int", 0, 4, &[32]);
    let no_structure = Btf::parse(&btf.finish()).unwrap().layout().unwrap_err().to_string();
    assert!(no_structure.contains("struct sock") && no_structure.contains("skc_dport"));
    let mut btf = Encoder::default();
    btf.add(INT, "int", 0, 4, &[32]);
    let common = btf.structure("sock_common", &[("skc_dport", int, 0)]);
    btf.structure("sock", &[("__sk_common", common, 0)]);
    let no_field = Btf::parse(&btf.finish()).unwrap().layout().unwrap_err().to_string();
    assert!(no_field.contains("`__sk_common.skc_num`"), "{no_field}");
}

#[test]
fn kernels_without_ipv6_and_with_older_names() {
    let layout = |v6, start| Btf::parse(&kernel_with(v6, start).finish()).unwrap().layout();
    let usual = layout("skc_v6_", "start_boottime").unwrap();
    let without_ipv6 = layout("no_", "start_boottime").unwrap();
    assert_eq!(without_ipv6.sk_v6_daddr, usual.sk_daddr);
    assert_eq!(without_ipv6.sk_v6_rcv_saddr, usual.sk_rcv_saddr);
    assert_eq!(layout("skc_v6_", "real_start_time").unwrap(), usual);
    let refused = layout("skc_v6_", "start").unwrap_err().to_string();
    assert!(refused.contains("`start_boottime`"), "today's name is reported: {refused}");
}

#[test]
fn bit_fields_have_no_offset() {
    assert_eq!(byte_offset(64, false), Some(8));
    assert_eq!(byte_offset(65, false), None);
    assert_eq!(byte_offset(64, true), Some(8));
    assert_eq!(byte_offset(1 << 24 | 64, true), None);
}

#[test]
fn cycles_end() {
    let mut btf = Encoder::default();
    // A typedef of itself, and a structure with itself as anonymous member, twice.
    btf.add(Kind::Typedef as u32, "loop", 0, 1, &[]);
    btf.structure("sock", &[("", 1, 0), ("", 2, 0), ("", 2, 0)]);
    let bytes = btf.finish();
    assert!(matches!(Btf::parse(&bytes).unwrap().layout(), Err(BtfError::Missing { .. })));
}

#[test]
fn absurd_counts_are_refused() {
    for kind in [4, 5, 6, 13, 15, 19] {
        let mut btf = Encoder::default();
        btf.add(kind, "much", 0xffff, 0, &[]);
        assert!(matches!(Btf::parse(&btf.finish()), Err(BtfError::Damaged { .. })), "{kind}");
    }
    let mut btf = Encoder::default();
    btf.add(31, "new", 0, 0, &[]);
    assert!(matches!(Btf::parse(&btf.finish()), Err(BtfError::UnknownKind { kind: 31 })));
    for at in (4..24).step_by(4) {
        let mut bytes = small_kernel().finish();
        bytes[at..at + 4].fill(0xff);
        assert!(matches!(Btf::parse(&bytes), Err(BtfError::Damaged { .. })), "header byte {at}");
    }
}

/// Calls everything on arbitrary input.
fn exercise(bytes: &[u8]) {
    if let Ok(btf) = Btf::parse(bytes) {
        let _ = btf.layout();
        let _ = btf.function_arity("tcp_recvmsg");
        let _ = btf.has_tracepoint("sock_send_length");
    }
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn damage_never_panics() {
    let whole = small_kernel().finish();
    for length in 0..whole.len() {
        assert!(Btf::parse(&whole[..length]).is_err(), "cut to {length} bytes");
    }
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..20_000 {
        let mut damaged = whole.clone();
        for _ in 0..=random(&mut state) % 8 {
            let at = random(&mut state) as usize % damaged.len();
            damaged[at] = random(&mut state) as u8;
        }
        exercise(&damaged);
    }
    for _ in 0..2_000 {
        let length = 24 + random(&mut state) as usize % 400;
        let mut garbage: Vec<u8> = (0..length).map(|_| random(&mut state) as u8).collect();
        garbage[..24].copy_from_slice(&whole[..24]);
        garbage[12..16].copy_from_slice(&((length as u32 - 24) & !3).to_ne_bytes());
        garbage[16..24].fill(0);
        exercise(&garbage);
    }
}

#[test]
fn the_running_kernel() {
    let Ok(bytes) = read_kernel() else {
        panic!("this needs {KERNEL_BTF}, as tracing does");
    };
    let started = std::time::Instant::now();
    let btf = Btf::parse(&bytes).unwrap();
    let layout = btf.layout().unwrap();
    eprintln!("{layout:?} in {:?}", started.elapsed());
    // Fixed by the layout of sockets and, for registers, by the system call entry code.
    assert_eq!((layout.sk_daddr, layout.sk_rcv_saddr, layout.sk_dport), (0, 4, 12));
    assert_eq!((layout.regs_bp, layout.regs_syscall, layout.regs_ip), (32, 120, 128));
    assert_eq!((layout.regs_bx, layout.regs_r12, layout.regs_r15), (40, 24, 0));
    assert!(layout.sk_cookie > layout.sk_family && layout.task_fsbase > layout.task_tgid);
    assert!(layout.sk_err > layout.sk_cookie && layout.sk_protocol > layout.sk_cookie);
    assert!(layout.tcp_copied_seq > layout.sk_err);
    assert!((4..=6).contains(&btf.function_arity("tcp_recvmsg").unwrap()));
    assert!(btf.has_tracepoint("inet_sock_set_state") && !btf.has_tracepoint("no_such_thing"));
}
