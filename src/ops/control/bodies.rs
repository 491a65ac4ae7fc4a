//! If, Loop and Scan. The outputs of an If are what both branches make; those of a Loop or Scan are not followed.

use crate::error::Result;
use crate::ir::{Dim, Graph, TensorType, Type};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, Upgrade, op};

/// Nodes with bodies.
pub struct Bodies;

impl OpSpec for Bodies {
    fn schemas(&self) -> &'static [Schema] {
        &const {
            [
                op("If", &[1, 11, 13, 16, 19, 21, 23, 24, 25]),
                op("Loop", &[1, 11, 13, 16, 19, 21, 23, 24, 25]),
                op("Scan", &[8, 9, 11, 16, 19, 21, 23, 24, 25]),
            ]
        }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let bodies: Vec<&Graph> = cx.node.bodies().collect();
        let [one, other] = bodies[..] else { return Ok(vec![]) };
        if &*cx.node.op.op_type != "If" || one.outputs().len() != other.outputs().len() {
            return Ok(vec![]);
        }
        let pairs = one.outputs().iter().zip(other.outputs());
        Ok(pairs.map(|(&a, &b)| Inferred { ty: either(one.ty(a), other.ty(b)), data: None }).collect())
    }

    fn upgrade(&self, cx: &InferContext, _to: i64) -> Upgrade {
        if cx.opset < 9 && &*cx.node.op.op_type == "Scan" {
            return Upgrade::Impossible("its form before operator set 9 is not supported".into());
        }
        Upgrade::Same
    }

    /// A body may hold random operators.
    fn deterministic(&self) -> bool {
        false
    }
}

/// What is known of a value that has one type or the other.
fn either(a: Option<&Type>, b: Option<&Type>) -> Option<Type> {
    let (a, b) = (a?.as_tensor()?, b?.as_tensor()?);
    let shape = match (&a.shape, &b.shape) {
        (Some(x), Some(y)) if x.len() == y.len() => {
            Some(x.iter().zip(y).map(|(x, y)| if x == y { x.clone() } else { Dim::Unknown }).collect())
        }
        _ => None,
    };
    (a.elem == b.elem).then_some(Type::Tensor(TensorType { elem: a.elem, shape }))
}
