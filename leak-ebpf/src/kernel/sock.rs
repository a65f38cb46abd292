//! Sockets.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skc_to_tcp_sock};
use bytemuck::{Pod, must_cast};
use core::ffi::c_void;
use leak_common::config::MAX_PORTS;
use leak_common::connection::{AF_INET, AF_INET6, Tuple};

use crate::maps::constant;

/// `IPPROTO_TCP`.
const TCP: u16 = 6;

/// A `struct sock *`.
pub(crate) trait Sock: Copy {
    /// Its address.
    fn address(self) -> *const u8;

    /// The field at `offset`, which is from the kernel's BTF.
    fn read<T: Pod>(self, offset: u32) -> T;

    /// The kernel's identity of the socket; 0 when it has none yet and none can be made here.
    fn cookie(self) -> u64;

    /// How many bytes have arrived that the process has not read, the stream's end counting as one;
    /// 0 where that is not cheap to know.
    fn unread(self) -> u32;

    /// Whether it is a TCP socket to a traced port. The port comes first: it rules out nearly all.
    #[inline(always)]
    fn is_traced(self) -> bool {
        let port: u16 = self.read(constant!(LAYOUT.sk_dport));
        let mut index = 0;
        while index < MAX_PORTS {
            if index as u32 >= constant!(CONFIG.port_count) {
                return false;
            }
            if port == traced_port(index) {
                return is_tcp(self);
            }
            index += 1;
        }
        false
    }

    /// Both ends.
    #[inline(always)]
    fn tuple(self) -> Tuple {
        let family = u32::from(self.read::<u16>(constant!(LAYOUT.sk_family)));
        let (local, remote) = if family == AF_INET {
            let address = |offset| [u64::from(self.read::<u32>(offset)), 0];
            (address(constant!(LAYOUT.sk_rcv_saddr)), address(constant!(LAYOUT.sk_daddr)))
        } else {
            // In two loads of a width that the verifier accepts.
            let address = |offset| [self.read(offset), self.read(offset + 8)];
            (address(constant!(LAYOUT.sk_v6_rcv_saddr)), address(constant!(LAYOUT.sk_v6_daddr)))
        };
        Tuple {
            local: must_cast(local),
            remote: must_cast(remote),
            local_port: self.read(constant!(LAYOUT.sk_num)),
            remote_port: u16::from_be(self.read(constant!(LAYOUT.sk_dport))),
            family,
        }
    }

    /// The position up to which the process has read the stream.
    #[inline(always)]
    fn copied_seq(self) -> u32 {
        self.read(constant!(LAYOUT.tcp_copied_seq))
    }

    /// The error that ended the connection, if one did.
    #[inline(always)]
    fn error(self) -> u32 {
        self.read(constant!(LAYOUT.sk_err))
    }
}

/// A socket that a BTF tracepoint or an fexit program was passed. The verifier knows its type:
/// loads need no helper, and helpers accept it.
#[derive(Clone, Copy)]
pub(crate) struct BtfSock(pub(crate) *const u8);

impl BtfSock {
    /// The pointer as helpers take it.
    #[inline(always)]
    pub(crate) fn for_helpers(self) -> *mut c_void {
        self.0.cast_mut().cast()
    }
}

impl Sock for BtfSock {
    #[inline(always)]
    fn address(self) -> *const u8 {
        self.0
    }

    #[inline(always)]
    fn read<T: Pod>(self, offset: u32) -> T {
        // SAFETY: the offset lies inside the structure, and the verifier checks the load.
        unsafe { core::ptr::read_volatile(self.0.add(offset as usize).cast::<T>()) }
    }

    #[inline(always)]
    fn cookie(self) -> u64 {
        // SAFETY: the verifier knows the pointer as a socket's.
        unsafe { bpf_get_socket_cookie(self.for_helpers()) }
    }

    #[inline(always)]
    fn unread(self) -> u32 {
        // SAFETY: the verifier knows the pointer as a socket's.
        let tcp = Self(unsafe { bpf_skc_to_tcp_sock(self.for_helpers()) }.cast_const().cast());
        if tcp.0.is_null() {
            return 0;
        }
        // In this order: what arrives or is read by another thread in between only adds to it.
        let read = tcp.copied_seq();
        tcp.read::<u32>(constant!(LAYOUT.tcp_rcv_nxt)).wrapping_sub(read)
    }
}

/// A socket that a kprobe was passed: a mere number to the verifier.
#[derive(Clone, Copy)]
pub(crate) struct KprobeSock(pub(crate) *const u8);

impl Sock for KprobeSock {
    #[inline(always)]
    fn address(self) -> *const u8 {
        self.0
    }

    #[inline(always)]
    fn read<T: Pod>(self, offset: u32) -> T {
        // SAFETY: the offset lies inside the structure, and the helper faults safely.
        unsafe { bpf_probe_read_kernel(self.0.add(offset as usize).cast::<T>()) }
            .unwrap_or(T::zeroed())
    }

    #[inline(always)]
    fn cookie(self) -> u64 {
        self.read(constant!(LAYOUT.sk_cookie))
    }

    #[inline(always)]
    fn unread(self) -> u32 {
        0
    }
}

#[inline(always)]
fn is_tcp(sock: impl Sock) -> bool {
    let family = u32::from(sock.read::<u16>(constant!(LAYOUT.sk_family)));
    (family == AF_INET || family == AF_INET6)
        && sock.read::<u16>(constant!(LAYOUT.sk_protocol)) == TCP
}

#[inline(always)]
fn traced_port(index: usize) -> u16 {
    // SAFETY: the caller keeps the index below MAX_PORTS.
    unsafe {
        core::ptr::read_volatile((&raw const crate::maps::CONFIG.ports).cast::<u16>().add(index))
    }
}
