//! Elements of axes, and which of them exist together only: a union-find over all of a model's axes.

use super::Place;
use crate::ir::{Graph, ValueId};
use std::collections::HashMap;

/// Why nothing of a class may go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Barrier {
    /// In words, with the node or value that is to blame.
    pub reason: String,
    /// Whether the result would still be meaningful: see [`crate::ops::axes::AxisFact::Barrier`].
    pub inexact: bool,
}

/// Every element of every axis whose size is known, joined into classes.
pub(super) struct Atoms {
    /// First element and size of each axis of a value, where the size is known.
    axes: HashMap<ValueId, Vec<Option<(u32, u32)>>>,
    parent: Vec<u32>,
    /// By root: position in `barriers`, plus one.
    barred: Vec<u32>,
    barriers: Vec<Barrier>,
}

/// Models with more elements of axes than this are left alone: a hostile file could name any size.
const MOST: u64 = 1 << 27;

impl Atoms {
    /// Every element a class of its own; `None` where there are too many.
    pub fn new(graph: &Graph) -> Option<Self> {
        let mut axes = HashMap::new();
        let mut next = 0u64;
        for v in graph.values() {
            let Some(shape) = graph.ty(v).and_then(|t| t.shape()) else { continue };
            let mut of_value = Vec::with_capacity(shape.len());
            for size in shape.iter().map(|d| d.known()) {
                of_value.push(size.map(|n| (next as u32, n as u32)));
                next = next.checked_add(size.unwrap_or(0) as u64).filter(|&n| n <= MOST)?;
            }
            axes.insert(v, of_value);
        }
        let parent = (0..next as u32).collect();
        Some(Self { axes, parent, barred: vec![0; next as usize], barriers: vec![] })
    }

    /// First element and size of an axis; `None` where the size is not known.
    pub fn axis(&self, place: Place) -> Option<(u32, u32)> {
        self.axes.get(&place.value)?.get(place.axis).copied().flatten()
    }

    /// Number of axes of a value whose rank is known.
    pub fn rank(&self, value: ValueId) -> Option<usize> {
        self.axes.get(&value).map(Vec::len)
    }

    /// The class of an element.
    pub fn find(&mut self, atom: u32) -> u32 {
        let mut at = atom;
        while self.parent[at as usize] != at {
            let up = self.parent[at as usize];
            self.parent[at as usize] = self.parent[up as usize];
            at = up;
        }
        at
    }

    /// Joins two classes; a barrier of one is a barrier of both, and one that nothing lifts comes first.
    pub fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.find(a), self.find(b));
        if a == b {
            return;
        }
        // The lower number stays, so that the result does not depend on the order of joins.
        let (root, child) = (a.min(b), a.max(b));
        self.parent[child as usize] = root;
        let worst = self.worse(self.barred[root as usize], self.barred[child as usize]);
        self.barred[root as usize] = worst;
    }

    fn worse(&self, a: u32, b: u32) -> u32 {
        let rank = |k: u32| match k {
            0 => 0,
            k if self.barriers[k as usize - 1].inexact => 1,
            _ => 2,
        };
        if rank(b) > rank(a) { b } else { a }
    }

    /// Lets nothing of these elements of an axis go (of all of them where none are given).
    pub fn bar(&mut self, place: Place, elements: Option<&[usize]>, barrier: &Barrier) {
        let Some((first, size)) = self.axis(place) else { return };
        self.barriers.push(barrier.clone());
        let id = self.barriers.len() as u32;
        let mut bar = |k: u32| {
            let root = self.find(first + k) as usize;
            self.barred[root] = self.worse(self.barred[root], id);
        };
        match elements {
            None => (0..size).for_each(&mut bar),
            Some(list) => list.iter().filter(|&&k| k < size as usize).for_each(|&k| bar(k as u32)),
        }
    }

    /// What bars the class of an element.
    pub fn barrier(&mut self, atom: u32) -> Option<&Barrier> {
        let root = self.find(atom);
        let id = self.barred[root as usize];
        (id > 0).then(|| &self.barriers[id as usize - 1])
    }

    /// What bars every element of an axis; `None` where some element is free. An axis of unknown size is barred.
    pub fn all_barred(&mut self, place: Place) -> Option<Barrier> {
        let Some((first, size)) = self.axis(place) else {
            return Some(Barrier { reason: "its size is not known".into(), inexact: false });
        };
        let mut found = None;
        for k in 0..size {
            found = Some(self.barrier(first + k)?.clone());
        }
        found.or(Some(Barrier { reason: "it is empty".into(), inexact: false }))
    }

    /// Number of classes that an axis runs over.
    pub fn classes(&mut self, place: Place) -> usize {
        let Some((first, size)) = self.axis(place) else { return 0 };
        let mut roots: Vec<u32> = (0..size).map(|k| self.find(first + k)).collect();
        roots.sort_unstable();
        roots.dedup();
        roots.len()
    }
}
