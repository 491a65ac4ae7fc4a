//! Products written in several multiplications, as activation functions are.

use super::matching::{Look, near};
use crate::ir::{DType, NodeId, ValueId};

/// More multiplications than any activation function is written in.
const MOST_NODES: usize = 8;

/// A product: a number times values.
pub(super) struct Product {
    pub factor: f64,
    pub terms: Vec<ValueId>,
    /// Rank of the number, the highest of all that were multiplied.
    rank: usize,
    /// Element type of the numbers.
    dtype: Option<DType>,
}

impl Product {
    /// What node `id` (Mul, or Div by a number) computes, with the products that only it needs multiplied out.
    pub fn of_node(look: Look, id: NodeId) -> Option<Self> {
        let mut product = Self { factor: 1.0, terms: vec![], rank: 0, dtype: None };
        let mut stack = vec![id];
        let mut visited = 0;
        while let Some(id) = stack.pop() {
            visited += 1;
            let (a, b) = look.operands(id)?;
            if look.is_op(id, "Div") {
                product.number(look, b, true).then_some(())?;
                product.operand(look, a, &mut stack);
            } else {
                product.operand(look, a, &mut stack);
                product.operand(look, b, &mut stack);
            }
            if visited > MOST_NODES {
                return None;
            }
        }
        Some(product)
    }

    /// What a value is: a product that only its user needs, or itself.
    pub fn of_value(look: Look, v: ValueId) -> Option<Self> {
        let scaled = |id: NodeId| look.operands(id).is_some_and(|(_, b)| look.scalar(b).is_some());
        match (look.inner(v, "Mul"), look.inner(v, "Div").filter(|&id| scaled(id))) {
            (Some(id), _) | (_, Some(id)) => Self::of_node(look, id),
            _ => Some(Self { factor: 1.0, terms: vec![v], rank: 0, dtype: None }),
        }
    }

    fn operand(&mut self, look: Look, v: ValueId, stack: &mut Vec<NodeId>) {
        if self.number(look, v, false) {
            return;
        }
        let divides = |id: &NodeId| look.operands(*id).is_some_and(|(_, b)| look.scalar(b).is_some());
        match look.inner(v, "Mul").or_else(|| look.inner(v, "Div").filter(divides)) {
            Some(id) => stack.push(id),
            None => self.terms.push(v),
        }
    }

    fn number(&mut self, look: Look, v: ValueId, divides: bool) -> bool {
        let Some(s) = look.scalar(v) else { return false };
        self.factor *= if divides { 1.0 / s.value } else { s.value };
        self.rank = self.rank.max(s.rank);
        self.dtype = Some(s.dtype);
        true
    }

    /// Whether the number is `factor`, up to the rounding of its type, and leaves the shape of `x` as it is.
    pub fn is_scaled_by(&self, look: Look, x: ValueId, factor: f64) -> bool {
        near(self.factor, factor, self.dtype.unwrap_or(DType::F32)) && look.keeps_shape(x, self.rank)
    }

    /// Both terms in each order, where there are two.
    pub fn pairs(&self) -> Vec<(ValueId, ValueId)> {
        match self.terms[..] {
            [a, b] => vec![(a, b), (b, a)],
            _ => vec![],
        }
    }
}
