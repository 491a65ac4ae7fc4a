//! The vocabulary of backward rules: how an operator's file says what it computes and what its gradients are.
//!
//! A rule is a pair of functions over [`Array`]s, generic over f32 and f64: training runs in f32, and the tests compare
//! every rule with central differences in f64. Integer and boolean inputs are tensors of the IR; they have no gradient.

use super::spec::InferContext;
use crate::error::{Error, Result};
use crate::ir::{DType, Tensor, Type};
use crate::math::{Array, Real, Table, along_axis, along_axis_backward};

/// A value on the tape.
#[derive(Clone, Debug)]
pub enum Value<T> {
    /// Of a float type, whichever one the graph declares.
    Float(Array<T>),
    /// Anything else.
    Other(Tensor),
}

impl<T: Element> Value<T> {
    /// Its type, with the tape's own precision for floats.
    pub fn ty(&self) -> Type {
        match self {
            Value::Float(a) => Type::tensor(T::DTYPE, a.dims()),
            Value::Other(t) => Type::tensor(t.dtype, &t.dims),
        }
    }

    /// The array, where it is one of floats.
    pub fn float(&self) -> Option<&Array<T>> {
        match self {
            Value::Float(a) => Some(a),
            Value::Other(_) => None,
        }
    }

    /// A value of the graph as one of the tape.
    ///
    /// # Errors
    /// Data that are missing or damaged.
    pub fn of(t: &Tensor) -> Result<Self> {
        Ok(if t.dtype.is_float() { Value::Float(T::read(t)?) } else { Value::Other(t.clone()) })
    }
}

/// An element type that rules are instantiated for.
pub trait Element: Real {
    /// The type's name in a graph.
    const DTYPE: DType;

    /// The functions of a rule for this type.
    fn kernel(rule: &Rule) -> &Kernel<Self>;

    /// The elements of a float tensor of any precision.
    ///
    /// # Errors
    /// A tensor of another type; data that are missing or damaged.
    fn read(t: &Tensor) -> Result<Array<Self>>;

    /// A tensor of this type.
    fn write(a: &Array<Self>) -> Tensor;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;

    fn kernel(rule: &Rule) -> &Kernel<Self> {
        &rule.single
    }

    fn read(t: &Tensor) -> Result<Array<Self>> {
        Ok(Array::new(&t.dims, t.to_f32()?))
    }

    fn write(a: &Array<Self>) -> Tensor {
        Tensor::from_f32(a.dims(), a.data())
    }
}

impl Element for f64 {
    const DTYPE: DType = DType::F64;

    fn kernel(rule: &Rule) -> &Kernel<Self> {
        &rule.double
    }

    fn read(t: &Tensor) -> Result<Array<Self>> {
        if t.dtype == DType::F64 {
            let bytes = t.bytes()?;
            return Ok(Array::new(&t.dims, bytes.as_chunks::<8>().0.iter().map(|&x| f64::from_le_bytes(x)).collect()));
        }
        Ok(Array::new(&t.dims, t.to_f32()?.into_iter().map(f64::from).collect()))
    }

    fn write(a: &Array<Self>) -> Tensor {
        Tensor::from_f64(a.dims(), a.data())
    }
}

/// The forward and the backward function of an operator for one element type.
pub struct Kernel<T> {
    /// Computes the outputs, and what the backward function needs beside inputs and outputs.
    pub forward: fn(&Forward<T>) -> Result<Computed<T>>,
    /// The gradients of the inputs from those of the outputs.
    pub backward: fn(&Backward<T>) -> Result<Gradients<T>>,
}

/// Per input slot; `None` where it was not asked for, or is 0 everywhere.
pub type Gradients<T> = Vec<Option<Array<T>>>;

/// A backward rule, and the forward function that goes with it.
pub struct Rule {
    /// In f32.
    pub single: Kernel<f32>,
    /// In f64.
    pub double: Kernel<f64>,
    /// Slots of numbers that are settings, not weights: never trained.
    pub settings: &'static [usize],
    /// Slots of statistics that follow from the data: constants are not trained there, but re-estimated.
    pub statistics: &'static [usize],
}

/// The [`Rule`] made of two generic functions.
macro_rules! rule {
    ($forward:ident, $backward:ident) => {
        rule!($forward, $backward, statistics: &[], settings: &[])
    };
    ($forward:ident, $backward:ident, statistics: $statistics:expr, settings: $settings:expr) => {
        Some($crate::ops::gradient::Rule {
            single: $crate::ops::gradient::Kernel { forward: $forward::<f32>, backward: $backward::<f32> },
            double: $crate::ops::gradient::Kernel { forward: $forward::<f64>, backward: $backward::<f64> },
            statistics: $statistics,
            settings: $settings,
        })
    };
}
pub(super) use rule;

