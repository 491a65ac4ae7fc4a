//! Constant.

use crate::error::{Error, Result};
use crate::ir::{AttributeValue, DType, Dim, Tensor};
use crate::ops::rules::DATA_LIMIT;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// A tensor in an attribute.
pub struct Constant;

impl OpSpec for Constant {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Constant", &[1, 9, 11, 12, 13, 19, 21, 23, 24, 25])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let Some(attribute) = cx.node.attributes.iter().find(|a| is_value(&a.name)) else {
            return Err(Error::invalid("a Constant without a value"));
        };
        let list = |elem, n: usize| Inferred::tensor(Some(elem), Some(vec![Dim::Known(n as i64)]));
        let scalar = |elem| Inferred::tensor(Some(elem), Some(vec![]));
        let mut inferred = match &attribute.value {
            AttributeValue::Tensor(t) => of_tensor(t),
            AttributeValue::Float(_) => scalar(DType::F32),
            AttributeValue::Int(_) => scalar(DType::I64),
            AttributeValue::String(_) => scalar(DType::String),
            AttributeValue::Floats(v) => list(DType::F32, v.len()),
            AttributeValue::Ints(v) => list(DType::I64, v.len()),
            AttributeValue::Strings(v) => list(DType::String, v.len()),
            _ => return Ok(vec![]),
        };
        match &attribute.value {
            AttributeValue::Int(i) => inferred.data = Some(vec![Dim::Known(*i)]),
            AttributeValue::Ints(v) if v.len() <= DATA_LIMIT => {
                inferred.data = Some(v.iter().copied().map(Dim::Known).collect());
            }
            _ => {}
        }
        Ok(vec![inferred])
    }
}

fn is_value(name: &str) -> bool {
    name.starts_with("value") || name == "sparse_value"
}

fn of_tensor(t: &Tensor) -> Inferred {
    let shape = t.dims.iter().map(|&d| Dim::Known(d as i64)).collect();
    let mut inferred = Inferred::tensor(Some(t.dtype), Some(shape));
    if t.dtype.is_int() && t.rank() <= 1 && t.len() <= DATA_LIMIT {
        inferred.data = t.to_i64().ok().map(|v| v.into_iter().map(Dim::Known).collect());
    }
    inferred
}
