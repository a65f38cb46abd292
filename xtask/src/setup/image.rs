//! What the container image takes.

use super::{Need, Requirement};
use crate::process::which;

pub(super) const REQUIREMENTS: &[Requirement] = &[Requirement {
    need: Need::Image,
    present: || which("buildah").is_some(),
    packages: &["buildah"],
    elsewhere: "Install buildah.",
}];
