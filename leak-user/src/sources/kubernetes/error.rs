//! Why Kubernetes could not be asked.

use std::time::Duration;

use kube::runtime::watcher;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// There is neither a service account nor a kubeconfig.
    #[error(transparent)]
    Credentials(Box<dyn std::error::Error + Send + Sync>),
    /// The server refused it, mostly for lack of permission.
    #[error("{0}")]
    Refused(String),
    /// There was no answer.
    #[error(transparent)]
    Unanswered(kube::Error),
    /// The answer took too long.
    #[error("no answer within {} s", .0.as_secs())]
    TooSlow(Duration),
    /// The answer is cut off, or too long.
    #[error("the answer cannot be read")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer is not a list of pods.
    #[error("the answer is not a list of pods")]
    Malformed(#[from] serde_json::Error),
    /// The stream of changes ended.
    #[error("the stream of changes ended")]
    Ended,
    /// The host's name cannot be a node's name.
    #[error("the name of this node is unknown: {0}; set --node-name")]
    NodeName(String),
}

impl From<kube::Error> for AskError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused(match status.message.trim() {
                "" => format!("{} {}", status.code, status.reason),
                message => message.to_owned(),
            }),
            other => Self::Unanswered(other),
        }
    }
}

impl From<watcher::Error> for AskError {
    fn from(error: watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => error.into(),
            watcher::Error::WatchError(status) => kube::Error::Api(status).into(),
            watcher::Error::NoResourceVersion => Self::Ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;
    use crate::error::with_causes;

    #[test]
    fn refusals_are_quoted() {
        let words = "pods is forbidden: User \"a\" cannot list resource \"pods\"";
        let refused = || kube::Error::Api(Box::new(Status::failure(words, "Forbidden")));
        let watching = AskError::from(watcher::Error::InitialListFailed(refused()));
        for error in [AskError::from(refused()), watching] {
            assert_eq!(with_causes(&error), words);
        }
        let wordless = Status::failure("", "Unauthorized").with_code(401);
        let error = AskError::from(kube::Error::Api(Box::new(wordless)));
        assert_eq!(with_causes(&error), "401 Unauthorized");
    }
}
