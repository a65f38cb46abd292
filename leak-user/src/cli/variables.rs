//! Environment variables that look like an option's and are none.

use std::collections::BTreeSet;

use clap::Command;

use crate::nearest::nearest;

/// How the variables of options begin.
const PREFIX: &str = "PGSOCKTRACE_";

/// A sentence for each of `names` that begins like an option's variable and is none.
pub(super) fn unknown(command: &Command, names: impl Iterator<Item = String>) -> Vec<String> {
    let mut known = BTreeSet::new();
    for command in std::iter::once(command).chain(command.get_subcommands()) {
        let variables = command.get_arguments().filter_map(|option| option.get_env());
        known.extend(variables.filter_map(|variable| variable.to_str()));
    }
    // Kubernetes sets such variables for a service of this name.
    let is_of_service = |name: &str| name.contains("_SERVICE_") || name.contains("_PORT_");
    let strange = |name: &String| {
        name.starts_with(PREFIX) && !known.contains(name.as_str()) && !is_of_service(name)
    };
    let sentence = |name: String| {
        let near = nearest(&name, known.iter().copied()).into_iter().next();
        let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        format!("{name} is the variable of no option{near}")
    };
    names.filter(strange).map(sentence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;

    #[test]
    fn a_typo_is_told_with_what_was_meant() {
        let names = [
            "PGSOCKTRACE_SILENTAFTER",
            "PGSOCKTRACE_PORT",
            "HOME",
            "PGSOCKTRACE_JUNIT",
            "PGSOCKTRACE_SERVICE_HOST",
        ];
        let told = unknown(&Cli::definition(), names.map(str::to_owned).into_iter());
        let [sentence] = told.as_slice() else { panic!("{told:?}") };
        assert!(sentence.contains("did you mean PGSOCKTRACE_SILENT_AFTER?"), "{sentence}");
    }
}
