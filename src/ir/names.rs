//! Names in use, so that new ones differ.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Names that values have or had, in a graph and in the bodies in it, and while a body is edited those around it:
/// SSA form forbids a body to redefine what it can see. A name of a value that is gone is not given again.
///
/// They are kept once, by the outermost graph. A body hands its own names up to the graph that it becomes part of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    taken: HashSet<Arc<str>>,
    /// The next number to try behind a hint.
    next: HashMap<Arc<str>, u32>,
}

impl Names {
    /// Takes note of a name.
    pub fn take(&mut self, name: &Arc<str>) {
        self.taken.insert(name.clone());
    }

    /// `hint`, or where that is taken or empty the first free one of `hint_1`, `hint_2`, ...
    pub fn fresh(&mut self, hint: &str) -> Arc<str> {
        let name = match self.taken.contains(hint) || hint.is_empty() {
            true => self.numbered(hint),
            false => hint.into(),
        };
        self.taken.insert(name.clone());
        name
    }

    fn numbered(&mut self, hint: &str) -> Arc<str> {
        let next = match self.next.get_mut(hint) {
            Some(next) => next,
            None => self.next.entry(hint.into()).or_insert(1),
        };
        loop {
            let name = format!("{hint}_{next}");
            *next += 1;
            if !self.taken.contains(name.as_str()) {
                return name.into();
            }
        }
    }

    /// Takes over what another one knows.
    pub fn merge(&mut self, mut other: Names) {
        if other.taken.len() > self.taken.len() {
            std::mem::swap(self, &mut other); // the smaller one moves, so that nested bodies take n log n in all
        }
        self.taken.extend(other.taken);
        for (hint, n) in other.next {
            let next = self.next.entry(hint).or_insert(n);
            *next = n.max(*next);
        }
    }
}