/// What a forward function sees.
pub struct Forward<'a, T> {
    /// The node, with the types of its inputs and the data of integer ones.
    pub cx: &'a InferContext<'a>,
    /// Per slot; `None` where absent.
    pub inputs: &'a [Option<Value<T>>],
    /// Whether normalization uses the statistics of the batch and updates the stored ones.
    pub training: bool,
}

/// What a forward function gives.
pub struct Computed<T> {
    /// Per output slot; `None` where nobody asks for it.
    pub outputs: Vec<Option<Array<T>>>,
    /// For the backward function.
    pub saved: Saved<T>,
    /// In training: slots of statistics, and what they are in this batch.
    pub statistics: Vec<(usize, Array<T>)>,
}

/// What a forward function leaves for its backward function.
#[derive(Default)]
pub struct Saved<T> {
    /// Numbers.
    pub arrays: Vec<Vec<T>>,
    /// Positions.
    pub positions: Vec<u32>,
}

/// What a backward function sees.
pub struct Backward<'a, T> {
    /// As in [`Forward`].
    pub cx: &'a InferContext<'a>,
    /// As in [`Forward`].
    pub inputs: &'a [Option<Value<T>>],
    /// What the forward function gave.
    pub outputs: &'a [Option<Value<T>>],
    /// What the forward function saved.
    pub saved: &'a Saved<T>,
    /// Gradients of the outputs; `None` where they are 0.
    pub grads: &'a [Option<Array<T>>],
    /// Which inputs' gradients are asked for.
    pub wants: &'a [bool],
    /// As in [`Forward`].
    pub training: bool,
}

impl<T: Element> Computed<T> {
    /// One output, nothing saved.
    pub fn one(output: Array<T>) -> Self {
        Self { outputs: vec![Some(output)], saved: Saved { arrays: vec![], positions: vec![] }, statistics: vec![] }
    }

    /// The same, with these numbers saved.
    pub fn saving(mut self, arrays: Vec<Vec<T>>) -> Self {
        self.saved.arrays = arrays;
        self
    }
}

fn float_at<T>(inputs: &[Option<Value<T>>], k: usize) -> Result<&Array<T>> {
    match inputs.get(k) {
        Some(Some(Value::Float(a))) => Ok(a),
        Some(Some(Value::Other(t))) => {
            Err(Error::invalid(format!("input {k} is {}, expected a float tensor", t.dtype)))
        }
        _ => Err(Error::invalid(format!("input {k} is missing"))),
    }
}

fn number_at<T: Element>(inputs: &[Option<Value<T>>], k: usize) -> Result<Array<T>> {
    match inputs.get(k) {
        Some(Some(Value::Other(t))) => {
            Ok(Array::new(&t.dims, t.to_i64()?.into_iter().map(|i| T::of(i as f64)).collect()))
        }
        _ => float_at(inputs, k).cloned(),
    }
}

fn integers_at<T>(inputs: &[Option<Value<T>>], k: usize) -> Result<(Vec<i64>, &[usize])> {
    match inputs.get(k) {
        Some(Some(Value::Other(t))) => Ok((t.to_i64()?, &t.dims)),
        Some(Some(Value::Float(_))) => Err(Error::invalid(format!("input {k} is a float tensor, expected integers"))),
        _ => Err(Error::invalid(format!("input {k} is missing"))),
    }
}

/// Linear maps along some axes, applied one after another.
pub struct AxisMaps<T> {
    /// Axis and what each position along it becomes.
    pub maps: Vec<(usize, Table<T>)>,
}

impl<T: Element> AxisMaps<T> {
    /// The input after all maps.
    pub fn apply(&self, x: &Array<T>) -> Array<T> {
        let mut y = x.clone();
        for (axis, table) in &self.maps {
            let mut dims = y.dims().to_vec();
            let data = along_axis(y.data(), around(&dims, *axis), table);
            dims[*axis] = table.len();
            y = Array::new(&dims, data);
        }
        y
    }

