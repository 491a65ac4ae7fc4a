//! What the fuzz targets have in common. Run them with `fuzz/run`.

#[path = "../../tests/common/choices.rs"]
mod choices;
#[path = "../../tests/common/graphs.rs"]
pub mod graphs;
#[path = "../../tests/common/judge.rs"]
mod judge;
#[path = "../../tests/common/layout.rs"]
mod layout;
pub mod targets;

use std::panic;

/// Makes a panic of the library end the process, also one that somebody would catch: the runtime catches tract's.
///
/// libFuzzer's binding aborts at every panic, and that would be every operator that tract gives up on.
pub fn only_our_panics() {
    panic::set_hook(Box::new(|info| {
        let ours = info.location().is_none_or(|l| l.file().starts_with("src/") || l.file().starts_with("fuzz/"));
        // Out of bounds in a dependency: nobody can catch that one.
        let unsafe_precondition = info.to_string().contains("unsafe precondition");
        if ours || unsafe_precondition {
            eprintln!("{info}\n{}", std::backtrace::Backtrace::force_capture());
            std::process::abort();
        }
    }));
}
