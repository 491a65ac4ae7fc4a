//! Progress bars on standard error: only on a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sardonyx::recipe::Progress;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether Ctrl-C was pressed.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// From now on the first Ctrl-C asks work to end with what it has; the second one ends the program, as usual.
#[cfg(unix)]
pub fn stop_on_interrupt() {
    extern "C" fn stop(_: libc::c_int) {
        STOPPED.store(true, Ordering::Relaxed);
        // SAFETY: `signal` may be called from a handler (POSIX: signal-safety).
        unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
    }
    let handler: extern "C" fn(libc::c_int) = stop;
    // SAFETY: the handler does nothing but store an atomic and call `signal`, both of which a handler may do.
    unsafe { libc::signal(libc::SIGINT, handler as libc::sighandler_t) };
}

/// Elsewhere Ctrl-C ends the program.
#[cfg(not(unix))]
pub fn stop_on_interrupt() {}

/// A bar with steps, rate and remaining time.
pub struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// A bar; hidden where `quiet` or standard error is no terminal.
    pub fn new(quiet: bool) -> Self {
        let bar = ProgressBar::no_length();
        // indicatif hides the stderr target by itself where that is no terminal.
        bar.set_draw_target(if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() });
        if let Ok(style) = ProgressStyle::with_template("{msg:<14} [{bar:40}] {pos}/{len} batches, {eta} left") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar }
    }
}

impl Progress for Bar {
    fn start(&self, what: &str, total: usize) {
        self.bar.reset();
        self.bar.set_length(total as u64);
        self.bar.set_message(what.to_string());
    }

    fn tick(&self) {
        self.bar.inc(1);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn status(&self, text: &str) {
        self.bar.set_message(text.to_string());
    }

    fn is_stopped(&self) -> bool {
        STOPPED.load(Ordering::Relaxed)
    }
}
