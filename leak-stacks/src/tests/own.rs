//! This process.

use std::sync::Arc;

use crate::tests::{NOW, assert_in_order, key, names, own_stack, resolve};
use crate::{
    DriverFrames, Language, MappingReader, ModulesError, Observer, ProcessKey, ProcessSnapshot,
    Quality, RawStack, Resolver, Timestamp,
};

#[inline(never)]
fn innermost() -> RawStack {
    std::hint::black_box(own_stack())
}

#[inline(never)]
fn middle() -> RawStack {
    let raw = innermost();
    std::hint::black_box(raw)
}

#[inline(never)]
pub(crate) fn outermost() -> RawStack {
    let raw = middle();
    std::hint::black_box(raw)
}

#[test]
fn own_functions_in_order_with_lines_down_to_the_thread() {
    let raw = std::thread::spawn(outermost).join().unwrap();
    let (_, resolved) = resolve(&raw);
    let stack = resolved.stack.unwrap();
    assert_in_order(&stack, &["own::innermost", "own::middle", "own::outermost", "clone"]);
    assert_eq!(stack.quality, Quality::Complete, "{:#?}", names(&stack));
    assert!(!resolved.frames_wanted_more);
    assert_eq!(stack.language, Language::Native);
    let middle = stack.frames.iter().find(|f| f.function.as_deref().unwrap().contains("middle"));
    let middle = middle.unwrap();
    assert!(middle.file.as_deref().unwrap().ends_with("src/tests/own.rs"), "{middle:?}");
    assert!(middle.line.unwrap() < line!());
    let culprit = &stack.frames[stack.culprit.unwrap()];
    assert!(culprit.function.as_deref().unwrap().contains("tests::"), "{culprit:?}");
}

#[test]
fn the_code_of_a_library_s_functions() {
    let process = key(std::process::id());
    let mut resolver = Resolver::new(Arc::default());
    let mut functions = |library, names| resolver.functions(process, library, names, NOW);
    let found = functions("libc.so", ["getpid", "getppid"]);
    assert_eq!(found.len(), 1);
    let [one, other] = &found[0];
    assert!((1..=512).contains(&one.len()) && !other.is_empty() && one != other);
    assert!(functions("libc.so", ["getpid", "nowhere_to_be_found"]).is_empty());
    assert!(functions("libnone", ["getpid", "nowhere_to_be_found"]).is_empty());
}

#[test]
fn a_short_copy_is_truncated_and_says_that_more_would_help() {
    let whole = std::thread::spawn(outermost).join().unwrap();
    let mut cut = whole.clone();
    cut.bytes.truncate(512);
    cut.wanted = 512;
    let mut resolver = Resolver::new(Arc::default());
    let short = resolver.resolve(&cut, NOW);
    assert_eq!(short.stack.unwrap().quality, Quality::Truncated);
    assert!(short.frames_wanted_more);
    // The same bytes when more were asked for: more cannot be had.
    cut.wanted = 1024;
    assert!(!resolver.resolve(&cut, NOW).frames_wanted_more);
    // What failed for the short copy must not spoil the whole one.
    assert_eq!(resolver.resolve(&whole, NOW).stack.unwrap().quality, Quality::Complete);
}

#[test]
fn the_same_stack_is_shared_and_keeps_its_identity_across_resolvers() {
    let raw = std::thread::spawn(outermost).join().unwrap();
    let mut resolver = Resolver::new(Arc::default());
    let first = resolver.resolve(&raw, NOW).stack.unwrap();
    let second = resolver.resolve(&raw, NOW).stack.unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(first.id.to_string().len(), 16);
    assert_eq!(resolve(&raw).1.stack.unwrap().id, first.id);
    assert_eq!(resolver.held().0, 1);
    resolver.forget(raw.process);
    assert_eq!(resolver.held(), (0, 0));
}

#[test]
fn garbage_gives_no_stack_or_a_poor_one_but_never_a_panic() {
    let good = std::thread::spawn(outermost).join().unwrap();
    let mut resolver = Resolver::new(Arc::default());
    for (ip, sp, bp) in [(0, 0, 0), (u64::MAX, u64::MAX, u64::MAX), (good.ip, u64::MAX - 7, 1)] {
        let raw = RawStack { ip, sp, bp, ..good.clone() };
        let stack = resolver.resolve(&raw, NOW).stack.unwrap();
        assert_ne!(stack.quality, Quality::Complete);
    }
    let mut noise = good.clone();
    for (index, byte) in noise.bytes.iter_mut().enumerate() {
        *byte = (index as u8).wrapping_mul(31);
    }
    assert_ne!(resolver.resolve(&noise, NOW).stack.unwrap().quality, Quality::Complete);
    let stranger = ProcessKey { start_ticks: good.process.start_ticks + 1, ..good.process };
    assert!(resolver.resolve(&RawStack { process: stranger, ..good }, NOW).stack.is_none());
}

/// What goes through the door can go to another process.
#[test]
fn what_goes_in_and_comes_out_is_plain_data() {
    fn copy<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
        serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
    }
    /// Stands for another process: snapshots come as plain data and descriptors.
    #[derive(Debug)]
    struct Elsewhere(MappingReader);

    impl Observer for Elsewhere {
        fn look(
            &mut self,
            process: ProcessKey,
            now: Timestamp,
        ) -> Result<ProcessSnapshot, ModulesError> {
            let (data, files) = self.0.look(process, now)?.into_parts();
            Ok(ProcessSnapshot::from_parts(copy(&data), files).unwrap())
        }
    }

    let raw = std::thread::spawn(outermost).join().unwrap();
    assert_eq!(copy(&raw), raw);
    let (data, _) = MappingReader::default().look(raw.process, NOW).unwrap().into_parts();
    let observer = Box::new(Elsewhere(MappingReader::default()));
    let mut resolver = Resolver::with_observer(observer, Arc::default());
    let drivers: DriverFrames = "*own::innermost*".parse().unwrap();
    resolver.set_driver_frames(vec![copy(&drivers)]);
    let resolved = resolver.resolve(&raw, NOW);
    assert_eq!(copy(&resolved).stack.unwrap(), resolved.stack.unwrap());
    assert_eq!(copy(&resolver.profile(raw.process)), resolver.profile(raw.process));
    let without_a_file = ProcessSnapshot::from_parts(copy(&data), Vec::new());
    assert!(without_a_file.is_none(), "descriptors are missing");
}
