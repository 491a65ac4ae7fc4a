//! Generated nodes that move elements, contract them, or have bodies.

use crate::choices::{Elem, Scope, Val, count, ints};
use crate::graphs::Maker;

/// Input or attribute, whichever the operator set has.
enum Axes {
    Attribute(String),
    Input(Val),
}

impl Maker<'_> {
    fn axes(&mut self, s: &mut Scope, name: &str, values: &[i64], input_since: i64) -> Axes {
        if self.opset >= input_since {
            Axes::Input(self.integers_constant(s, values))
        } else {
            Axes::Attribute(format!("{name} = [{}]", ints(values)))
        }
    }

    fn emit_with(&mut self, s: &mut Scope, op: &str, axes: Axes, more: &str, x: &Val, out: &Val) -> Val {
        let join =
            |a: &str| if a.is_empty() || more.is_empty() { format!("{a}{more}") } else { format!("{a}, {more}") };
        match axes {
            Axes::Input(v) => self.emit(s, op, more, &[x, &v], out),
            Axes::Attribute(a) => self.emit(s, op, &join(&a), &[x], out),
        }
    }

    /// An axis that is not the batch.
    fn axis(&mut self, x: &Val) -> Option<(usize, usize)> {
        let known: Vec<(usize, usize)> = x.dims.iter().enumerate().filter_map(|(k, d)| Some((k, (*d)?))).collect();
        self.c.pick(&known).copied()
    }

    pub(crate) fn reshape(&mut self, s: &mut Scope, x: &Val) {
        if self.c.chance(80) && !x.dims.is_empty() && x.dims.iter().skip(1).all(Option::is_some) {
            // Flatten keeps the batch where it is.
            let rest = x.dims[1..].iter().flatten().product();
            let out = Val { dims: vec![x.dims[0], Some(rest)], ..x.clone() };
            self.emit(s, "Flatten", "", &[x], &out);
            return;
        }
        let (head, tail) = match x.dims.split_first() {
            Some((None, tail)) => (true, tail),
            _ => (false, &x.dims[..]),
        };
        let Some(tail) = tail.iter().copied().collect::<Option<Vec<usize>>>() else { return };
        let n: usize = tail.iter().product();
        let mut dims: Vec<usize> = match self.c.below(4) {
            0 => vec![n],
            1 if n.is_multiple_of(2) => vec![2, n / 2],
            2 => vec![n, 1],
            _ => tail.iter().rev().copied().collect(),
        };
        if dims.iter().product::<usize>() != n {
            dims = vec![n];
        }
        let mut target: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
        if n > 0 && self.c.chance(128) {
            let k = self.c.below(target.len());
            target.get_mut(k).into_iter().for_each(|t| *t = -1);
        }
        let mut out: Vec<Option<usize>> = dims.into_iter().map(Some).collect();
        if head {
            target.insert(0, 0);
            out.insert(0, None);
        }
        let zeros_mean_zero = target.iter().enumerate().any(|(k, &t)| t == 0 && !(head && k == 0));
        if zeros_mean_zero && !(0..target.len()).all(|k| target[k] != 0 || x.dims.get(k) == Some(&out[k])) {
            return;
        }
        let shape = self.integers_constant(s, &target);
        let out = Val { dims: out, ..x.clone() };
        self.emit(s, "Reshape", "", &[x, &shape], &out);
    }

    pub(crate) fn transpose(&mut self, s: &mut Scope, x: &Val) {
        // The batch stays first: elsewhere the other operators of the generator do not know it.
        let fixed = usize::from(x.dims.first() == Some(&None));
        let mut perm: Vec<usize> = (0..x.dims.len()).collect();
        for k in fixed..perm.len() {
            let other = k + self.c.below(perm.len() - k);
            perm.swap(k, other);
        }
        let out = Val { dims: perm.iter().map(|&p| x.dims[p]).collect(), ..x.clone() };
        if perm.is_empty() {
            return;
        }
        let text = ints(&perm.iter().map(|&p| p as i64).collect::<Vec<_>>());
        let t = self.emit(s, "Transpose", &format!("perm = [{text}]"), &[x], &out);
        if self.c.chance(100) {
            let mut inverse = vec![0; perm.len()];
            perm.iter().enumerate().for_each(|(k, &p)| inverse[p] = k as i64);
            self.emit(s, "Transpose", &format!("perm = [{}]", ints(&inverse)), &[&t], x);
        }
    }

    pub(crate) fn squeeze(&mut self, s: &mut Scope, x: &Val) {
        if x.dims.len() >= 5 {
            return;
        }
        let at = self.c.below(x.dims.len() + 1);
        let at = at.max(usize::from(x.dims.first() == Some(&None)));
        let mut dims = x.dims.clone();
        dims.insert(at, Some(1));
        let axes = self.axes(s, "axes", &[at as i64], 13);
        let u = self.emit_with(s, "Unsqueeze", axes, "", x, &Val { dims, ..x.clone() });
        let ones: Vec<usize> = (0..u.dims.len()).filter(|&k| u.dims[k] == Some(1)).collect();
        if self.c.chance(120)
            && let Some(&k) = self.c.pick(&ones)
        {
            let mut dims = u.dims.clone();
            dims.remove(k);
            let axes = self.axes(s, "axes", &[k as i64], 13);
            self.emit_with(s, "Squeeze", axes, "", &u, &Val { dims, ..u.clone() });
        }
    }

    pub(crate) fn concat_split(&mut self, s: &mut Scope, x: &Val) {
        let Some((axis, size)) = self.axis(x) else { return };
        let fits = |v: &Val| v.elem == x.elem && v.dims.len() == x.dims.len() && v.dims[axis].is_some();
        let equal = |v: &Val| (0..x.dims.len()).all(|k| k == axis || v.dims[k] == x.dims[k]);
        let Some(other) = self.of(s, |v| fits(v) && equal(v)) else { return };
        let total = size + other.dims[axis].unwrap_or(0);
        let mut dims = x.dims.clone();
        dims[axis] = Some(total);
        let out = Val { dims, ..x.clone() };
        if count(&out.dims) > 600 {
            return;
        }
        let c = self.emit(s, "Concat", &format!("axis = {axis}"), &[x, &other], &out);
        if !self.c.chance(128) || total < 2 {
            return;
        }
        let parts = [total / 2, total - total / 2];
        let sizes = parts.map(|p| p as i64);
        let names = [s.fresh(), s.fresh()];
        let (attributes, input) = match self.axes(s, "split", &sizes, 13) {
            Axes::Input(v) => (format!("axis = {axis}"), format!(", {}", v.name)),
            Axes::Attribute(a) => (format!("axis = {axis}, {a}"), String::new()),
        };
        s.nodes += &format!("    {}, {} = Split <{attributes}> ({}{input})\n", names[0], names[1], c.name);
        s.use_(&c.name);
        for (name, size) in names.into_iter().zip(parts) {
            let mut dims = c.dims.clone();
            dims[axis] = Some(size);
            s.add(Val { name, dims, ..c.clone() });
        }
    }

    pub(crate) fn slice(&mut self, s: &mut Scope, x: &Val) {
        let Some((axis, size)) = self.axis(x) else { return };
        let size = size as i64;
        let ranges: [(i64, i64, i64, i64); 6] = [
            (0, i64::MAX, 1, size),
            (0, size, 1, size),
            (1, size + 9, 1, (size - 1).max(0)),
            (-1, i64::MIN + 1, -1, size),
            (0, i64::MAX, 2, (size + 1) / 2),
            (-2, i64::MAX, 1, size.min(2)),
        ];
        let kinds = if self.opset < 10 { 3 } else { 6 };
        let (start, end, step, left) = ranges[self.c.below(kinds)];
        let mut dims = x.dims.clone();
        dims[axis] = Some(left as usize);
        let out = Val { dims, ..x.clone() };
        if self.opset < 10 {
            self.emit(s, "Slice", &format!("axes = [{axis}], starts = [{start}], ends = [{end}]"), &[x], &out);
            return;
        }
        let [a, b, c, d] = [start, end, axis as i64, step].map(|v| self.integers_constant(s, &[v]));
        self.emit(s, "Slice", "", &[x, &a, &b, &c, &d], &out);
    }

    pub(crate) fn gather(&mut self, s: &mut Scope, x: &Val) {
        let Some((axis, size)) = self.axis(x).filter(|(_, size)| *size > 0) else { return };
        let mut dims = x.dims.clone();
        let last = size as i64 - 1;
        // Negative indices are known from operator set 11 on.
        let first = if self.opset < 11 { last } else { -1 };
        let indices = match self.c.below(3) {
            0 => vec![first, 0],
            1 => (0..=last).collect(),
            _ => (0..=last).rev().collect(),
        };
        dims[axis] = Some(indices.len());
        let i = self.integers_constant(s, &indices);
        self.emit(s, "Gather", &format!("axis = {axis}"), &[x, &i], &Val { dims, ..x.clone() });
    }

    pub(crate) fn reduce(&mut self, s: &mut Scope, x: &Val) {
        let Some((axis, _)) = self.axis(x).filter(|(_, size)| *size > 0) else { return };
        let (op, since) = [("ReduceMean", 18), ("ReduceSum", 13), ("ReduceMax", 18), ("ReduceL2", 18)][self.c.below(4)];
        let keep = self.c.below(2);
        let mut dims = x.dims.clone();
        if keep == 1 {
            dims[axis] = Some(1);
        } else {
            dims.remove(axis);
        }
        let axes = self.axes(s, "axes", &[axis as i64], since);
        self.emit_with(s, op, axes, &format!("keepdims = {keep}"), x, &Val { dims, ..x.clone() });
    }

    pub(crate) fn pad(&mut self, s: &mut Scope, x: &Val) {
        let Some((axis, size)) = self.axis(x).filter(|(_, size)| *size > 1) else { return };
        let [before, after] = [(0, 0), (1, 0), (0, 1), (1, 1), (-1, 1)][self.c.below(5)].into();
        let mut pads = vec![0i64; 2 * x.dims.len()];
        (pads[axis], pads[axis + x.dims.len()]) = (before, after);
        let mut dims = x.dims.clone();
        dims[axis] = Some((size as i64 + before + after) as usize);
        let out = Val { dims, ..x.clone() };
        let mode = if before >= 0 { ["constant", "edge", "reflect"][self.c.below(3)] } else { "constant" };
        let pads = self.axes(s, "pads", &pads, 11);
        self.emit_with(s, "Pad", pads, &format!("mode = \"{mode}\""), x, &out);
    }

    pub(crate) fn expand(&mut self, s: &mut Scope, x: &Val) {
        let target: Vec<usize> = x.dims.iter().map(|d| d.unwrap_or(1)).collect();
        let (op, shape, dims) = match self.c.below(4) {
            0 => ("Expand", target, x.dims.clone()),
            1 if x.dims.len() < 4 => ("Expand", [&[2][..], &target].concat(), [&[Some(2)][..], &x.dims].concat()),
            2 => ("Expand", vec![1], if x.dims.is_empty() { vec![Some(1)] } else { x.dims.clone() }),
            _ if !x.dims.is_empty() => ("Tile", vec![1; x.dims.len()], x.dims.clone()),
            _ => return,
        };
        let out = Val { dims, ..x.clone() };
        if count(&out.dims) > 600 {
            return;
        }
        let shape = self.integers_constant(s, &shape.iter().map(|&d| d as i64).collect::<Vec<_>>());
        self.emit(s, op, "", &[x, &shape], &out);
    }

    /// A batch taken from a shape, for a Reshape, as exporters write it.
    pub(crate) fn shape(&mut self, s: &mut Scope, x: &Val) {
        let out = Val { elem: Elem::Int, dims: vec![Some(x.dims.len())], ..x.clone() };
        let shape = self.emit(s, "Shape", "", &[x], &out);
        if x.dims.is_empty() || x.dims.iter().skip(1).any(|d| *d == Some(0) || d.is_none()) || x.dims[0] == Some(0) {
            return;
        }
        let zero = self.integers_constant(s, &[0]);
        let batch = self.emit(s, "Gather", "axis = 0", &[&shape, &zero], &Val { dims: vec![Some(1)], ..shape.clone() });
        let rest = self.integers_constant(s, &[-1]);
        let target =
            self.emit(s, "Concat", "axis = 0", &[&batch, &rest], &Val { dims: vec![Some(2)], ..shape.clone() });
        let tail = x.dims[1..].iter().flatten().product();
        self.emit(s, "Reshape", "", &[x, &target], &Val { dims: vec![x.dims[0], Some(tail)], ..x.clone() });
    }

    pub(crate) fn product(&mut self, s: &mut Scope, x: &Val) {
        let Some(Some(k)) = x.dims.last().copied().filter(|_| x.dims.len() >= 2) else { return };
        let n = 1 + self.c.below(3);
        let w = self.constant(s, &[k, n]);
        let mut dims = x.dims.clone();
        dims.pop();
        dims.push(Some(n));
        let out = Val { dims, ..x.clone() };
        if x.dims.len() == 2 && k > 0 && self.c.chance(80) {
            let c = self.constant(s, &[n]);
            let op = ["", "alpha = 0.5", "beta = 2.0"][self.c.below(3)];
            self.emit(s, "Gemm", op, &[x, &w, &c], &out);
            return;
        }
        let m = self.emit(s, "MatMul", "", &[x, &w], &out);
        let shape = match self.c.below(5) {
            0 => return,
            1 => vec![],
            2 => vec![1, n],
            3 => m.dims.iter().map(|d| d.unwrap_or(1)).collect(),
            _ => vec![n],
        };
        let b = self.constant(s, &shape);
        let op = ["Add", "Mul"][self.c.below(2)];
        self.emit(s, op, "", &[&m, &b], &m);
    }

    pub(crate) fn convolution(&mut self, s: &mut Scope, x: &Val) {
        let images = |v: &Val| v.elem == Elem::Float && v.dims.len() == 4;
        let x = if images(x) { Some(x.clone()) } else { self.of(s, images) };
        let Some((x, [c, h, w])) = x.and_then(|x| {
            let [_, Some(c), Some(h), Some(w)] = x.dims[..] else { return None };
            (c > 0 && c < 9 && h > 2 && w > 2).then_some((x, [c, h, w]))
        }) else {
            return;
        };
        let sized =
            |n: usize, h: usize, w: usize| Val { dims: vec![x.dims[0], Some(n), Some(h), Some(w)], ..x.clone() };
        let y = match self.c.below(6) {
            0 => return drop(self.emit(s, "MaxPool", "kernel_shape = [2, 2]", &[&x], &sized(c, h - 1, w - 1))),
            1 => {
                let text = "kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1";
                return drop(self.emit(s, "AveragePool", text, &[&x], &sized(c, h, w)));
            }
            2 => return drop(self.emit(s, "GlobalAveragePool", "", &[&x], &sized(c, 1, 1))),
            3 => {
                let k = self.constant(s, &[c, 1, 3, 3]);
                self.emit(s, "Conv", &format!("group = {c}, pads = [1, 1, 1, 1]"), &[&x, &k], &sized(c, h, w))
            }
            _ => {
                let k = self.constant(s, &[2, c, 3, 3]);
                let b = self.constant(s, &[2]);
                let inputs: &[&Val] = if self.c.chance(128) { &[&x, &k] } else { &[&x, &k, &b] };
                self.emit(s, "Conv", "pads = [1, 1, 1, 1]", inputs, &sized(2, h, w))
            }
        };
        let Some(Some(n)) = y.dims.get(1).copied() else { return };
        if self.c.chance(100) {
            let [scale, bias, mean] = [(); 3].map(|()| self.constant(s, &[n]));
            let variance = self.integers_constant(s, &vec![2; n]);
            let variance = self.emit(s, "Cast", "to = 1", &[&variance], &Val { elem: Elem::Float, ..variance.clone() });
            self.emit(s, "BatchNormalization", "", &[&y, &scale, &bias, &mean, &variance], &y);
        } else if self.c.chance(128) {
            let f = self.constant(s, &[n, 1, 1]);
            let op = ["Mul", "Add"][self.c.below(2)];
            self.emit(s, op, "", &[&y, &f], &y);
        }
    }

    /// Nodes of a body, and a value of it that has the type of `like`.
    fn body(&mut self, s: &mut Scope, like: &Val, depth: usize) -> Val {
        for _ in 0..self.c.below(4) {
            self.node(s, depth + 1);
        }
        let x = self.of(s, |v| v.elem == like.elem && v.dims == like.dims).unwrap_or_else(|| like.clone());
        let op = ["Identity", "Neg", "Abs"][self.c.below(3)];
        self.emit(s, op, "", &[&x], like)
    }

    pub(crate) fn branch(&mut self, s: &mut Scope, x: &Val, depth: usize) {
        let condition = match self.of(s, |v| v.elem == Elem::Bool && v.dims.is_empty()).filter(|_| self.c.chance(128)) {
            Some(v) => v,
            None => {
                let name = s.fresh();
                s.inits.push(format!("bool {name} = {{{}}}", self.c.below(2)));
                Val { name, elem: Elem::Bool, dims: vec![], clean: true }
            }
        };
        let mut clean = condition.clean;
        let bodies = ["then_branch", "else_branch"].map(|key| {
            let mut inner = s.inside(depth);
            let out = self.body(&mut inner, x, depth);
            clean &= out.clean;
            s.used.extend(inner.used.iter().cloned());
            format!("{key} = {key} () => ({}) {}{{\n{}}}", out.declaration(), inner.initializers(), inner.nodes)
        });
        let out = Val { clean, ..x.clone() };
        self.emit(s, "If", &bodies.join(", "), &[&condition], &out);
    }

    pub(crate) fn loop_(&mut self, s: &mut Scope, x: &Val, depth: usize) {
        let name = s.fresh();
        let yes = s.fresh();
        s.inits.push(format!("int64 {name} = {{{}}}", self.c.below(4)));
        s.inits.push(format!("bool {yes} = {{1}}"));
        let constant = |name: String, elem| Val { name, elem, dims: vec![], clean: true };
        let (trips, yes) = (constant(name, Elem::Int), constant(yes, Elem::Bool));
        let mut inner = s.inside(depth);
        let [i, c, carried] = [inner.fresh(), inner.fresh(), inner.fresh()];
        let state = Val { name: carried, ..x.clone() };
        inner.add(state.clone());
        inner.nodes += &format!("    {c}_on = Identity ({c})\n");
        let out = self.body(&mut inner, x, depth);
        s.used.extend(inner.used.iter().cloned());
        let text = format!(
            "body = body (int64 {i}, bool {c}, {}) => (bool {c}_on, {}) {}{{\n{}}}",
            state.declaration(),
            out.declaration(),
            inner.initializers(),
            inner.nodes
        );
        let clean = out.clean && x.clean;
        self.emit(s, "Loop", &text, &[&trips, &yes, x], &Val { clean, ..x.clone() });
    }
}
