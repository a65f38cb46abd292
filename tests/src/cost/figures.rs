//! Measurements that a virtual machine passes to the program that booted it.

use serde::{Deserialize, Serialize};

use super::{Costs, Total};

/// The tracer's name in tables.
pub const OURS: &str = "pgsocktrace";

/// The result of measuring one watcher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The watcher's name.
    pub watcher: String,
    /// Its figures, or the error that prevented the measurement.
    pub measured: Result<Measured, String>,
}

/// The figures of one watcher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// CPU time of the watcher's kernel programs per event.
    pub programs: Costs,
    /// Total time per event.
    pub total: Total,
}

impl Figures {
    /// As one line of JSON, without the newline.
    pub fn line(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// Parses a line; `None` if it holds no figures.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        let measured = Measured {
            programs: [Some(41.25), None, Some(0.0), Some(-1.5), Some(1e6), None],
            total: Total {
                watched: [vec![1.5, 2.0], vec![], vec![3.25]],
                watcher: [vec![0.0], vec![-0.5], vec![]],
            },
        };
        for measured in [Ok(measured), Err("it says \"no\"\nand ends".to_owned())] {
            let figures = Figures { watcher: "bpftrace on kprobes".into(), measured };
            let line = figures.line().unwrap();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(Figures::read(&line), Some(figures));
        }
    }

    #[test]
    fn other_lines_are_no_figures() {
        for line in [
            "",
            "hooks: all attached",
            "{}",
            "{\"watcher\":\"x\"}",
            "{\"watcher\":\"x\",\"measured\":{\"Ok\":{}}}",
        ] {
            assert_eq!(Figures::read(line), None, "{line}");
        }
    }
}
