//! The vocabulary in which an operator's file says how the axes of its inputs and outputs belong together: which
//! elements of one axis exist only together with which elements of another. Pruning is built on it.

use super::spec::InferContext;
use crate::ir::{Dim, Node, Port, Tensor, Type};
use std::collections::HashMap;

/// One axis of an input or output of a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Axis {
    /// Which input or output.
    pub port: Port,
    /// From the front.
    pub axis: usize,
}

/// Axis `axis` of input `k`.
pub fn input(k: usize, axis: usize) -> Axis {
    Axis { port: Port::In(k as u32), axis }
}

/// Axis `axis` of output `k`.
pub fn output(k: usize, axis: usize) -> Axis {
    Axis { port: Port::Out(k as u32), axis }
}

/// Which element of axis `b` an element `i` of axis `a` goes with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AxisMap {
    /// `i`.
    Same,
    /// `start + i * step`: Concat, Split, Slice, Pad. What falls outside of `b` goes with nothing.
    Offset {
        /// Element of `b` that the first of `a` goes with.
        start: i64,
        /// Distance.
        step: i64,
    },
    /// `i / inner % size(b)`: an axis that a Reshape has split or joined, gates side by side, groups.
    Stride {
        /// Elements of `a` in a row that go with one of `b`.
        inner: usize,
    },
    /// The i-th of these: Gather.
    Select(Vec<usize>),
}

/// What an operator says of its axes. An axis that is not mentioned is a barrier: nothing of it may be removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AxisFact {
    /// Elements of two axes exist together only.
    Link {
        /// The axis that the map starts from.
        a: Axis,
        /// The axis that it leads to.
        b: Axis,
        /// Which element of `b` for each of `a`.
        map: AxisMap,
    },
    /// Elements of one axis exist together: those with equal `i / inner % count`.
    Tie {
        /// The axis.
        axis: Axis,
        /// Elements in a row that belong together.
        inner: usize,
        /// Number of classes, after which they repeat.
        count: usize,
    },
    /// `flat` runs over all combinations of `factors`, the last one fastest. One factor only can be cut, and `flat` with
    /// it: the analysis picks which.
    Factors {
        /// The joined axis.
        flat: Axis,
        /// The axes that it joins, outermost first.
        factors: Vec<Axis>,
    },
    /// Any element may go without further ado.
    Free(Axis),
    /// Elements depend on each other, so that the others change if one goes.
    Barrier {
        /// The axis.
        axis: Axis,
        /// What the operator does, for the user: `normalizes over it`.
        reason: &'static str,
        /// Only these elements, where not all are meant.
        elements: Option<Vec<usize>>,
        /// Whether the operator still computes something sensible on fewer elements (a mean over fewer): then the
        /// caller may ask for it.
        inexact: bool,
    },
    /// The axis of a weight takes elements that the node itself makes: the hidden state of a recurrent layer.
    Takes(Axis),
    /// The axis runs over independent problems, as heads of attention do: preferred where a choice is to be made.
    Batch(Axis),
}

/// The facts of one node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AxisLinks(pub Vec<AxisFact>);

impl AxisLinks {
    /// Elements with equal positions go together.
    pub fn same(&mut self, a: Axis, b: Axis) {
        self.link(a, b, AxisMap::Same);
    }

    /// Elements go together as the map says.
    pub fn link(&mut self, a: Axis, b: Axis, map: AxisMap) {
        self.0.push(AxisFact::Link { a, b, map });
    }

    /// See [`AxisFact::Tie`].
    pub fn tie(&mut self, axis: Axis, inner: usize, count: usize) {
        self.0.push(AxisFact::Tie { axis, inner, count });
    }

    /// Nothing holds the axis.
    pub fn free(&mut self, axis: Axis) {
        self.0.push(AxisFact::Free(axis));
    }

    /// Nothing of the axis may go.
    pub fn barrier(&mut self, axis: Axis, reason: &'static str) {
        self.0.push(AxisFact::Barrier { axis, reason, elements: None, inexact: false });
    }

    /// These elements may not go.
    pub fn barrier_at(&mut self, axis: Axis, elements: Vec<usize>, reason: &'static str) {
        self.0.push(AxisFact::Barrier { axis, reason, elements: Some(elements), inexact: false });
    }

    /// If something of the axis goes, the rest changes, but stays meaningful.
    pub fn inexact(&mut self, axis: Axis, reason: &'static str) {
        self.0.push(AxisFact::Barrier { axis, reason, elements: None, inexact: true });
    }

    /// These axes of input `from` and of output `to` go together.
    pub fn same_rest(&mut self, from: usize, to: usize, axes: impl IntoIterator<Item = usize>) {
        for k in axes {
            self.same(input(from, k), output(to, k));
        }
    }
}

