//! `pgsocktrace demo`: a service that leaks in two ways and a stand-in for its server, both in this
//! binary, so that it needs no database, no toolchain and no network.

mod client;
mod server;
mod service;

use std::time::Duration;

pub use server::StandIn;
pub use service::run as run_service;

/// How long the service is traced.
pub const LASTS: Duration = Duration::from_secs(20);
/// How long without payload counts as silent.
pub const SILENT_AFTER: Duration = Duration::from_secs(4);
/// How often connections are judged.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// The service's own driver, as `--driver-frames` names it.
pub const DRIVER: &str = "leak_user::demo::client::*";
