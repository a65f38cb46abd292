//! Fields that several kinds of records share.

use bytemuck::Pod;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use leak_common::connection as raw;

use crate::model::{Caller, Endpoints, ProcessKey, Timestamp};
use crate::sources::kernel::decode::error::DecodeError;
use leak_stacks::ticks_from_boottime;

/// Copies a plain value from the beginning of `bytes`.
pub(super) fn read<T: Pod>(bytes: &[u8], kind: Option<u32>) -> Result<T, DecodeError> {
    let value = bytes.get(..size_of::<T>()).map(bytemuck::pod_read_unaligned);
    value.ok_or(DecodeError::TooShort { kind, len: bytes.len() })
}

/// A process, by its PID and start time.
pub(super) fn process_key(tgid: u32, start_ns: u64) -> ProcessKey {
    ProcessKey { pid: tgid, start_ticks: ticks_from_boottime(start_ns) }
}

/// The process and thread that made a call.
pub(super) fn caller(caller: &raw::Caller) -> Caller {
    let end = caller.comm.iter().position(|&byte| byte == 0).unwrap_or(caller.comm.len());
    Caller {
        process: process_key(caller.tgid, caller.process_start_ns),
        tid: caller.tid,
        comm: String::from_utf8_lossy(caller.comm.get(..end).unwrap_or_default()).into_owned(),
    }
}

/// Both ends of a connection. IPv4-mapped IPv6 addresses are canonicalised.
pub(super) fn endpoints(tuple: &raw::Tuple) -> Result<Endpoints, DecodeError> {
    let address = |bytes: [u8; 16], port| {
        let ip = match tuple.family {
            raw::AF_INET => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
            raw::AF_INET6 => Ipv6Addr::from(bytes).to_canonical(),
            unknown => return Err(DecodeError::UnknownFamily(unknown)),
        };
        Ok(SocketAddr::new(ip, port))
    };
    Ok(Endpoints {
        local: address(tuple.local, tuple.local_port)?,
        remote: address(tuple.remote, tuple.remote_port)?,
    })
}

/// A time; the programs write 0 for "never".
pub(super) fn timestamp(ns: u64) -> Option<Timestamp> {
    (ns != 0).then_some(Timestamp(ns))
}
