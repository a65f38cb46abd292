//! What drivers say of sessions, as read from programs' memory.

use std::time::Duration;

use crate::engine::table::{Connection, ConnectionTable, DriverSide};
use crate::model::{ConnectionId, ProcessKey, TcpState, Timestamp, WireState};

/// How long a connection has to be silent before its driver is asked, and believed: a driver takes
/// a moment to make up its mind about the bytes that it sent or received last.
const AT_REST: Duration = Duration::from_secs(1);
const SETTLED: Duration = Duration::from_millis(200);

impl Connection {
    /// What its driver said of this silence. Of a request that the server has not answered it may
    /// not know yet.
    #[must_use]
    pub fn driver_now(&self) -> Option<WireState> {
        let side = self.driver?;
        let is_of_now = side.at >= self.silent_since().after(SETTLED)
            && self.tcp.state == TcpState::Established
            && self.traffic.last_receive >= self.traffic.last_send;
        is_of_now.then_some(side.state)
    }

    /// The process that alone has it among its file descriptors: where several have, the driver of
    /// each knows only what went through its own hands.
    #[must_use]
    pub fn only_holder(&self) -> Option<ProcessKey> {
        match self.held_by.as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }
}

impl ConnectionTable {
    /// Connections at rest of which nobody has told where their session stands.
    pub fn wanting_state(&self, now: Timestamp) -> impl Iterator<Item = &Connection> {
        self.connections().filter(move |connection| {
            connection.tcp.state == TcpState::Established
                && connection.dialogue() == WireState::Unknown
                && connection.silent_for(now) >= AT_REST
        })
    }

    /// Learns what the driver of a process says.
    pub(super) fn hear_driver(
        &mut self,
        process: ProcessKey,
        at: Timestamp,
        states: &[(ConnectionId, WireState)],
    ) {
        for &(id, state) in states {
            let connection = self.connections.get_mut(&id);
            if let Some(known) = connection.filter(|known| known.only_holder() == Some(process)) {
                known.driver = Some(DriverSide { at, state });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::{APP, World, listed, secs};
    use crate::model::{Event, ListedSocket, StateSource};

    const OTHER: ProcessKey = ProcessKey { pid: 4243, start_ticks: 8 };

    fn world() -> World {
        let mut world = World::new();
        world.open(1, 1.0);
        world.request(1, 10.0, "pay", WireState::Unknown);
        hold(&mut world, 20.0, vec![APP]);
        world
    }

    /// The list says who has the connection, and nothing else that is new.
    fn hold(world: &mut World, at: f64, held_by: Vec<ProcessKey>) {
        let traffic = world.table.get(ConnectionId(1)).unwrap().traffic.clone();
        let socket = ListedSocket {
            held_by,
            bytes_sent: traffic.bytes_sent,
            bytes_received: traffic.bytes_received,
            last_send: traffic.last_send.unwrap(),
            last_receive: traffic.last_receive.unwrap(),
            ..listed(1, at)
        };
        world.inventory(at, vec![socket]);
    }

    fn say(world: &mut World, at: f64, process: ProcessKey) {
        let states = vec![(ConnectionId(1), WireState::InTransaction)];
        world.apply(&Event::StatesRead { process, at: secs(at), states }, secs(at + 0.1));
    }

    fn told(world: &World) -> Option<(WireState, StateSource)> {
        world.table.get(ConnectionId(1)).unwrap().told()
    }

    #[test]
    fn a_drivers_word_counts_for_the_silence_in_which_it_was_asked() {
        let mut world = world();
        assert_eq!(world.table.wanting_state(secs(20.0)).count(), 1);
        assert_eq!(told(&world), None);
        say(&mut world, 20.0, APP);
        assert_eq!(told(&world), Some((WireState::InTransaction, StateSource::Driver)));
        assert_eq!(world.table.wanting_state(secs(30.0)).count(), 0, "it need not be asked again");
        world.request(1, 40.0, "pay", WireState::Unknown);
        assert_eq!(told(&world), None);
        // Too soon after the last byte.
        let silent_since = world.table.get(ConnectionId(1)).unwrap().silent_since();
        say(&mut world, silent_since.0 as f64 / 1e9 + 0.1, APP);
        assert_eq!(told(&world), None);
        say(&mut world, 50.0, APP);
        assert_eq!(told(&world).map(|(state, _)| state), Some(WireState::InTransaction));
    }

    #[test]
    fn an_unanswered_request_is_not_the_drivers_to_tell() {
        let mut world = world();
        world.set(1, |usage| usage.last_send = Some(secs(15.0)));
        hold(&mut world, 20.0, vec![APP]);
        say(&mut world, 21.0, APP);
        assert_eq!(told(&world), None);
    }

    #[test]
    fn a_driver_whose_connection_others_have_too_knows_only_its_part() {
        let mut world = world();
        say(&mut world, 20.0, OTHER);
        assert_eq!(told(&world), None);
        hold(&mut world, 25.0, vec![APP, OTHER]);
        say(&mut world, 26.0, APP);
        assert_eq!(told(&world), None);
    }

    #[test]
    fn the_wire_knows_better() {
        let mut world = world();
        say(&mut world, 20.0, APP);
        world.set(1, |usage| usage.wire.state = WireState::Idle);
        assert_eq!(told(&world), Some((WireState::Idle, StateSource::Wire)));
    }
}
