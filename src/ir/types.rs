//! Types of values: element type and shape, with symbolic and unknown dimensions.

use super::DType;
use crate::proto;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One dimension of a shape.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Dim {
    /// A size known before execution.
    Known(i64),
    /// A named size: equal names are equal sizes.
    Sym(Arc<str>),
    /// Nothing is known.
    Unknown,
}

/// First character of the symbols that stand for sizes without a name; no file may use it.
const ANONYMOUS: char = '\0';

impl Dim {
    /// A size of which only that it is one size is known: a symbol that equals itself alone, and is never written to a
    /// file. `Shape` of a value and the value's own axes are then known to be equal although neither has a name.
    pub fn anonymous() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Dim::Sym(format!("{ANONYMOUS}{}", NEXT.fetch_add(1, Ordering::Relaxed)).into())
    }

    /// Whether the size has a name that a file may show.
    pub fn is_named(&self) -> bool {
        matches!(self, Dim::Sym(s) if !s.starts_with(ANONYMOUS))
    }

    /// The size, where it is known and not negative.
    pub fn known(&self) -> Option<usize> {
        match self {
            Dim::Known(n) => usize::try_from(*n).ok(),
            _ => None,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Known(n) => write!(f, "{n}"),
            Dim::Sym(s) if self.is_named() => f.write_str(s),
            Dim::Sym(_) | Dim::Unknown => f.write_str("?"),
        }
    }
}

/// Type of a tensor: element type, and shape where the rank is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorType {
    /// Element type.
    pub elem: DType,
    /// Dimensions; `None` where not even the rank is known.
    pub shape: Option<Vec<Dim>>,
}

/// Type of a value.
#[derive(Clone, PartialEq, Debug)]
pub enum Type {
    /// A dense tensor.
    Tensor(TensorType),
    /// Sequences, maps, optionals, sparse tensors: kept as read.
    Other(Box<proto::TypeProto>),
}

impl Type {
    /// A tensor type with a known shape.
    pub fn tensor(elem: DType, dims: &[usize]) -> Self {
        let shape = dims.iter().map(|&d| Dim::Known(d as i64)).collect();
        Type::Tensor(TensorType { elem, shape: Some(shape) })
    }

    /// The tensor type, if it is one.
    pub fn as_tensor(&self) -> Option<&TensorType> {
        match self {
            Type::Tensor(t) => Some(t),
            Type::Other(_) => None,
        }
    }

    /// Element type, if this is a tensor.
    pub fn elem(&self) -> Option<DType> {
        self.as_tensor().map(|t| t.elem)
    }

    /// Dimensions, if this is a tensor of known rank.
    pub fn shape(&self) -> Option<&[Dim]> {
        self.as_tensor().and_then(|t| t.shape.as_deref())
    }

    /// All dimensions as numbers, if each one is known.
    pub fn static_shape(&self) -> Option<Vec<usize>> {
        self.shape()?.iter().map(Dim::known).collect()
    }

    /// Reads a `TypeProto`. Tensors of an element type that we do not know stay as read.
    pub fn from_proto(p: &proto::TypeProto) -> Self {
        if let Some(proto::type_proto::Value::TensorType(t)) = &p.value
            && let Some(elem) = t.elem_type.and_then(DType::from_onnx)
        {
            let shape = t.shape.as_ref().map(|s| s.dim.iter().map(dim_from_proto).collect());
            return Type::Tensor(TensorType { elem, shape });
        }
        Type::Other(Box::new(p.clone()))
    }

    /// Writes a `TypeProto`.
    pub fn to_proto(&self) -> proto::TypeProto {
        match self {
            Type::Other(p) => (**p).clone(),
            Type::Tensor(t) => {
                let shape = t
                    .shape
                    .as_ref()
                    .map(|dims| proto::TensorShapeProto { dim: dims.iter().map(dim_to_proto).collect() });
                let tensor = proto::type_proto::Tensor { elem_type: Some(t.elem.onnx()), shape };
                proto::TypeProto { denotation: None, value: Some(proto::type_proto::Value::TensorType(tensor)) }
            }
        }
    }
}

fn dim_from_proto(d: &proto::tensor_shape_proto::Dimension) -> Dim {
    use proto::tensor_shape_proto::dimension::Value;
    match &d.value {
        Some(Value::DimValue(n)) if *n >= 0 => Dim::Known(*n),
        Some(Value::DimParam(s)) if !s.is_empty() && !s.starts_with(ANONYMOUS) => Dim::Sym(s.as_str().into()),
        _ => Dim::Unknown,
    }
}

fn dim_to_proto(d: &Dim) -> proto::tensor_shape_proto::Dimension {
    use proto::tensor_shape_proto::{Dimension, dimension::Value};
    let value = match d {
        Dim::Known(n) => Some(Value::DimValue(*n)),
        Dim::Sym(s) if d.is_named() => Some(Value::DimParam(s.to_string())),
        Dim::Sym(_) | Dim::Unknown => None,
    };
    Dimension { value, denotation: None }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Type::Tensor(t) = self else { return f.write_str("(not a tensor)") };
        write!(f, "{}", t.elem)?;
        if let Some(dims) = &t.shape {
            let dims: Vec<String> = dims.iter().map(Dim::to_string).collect();
            write!(f, "[{}]", dims.join(", "))?;
        }
        Ok(())
    }
}
