//! How much folding may make in all: a limit for each tensor does not bound a model of many.

use std::cell::Cell;

/// Bytes by which the constants of a model may grow in one run of a pass.
const MOST_GROWTH: usize = 256 << 20;
/// Bytes of constants made in one sweep, after which those that died on the way are deleted before more are made.
const MOST_AT_ONCE: usize = 256 << 20;

/// Bytes of weights of which rules may make a changed copy: the others stay where they are, in the mapped file.
const MOST_COPIED: usize = 256 << 20;

/// Bytes that a pass has made of smaller things.
#[derive(Default)]
pub(super) struct Budget {
    grown: Cell<usize>,
    at_once: Cell<usize>,
    copied: Cell<usize>,
}

impl Budget {
    /// What died in the last sweep has been deleted.
    pub fn next_sweep(&self) {
        self.at_once.set(0);
    }

    /// Whether a constant of `made` bytes may take the place of constants of `freed` bytes. The first one of a sweep is never
    /// too large to be held, so that each sweep gets on.
    pub fn has_room(&self, made: usize, freed: usize) -> bool {
        let (grown, at_once) = self.with(made, freed);
        grown <= MOST_GROWTH && (at_once <= MOST_AT_ONCE || self.at_once.get() == 0)
    }

    /// Counts a constant that was made.
    pub fn spend(&self, made: usize, freed: usize) {
        let (grown, at_once) = self.with(made, freed);
        self.grown.set(grown);
        self.at_once.set(at_once);
    }

    /// Counts a changed copy of a weight, unless there is no room for it any more.
    pub fn copy(&self, bytes: usize) -> bool {
        let copied = self.copied.get().saturating_add(bytes);
        let fits = copied <= MOST_COPIED;
        if fits {
            self.copied.set(copied);
        }
        fits
    }

    fn with(&self, made: usize, freed: usize) -> (usize, usize) {
        (self.grown.get().saturating_add(made.saturating_sub(freed)), self.at_once.get().saturating_add(made))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_bounded_in_all() {
        let budget = Budget::default();
        assert!(budget.copy(MOST_COPIED / 2) && !budget.copy(MOST_COPIED));
        budget.next_sweep();
        assert!(budget.copy(MOST_COPIED / 2), "what was refused does not count");
        assert!(!budget.copy(1));
    }

    #[test]
    fn growth_is_bounded_in_all_and_copies_within_a_sweep() {
        let budget = Budget::default();
        budget.spend(MOST_GROWTH / 2, 0);
        assert!(!budget.has_room(MOST_GROWTH, 0), "too much growth");
        assert!(!budget.has_room(MOST_AT_ONCE, MOST_AT_ONCE), "no growth, but too much at once");
        budget.next_sweep();
        assert!(budget.has_room(2 * MOST_AT_ONCE, 2 * MOST_AT_ONCE), "the first one of a sweep");
        assert!(!budget.has_room(MOST_GROWTH, 0), "growth is not forgotten");
        assert!(budget.has_room(MOST_GROWTH / 2, 0));
    }
}
