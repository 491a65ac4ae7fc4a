//! Names in use, so that new ones differ.

use std::collections::HashMap;
use std::sync::Arc;

/// Names that values have or had, in a graph and in the bodies in it, and while a body is edited those around it:
/// SSA form forbids a body to redefine what it can see. A name of a value that is gone is not given again.
///
/// They are kept once, by the outermost graph. A body hands its own names up to the graph that it becomes part of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// With the number of graphs that gave each one to a value.
    taken: HashMap<Arc<str>, u32>,
    /// The next number to try behind a hint.
    next: HashMap<Arc<str>, u32>,
}

impl Names {
    /// Takes note of a value's name.
    pub fn take(&mut self, name: &Arc<str>) {
        *self.taken.entry(name.clone()).or_default() += 1;
    }

    /// How often the name was given to a value.
    pub fn takers(&self, name: &str) -> u32 {
        self.taken.get(name).copied().unwrap_or_default()
    }

    /// `hint`, or where that is taken or empty the first free one of `hint_1`, `hint_2`, ...
    pub fn fresh(&mut self, hint: &str) -> Arc<str> {
        let name = match self.taken.contains_key(hint) || hint.is_empty() {
            true => self.numbered(hint),
            false => hint.into(),
        };
        self.taken.insert(name.clone(), 0);
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
            if !self.taken.contains_key(name.as_str()) {
                return name.into();
            }
        }
    }

    /// Takes over what another one knows.
    pub fn merge(&mut self, mut other: Names) {
        if other.taken.len() > self.taken.len() {
            std::mem::swap(self, &mut other); // the smaller one moves, so that nested bodies take n log n in all
        }
        for (name, n) in other.taken {
            *self.taken.entry(name).or_default() += n;
        }
        for (hint, n) in other.next {
            let next = self.next.entry(hint).or_insert(n);
            *next = n.max(*next);
        }
    }
}
