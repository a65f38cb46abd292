//! Where sessions stand by the word of Go's drivers.
//!
//! | driver | where it has the state |
//! |---|---|
//! | lib/pq | behind its connection, reader, counter and a buffer of 512 bytes |
//! | pgx 4 and 5 | in `pgconn.PgConn`, the only word of its first ones that holds a state |
//!
//! Both keep the byte with which the server said last that it is ready. All of what leads there has
//! to be what it is in these drivers; otherwise nothing is told.

use crate::model::WireState;
use crate::sources::pools::go_values::GoValues;

/// Where a table of methods has its second one. The first one of a driver's connection is missing
/// in programs that do not begin transactions; each closes its connections.
const SECOND_METHOD: u64 = 32;
/// How the second methods of the drivers' connections end.
const LIB_PQ: &str = "github.com/lib/pq.(*conn).Close";
const PGX: &str = "stdlib.(*Conn).Close";
const PGX_MODULE: &str = "github.com/jackc/pgx/";

/// Words of lib/pq's connection: an interface, a reader and a counter; then a buffer.
const READER: usize = 2;
const COUNTER: usize = 3;
const STATE_BEHIND_BUFFER: u64 = 32 + 512;
/// No connection has prepared as many statements.
const MAX_COUNTER: u64 = 1 << 40;
/// Words of a `bufio.Reader` before what it reads from.
const READER_BUFFER: usize = 3;

/// Words of a `pgconn.PgConn` among which its state is; the first two are its connection.
const FIRST_WORDS: usize = 10;

/// The state of the session whose driver's connection is the interface at `address`.
pub(super) fn state(values: &GoValues<'_>, address: u64) -> Option<WireState> {
    let [table, connection] = values.array::<2>(address)?;
    let method = values.creator(values.word(table.checked_add(SECOND_METHOD)?)?)?;
    if method.ends_with(LIB_PQ) {
        of_lib_pq(values, connection)
    } else if method.contains(PGX_MODULE) && method.ends_with(PGX) {
        of_pgx(values, connection)
    } else {
        None
    }
}

fn of_lib_pq(values: &GoValues<'_>, connection: u64) -> Option<WireState> {
    let words = values.array::<{ COUNTER + 1 }>(connection)?;
    values.descriptor(connection)?;
    let [_, length, capacity, _, source] = values.array::<{ READER_BUFFER + 2 }>(words[READER])?;
    // The reader reads from the connection, whatever interface it has of it.
    let is_reader = source == words[1] && 0 < length && length <= capacity;
    if !is_reader || words[COUNTER] > MAX_COUNTER {
        return None;
    }
    state_of(values.word(connection.checked_add(STATE_BEHIND_BUFFER)?)?)
}

/// The state of the session whose `pgx.Conn` is what the first word at `connection` leads to: there
/// is one in `stdlib.Conn`, and in the connections of pgxpool.
pub(super) fn of_pgx(values: &GoValues<'_>, connection: u64) -> Option<WireState> {
    let low_level = values.word(values.word(connection)?)?;
    let words = values.array::<FIRST_WORDS>(low_level)?;
    values.first_method(words[0]).filter(|name| name.ends_with(".Close"))?;
    values.descriptor(low_level)?;
    let mut states = words.into_iter().skip(2).filter_map(state_of);
    states.next().filter(|_| states.next().is_none())
}

/// The state that a word holds, with nothing behind its first byte.
fn state_of(word: u64) -> Option<WireState> {
    match u8::try_from(word).ok()? {
        b'I' => Some(WireState::Idle),
        b'T' => Some(WireState::InTransaction),
        b'E' => Some(WireState::FailedTransaction),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::pools::testing::MadeUp;

    const DRIVER: u64 = 0x5000;
    const CONNECTION: u64 = 0x5100;

    /// A connection of the package `net` with the descriptor 7.
    fn network(memory: &mut MadeUp) -> [u64; 2] {
        memory.put_table(0x3000, "net.(*TCPConn).Close");
        memory.put(0x6400, &[0x6500]);
        memory.put(0x6500, &[0, 0, 7]);
        // What is no table has no function where its first method would be.
        for address in [0x6418, 0x6518] {
            memory.put(address, &[1]);
        }
        [0x3000, 0x6400]
    }

    fn lib_pq(state: u64) -> MadeUp {
        let mut memory = MadeUp::default();
        let [table, socket] = network(&mut memory);
        memory.put_table(0x1008, LIB_PQ);
        memory.put(DRIVER, &[0x1000, CONNECTION]);
        memory.put(CONNECTION, &[table, socket, 0x7000, 5]);
        memory.put(0x7000, &[0x8000, 4096, 4096, 0x9000, socket]);
        memory.put(CONNECTION + STATE_BEHIND_BUFFER, &[state]);
        memory
    }

    fn pgx(behind: [u64; 8]) -> MadeUp {
        let mut memory = MadeUp::default();
        let [table, socket] = network(&mut memory);
        memory.put_table(0x1008, "github.com/jackc/pgx/v5/stdlib.(*Conn).Close");
        memory.put(DRIVER, &[0x1000, CONNECTION]);
        memory.put(CONNECTION, &[0x7000]);
        memory.put(0x7000, &[0x7100]);
        memory.put(0x7100, &[table, socket]);
        memory.put(0x7110, &behind);
        memory
    }

    fn told(memory: &MadeUp) -> Option<WireState> {
        state(&GoValues::new(memory), DRIVER)
    }

    #[test]
    fn lib_pq_s_state() {
        assert_eq!(told(&lib_pq(b'I'.into())), Some(WireState::Idle));
        assert_eq!(told(&lib_pq(b'T'.into())), Some(WireState::InTransaction));
        assert_eq!(told(&lib_pq(b'E'.into())), Some(WireState::FailedTransaction));
        for none in [0, u64::from(b'X'), 0x100 | u64::from(b'T'), u64::MAX] {
            assert_eq!(told(&lib_pq(none)), None, "{none:#x}");
        }
    }

    #[test]
    fn what_is_not_lib_pq_s_connection_tells_nothing() {
        let mut other_reader = lib_pq(b'T'.into());
        other_reader.put(0x7020, &[0x6408]);
        assert_eq!(told(&other_reader), None);
        let mut no_reader = lib_pq(b'T'.into());
        no_reader.put(CONNECTION + 16, &[0xdead_0000]);
        assert_eq!(told(&no_reader), None);
        let mut no_counter = lib_pq(b'T'.into());
        no_counter.put(CONNECTION + 24, &[u64::MAX]);
        assert_eq!(told(&no_counter), None);
        let mut other_driver = lib_pq(b'T'.into());
        other_driver.put_table(0x1008, "example.com/pq.(*conn).Close");
        assert_eq!(told(&other_driver), None);
        assert_eq!(told(&MadeUp::default()), None);
    }

    #[test]
    fn pgx_s_state_is_the_only_one_there() {
        let number = 0x1234_0000_5678;
        let state = u64::from(b'T');
        let of = |behind| told(&pgx(behind));
        assert_eq!(of([number, 0xc000, state, 0xc100, 0, 0, 0, 2]), Some(WireState::InTransaction));
        // A later release has a longer key before it.
        let later = [number, 0xc000, 4, 4, 0xc100, state, 0xc200, 0];
        assert_eq!(of(later), Some(WireState::InTransaction));
        assert_eq!(of([number, 0xc000, state, state, 0, 0, 0, 2]), None, "which one?");
        assert_eq!(of([number, 0xc000, 0, 0xc100, 0, 0, 0, 2]), None);
    }
}
