//! Labels that users give with `--label`.

use std::str::FromStr;

use crate::outputs::prometheus::names::OWN_LABELS;

/// A label that every series carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// The error for a label that Prometheus does not accept, or that the metrics use.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// The text has no `=`.
    #[error("it must be NAME=VALUE, as in service=orders")]
    NoValue,
    /// The name is not valid in Prometheus.
    #[error(
        "`{0}` cannot be a label's name: it takes letters, digits and _, no digit first and not __"
    )]
    BadName(String),
    /// The metrics already use the label.
    #[error("the metrics use the label `{0}` themselves; take another name")]
    Taken(String),
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let (name, value) = text.split_once('=').ok_or(LabelError::NoValue)?;
        if !is_label_name(name) {
            return Err(LabelError::BadName(name.to_owned()));
        }
        if OWN_LABELS.contains(&name) || name.starts_with(POD_LABEL) {
            return Err(LabelError::Taken(name.to_owned()));
        }
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

/// Prefix of labels that come from pods.
const POD_LABEL: &str = "label_";

/// The metric label for a pod's label, named as kube-state-metrics names it.
pub(super) fn of_pod(name: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    POD_LABEL.chars().chain(name.chars().map(legal)).collect()
}

/// Prometheus's data model: `[a-zA-Z_][a-zA-Z0-9_]*`; names with `__` are reserved.
fn is_label_name(name: &str) -> bool {
    let legal = |c: char| c == '_' || c.is_ascii_alphanumeric();
    name.starts_with(|c: char| legal(c) && !c.is_ascii_digit())
        && name.chars().all(legal)
        && !name.starts_with("__")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_data_model() {
        let label: Label = "service=a=b".parse().unwrap();
        assert_eq!((label.name.as_str(), label.value.as_str()), ("service", "a=b"));
        assert!("_x1=".parse::<Label>().is_ok());
        for bad in ["service", "", "=x", "1a=x", "a-b=x", "a.b=x", "__a=x", "ä=x", "a b=x"] {
            assert!(bad.parse::<Label>().is_err(), "{bad}");
        }
    }

    #[test]
    fn own_names_are_refused() {
        for taken in ["comm=x", "pod=x", "le=x", "severity=x", "label_app=x"] {
            let error = taken.parse::<Label>().unwrap_err().to_string();
            assert!(error.contains("themselves"), "{error}");
        }
    }

    #[test]
    fn labels_of_pods_become_legal() {
        assert_eq!(of_pod("app.kubernetes.io/name"), "label_app_kubernetes_io_name");
        assert!(is_label_name(&of_pod("1-ü")));
    }
}
