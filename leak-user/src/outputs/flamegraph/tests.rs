use crate::outputs::flamegraph::*;
use crate::outputs::testing::Run;
use leak_stacks::Language;

fn bundle(process: &str, functions: &[&str], count: usize) -> Bundle {
    let frame = |function: &&str| Frame {
        function: Some((*function).to_owned()),
        module: None,
        file: None,
        line: None,
        address: 0,
    };
    let stack = Stack {
        id: StackId::from("s"),
        quality: Quality::Complete,
        truncation: None,
        language: Language::Native,
        frames: functions.iter().rev().map(frame).collect(),
        culprit: None,
        callers: Vec::new(),
    };
    Bundle { process: process.to_owned(), stack: Ok(Arc::new(stack)), count }
}

fn draw(bundles: Vec<Bundle>) -> String {
    String::from_utf8(Flames { by: By::LastUsedBy, bundles }.svg()).unwrap()
}

/// The titles of the boxes.
fn titles(svg: &str) -> Vec<&str> {
    svg.split("<title>")
        .skip(1)
        .filter_map(|rest| rest.split_once("</title>"))
        .map(|(t, _)| t)
        .collect()
}

#[test]
fn shows_open_connections_by_their_stacks() {
    let run = Run::new();
    let svg = |by| String::from_utf8(Flames::of(&run.snapshot(200.0), by).svg()).unwrap();
    let used = svg(By::LastUsedBy);
    let titles = titles(&used);
    assert!(titles.contains(&"all (13 connections, 100%)"), "{titles:#?}");
    let leak = "app::report report.go:41 (12 connections, 92.31%)";
    assert!(titles.contains(&leak), "{titles:#?}");
    assert!(titles.iter().any(|title| title.contains("in shop/orders-7d9f app (13")));
    // That stack is not at hand any more.
    assert!(titles.iter().any(|title| title.starts_with("[stack unknown] (1 ")), "{titles:#?}");
    let culprit = used.split(leak).nth(1).unwrap();
    assert!(culprit.split("</g>").next().unwrap().contains("rgb(235,90,70)"), "{culprit}");
    assert_eq!(used, svg(By::LastUsedBy), "the same connections, the same picture");
    assert!(svg(By::OpenedBy).contains("[stack unknown] (13 connections"));
}

#[test]
fn names_are_strangers_text() {
    let hostile = [
        "</title><script>alert(1)</script>",
        "a;b",
        "]]></script><script>",
        "nul\0bell\x07esc\x1b[2J\u{fffe}",
        "quote\"'&amp;",
        "",
        "   ",
        "ends with 5",
    ];
    let svg = draw(vec![bundle("# comment", &hostile, 3), bundle("other", &["main 1 2"], 4)]);
    let titles = titles(&svg);
    assert!(titles.contains(&"all (7 connections, 100%)"), "{titles:#?}");
    // The two processes, and each name as one box.
    assert_eq!(titles.len(), 1 + 2 + hostile.len() + 1, "{titles:#?}");
    assert!(
        titles.contains(
            &"&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt; (3 connections, 42.86%)"
        )
    );
    assert!(titles.contains(&"a\u{37e}b (3 connections, 42.86%)"));
    assert!(titles.contains(&"ends with\u{a0}5 (3 connections, 42.86%)"));
    assert!(titles.contains(&"main 1\u{a0}2 (4 connections, 57.14%)"), "{titles:#?}");
    assert_eq!(svg.matches("<script").count(), 1, "its own script alone");
    assert!(
        !svg.contains(|c: char| (c.is_control() && !c.is_ascii_whitespace()) || c == '\u{fffe}')
    );
}

#[test]
fn long_names_and_deep_stacks_are_bounded() {
    let long = "x".repeat(100_000);
    let functions = vec![long.as_str(); 200];
    let svg = draw(vec![bundle("deep", &functions, 1)]);
    assert!(svg.len() < 1 << 20, "{} bytes", svg.len());
}

#[test]
fn nothing_open_is_a_picture_too() {
    let svg = draw(Vec::new());
    assert!(svg.contains("No connection is open") && svg.ends_with("</svg>\n"));
}