/// What is known of one node, outputs included.
pub struct LinkContext<'a> {
    /// Inputs and attributes.
    pub cx: &'a InferContext<'a>,
    /// Types of the outputs, by slot.
    pub outputs: &'a [Option<&'a Type>],
}

impl<'a> LinkContext<'a> {
    /// The dimensions at a port, where the rank is known.
    pub fn shape(&self, port: Port) -> Option<&'a [Dim]> {
        match port {
            Port::In(k) => self.cx.shape(k as usize),
            Port::Out(k) => self.outputs.get(k as usize).copied().flatten()?.shape(),
            Port::Capture(_) => None,
        }
    }

    /// Rank of input `k`.
    pub fn rank(&self, k: usize) -> Option<usize> {
        self.cx.shape(k).map(<[Dim]>::len)
    }

    /// Rank of output `k`.
    pub fn out_rank(&self, k: usize) -> Option<usize> {
        self.shape(Port::Out(k as u32)).map(<[Dim]>::len)
    }

    /// Size of an axis, where it is known.
    pub fn size(&self, axis: Axis) -> Option<usize> {
        self.shape(axis.port)?.get(axis.axis)?.known()
    }

    /// Whether two axes are known to have equal sizes.
    pub fn equal(&self, a: Axis, b: Axis) -> bool {
        let dim = |x: Axis| self.shape(x.port).and_then(|s| s.get(x.axis)).filter(|d| **d != Dim::Unknown);
        matches!((dim(a), dim(b)), (Some(x), Some(y)) if x == y)
    }
}

/// Numpy's broadcasting: axes of these inputs go with those of output 0 that they are not stretched along. `None` where a
/// rank is not known.
pub fn broadcast_links(cx: &LinkContext, slots: impl IntoIterator<Item = usize>) -> Option<AxisLinks> {
    let rank = cx.out_rank(0)?;
    let mut links = AxisLinks::default();
    let mut filled = vec![false; rank];
    for k in slots {
        if !cx.cx.present(k) {
            continue;
        }
        let shift = rank.checked_sub(cx.rank(k)?)?;
        for a in 0..rank - shift {
            let (from, to) = (input(k, a), output(0, a + shift));
            if cx.equal(from, to) {
                links.same(from, to);
                filled[a + shift] = true;
            } else if cx.size(from) == Some(1) {
                links.free(from);
            }
        }
    }
    // An axis that no input fills alone (unknown sizes) stays a barrier.
    Some(links).filter(|_| rank == 0 || filled.iter().any(|&f| f) || cx.size(output(0, 0)).is_some())
}

/// Every axis of input `k` goes with that of output 0; nothing else is tied.
pub fn elementwise_links(cx: &LinkContext, k: usize) -> Option<AxisLinks> {
    let mut links = AxisLinks::default();
    links.same_rest(k, 0, 0..cx.rank(k)?);
    Some(links)
}

/// Which elements of the cut axes of a node are kept, ascending.
#[derive(Clone, Debug, Default)]
pub struct Kept(pub HashMap<Axis, Vec<usize>>);

impl Kept {
    /// The elements that stay, where the axis is cut.
    pub fn of(&self, axis: Axis) -> Option<&[usize]> {
        self.0.get(&axis).map(Vec::as_slice)
    }

    /// How many stay of `size`.
    pub fn len(&self, axis: Axis, size: usize) -> usize {
        self.of(axis).map_or(size, <[usize]>::len)
    }

    /// Where the kept element `old` is now; `None` where it went.
    pub fn position(&self, axis: Axis, old: usize) -> Option<usize> {
        match self.of(axis) {
            None => Some(old),
            Some(kept) => kept.binary_search(&old).ok(),
        }
    }

    /// The dimension after the cut.
    pub fn dim(&self, axis: Axis, dim: &Dim) -> Dim {
        self.of(axis).map_or_else(|| dim.clone(), |kept| Dim::Known(kept.len() as i64))
    }
}

/// How a node changes whose axes are cut, beside its inputs getting smaller.
pub enum Narrowed {
    /// It means the right thing as it is.
    Same,
    /// Other attributes, and constants in place of inputs: (slot, constant).
    Changed {
        /// The node.
        node: Box<Node>,
        /// New constants by input slot.
        inputs: Vec<(usize, Tensor)>,
    },
    /// It cannot be spelled, and why: a mistake of its links.
    Impossible(String),
}

impl Narrowed {
    /// The node with one integer attribute changed.
    pub fn with_int(node: &Node, name: &str, value: usize) -> Self {
        let mut node = node.clone();
        node.set(name, (value as i64).into());
        Self::Changed { node: Box::new(node), inputs: vec![] }
    }

    /// Only new constants.
    pub fn with_inputs(node: &Node, inputs: Vec<(usize, Tensor)>) -> Self {
        Self::Changed { node: Box::new(node.clone()), inputs }
    }
}
