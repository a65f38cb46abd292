use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::cli::Output as Format;
use crate::engine::Engine;
use crate::engine::detect::Thresholds;
use crate::engine::snapshot::{EventCounts, RunInfo, StackCopies};
use crate::engine::table::testing::{APP, caller, endpoints, listed, secs, usage};
use crate::model::Pod;
use crate::model::clock::Clock;
use crate::model::cost::{Cost, Sample};
use crate::model::process::ProcessInfo;
use crate::model::{Destination, DestinationKind, Event, StackId, StackRole, TcpState, WireState};
use crate::outputs::recording::*;
use crate::outputs::writer::Output;
use leak_stacks::{Frame, Language, Quality, Stack, StackCounts, TruncationReason};

type Told = Vec<(Timestamp, Fact)>;

fn beginning() -> Beginning {
    Beginning {
        run: RunInfo {
            version: "0.1.0".into(),
            host: "db-client".into(),
            kernel: "6.18.0".into(),
            hooks: BTreeMap::from([("connect".into(), "tp_btf/inet_sock_set_state".into())]),
            ports: vec![5432],
            started_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        },
        clock: Clock::new(secs(0.5), SystemTime::UNIX_EPOCH + Duration::from_nanos(987_654_321)),
        thresholds: Thresholds {
            silent_after: Duration::from_secs(60),
            interval: Duration::from_secs(10),
            limit: Some(100),
        },
        capacity: 1000,
    }
}

/// A pool that loses a connection every 10 s, told as a trace tells it.
fn story() -> Told {
    let mut told = Told::new();
    let frame = Frame {
        function: Some("app::report".into()),
        module: None,
        file: Some("src/ünïcode \"quoted\".rs".into()),
        line: Some(41),
        address: u64::MAX,
    };
    let stack = Arc::new(Stack {
        id: StackId::from("leak"),
        quality: Quality::Complete,
        truncation: None,
        language: Language::Native,
        frames: vec![frame],
        culprit: Some(0),
    });
    let info = ProcessInfo {
        key: APP,
        comm: "shop".into(),
        exe: Some("/srv/shop".into()),
        container_id: None,
        container_pid: None,
        pod_uid: None,
        pod: Some(Pod {
            namespace: "shop".into(),
            name: "orders-7d9f".into(),
            container: "app".into(),
            labels: BTreeMap::from([("app".into(), "orders".into())]),
        }),
        started_at: Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(1)),
    };
    told.push((secs(1.0), Fact::Process(info)));
    let (kind, namespace) = (DestinationKind::Pod, "db".to_owned());
    let name = Destination { kind, namespace, name: "postgres-0".to_owned() };
    let address = endpoints(1).remote.ip();
    told.push((secs(1.0), Fact::Destination { address, name }));
    told.push((secs(1.0), Fact::Stack(stack)));
    let mut open = Vec::new();
    for number in 1..=14 {
        let (id, at) = (ConnectionId(number), 10.0 * number as f64);
        let opened =
            Event::Opened { id, at: secs(at), caller: caller(APP), endpoints: endpoints(number) };
        told.push((secs(at), Fact::Event(opened)));
        let mut counters = usage(number, secs(at));
        counters.tcp_state = TcpState::Established;
        counters.state_changed_at = secs(at + 0.001);
        counters.requests = 2;
        counters.request_at = Some(secs(at + 0.1));
        counters.request_by = Some((APP.pid, APP.pid));
        counters.last_send = counters.request_at;
        counters.last_receive = Some(secs(at + 0.2));
        counters.wire.state = WireState::Idle;
        counters.wire.user = Some("shop".into());
        let used = Event::Used { id, usage: Box::new(counters.clone()) };
        told.push((secs(at + 1.0), Fact::Event(used)));
        let ids: Vec<_> = open.iter().map(|(id, _)| *id).collect();
        if !ids.is_empty() {
            told.push((secs(at + 1.0), Fact::Event(Event::Unchanged { ids })));
        }
        open.push((id, counters));
        let sockets = open.iter().map(|(id, _)| listed(id.0, 10.0 * id.0 as f64)).collect();
        let began = secs(at + 0.9);
        let inventory = Event::Inventory { began, sockets, complete: true };
        told.push((secs(at + 1.1), Fact::Event(inventory)));
        let (role, stack) = (StackRole::LastUsedBy { request: 2 }, Some(StackId::from("leak")));
        let resolved = Event::StackResolved { id, role, stack, goroutine: None };
        told.push((secs(at + 1.2), Fact::Event(resolved)));
        let counts = EventCounts {
            received: number,
            lost: 0,
            stacks_skipped: 0,
            stacks: StackCounts::default(),
            copies: StackCopies { recorded: number, ..StackCopies::default() },
            skipped_runs: number,
            cost: Cost { collector: Duration::from_millis(number), ..Cost::default() },
        };
        told.push((secs(at + 2.0), Fact::Judge(counts)));
    }
    let (id, usage) = open.swap_remove(3);
    let closed = Event::Closed { id, at: secs(150.0), usage: Box::new(usage) };
    told.push((secs(150.0), Fact::Event(closed)));
    told.push((secs(151.0), Fact::Exited(APP)));
    let mut stacks = StackCounts::default();
    stacks.add(Quality::None, Some(TruncationReason::NotRecorded));
    let kernel = Sample { busy: Duration::from_nanos(7), watched: Duration::from_secs(1) };
    let cost = Cost { kernel: Some(kernel), ..Cost::default() };
    let copies = StackCopies::default();
    let (received, lost, stacks_skipped, skipped_runs) = (15, 1, 2, 3);
    let counts = EventCounts { received, lost, stacks_skipped, stacks, copies, skipped_runs, cost };
    told.push((secs(152.0), Fact::End(counts)));
    told
}

