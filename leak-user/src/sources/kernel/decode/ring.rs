//! Decodes events of the ring buffer.

use leak_common::event::{Closed, Established, EventHeader, Failed, Opened, kind};
use leak_stacks::{RawStack, TruncationReason};

use crate::model::{ConnectionId, Event, Timestamp};
use crate::sources::kernel::decode::error::DecodeError;
use crate::sources::kernel::decode::fields::{caller, endpoints, read};
use crate::sources::kernel::decode::slots::usage;
use crate::sources::kernel::decode::stacks::raw_stack;

/// A decoded event and, for a call of `connect()`, its stack.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// What happened.
    pub event: Event,
    /// The stack of the call, or why it is missing; `None` for other events.
    pub stack: Option<Result<RawStack, TruncationReason>>,
}

/// Decodes one record of the ring buffer.
///
/// # Errors
///
/// When the bytes are not an event of the kernel programs.
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
