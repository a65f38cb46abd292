//! Moments.

use schemars::JsonSchema;
use serde::Serialize;

/// A moment as RFC 3339 writes it, in UTC and to the millisecond.
#[derive(Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline, extend("format" = "date-time"))]
pub(in crate::outputs) struct Time(pub(in crate::outputs) String);
