//! Fields that several kinds of records share.

use bytemuck::Pod;
use leak_common::connection as raw;

use crate::model::{Caller, Endpoints, ProcessKey, Timestamp};
use crate::sources::kernel::decode::error::DecodeError;
use crate::sources::procfs::ticks_from_boottime;

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

/// Both ends of a connection.
pub(super) fn endpoints(tuple: &raw::Tuple) -> Result<Endpoints, DecodeError> {
    Endpoints::from_tuple(tuple).ok_or(DecodeError::UnknownFamily(tuple.family))
}

/// A time; the programs write 0 for "never".
pub(super) fn timestamp(ns: u64) -> Option<Timestamp> {
    (ns != 0).then_some(Timestamp(ns))
}
