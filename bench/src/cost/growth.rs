//! How judging grows with the number of connections, as a table and a picture.

use anyhow::{Context as _, Result, ensure};
use plotters::prelude::*;

use super::{
    Bench,
    figure::{Row, Section, Spread},
};
use support::{command::output, workspace::cargo};

/// The picture, beside the page.
const PICTURE: &str = "performance-growth.svg";

/// What made-up histories of so many connections took.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Growth {
    connections: f64,
    /// Milliseconds of CPU time for taking in the state of all of them.
    refreshing: f64,
    /// Milliseconds of CPU time for judging all of them.
    judging: f64,
    /// Resident memory, the made-up world included, in MiB.
    memory: f64,
}

/// A figure of one size.
type Of = fn(&Growth) -> f64;

/// Runs the simulation.
pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let mut command = cargo(&bench.workspace);
    let output =
        output(command.args(["run", "--release", "-p", "leak-user", "--example", "scale"]))?;
    let growth: Vec<Growth> = output.lines().filter_map(read).collect();
    ensure!(growth.len() >= 4, "The simulation says nothing that can be read: {output}");
    draw(bench, &growth).context("The growth cannot be drawn")?;
    let one = |what: String, unit, value| Row::new(what, unit, Some(Spread::one(value)));
    let rows = growth.iter().flat_map(|growth| {
        let with = |what: &str| format!("{what} {} connections", growth.connections);
        [
            one(with("taking in the state of"), "ms", growth.refreshing),
            one(with("judging"), "ms", growth.judging),
        ]
    });
    Ok(Section {
        title: "Growth",
        how: format!(
            "Made-up histories through the real table and detectors, CPU time of one interval \
             (`cargo xtask bench scale`).\n\n![CPU time by connections, both axes logarithmic]({PICTURE})"
        ),
        rows: rows.collect(),
    })
}

/// Reads a line of the simulation's table: connections, processes, and nanoseconds a connection for
/// opening, refreshing, judging and publishing, and memory, each with its unit.
fn read(line: &str) -> Option<Growth> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [connections, _, _, "ns", refreshing, "ns", judging, "ns", _, "ns", memory, "MiB", ..] =
        words.as_slice()
    else {
        return None;
    };
    let number = |text: &str| text.parse::<f64>().ok();
    let connections = number(connections)?;
    let total = |each: &str| Some(number(each)? * connections / 1e6);
    Some(Growth {
        connections,
        refreshing: total(refreshing)?,
        judging: total(judging)?,
        memory: number(memory)?,
    })
}

/// Draws both lines on logarithmic axes, where what is linear is a straight line at 45 degrees.
fn draw(bench: &Bench, growth: &[Growth]) -> Result<()> {
    let path = bench.workspace.join("docs").join(PICTURE);
    let (least, most) = (1e3, 1e6);
    let root = SVGBackend::new(&path, (720, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((least..most).log_scale(), (0.1..1e4).log_scale())?;
    chart.configure_mesh().x_desc("connections").y_desc("ms of CPU").draw()?;
    let lines: [(&str, RGBColor, Of); 2] = [
        ("taking in", BLUE, |growth| growth.refreshing),
        ("judging", RED, |growth| growth.judging),
    ];
    for (name, colour, of) in lines {
        let points = growth.iter().map(|growth| (growth.connections, of(growth)));
        chart
            .draw_series(LineSeries::new(points, &colour))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour));
    }
    chart.configure_series_labels().border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_simulation_s_table() {
        let line = "       1000        10   3000 ns      2000 ns     400 ns        500 ns   12 MiB   (0 ms a \
                    judgement, 1 findings)";
        let growth = Growth { connections: 1000.0, refreshing: 2.0, judging: 0.4, memory: 12.0 };
        assert_eq!(read(line), Some(growth));
        assert_eq!(read("connections processes"), None);
    }
}
