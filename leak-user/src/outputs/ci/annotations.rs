//! Annotations of source lines, as GitHub's workflow commands have them.

use std::io::Write;
use std::path::PathBuf;

use super::{Baseline, grave, message, title};
use crate::engine::detect::Severity;
use crate::engine::findings::{Change, Finding};
use crate::engine::snapshot::Snapshot;
use crate::outputs::{OutputError, Sink};

/// Writes a line for each open finding at the end.
pub(in crate::outputs) struct Annotations<W: Write> {
    out: W,
    baseline: Baseline,
    /// Files are told relative to it.
    checkout: Option<PathBuf>,
}

impl<W: Write> Annotations<W> {
    pub(in crate::outputs) fn new(out: W, baseline: Baseline, checkout: Option<PathBuf>) -> Self {
        Self { out, baseline, checkout }
    }

    fn line(&self, snapshot: &Snapshot<'_>, finding: &Finding) -> String {
        let known = self.baseline.has(snapshot.fingerprint(finding));
        let command = match finding.verdict.severity {
            _ if known => "notice",
            Severity::Leak => "error",
            Severity::Suspect | Severity::Info => "warning",
        };
        let mut properties = Vec::new();
        let culprit = snapshot.culprit(&finding.verdict);
        if let Some(file) = culprit.and_then(|culprit| culprit.file.as_deref()) {
            let checkout = self.checkout.as_ref();
            let inside =
                checkout.and_then(|root| std::path::Path::new(file).strip_prefix(root).ok());
            let file = inside.and_then(|path| path.to_str()).unwrap_or(file);
            properties.push(format!("file={}", property(file)));
            properties
                .extend(culprit.and_then(|culprit| culprit.line).map(|n| format!("line={n}")));
        }
        properties.push(format!("title={}", property(&title(snapshot, finding))));
        format!("::{command} {}::{}", properties.join(","), data(&message(snapshot, finding)))
    }
}

impl<W: Write> Sink for Annotations<W> {
    fn end(&mut self, snapshot: &Snapshot<'_>, _: &[Change]) -> Result<(), OutputError> {
        for finding in grave(snapshot) {
            let line = self.line(snapshot, finding);
            writeln!(self.out, "{line}").map_err(OutputError::other)?;
        }
        self.out.flush().map_err(OutputError::other)
    }
}

/// Text after the second pair of colons.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property's value.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outputs::testing::Run;

    fn written(baseline: Baseline) -> String {
        let mut run = Run::new();
        run.turn(200.0);
        let mut annotations = Annotations::new(Vec::new(), baseline, Some("src".into()));
        annotations.end(&run.snapshot(200.0), &[]).unwrap();
        String::from_utf8(annotations.out).unwrap()
    }

    #[test]
    fn a_leak_is_an_error_at_its_line() {
        let text = written(Baseline::default());
        let title = "::error file=report.go,line=41,title=abandoned in app%3A%3Areport::11 ";
        assert!(text.starts_with(title), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("%0Afingerprint: "), "{text}");
    }

    #[test]
    fn a_known_leak_is_a_notice() {
        let mut run = Run::new();
        run.turn(200.0);
        let snapshot = run.snapshot(200.0);
        let fingerprint = snapshot.fingerprint(grave(&snapshot)[0]).to_string();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("baseline");
        std::fs::write(&file, fingerprint).unwrap();
        assert!(written(Baseline::read(&file).unwrap()).starts_with("::notice file="));
    }

    #[test]
    fn text_cannot_make_commands_of_its_own() {
        assert_eq!(property("a:b,c%\n::error::x"), "a%3Ab%2Cc%25%0A%3A%3Aerror%3A%3Ax");
        assert_eq!(data("a\r\n::error::x"), "a%0D%0A::error::x");
    }
}
