//! Bytes from the kernel programs to [`Event`]s. Nothing is trusted: lengths are checked, numbers
//! are looked up, strings end at their buffer's end.

use leak_common::Plain;
use leak_common::connection::{self as raw, Connection, FirstBytes, Uses, flag, phase, state};
use leak_common::event::{Closed, Established, EventHeader, Failed, Opened, kind};
use leak_common::stack::{MAX_STACK, PythonFrame, StackHeader};

use crate::model::{
    Caller, ConnectionId, Endpoints, Event, ProcessKey, TcpState, Timestamp, Usage, Use, Wire,
    WireState,
};
use crate::sources::kernel::startup;
use leak_stacks::{InterpreterFrame, RawStack, TruncationReason, ticks_from_boottime, walker};

/// Why bytes are no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There are fewer bytes than the kind of event takes.
    #[error("an event of kind {kind:?} has {len} bytes, too few")]
    TooShort {
        /// The kind, if that could be read.
        kind: Option<u32>,
        /// How many bytes there are.
        len: usize,
    },
    /// The kind is not known.
    #[error("an event has the unknown kind {0}")]
    UnknownKind(u32),
    /// The socket is neither IPv4 nor IPv6.
    #[error("a connection has the unknown address family {0}")]
    UnknownFamily(u32),
    /// The TCP state is not one of the kernel's.
    #[error("a connection has the unknown TCP state {0}")]
    UnknownState(u32),
}

/// An event and, when a process called `connect()`, its stack.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// What happened.
    pub event: Event,
    /// The stack of the call, or why there is none; `None` for what is no call.
    pub stack: Option<Result<RawStack, TruncationReason>>,
}

/// Decodes one record of the ring buffer.
///
/// # Errors
///
/// When the bytes are no event that the kernel programs send.
pub fn event(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let header: EventHeader = read(bytes, None)?;
    let (id, at) = (ConnectionId(header.cookie), Timestamp(header.time_ns));
    let known = Some(header.kind);
    let event = match header.kind {
        kind::OPENED => {
            let opened: Opened = read(bytes, known)?;
            let stack = bytes.get(size_of::<Opened>()..).unwrap_or_default();
            let endpoints = endpoints(&opened.tuple)?;
            let event = Event::Opened { id, at, caller: caller(&opened.caller), endpoints };
            return Ok(Decoded { event, stack: Some(raw_stack(&opened.stack, stack)) });
        }
        kind::ESTABLISHED => {
            let established: Established = read(bytes, known)?;
            Event::Established { id, at, endpoints: endpoints(&established.tuple)? }
        }
        kind::FAILED => {
            let failed: Failed = read(bytes, known)?;
            let errno = i32::try_from(failed.errno).ok().filter(|&errno| errno != 0);
            Event::Failed { id, at, errno }
        }
        kind::CLOSED => {
            let closed: Closed = read(bytes, known)?;
            Event::Closed {
                id,
                at,
                usage: Box::new(usage(&closed.connection, Some(&closed.first_bytes))?),
            }
        }
        other => return Err(DecodeError::UnknownKind(other)),
    };
    Ok(Decoded { event, stack: None })
}

/// Decodes a slot of the table of connections and what was kept of how its dialogue began. `None` when
/// the connection failed to be established: its end was reported.
///
/// # Errors
///
/// When the slot holds what the kernel programs never write.
pub fn slot(
    connection: &Connection,
    first_bytes: Option<&FirstBytes>,
) -> Result<Option<Event>, DecodeError> {
    if connection.flags & flag::FAILED != 0 {
        return Ok(None);
    }
    let usage = Box::new(usage(connection, first_bytes)?);
    Ok(Some(Event::Used { id: ConnectionId(connection.cookie), usage }))
}

/// Takes over the `kept` latest uses of a connection, the oldest first.
#[must_use]
pub fn uses(uses: &Uses, kept: u32) -> Vec<Use> {
    let kept = u64::from(kept).clamp(1, uses.uses.len() as u64);
    (uses.begun.saturating_sub(kept)..uses.begun)
        .filter_map(|number| uses.uses.get((number % kept) as usize))
        .map(|one| Use {
            request: one.request,
            acquired_at: Timestamp(one.acquired_ns),
            released_at: moment(one.released_ns),
            pid: one.tgid,
            tid: one.tid,
            goroutine: None,
            stack: None,
        })
        .collect()
}

