//! How the cost of an interval grows with the number of connections, as a table and a chart.

use anyhow::{Context as _, Result, ensure};
use plotters::prelude::*;
use serde::Deserialize;
use support::{command::output, workspace::cargo};

use super::{
    Bench,
    figure::{Row, Section, Spread},
};
/// The picture, beside the page.
const PICTURE: &str = "performance-growth.svg";

/// What made-up histories of so many connections took.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
struct Growth {
    connections: f64,
    /// Nanoseconds of CPU time for taking in the state of all of them.
    refreshing_ns: f64,
    /// Nanoseconds of CPU time for judging all of them.
    judging_ns: f64,
}

impl Growth {
    /// Milliseconds of CPU time for taking in the state of all of them.
    fn refreshing(&self) -> f64 {
        self.refreshing_ns / 1e6
    }

    /// Milliseconds of CPU time for judging all of them.
    fn judging(&self) -> f64 {
        self.judging_ns / 1e6
    }
}

/// A figure of one size.
type Of = fn(&Growth) -> f64;

/// Runs the simulation.
pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let mut command = cargo(&bench.workspace);
    command.args(["run", "--release", "--locked", "-p", "leak-user", "--example", "scale"]);
    let output = output(command.args(["--", "--json"]))?;
    let growth: Vec<Growth> =
        output.lines().map(serde_json::from_str).collect::<Result<_, _>>().context(output)?;
    ensure!(growth.len() >= 4, "The simulation printed {} sizes.", growth.len());
    draw(bench, &growth).context("The growth cannot be drawn")?;
    let one = |what: String, unit, value| Row::new(what, unit, Some(Spread::one(value)));
    let rows = growth.iter().flat_map(|growth| {
        let with = |what: &str| format!("{what} {} connections", growth.connections);
        [
            one(with("taking in the state of"), "ms", growth.refreshing()),
            one(with("judging"), "ms", growth.judging()),
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
    let lines: [(&str, RGBColor, Of); 2] =
        [("taking in", BLUE, Growth::refreshing), ("judging", RED, Growth::judging)];
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
    fn reads_what_the_simulation_prints() {
        let line =
            r#"{"connections":1000,"refreshing_ns":2000000,"judging_ns":400000,"resident_mib":12}"#;
        let growth: Growth = serde_json::from_str(line).unwrap();
        assert_eq!((growth.connections, growth.refreshing(), growth.judging()), (1000.0, 2.0, 0.4));
    }
}