    /// The gradient of an input of shape `dims`.
    pub fn apply_backward(&self, dims: &[usize], dy: &Array<T>) -> Array<T> {
        let mut shapes = vec![dims.to_vec()];
        for (axis, table) in &self.maps {
            let mut next = shapes[shapes.len() - 1].clone();
            next[*axis] = table.len();
            shapes.push(next);
        }
        let mut dx = dy.clone();
        for ((axis, table), dims) in self.maps.iter().zip(&shapes).rev() {
            dx = Array::new(dims, along_axis_backward(dx.data(), around(dims, *axis), table));
        }
        dx
    }
}

/// Elements before the axis, along it, and after it.
fn around(dims: &[usize], axis: usize) -> (usize, usize, usize) {
    (dims[..axis].iter().product(), dims[axis], dims[axis + 1..].iter().product())
}

/// Forward of an operator that gives the elements of input 0 another shape.
///
/// # Errors
/// A shape that does not fit.
pub fn reshape_forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let (x, dims) = (f.float(0)?, f.shape()?);
    if dims.iter().product::<usize>() != x.len() {
        return Err(Error::invalid(format!("{} elements do not fit the shape {dims:?}", x.len())));
    }
    Ok(Computed::one(x.reshaped(&dims)))
}

/// Backward of [`reshape_forward`].
///
/// # Errors
/// None in practice.
pub fn reshape_backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    Ok(b.first(b.grad()?.reshaped(b.float(0)?.dims())))
}

/// Output shapes by the operator's own inference.
fn shapes(cx: &InferContext) -> Result<Vec<Vec<usize>>> {
    let spec = super::spec(&cx.node.op).ok_or_else(|| Error::internal("an operator without a file"))?;
    let known = |i: super::spec::Inferred| i.ty.and_then(|t| t.static_shape());
    let all: Option<Vec<Vec<usize>>> = spec.infer(cx)?.into_iter().map(known).collect();
    all.ok_or_else(|| Error::unsupported("its output shape is not known before it is executed"))
}

macro_rules! reading {
    ($name:ident) => {
        impl<'a, T: Element> $name<'a, T> {
            /// Float input `k`.
            ///
            /// # Errors
            /// An input that is absent or of another type.
            pub fn float(&self, k: usize) -> Result<&'a Array<T>> {
                float_at(self.inputs, k)
            }

            /// Float input `k`, where it is present.
            pub fn optional(&self, k: usize) -> Option<&'a Array<T>> {
                self.inputs.get(k)?.as_ref()?.float()
            }

            /// Input `k` as floats, of whatever type it is.
            ///
            /// # Errors
            /// An input that is absent or holds no numbers.
            #[allow(dead_code)] // only some functions of each kind need it
            pub fn number(&self, k: usize) -> Result<Array<T>> {
                number_at(self.inputs, k)
            }

            /// Elements and shape of integer or boolean input `k`.
            ///
            /// # Errors
            /// An input that is absent or of another type.
            pub fn integers(&self, k: usize) -> Result<(Vec<i64>, &'a [usize])> {
                integers_at(self.inputs, k)
            }

            /// Shapes of the outputs.
            ///
            /// # Errors
            /// Inputs that the specification forbids.
            pub fn shapes(&self) -> Result<Vec<Vec<usize>>> {
                shapes(self.cx)
            }

            /// Shape of the first output.
            ///
            /// # Errors
            /// Inputs that the specification forbids.
            pub fn shape(&self) -> Result<Vec<usize>> {
                shapes(self.cx)?.into_iter().next().ok_or_else(|| Error::internal("no output is inferred"))
            }
        }
    };
}

reading!(Forward);
reading!(Backward);

impl<'a, T: Element> Backward<'a, T> {
    /// Gradient of output 0.
    ///
    /// # Errors
    /// None in practice: backward functions are called where an output has a gradient.
    pub fn grad(&self) -> Result<&'a Array<T>> {
        self.grads.first().and_then(Option::as_ref).ok_or_else(|| Error::internal("output 0 has no gradient"))
    }

    /// Float output 0.
    ///
    /// # Errors
    /// None in practice.
    pub fn output(&self) -> Result<&'a Array<T>> {
        float_at(self.outputs, 0)
    }

    /// Whether the gradient of input `k` is asked for.
    pub fn wants(&self, k: usize) -> bool {
        self.wants.get(k).copied().unwrap_or(false)
    }

    /// The gradient of input 0 alone.
    pub fn first(&self, grad: Array<T>) -> Gradients<T> {
        let mut all = vec![None; self.inputs.len()];
        all[0] = Some(grad);
        all
    }
}
