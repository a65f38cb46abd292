//! Instructions per event, measured in a virtual machine that counts them.

use std::fmt::Write as _;

use anyhow::{Result, anyhow};
use harness::cost::{EVENTS, Figures, Measured, OURS, Peer, TOTAL};

use super::{
    Bench,
    figure::{Row, Section, Spread},
};
use harness::vm;

/// What all figures are in.
const UNIT: &str = "instructions";

/// Measures the tracer and its peers in one machine.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Section>> {
    let (release, figures) = vm::count(&bench.workspace)?;
    sections(&release, &figures)
}

/// What the machine said, as tables.
fn sections(release: &str, figures: &[Figures]) -> Result<Vec<Section>> {
    let ours = of(figures, OURS).map_err(|why| anyhow!("The tracer was not measured: {why}"))?;
    let mut peers = Vec::new();
    let mut missing = String::new();
    for name in Peer::ALL.map(Peer::name) {
        match of(figures, name) {
            Ok(measured) => peers.push((name, measured)),
            Err(why) => {
                let _ =
                    write!(missing, " {name} is not measured, for it does not work there: {why}.");
            }
        }
    }
    let row = |what: String, spread: &dyn Fn(&Measured) -> Option<Spread>| {
        let mut row = Row::new(what, UNIT, spread(ours));
        let of_peer = |(name, of): &(_, &Measured)| Some((*name, spread(of)?));
        row.peers = peers.iter().filter_map(of_peer).collect();
        row
    };
    let programs = EVENTS
        .iter()
        .enumerate()
        .map(|(index, what)| row((*what).to_owned(), &|of| of.programs[index].map(Spread::one)));
    let watched = TOTAL.iter().enumerate().map(|(index, what)| {
        row((*what).to_owned(), &|of| Spread::of(of.total.watched[index].clone()))
    });
    let watchers = TOTAL.iter().enumerate().map(|(index, what)| {
        row(format!("the same in the watcher's process: {what}"), &|of| {
            Spread::of(of.total.watcher[index].clone())
        })
    });
    Ok(vec![
        Section {
            title: "Instructions",
            how: format!(
                "Of BPF programs and the helpers that they call, less those of an empty program, by the kernel's own \
                 count: in an emulated machine with Linux {release} and one processor, where a nanosecond is an \
                 instruction. All tools are measured in one boot; `cargo xtask bench machine` does it again. Nothing \
                 where a tool has no program for an event. pgsocktrace records every stack, which its budget \
                 (`--stack-budget`) would not let it. \"bpftrace\" has the same script as in “Per event”; \"bpftrace on kprobes\" \
                 keeps what is open, how often it was used and from where, until it is closed. tcptop and tcptracer \
                 use kprobes too, and cannot choose a port.{missing}"
            ),
            rows: programs.collect(),
        },
        Section {
            title: "Instructions in all",
            how: format!(
                "What the same machine takes more with a tool than without: the programs, the hooks that call them, \
                 which the kernel does not count above, and switches to the tool. What the tool's own process takes \
                 for the same, at once or soon afterwards, is told apart; what it does but once, as reading symbols, \
                 is left out. What the kernel puts off, such as freeing connections, counts for whoever runs then, so \
                 that of connections only both together are exact. Median of {} rounds, with bounds: tools without a \
                 program for an event show what is noise.",
                ours.total.watched[0].len()
            ),
            rows: watched.chain(watchers).collect(),
        },
    ])
}

/// The figures of a watcher, or why there are none.
fn of<'a>(figures: &'a [Figures], name: &str) -> Result<&'a Measured, &'a str> {
    let figures = figures.iter().find(|figures| figures.watcher == name);
    let figures = figures.ok_or("the machine said nothing of it")?;
    figures.measured.as_ref().map_err(String::as_str)
}

#[cfg(test)]
mod tests {
    use harness::cost::Total;

    use super::*;

    fn figures(watcher: &str, send: Option<f64>, total: f64) -> Figures {
        let mut programs = [None; EVENTS.len()];
        programs[0] = send;
        let timed = TOTAL.map(|_| vec![total]);
        let total = Total { watched: timed.clone(), watcher: timed };
        Figures { watcher: watcher.to_owned(), measured: Ok(Measured { programs, total }) }
    }

    #[test]
    fn peers_stand_beside_the_tracer_and_what_is_missing_is_said() {
        let mut all =
            vec![figures(OURS, Some(41.0), 100.0), figures("tcptop", Some(1744.0), 8769.0)];
        all.push(Figures { watcher: "tcplife".into(), measured: Err("it ended".into()) });
        let pages: Vec<String> =
            sections("6.12.1", &all).unwrap().iter().map(Section::markdown).collect();
        let [programs, total] = pages.as_slice() else { panic!("{pages:?}") };
        assert!(programs.contains("| | target | pgsocktrace | tcptop |\n"), "{programs}");
        let row = format!("| {}, instructions |  | 41 | 1744 |\n", EVENTS[0]);
        assert!(programs.contains(&row), "{programs}");
        for said in [
            "tcplife is not measured, for it does not work there: it ended.",
            "tcpstates is not measured, for it does not work there: the machine said nothing of it.",
        ] {
            assert!(programs.contains(said), "{programs}");
        }
        assert_eq!(total.matches("| 100 | 8769 |").count(), 2 * TOTAL.len(), "{total}");
    }

    #[test]
    fn without_the_tracer_there_is_nothing_to_compare() {
        assert!(sections("6.12.1", &[figures("tcptop", None, 1.0)]).is_err());
    }
}
