//! A connection that is never established.

use std::fmt;
use std::time::Duration;

use crate::engine::detect::{
    Detector, Evidence, Numbers, Reason, RetractionWords, Severity, Span, Verdict, View, plural,
};
use crate::engine::table::Connection;
use crate::model::{TcpState, Timestamp, WireState};

/// A connect that takes this long is stuck, also where silence is allowed to be longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Finds connections without a handshake, without a startup message or without an answer to it. The
/// server or the network may be to blame as well as the process.
pub(super) struct ConnectStuck;

impl Detector for ConnectStuck {
    fn reason(&self) -> Reason {
        Reason::ConnectStuck
    }

    fn severity(&self) -> Severity {
        Severity::Suspect
    }

    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
        let patience = view.thresholds().silent_after.min(PATIENCE);
        let stuck = |connection: &&Connection| {
            connection.tcp.state == TcpState::SynSent
                || connection.wire.state == WireState::Startup
                || is_shaking_hands(connection)
                || has_never_heard(connection)
                || is_beginning_encrypted(connection)
        };
        let accused =
            view.connections().filter(stuck).filter(|one| one.silent_for(now) >= patience);
        view.verdicts(self.reason(), accused, |members| (self.severity(), Stuck::new(members, now)))
    }

    fn next_step(&self, _severity: Severity, _place: &str) -> Option<String> {
        let step = "check that the server is reachable and accepts connections; set a timeout for \
                    connecting";
        Some(step.to_owned())
    }

    fn retraction(&self) -> RetractionWords {
        RetractionWords { moved: "went on", ..RetractionWords::default() }
    }
}

/// Whether the server has agreed to TLS, with its one byte, and sent nothing since.
fn is_shaking_hands(connection: &Connection) -> bool {
    const AGREED: u64 = 1;
    connection.wire.tls
        && connection.tcp.state == TcpState::Established
        && connection.traffic.bytes_received == AGREED
        && connection.traffic.unread_bytes.is_none_or(|bytes| bytes == 0)
}

/// Whether nobody saw it begin, and its server has never sent a byte: a session begins with an
/// answer.
fn has_never_heard(connection: &Connection) -> bool {
    connection.wire.state == WireState::Unknown
        && connection.opened_at.is_none()
        && connection.tcp.state == TcpState::Established
        && connection.traffic.bytes_received == 0
        && connection.traffic.unread_bytes.is_none_or(|bytes| bytes == 0)
}

/// Whether the server owes an answer to the first encrypted bytes: the end of the handshake, and
/// the startup message with it.
///
/// A client that asks for encryption sends at least three times until the server has taken its
/// startup message: what asks for encryption, what begins the handshake, and what ends it.
fn is_beginning_encrypted(connection: &Connection) -> bool {
    const LAST: u64 = 3;
    connection.wire.encryption_agreed
        && connection.tcp.state == TcpState::Established
        && connection.dialogue() == WireState::Unknown
        && connection.is_busy()
        && connection.requests.count == LAST
}

/// Whether the client has asked for encryption, with a packet of its own, and got no answer.
fn is_asking_for_encryption(connection: &Connection) -> bool {
    // SSLRequest and GSSENCRequest have 8 bytes; a startup message has more.
    const REQUEST: u64 = 8;
    let traffic = &connection.traffic;
    connection.wire.state == WireState::Startup
        && (traffic.bytes_sent, traffic.bytes_received) == (REQUEST, 0)
}

/// How far connections have got that are stuck.
#[derive(Debug, Default)]
struct Stuck {
    dialing: usize,
    asking: usize,
    encrypting: usize,
    beginning: usize,
    starting: usize,
    mute: usize,
    waited: Span,
}

impl Stuck {
    fn new(members: &[&Connection], now: Timestamp) -> Self {
        let waited = members.iter().map(|member| member.silent_for(now)).collect();
        let mut stuck = Self { waited, ..Self::default() };
        for member in members {
            *(match (member.tcp.state, member.requests.count) {
                (TcpState::SynSent, _) => &mut stuck.dialing,
                _ if is_shaking_hands(member) => &mut stuck.encrypting,
                _ if is_beginning_encrypted(member) => &mut stuck.beginning,
                _ if is_asking_for_encryption(member) => &mut stuck.asking,
                _ if has_never_heard(member) && member.traffic.bytes_sent > 0 => {
                    &mut stuck.starting
                }
                (_, 0) => &mut stuck.mute,
                _ => &mut stuck.starting,
            }) += 1;
        }
        stuck
    }

    fn connections(&self) -> usize {
        let encrypted = self.encrypting + self.beginning;
        self.dialing + self.asking + encrypted + self.starting + self.mute
    }
}

impl Evidence for Stuck {
    fn numbers(&self) -> Numbers {
        Numbers::of(self.connections())
            .count("without_handshake", self.dialing)
            .some("without_encryption_answer", self.asking)
            .count("without_tls", self.encrypting)
            .some("without_tls_or_startup_answer", self.beginning)
            .count("without_startup_answer", self.starting)
            .count("without_startup", self.mute)
            .span("waited_min_ms", "waited_max_ms", self.waited)
    }
}

