//! Random models, valid by construction: arbitrary bytes are the choices that make them, so that a test that fails shrinks
//! by its bytes, and a fuzzer that mutates bytes mutates graphs.

use crate::choices::{Choices, Elem, Scope, Val, broadcast, count, ints, shape_text};

/// A model as text, and what is known of it.
pub struct Generated {
    /// The model in ONNX's text syntax.
    pub text: String,
    /// Outputs that depend on neither unknown nor random operators.
    pub executable: Vec<String>,
}

/// Most elements of a value.
const MOST: usize = 600;
/// Deepest nesting of bodies.
const DEEPEST: usize = 2;

pub(crate) struct Maker<'a> {
    pub c: Choices<'a>,
    pub opset: i64,
}

/// The model that `bytes` choose.
pub fn generate(bytes: &[u8]) -> Generated {
    let mut c = Choices::new(bytes);
    let opset = 9 + c.below(15) as i64;
    let mut m = Maker { c, opset };
    let mut scope = Scope::new("v");
    let inputs = m.inputs(&mut scope);
    for _ in 0..1 + m.c.below(14) {
        m.node(&mut scope, 0);
    }
    let outputs = m.outputs(&mut scope);
    let executable = outputs.iter().filter(|v| v.clean).map(|v| v.name.clone()).collect();
    let outputs: Vec<String> = outputs.iter().map(Val::declaration).collect();
    let text = format!(
        "<ir_version: 8, opset_import: [\"\" : {opset}, \"my\" : 1]>\ng ({}) => ({})\n{}{{\n{}}}\n",
        inputs.join(", "),
        outputs.join(", "),
        scope.initializers(),
        scope.nodes,
    );
    Generated { text, executable }
}