/// The bytes of a recording of the story.
fn recorded() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run");
    let mut recorder = Recorder::create(&path, &beginning()).unwrap();
    for (now, fact) in story() {
        recorder.record(now, &fact);
    }
    recorder.finish();
    std::fs::read(&path).unwrap()
}

fn read(bytes: &[u8]) -> Result<(Told, Option<RecordingError>), RecordingError> {
    let mut recording = Recording::read(Cursor::new(bytes))?;
    let mut told = Told::new();
    loop {
        match recording.next_fact() {
            Ok(Some(next)) => told.push(next),
            Ok(None) => return Ok((told, None)),
            Err(error) => return Ok((told, Some(error))),
        }
    }
}

fn member(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// A recording's text.
fn text(bytes: &[u8]) -> String {
    io::read_to_string(flate2::read::MultiGzDecoder::new(bytes)).unwrap()
}

/// What an engine prints that is told this.
fn printed(beginning: Beginning, told: &Told, format: Format) -> Vec<u8> {
    #[derive(Clone, Default)]
    struct Shared(Rc<RefCell<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let out = Shared::default();
    let mut engine = Engine::new(beginning, Output::to(format, Box::new(out.clone())));
    for (now, fact) in told {
        engine.take(fact, *now).unwrap();
    }
    out.0.take()
}

#[test]
fn what_was_told_is_read_again() {
    let (told, error) = read(&recorded()).unwrap();
    assert!(error.is_none(), "{error:?}");
    assert_eq!(told, story());
}

#[test]
fn a_replay_prints_the_same() {
    let bytes = recorded();
    let again = Recording::read(Cursor::new(&bytes[..])).unwrap().beginning().clone();
    let (told, _) = read(&bytes).unwrap();
    for format in [Format::Text, Format::Json, Format::Ndjson] {
        let live = String::from_utf8(printed(beginning(), &story(), format)).unwrap();
        let replayed = String::from_utf8(printed(again.clone(), &told, format)).unwrap();
        assert_eq!(live, replayed);
        assert!(live.contains("abandoned") && live.contains("app::report"), "{live}");
    }
}

#[test]
fn counters_that_rest_are_told_once() {
    let text = text(&recorded());
    assert_eq!(text.matches("\"used\"").count(), 14);
    assert_eq!(text.matches("\"unchanged\"").count(), 13);
}

#[test]
fn a_file_cut_anywhere_gives_what_is_whole() {
    let bytes = recorded();
    let story = story();
    let mut most = 0;
    for end in (0..bytes.len()).step_by(53) {
        match read(&bytes[..end]) {
            Err(error) => assert!(matches!(error, RecordingError::Empty), "{end}: {error}"),
            Ok((told, error)) => {
                assert!(
                    matches!(error, None | Some(RecordingError::CutOff(_))),
                    "{end}: {error:?}"
                );
                assert_eq!(told, story[..told.len()]);
                assert!(told.len() >= most, "more bytes, fewer facts");
                most = told.len();
            }
        }
    }
    assert!(most > story.len() / 2 && most < story.len(), "{most} of {}", story.len());
}

#[test]
fn damage_is_noticed() {
    let bytes = recorded();
    let story = story();
    // The first bytes make the file a recording; of other members' headers only a part is checked.
    for at in (0..bytes.len()).step_by(97) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x55;
        if let Ok((told, _)) = read(&bytes) {
            assert_eq!(told, story[..told.len()], "byte {at}");
        }
    }
    let mut garbage = bytes;
    garbage.extend_from_slice(b"garbage, and more of it");
    let (told, error) = read(&garbage).unwrap();
    assert_eq!(told.len(), story.len());
    assert!(matches!(error, Some(RecordingError::Damaged { .. })), "{error:?}");
}

#[test]
fn other_files_are_refused() {
    let refused = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
    assert_eq!(refused(b""), "it ends before anything was recorded");
    for foreign in [b"PGDMP not ours".to_vec(), member("{}\n"), member("{\"schema\":\"x/1\"}\n")] {
        assert_eq!(refused(&foreign), "it is no recording of pgsocktrace");
    }
    let header = text(&recorded()).lines().next().unwrap().to_owned();
    let newer = header.replace("recording/1", "recording/2").replace("0.1.0", "9.9.9");
    assert!(refused(&member(&newer)).contains("made by pgsocktrace 9.9.9"));
    let newest = "{\"schema\":\"pgsocktrace.recording/7\",\"everything\":\"else\"}";
    assert!(refused(&member(newest)).contains("of later days"));
    for (honest, made_up) in [
        ("\"capacity\":1000", "\"capacity\":4000001"),
        ("\"silent_after\":{\"secs\":60", "\"silent_after\":{\"secs\":18446744073709551615"),
        ("\"interval\":{\"secs\":10", "\"interval\":{\"secs\":0"),
    ] {
        assert!(header.contains(honest), "{header}");
        let said = refused(&member(&header.replace(honest, made_up)));
        assert!(said.contains("its header holds settings that no run can have"), "{said}");
    }
}

#[test]
fn hostile_entries_are_refused() {
    let header = member(text(&recorded()).lines().next().unwrap());
    let refused = |lines: &str| {
        let bytes = [header.clone(), member(lines)].concat();
        let (told, error) = read(&bytes).unwrap();
        assert_eq!(told, []);
        error.unwrap().to_string()
    };
    assert!(refused("{\"at\":1,\"entry\":{\"dance\":{}}}").contains("unknown variant"));
    assert!(refused(&"[".repeat(100_000)).contains("is damaged"));
    // A thousand times larger when unpacked.
    let bomb = " ".repeat(MAX_TEXT + 1);
    assert!(refused(&bomb).contains("too large"));
}

#[test]
fn what_a_later_version_adds_is_skipped() {
    let text = text(&recorded());
    let added = text.replace("\"tls\":false", "\"tls\":false,\"cipher\":\"none\"");
    assert_ne!(text, added);
    let (told, error) = read(&member(&added)).unwrap();
    assert!(error.is_none(), "{error:?}");
    assert_eq!(told, story());
}

#[test]
fn only_its_owner_may_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run");
    std::fs::write(&path, "something longer than what is written now, readable by everyone")
        .unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    Recorder::create(&path, &beginning()).unwrap().finish();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(read(&std::fs::read(&path).unwrap()), Ok((told, None)) if told.is_empty()));
}

#[test]
fn a_full_disk_ends_the_recording_and_nothing_else() {
    let mut recorder = Recorder::create("/dev/full".as_ref(), &beginning()).unwrap();
    for _ in 0..1000 {
        for (now, fact) in story() {
            recorder.record(now, &fact);
        }
    }
    assert!(recorder.has_stopped());
    recorder.finish();
}