/// "1 connection stuck for 38 s: no answer to the connect", or with counts when some have got
/// further than others.
impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.connections();
        write!(f, "{} stuck for {}: ", plural(all, "connection"), self.waited)?;
        let stages = [
            (self.dialing, "no answer to the connect"),
            (self.asking, "no answer to the request for encryption"),
            (self.encrypting, "the server agreed to TLS and did not go on"),
            (self.beginning, "no answer at the end of the TLS handshake or to the startup message"),
            (self.starting, "no answer to the startup message"),
            (self.mute, "nothing sent after the connect"),
        ];
        let reached = stages.into_iter().filter(|&(count, _)| count > 0);
        let say = |(count, what): (usize, &str)| {
            if count == all { what.to_owned() } else { format!("{what} ({count})") }
        };
        f.write_str(&reached.map(say).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::detect::testing::judge;
    use crate::engine::testing::{World, listed, secs};
    use crate::model::{ConnectionId, ListedSocket};

    #[test]
    fn finds_both_ways_to_be_stuck() {
        let mut world = World::new();
        world.dial(1, 1.0);
        world.dial(2, 1.0);
        world.establish(2, 1.1);
        world.request(2, 1.2, "", WireState::Startup);
        world.open(3, 1.0);
        assert!(judge(&world, 20.0).is_empty());
        let verdicts = judge(&world, 40.0);
        assert_eq!(verdicts.len(), 1);
        assert_eq!(verdicts[0].severity, Severity::Suspect);
        assert_eq!(
            verdicts[0].evidence.to_string(),
            "2 connections stuck for 38-39 s: \
             no answer to the connect (1), no answer to the startup message (1)"
        );
    }

    #[test]
    fn a_server_that_agrees_to_tls_and_falls_silent_is_told() {
        let mut world = World::new();
        for (number, received) in [(1, 1), (2, 2000)] {
            world.dial(number, 1.0);
            world.establish(number, 1.1);
            world.set(number, |usage| {
                usage.wire.tls = true;
                usage.bytes_received = received;
                usage.last_send = Some(secs(1.3));
                usage.last_receive = Some(secs(1.2));
            });
        }
        let stuck =
            judge(&world, 40.0).into_iter().filter(|one| one.reason == Reason::ConnectStuck);
        let told: Vec<_> =
            stuck.map(|one| (one.connections.len(), one.evidence.to_string())).collect();
        let why = "1 connection stuck for 38 s: the server agreed to TLS and did not go on";
        assert_eq!(told, [(1, why.to_owned())]);
    }

    #[test]
    fn whom_the_server_has_never_answered_is_stuck_however_old_it_is() {
        let mut world = World::new();
        let heard = listed(1, 10.0);
        let unheard = ListedSocket { bytes_received: 0, ..listed(2, 10.0) };
        world.inventory(20.0, vec![heard, unheard]);
        let verdicts = judge(&world, 60.0);
        let stuck: Vec<_> =
            verdicts.iter().filter(|one| one.reason == Reason::ConnectStuck).collect();
        assert_eq!(stuck.len(), 1, "{verdicts:?}");
        assert_eq!(stuck[0].connections, [ConnectionId(2)]);
        let evidence = stuck[0].evidence.to_string();
        assert!(evidence.ends_with("no answer to the startup message"), "{evidence}");
    }

    #[test]
    fn a_server_that_falls_silent_behind_the_handshake_is_told() {
        let mut world = World::new();
        for (number, requests, agreed) in [(1, 3, true), (2, 4, true), (3, 3, false)] {
            world.dial(number, 1.0);
            world.establish(number, 1.1);
            world.set(number, |usage| {
                (usage.wire.tls, usage.wire.encryption_agreed) = (true, agreed);
                (usage.requests, usage.bytes_received) = (requests, 2000);
                usage.last_send = Some(secs(1.3));
                usage.last_receive = Some(secs(1.2));
            });
        }
        let verdicts = judge(&world, 40.0);
        let stuck = verdicts.iter().filter(|one| one.reason == Reason::ConnectStuck);
        let told: Vec<_> = stuck.map(|one| one.evidence.to_string()).collect();
        let why = "1 connection stuck for 38 s: no answer at the end of the TLS handshake or to the \
                   startup message";
        assert_eq!(told, [why], "the others have begun a request");
        // The server has answered.
        world.set(1, |usage| usage.last_receive = Some(secs(1.4)));
        let verdicts = judge(&world, 40.0);
        assert!(verdicts.iter().all(|one| one.reason != Reason::ConnectStuck));
    }

    #[test]
    fn who_has_sent_nothing_awaits_no_answer() {
        let mut world = World::new();
        world.dial(1, 1.0);
        world.establish(1, 1.1);
        world.set(1, |usage| usage.wire.state = WireState::Startup);
        assert_eq!(
            judge(&world, 40.0)[0].evidence.to_string(),
            "1 connection stuck for 38 s: nothing sent after the connect"
        );
    }

    #[test]
    fn a_request_for_encryption_is_no_startup_message() {
        let mut world = World::new();
        world.dial(1, 1.0);
        world.establish(1, 1.1);
        world.set(1, |usage| {
            usage.wire.state = WireState::Startup;
            (usage.requests, usage.bytes_sent) = (1, 8);
            usage.last_send = Some(secs(1.2));
        });
        assert_eq!(
            judge(&world, 40.0)[0].evidence.to_string(),
            "1 connection stuck for 38 s: no answer to the request for encryption"
        );
    }
}
