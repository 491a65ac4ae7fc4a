//! Bytes as choices, and the values that a generated graph has so far.

use std::collections::HashSet;

/// Bytes read as choices; when they are at an end every choice is the first one.
pub(crate) struct Choices<'a> {
    bytes: std::slice::Iter<'a, u8>,
}

impl<'a> Choices<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.iter() }
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.bytes.next().copied().unwrap_or(0)) % n.max(1)
    }

    /// True in about `of_256` of 256 cases; never where the bytes are at an end.
    pub fn chance(&mut self, of_256: usize) -> bool {
        usize::from(self.bytes.next().copied().unwrap_or(0)) > 255 - of_256.min(255)
    }

    pub fn pick<'s, T>(&mut self, of: &'s [T]) -> Option<&'s T> {
        let k = self.below(of.len());
        of.get(k)
    }

    /// Elements of a literal. Ones and zeros are frequent, because rules look for them.
    pub fn floats(&mut self, n: usize) -> String {
        const VALUES: [&str; 12] =
            ["1.0", "0.0", "-0.0", "-1.0", "0.5", "2.0", "-0.25", "3.0", "0.1", "-1.5", "0.75", "1e-3"];
        let same = self.below(VALUES.len());
        let one = self.chance(100);
        let all: Vec<&str> = (0..n).map(|k| VALUES[if one { same } else { (same + 5 * k) % VALUES.len() }]).collect();
        all.join(",")
    }

    /// The shape of a constant that broadcasts with `dims`, mostly without stretching it.
    pub fn operand(&mut self, dims: &[Option<usize>]) -> Vec<usize> {
        let full: Vec<usize> = dims.iter().map(|d| d.unwrap_or(1)).collect();
        match self.below(7) {
            0 => vec![],
            1 => vec![1],
            2 => full,
            3 => full[full.len().min(1)..].to_vec(),
            4 => vec![1; full.len()],
            // Along one axis, whichever it is.
            5 if !full.is_empty() => {
                let axis = self.below(full.len());
                full.iter().enumerate().map(|(k, &d)| if k == axis { d } else { 1 }).collect()
            }
            _ if full.len() < 4 => [&[1 + self.below(2)][..], &full].concat(),
            _ => vec![1],
        }
    }
}

/// Element types of generated values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Elem {
    Float,
    Int,
    Bool,
}

impl Elem {
    pub fn name(self) -> &'static str {
        match self {
            Elem::Float => "float",
            Elem::Int => "int64",
            Elem::Bool => "bool",
        }
    }
}

/// A value that nodes may use.
#[derive(Clone, Debug)]
pub(crate) struct Val {
    /// As it is written in text.
    pub name: String,
    pub elem: Elem,
    /// `None` is the batch.
    pub dims: Vec<Option<usize>>,
    /// Whether it depends on neither unknown nor random operators.
    pub clean: bool,
}

impl Val {
    pub fn declaration(&self) -> String {
        format!("{}{} {}", self.elem.name(), shape_text(&self.dims), self.name)
    }
}

pub(crate) fn shape_text(dims: &[Option<usize>]) -> String {
    let dims: Vec<String> = dims.iter().map(|d| d.map_or("N".into(), |d| d.to_string())).collect();
    if dims.is_empty() { String::new() } else { format!("[{}]", dims.join(",")) }
}

pub(crate) fn ints(values: &[i64]) -> String {
    values.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}

/// Elements, with a large batch.
pub(crate) fn count(dims: &[Option<usize>]) -> usize {
    dims.iter().map(|d| d.unwrap_or(5)).product()
}

/// numpy's rule; the batch fits itself and 1.
pub(crate) fn broadcast(a: &[Option<usize>], b: &[Option<usize>]) -> Option<Vec<Option<usize>>> {
    let rank = a.len().max(b.len());
    let at = |d: &[Option<usize>], k: usize| if k < rank - d.len() { Some(1) } else { d[k - (rank - d.len())] };
    let one = |k| match (at(a, k), at(b, k)) {
        (x, y) if x == y => Some(x),
        (x, Some(1)) => Some(x),
        (Some(1), y) => Some(y),
        _ => None,
    };
    (0..rank).map(one).collect()
}

/// A graph that is being made.
pub(crate) struct Scope {
    pub vals: Vec<Val>,
    pub constants: Vec<Val>,
    pub used: HashSet<String>,
    pub nodes: String,
    pub inits: Vec<String>,
    prefix: String,
    next: usize,
}

impl Scope {
    pub fn new(prefix: &str) -> Self {
        let (vals, constants, inits, used) = (vec![], vec![], vec![], HashSet::new());
        Self { vals, constants, used, nodes: String::new(), inits, prefix: prefix.into(), next: 0 }
    }

    /// A body: it sees what is outside.
    pub fn inside(&self, depth: usize) -> Self {
        let (vals, constants) = (self.vals.clone(), self.constants.clone());
        Self { vals, constants, ..Self::new(&format!("b{depth}_")) }
    }

    pub fn fresh(&mut self) -> String {
        self.next += 1;
        format!("{}{}", self.prefix, self.next)
    }

    pub fn add(&mut self, v: Val) {
        self.vals.push(v);
    }

    pub fn use_(&mut self, name: &str) {
        self.used.insert(name.into());
    }

    pub fn initializers(&self) -> String {
        if self.inits.is_empty() { String::new() } else { format!("<{}>\n", self.inits.join(", ")) }
    }
}
