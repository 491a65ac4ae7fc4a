//! Optional, OptionalGetElement and OptionalHasElement.

use crate::error::Result;
use crate::ir::{DType, Type};
use crate::ops::rules::{content_type, optional_of, same_type};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};
use crate::proto::type_proto::Value as TypeValue;

/// Wraps a value that may be absent, unwraps it, and asks whether it is there.
pub struct Optional;

impl OpSpec for Optional {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Optional", &[15]), op("OptionalGetElement", &[15, 18]), op("OptionalHasElement", &[15, 18])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let inferred = match &*cx.node.op.op_type {
            "OptionalHasElement" => Inferred::tensor(Some(DType::Bool), Some(vec![])),
            "Optional" => optional_of(same_type(cx, 0).ty),
            // As of operator set 18 the input need not be an optional.
            _ if cx.tensor(0).is_some() => same_type(cx, 0),
            _ => Inferred { ty: content_type(cx, 0).filter(|_| is_optional(cx)), data: None },
        };
        Ok(vec![inferred])
    }
}

fn is_optional(cx: &InferContext) -> bool {
    let ty = cx.inputs.first().and_then(|i| i.as_ref()?.ty);
    matches!(ty, Some(Type::Other(p)) if matches!(p.value, Some(TypeValue::OptionalType(_))))
}
