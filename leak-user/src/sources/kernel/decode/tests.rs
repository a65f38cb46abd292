use leak_common::connection::{
    AF_INET, Connection, FirstBytes, MAX_REFUSAL, MAX_STARTUP, Tuple, Uses, flag,
};
use leak_common::event::{Closed, EventHeader, kind};
use leak_common::stack::StackHeader;
use leak_stacks::TruncationReason;

use crate::model::{ConnectionId, Event, Timestamp, WireState};
use crate::sources::kernel::decode::{DecodeError, event, raw_stack, slot, uses};

fn tuple() -> Tuple {
    let mut local = [0; 16];
    local[..4].copy_from_slice(&[127, 0, 0, 1]);
    Tuple { local, remote: local, local_port: 40_000, remote_port: 5432, family: AF_INET }
}

const NOTHING: FirstBytes = FirstBytes { startup: [0; MAX_STARTUP], refusal: [0; MAX_REFUSAL] };

fn connection() -> Connection {
    let mut connection: Connection = bytemuck::zeroed();
    connection.cookie = 7;
    connection.tuple = tuple();
    connection.tcp_state = 1;
    connection
}

fn closed() -> Vec<u8> {
    let header = EventHeader { kind: kind::CLOSED, reserved: 0, time_ns: 5, cookie: 7 };
    let closed = Closed { header, connection: connection(), first_bytes: NOTHING };
    bytemuck::bytes_of(&closed).to_vec()
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
    let mut raw: Uses = bytemuck::zeroed();
    for number in 0..7 {
        let one = &mut raw.uses[number as usize % 3];
        (one.request, one.acquired_ns) = (number + 1, 10 * number);
    }
    let requests =
        |raw: &Uses, kept| uses(raw, kept).into_iter().map(|one| one.request).collect::<Vec<_>>();
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
    let mut header: StackHeader = bytemuck::zeroed();
    header.len = 1024;
    assert_eq!(raw_stack(&header, &[0; 1024]).map(|s| s.bytes.len()), Ok(1024));
    assert_eq!(raw_stack(&header, &[0; 1023]), Err(TruncationReason::OverBudget));
    header.wanted = 8192;
    assert_eq!(raw_stack(&header, &[0; 1023]), Err(TruncationReason::UnreadableStack));
}