impl Maker<'_> {
    fn inputs(&mut self, s: &mut Scope) -> Vec<String> {
        use Elem::{Bool, Float, Int};
        let kinds: [(Elem, &[Option<usize>]); 12] = [
            (Float, &[None, Some(3)]),
            (Float, &[None, Some(2), Some(4), Some(4)]),
            (Float, &[Some(2), Some(3)]),
            (Float, &[Some(4)]),
            (Float, &[]),
            (Float, &[Some(0), Some(3)]),
            (Float, &[Some(1), Some(2), Some(5), Some(5)]),
            (Float, &[Some(3), Some(1)]),
            (Int, &[Some(3)]),
            (Int, &[None]),
            (Bool, &[]),
            (Bool, &[Some(3)]),
        ];
        let mut declared = vec![];
        for k in 0..1 + self.c.below(4) {
            // The first one is a float, so that every operator finds an operand.
            let (elem, dims) = kinds[self.c.below(if k == 0 { 8 } else { kinds.len() })];
            let name = if self.c.chance(30) { format!("\"in/{k}\"") } else { format!("x{k}") };
            let v = Val { name, elem, dims: dims.to_vec(), clean: true };
            declared.push(v.declaration());
            s.add(v);
        }
        if self.c.chance(40) {
            let values = self.c.floats(3);
            declared.push(format!("float[3] dflt = {{{values}}}"));
            s.add(Val { name: "dflt".into(), elem: Elem::Float, dims: vec![Some(3)], clean: true });
        }
        declared
    }

    /// Everything that nothing uses, and some other values, twice perhaps; graph inputs and initializers too.
    fn outputs(&mut self, s: &mut Scope) -> Vec<Val> {
        let mut out: Vec<Val> = s.vals.iter().filter(|v| !s.used.contains(&v.name)).cloned().collect();
        for _ in 0..self.c.below(3) {
            if let Some(v) = self.c.pick(&s.vals).cloned() {
                out.push(v);
            }
        }
        let mut seen = std::collections::HashSet::new();
        out.retain(|v| seen.insert(v.name.clone()));
        out.truncate(8);
        out
    }

    /// One node, or a few, that use what there is.
    pub(crate) fn node(&mut self, s: &mut Scope, depth: usize) {
        let kind = self.c.below(30);
        let Some(x) = self.float(s) else { return };
        match kind {
            0..=2 => self.unary(s, &x),
            3..=6 => self.binary(s, &x),
            7 => self.integers(s),
            8 => self.compare(s, &x),
            9 => self.cast(s, &x),
            10 | 11 => self.reshape(s, &x),
            12 => self.transpose(s, &x),
            13 => self.squeeze(s, &x),
            14 => self.concat_split(s, &x),
            15 | 16 => self.slice(s, &x),
            17 => self.gather(s, &x),
            18 => self.reduce(s, &x),
            19 => self.pad(s, &x),
            20 => self.expand(s, &x),
            21 => self.shape(s, &x),
            22 => self.product(s, &x),
            23 | 24 => self.convolution(s, &x),
            25 => self.opaque(s, &x),
            26 => self.constant_chain(s),
            27 if depth < DEEPEST => self.branch(s, &x, depth),
            28 if depth < DEEPEST => self.loop_(s, &x, depth),
            _ => self.softmax(s, &x),
        }
    }

    pub(crate) fn float(&mut self, s: &Scope) -> Option<Val> {
        self.of(s, |v| v.elem == Elem::Float)
    }

    pub(crate) fn of(&mut self, s: &Scope, fits: impl Fn(&Val) -> bool) -> Option<Val> {
        let found: Vec<&Val> = s.vals.iter().filter(|v| fits(v)).collect();
        // Recent ones more often, so that chains arise.
        let back = self.c.below(found.len().max(1)).min(self.c.below(found.len().max(1)));
        found.iter().rev().nth(back).map(|v| (*v).clone())
    }

    /// Adds `op`; the names of its outputs.
    pub(crate) fn emit(&mut self, s: &mut Scope, op: &str, attributes: &str, inputs: &[&Val], out: &Val) -> Val {
        let clean = inputs.iter().all(|v| v.clean) && out.clean;
        let name = s.fresh();
        let names: Vec<&str> = inputs.iter().map(|v| v.name.as_str()).collect();
        let attributes = if attributes.is_empty() { String::new() } else { format!("<{attributes}> ") };
        let label = if self.c.chance(40) { format!("[n{}] ", self.c.below(4)) } else { String::new() };
        s.nodes += &format!("    {label}{name} = {op} {attributes}({})\n", names.join(", "));
        names.iter().for_each(|n| s.use_(n));
        let v = Val { name, clean, ..out.clone() };
        s.add(v.clone());
        v
    }

    /// A constant of floats: an initializer, one that is there already, or a Constant node.
    pub(crate) fn constant(&mut self, s: &mut Scope, dims: &[usize]) -> Val {
        let wanted: Vec<Option<usize>> = dims.iter().copied().map(Some).collect();
        let there =
            s.constants.iter().filter(|v| v.elem == Elem::Float && v.dims == wanted).cloned().collect::<Vec<_>>();
        if self.c.chance(90)
            && let Some(v) = self.c.pick(&there)
        {
            return v.clone();
        }
        let values = self.c.floats(dims.iter().product());
        self.literal(s, Elem::Float, dims, &values)
    }

    pub(crate) fn integers_constant(&mut self, s: &mut Scope, values: &[i64]) -> Val {
        self.literal(s, Elem::Int, &[values.len()], &ints(values))
    }

    fn literal(&mut self, s: &mut Scope, elem: Elem, dims: &[usize], values: &str) -> Val {
        let v = Val { name: s.fresh(), elem, dims: dims.iter().copied().map(Some).collect(), clean: true };
        let ty = format!("{}{}", elem.name(), shape_text(&v.dims));
        if self.c.chance(60) {
            s.nodes += &format!("    {} = Constant <value = {ty} {{{values}}}> ()\n", v.name);
        } else {
            s.inits.push(format!("{ty} {} = {{{values}}}", v.name));
        }
        s.constants.push(v.clone());
        // Constants are operands like others, and may become outputs.
        if self.c.chance(40) {
            s.add(v.clone());
        }
        v
    }

    fn unary(&mut self, s: &mut Scope, x: &Val) {
        let ops = [
            ("Relu", ""),
            ("Neg", ""),
            ("Identity", ""),
            ("Abs", ""),
            ("Sigmoid", ""),
            ("Tanh", ""),
            ("Floor", ""),
            ("Ceil", ""),
            ("LeakyRelu", "alpha = 0.5"),
            ("Elu", ""),
            ("Erf", ""),
            ("Softsign", ""),
        ];
        match self.c.below(ops.len() + 3) {
            k if k < ops.len() => drop(self.emit(s, ops[k].0, ops[k].1, &[x], x)),
            k if k == ops.len() => self.clip(s, x),
            _ if self.opset < 12 => drop(self.emit(s, "Dropout", "ratio = 0.25", &[x], x)),
            _ => drop(self.emit(s, "Dropout", "", &[x], x)),
        }
    }

    fn clip(&mut self, s: &mut Scope, x: &Val) {
        if self.opset < 11 {
            let text = if self.c.chance(128) { "min = 0.0, max = 1.0" } else { "max = 0.5" };
            self.emit(s, "Clip", text, &[x], x);
            return;
        }
        let (low, high) = (self.constant(s, &[]), self.constant(s, &[]));
        let absent = Val { name: "\"\"".into(), ..low.clone() };
        let low = if self.c.chance(60) { absent } else { low };
        if self.c.chance(60) {
            self.emit(s, "Clip", "", &[x, &low], x)
        } else {
            self.emit(s, "Clip", "", &[x, &low, &high], x)
        };
    }

    fn binary(&mut self, s: &mut Scope, x: &Val) {
        let same = self.of(s, |v| v.elem == Elem::Float && v.dims == x.dims);
        let other = match (self.c.below(3), same) {
            (0, Some(v)) => v,
            _ => {
                let dims = self.c.operand(&x.dims);
                self.constant(s, &dims)
            }
        };
        let Some(dims) = broadcast(&x.dims, &other.dims).filter(|d| count(d) <= MOST) else { return };
        let out = Val { dims, ..x.clone() };
        let op = ["Add", "Mul", "Sub", "Add", "Mul", "Max", "Min", "Sum"][self.c.below(8)];
        if self.c.chance(60) {
            self.emit(s, op, "", &[&other, x], &out)
        } else {
            self.emit(s, op, "", &[x, &other], &out)
        };
    }

    fn integers(&mut self, s: &mut Scope) {
        let Some(x) = self.of(s, |v| v.elem == Elem::Int) else { return };
        let value = [0, 1, 2, -1, 3][self.c.below(5)];
        let c = self.literal(s, Elem::Int, &[], &value.to_string());
        let op = ["Add", "Mul", "Sub", "Div"][self.c.below(if value == 0 { 3 } else { 4 })];
        self.emit(s, op, "", &[&x, &c], &x);
    }

    fn compare(&mut self, s: &mut Scope, x: &Val) {
        let dims = self.c.operand(&x.dims);
        let c = self.constant(s, &dims);
        let Some(dims) = broadcast(&x.dims, &c.dims).filter(|d| count(d) <= MOST) else { return };
        let out = Val { elem: Elem::Bool, dims, ..x.clone() };
        let op = ["Greater", "Less"][self.c.below(2)];
        let b = self.emit(s, op, "", &[x, &c], &out);
        let b = if self.c.chance(80) { self.emit(s, "Not", "", &[&b], &b) } else { b };
        if self.c.chance(180) {
            let out = Val { elem: Elem::Float, ..b.clone() };
            self.emit(s, "Where", "", &[&b, x, &c], &out);
        }
    }

    fn cast(&mut self, s: &mut Scope, x: &Val) {
        let through = [("1", Elem::Float), ("10", Elem::Float), ("7", Elem::Int), ("11", Elem::Float)][self.c.below(4)];
        let name = s.fresh();
        // Inside an expression: what it is there is no element type of the other operators.
        s.nodes += &format!("    {name} = Cast <to = {}> ({})\n", through.0, x.name);
        s.use_(&x.name);
        let inner = Val { name, ..x.clone() };
        self.emit(s, "Cast", "to = 1", &[&inner], x);
        if self.c.chance(100) {
            let out = Val { elem: Elem::Int, ..x.clone() };
            self.emit(s, "Cast", "to = 7", &[x], &out);
        }
    }

    fn softmax(&mut self, s: &mut Scope, x: &Val) {
        if !x.dims.is_empty() {
            let axis = self.c.below(x.dims.len());
            let op = ["Softmax", "LogSoftmax"][self.c.below(2)];
            self.emit(s, op, &format!("axis = {axis}"), &[x], x);
        }
    }

    /// Unknown and random operators.
    fn opaque(&mut self, s: &mut Scope, x: &Val) {
        let out = Val { clean: false, ..x.clone() };
        match self.c.below(5) {
            0 => self.emit(s, "my.Relu", "a = 1.5, b: ints = [], s = \"text\"", &[x], &out),
            1 => self.emit(s, "my.Identity", "", &[x], &out),
            2 => self.emit(s, "RandomNormalLike", "", &[x], &out),
            3 => self.emit(s, "RandomUniformLike", "seed = 1.0", &[x], &out),
            _ => {
                let out = Val { clean: false, dims: vec![Some(2)], ..x.clone() };
                self.emit(s, "RandomNormal", "shape = [2]", &[], &out)
            }
        };
    }

    /// Nodes that are constant altogether.
    fn constant_chain(&mut self, s: &mut Scope) {
        let dims: &[usize] = [&[3][..], &[], &[2, 3], &[0, 3]][self.c.below(4)];
        let a = self.constant(s, dims);
        let op = ["Neg", "Abs", "Identity", "Exp"][self.c.below(4)];
        let n = self.emit(s, op, "", &[&a], &a);
        self.binary(s, &n);
    }
}