/// Takes over a copied stack.
///
/// # Errors
///
/// When nothing was copied, with the reason.
pub fn raw_stack(header: &StackHeader, bytes: &[u8]) -> Result<RawStack, TruncationReason> {
    let copied = bytes.get(..header.len as usize).unwrap_or_default();
    if copied.is_empty() {
        // The budget is looked at before it is decided how much is wanted.
        return Err(if header.wanted == 0 {
            TruncationReason::OverBudget
        } else {
            TruncationReason::UnreadableStack
        });
    }
    Ok(RawStack {
        process: process_key(header.tgid, header.process_start_ns),
        tid: header.tid,
        image: header.image,
        ip: header.ip,
        sp: header.sp,
        bp: header.bp,
        preserved: header.preserved,
        wanted: header.wanted,
        wanted_most: header.wanted as usize >= MAX_STACK,
        goroutine_window: header.goroutine.to_vec(),
        interpreter_frames: header
            .python
            .iter()
            .take(header.python_len as usize)
            .map(interpreter_frame)
            .collect(),
        interpreter_whole: header.python_whole != 0,
        interpreter_tag: header.python_tag,
        bytes: copied.to_vec(),
    })
}

fn interpreter_frame(frame: &PythonFrame) -> InterpreterFrame {
    let PythonFrame { code, instruction } = *frame;
    InterpreterFrame { pointer: code, position: instruction, cookie: 0, kind: walker::CPYTHON }
}

