use std::io::{Cursor, Write};
use std::os::unix::fs::PermissionsExt as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::outputs::recording::testing::{Told, beginning, story};
use crate::outputs::recording::*;

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

#[test]
fn what_was_told_is_read_again() {
    let (told, error) = read(&recorded()).unwrap();
    assert!(error.is_none(), "{error:?}");
    assert_eq!(told, story());
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
        assert_eq!(refused(&foreign), "it was not written by pgsocktrace --record");
    }
    let header = text(&recorded()).lines().next().unwrap().to_owned();
    let newer = header.replace("recording/2", "recording/3").replace("0.1.0", "9.9.9");
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

#[test]
fn a_fifo_that_nobody_reads_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
        .unwrap();
    assert!(Recorder::create(&path, &beginning()).is_err());
}
