//! How long work tells that it is alive.

/// Receives progress; all calls may come from any thread.
pub trait Progress: Sync {
    /// Work begins that has `total` steps.
    fn start(&self, what: &str, total: usize);
    /// One step is done.
    fn tick(&self);
    /// The work is done.
    fn finish(&self);
    /// How it goes, in words.
    fn status(&self, _text: &str) {}
    /// Whether whoever waits has had enough: work that can end early, with what it has so far, then does.
    fn is_stopped(&self) -> bool {
        false
    }
}

/// Tells nobody.
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _: &str, _: usize) {}
    fn tick(&self) {}
    fn finish(&self) {}
}
