//! What somebody may have meant.

/// The candidates that a word may be a misspelling of, or that contain it, the nearest first.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    const MOST: usize = 3;
    const ALIKE: f64 = 0.8;
    let word = word.trim_matches('*');
    let likeness = |candidate: &str| {
        let contains = word.len() > 2 && (candidate.contains(word) || word.contains(candidate));
        if contains && candidate.len() > 2 { 1.0 } else { strsim::jaro_winkler(word, candidate) }
    };
    let mut alike: Vec<_> = candidates
        .into_iter()
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .collect();
    alike.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let mut names: Vec<_> = alike.into_iter().map(|(_, candidate)| candidate).collect();
    names.dedup();
    names.truncate(MOST);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspellings_and_parts_are_near() {
        let names = ["orders-api", "billing", "bash", "PGSOCKTRACE_SILENT_AFTER"];
        assert_eq!(nearest("order", names), ["orders-api"]);
        assert_eq!(nearest("biling", names), ["billing"]);
        assert_eq!(nearest("PGSOCKTRACE_SILENTAFTER", names), ["PGSOCKTRACE_SILENT_AFTER"]);
        assert!(nearest("nosuchthing", names).is_empty());
    }
}