/// Copies a plain value from the beginning of `bytes`.
fn read<T: Plain>(bytes: &[u8], kind: Option<u32>) -> Result<T, DecodeError> {
    if bytes.len() < size_of::<T>() {
        return Err(DecodeError::TooShort { kind, len: bytes.len() });
    }
    // SAFETY: there are enough bytes, and every byte pattern is a valid T.
    Ok(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

fn process_key(tgid: u32, start_ns: u64) -> ProcessKey {
    ProcessKey { pid: tgid, start_ticks: ticks_from_boottime(start_ns) }
}

fn caller(caller: &raw::Caller) -> Caller {
    let end = caller.comm.iter().position(|&byte| byte == 0).unwrap_or(caller.comm.len());
    Caller {
        process: process_key(caller.tgid, caller.process_start_ns),
        tid: caller.tid,
        comm: String::from_utf8_lossy(caller.comm.get(..end).unwrap_or_default()).into_owned(),
    }
}

fn endpoints(tuple: &raw::Tuple) -> Result<Endpoints, DecodeError> {
    Endpoints::from_tuple(tuple).ok_or(DecodeError::UnknownFamily(tuple.family))
}

fn moment(ns: u64) -> Option<Timestamp> {
    (ns != 0).then_some(Timestamp(ns))
}

fn usage(connection: &Connection, first_bytes: Option<&FirstBytes>) -> Result<Usage, DecodeError> {
    let request_at = moment(connection.request_ns);
    Ok(Usage {
        opener: caller(&connection.opener),
        opened_at: Timestamp(connection.opened_ns),
        adopted: connection.flags & flag::ADOPTED != 0,
        endpoints: endpoints(&connection.tuple)?,
        tcp_state: TcpState::from_kernel(connection.tcp_state)
            .ok_or(DecodeError::UnknownState(connection.tcp_state))?,
        state_changed_at: Timestamp(connection.state_changed_ns),
        bytes_sent: connection.bytes_sent,
        bytes_received: connection.bytes_received,
        last_send: moment(connection.last_send_ns),
        last_receive: moment(connection.last_receive_ns),
        requests: connection.requests,
        request_at,
        moved: connection.flags & flag::MOVED != 0,
        request_by: request_at.map(|_| (connection.request_tgid, connection.request_tid)),
        wire: wire(connection, first_bytes),
    })
}

fn wire(connection: &Connection, first_bytes: Option<&FirstBytes>) -> Wire {
    let (startup, refusal) = first_bytes.map_or((&[][..], &[][..]), |kept| {
        (
            beginning(&kept.startup, connection.startup_len),
            beginning(&kept.refusal, connection.refusal_len),
        )
    });
    let startup = startup::parse(startup);
    let state = match (connection.phase, connection.wire) {
        (phase::NEW | phase::ENCRYPTION_ASKED | phase::STARTUP, _) => WireState::Startup,
        (phase::READY, _) if startup.replication => WireState::Replication,
        (phase::READY, state::IDLE) => WireState::Idle,
        (phase::READY, state::BUSY) => WireState::Busy,
        (phase::READY, state::IN_TRANSACTION) => WireState::InTransaction,
        (phase::READY, state::FAILED_TRANSACTION) => WireState::FailedTransaction,
        (phase::READY, state::COPY) => WireState::Copy,
        (phase::READY, state::REPLICATION) => WireState::Replication,
        _ => WireState::Unknown,
    };
    Wire {
        state,
        tls: connection.phase == phase::ENCRYPTED,
        listens: connection.flags & flag::LISTENS != 0,
        cancels: connection.flags & flag::CANCELS != 0,
        refused: startup::refusal(refusal),
        user: startup.user,
        database: startup.database,
        application_name: startup.application_name,
        backend_pid: (connection.backend_pid != 0).then_some(connection.backend_pid),
    }
}

/// The first `len` of the bytes; all where there are fewer.
fn beginning(bytes: &[u8], len: u32) -> &[u8] {
    bytes.get(..len as usize).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use leak_common::connection::{AF_INET, MAX_REFUSAL, MAX_STARTUP, Tuple};

    fn bytes_of<T: Plain>(value: &T) -> Vec<u8> {
        // SAFETY: a Plain value has no padding.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
            .to_vec()
    }

    fn tuple() -> Tuple {
        let mut local = [0; 16];
        local[..4].copy_from_slice(&[127, 0, 0, 1]);
        Tuple { local, remote: local, local_port: 40_000, remote_port: 5432, family: AF_INET }
    }

    const NOTHING: FirstBytes = FirstBytes { startup: [0; MAX_STARTUP], refusal: [0; MAX_REFUSAL] };

    fn connection() -> Connection {
        // SAFETY: every byte pattern is a valid Connection.
        let mut connection: Connection = unsafe { std::mem::zeroed() };
        connection.cookie = 7;
        connection.tuple = tuple();
        connection.tcp_state = 1;
        connection
    }

    fn closed() -> Vec<u8> {
        let header = EventHeader { kind: kind::CLOSED, reserved: 0, time_ns: 5, cookie: 7 };
        bytes_of(&Closed { header, connection: connection(), first_bytes: NOTHING })
    }

    #[test]
    fn decodes_what_it_was_sent() {
        let decoded = event(&closed()).unwrap();
        let Event::Closed { id, at, usage } = decoded.event else { panic!("{decoded:?}") };
        assert_eq!((id, at), (ConnectionId(7), Timestamp(5)));
        assert_eq!(usage.endpoints.local.to_string(), "127.0.0.1:40000");
        assert_eq!(usage.wire.state, WireState::Startup);
    }

    #[test]
    fn every_shorter_length_is_refused() {
        let bytes = closed();
        for len in 0..bytes.len() {
            assert!(matches!(event(&bytes[..len]), Err(DecodeError::TooShort { .. })), "{len}");
        }
    }

    #[test]
    fn every_first_byte_is_survived() {
        for first in 0..=u8::MAX {
            let mut bytes = closed();
            bytes[0] = first;
            let outcome = event(&bytes);
            let is_kind = (1..kind::COUNT as u32).contains(&first.into());
            let is_unknown = matches!(outcome, Err(DecodeError::UnknownKind(_)));
            assert_eq!(is_unknown, !is_kind, "kind {first}: {outcome:?}");
        }
    }

    #[test]
    fn absurd_numbers_are_refused() {
        let mut absurd = connection();
        absurd.tcp_state = 99;
        assert_eq!(slot(&absurd, None), Err(DecodeError::UnknownState(99)));
        let mut absurd = connection();
        absurd.tuple.family = 1;
        assert_eq!(slot(&absurd, None), Err(DecodeError::UnknownFamily(1)));
        let mut absurd = connection();
        absurd.startup_len = u32::MAX;
        absurd.phase = 77;
        absurd.wire = 77;
        let used = slot(&absurd, Some(&NOTHING));
        let Ok(Some(Event::Used { usage, .. })) = used else { panic!("{used:?}") };
        assert_eq!(usage.wire.state, WireState::Unknown);
    }

    #[test]
    fn a_failed_connection_is_no_connection() {
        let mut failed = connection();
        failed.flags = flag::FAILED;
        assert_eq!(slot(&failed, None), Ok(None));
    }

    #[test]
    fn the_kept_uses_are_the_latest_in_order() {
        // SAFETY: every byte pattern is a valid Uses.
        let mut raw: Uses = unsafe { std::mem::zeroed() };
        for number in 0..7 {
            let one = &mut raw.uses[number as usize % 3];
            (one.request, one.acquired_ns) = (number + 1, 10 * number);
        }
        let requests = |raw: &Uses, kept| {
            uses(raw, kept).into_iter().map(|one| one.request).collect::<Vec<_>>()
        };
        assert!(requests(&raw, 3).is_empty());
        raw.begun = 2;
        assert_eq!(requests(&raw, 3).len(), 2);
        raw.begun = 7;
        assert_eq!(requests(&raw, 3), [5, 6, 7]);
        assert_eq!(uses(&raw, 3)[0].released_at, None);
        raw.begun = u64::MAX;
        assert_eq!(requests(&raw, u32::MAX).len(), raw.uses.len());
    }

    #[test]
    fn a_stack_longer_than_its_record_is_refused() {
        // SAFETY: every byte pattern is a valid StackHeader.
        let mut header: StackHeader = unsafe { std::mem::zeroed() };
        header.len = 1024;
        assert_eq!(raw_stack(&header, &[0; 1024]).map(|s| s.bytes.len()), Ok(1024));
        assert_eq!(raw_stack(&header, &[0; 1023]), Err(TruncationReason::OverBudget));
        header.wanted = 8192;
        assert_eq!(raw_stack(&header, &[0; 1023]), Err(TruncationReason::UnreadableStack));
    }
}
