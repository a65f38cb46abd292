//! The languages, one line each.

use crate::languages::go::Go;
use crate::languages::jvm::Java;
use crate::languages::language::Language;
use crate::languages::perf_map::PerfMaps;
use crate::languages::php::Php;
use crate::languages::python::Python;
use crate::languages::recognised::{BEAM, BUN, DENO, DOTNET, JAVA};
use crate::languages::ruby::Ruby;
use crate::languages::rust_async::RustAsync;
use crate::languages::v8::JavaScript;

/// All languages, for one resolver. Where several know a frame, the first one counts.
pub(crate) fn languages() -> Vec<Box<dyn Language>> {
    vec![
        Box::new(Go),
        Box::new(Python),
        Box::new(Java),
        Box::new(JAVA),
        Box::new(JavaScript),
        Box::new(DENO),
        Box::new(BUN),
        Box::new(Ruby),
        Box::new(Php),
        Box::new(DOTNET),
        Box::new(BEAM),
        Box::new(RustAsync),
        Box::new(PerfMaps::default()),
    ]
}
