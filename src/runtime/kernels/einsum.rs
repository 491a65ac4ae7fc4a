//! Einsum of one operand.

use super::super::custom::{Fact, Kernel};
use super::common::{concrete, f64s, fact, for_each_index, narrowed, strides, text, volume};
use super::layout::required;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `Einsum` (specification: version 12) of one operand: sums, diagonals and transpositions. In f64. tract forgets to sum where
/// nothing is left.
#[derive(Debug)]
pub(super) struct Einsum {
    input: Vec<char>,
    output: Vec<char>,
}

impl Einsum {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        let equation: String = text(node, "equation", "")?.split_whitespace().collect();
        ensure!(equation.is_ascii() && !equation.contains(['.', ',']), "the equation \"{equation}\" over one operand");
        let (input, output) = match equation.split_once("->") {
            Some((input, output)) => (input.chars().collect(), output.chars().collect()),
            None => (equation.chars().collect(), implicit(&equation)),
        };
        let op = Self { input, output };
        let distinct = op.output.iter().enumerate().all(|(k, c)| !op.output[..k].contains(c) && op.input.contains(c));
        ensure!(distinct && op.input.iter().all(char::is_ascii_alphabetic), "the equation \"{equation}\"");
        Ok(op)
    }

    fn shape(&self, x: &[usize]) -> TractResult<TVec<usize>> {
        ensure!(x.len() == self.input.len(), "{} letters for shape {x:?}", self.input.len());
        let size = |c: &char| {
            let mut sizes = self.input.iter().zip(x).filter(|(i, _)| *i == c).map(|(_, &n)| n);
            let first = sizes.next().unwrap_or(1);
            ensure!(sizes.all(|n| n == first), "the letter {c} for several sizes of {x:?}");
            Ok(first)
        };
        for c in &self.input {
            size(c)?;
        }
        let shape: TVec<usize> = self.output.iter().map(size).collect::<TractResult<_>>()?;
        volume(&shape)?;
        Ok(shape)
    }
}

/// The letters that are there once, in order.
fn implicit(input: &str) -> Vec<char> {
    let mut letters: Vec<char> = input.chars().filter(|c| input.matches(*c).count() == 1).collect();
    letters.sort_unstable();
    letters
}

impl Kernel for Einsum {
    fn name(&self) -> &'static str {
        "Einsum"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let x = required(inputs, 0)?;
        Ok(tvec![fact(x.dtype, &self.shape(&concrete(&x.shape)?)?)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        let shape = self.shape(x.shape())?;
        let values = f64s(x)?;
        let steps = strides(&shape);
        let mut y = vec![0f64; shape.iter().product()];
        for_each_index(x.shape(), |flat, index| {
            let of = |c: char| self.input.iter().zip(index).filter(move |(i, _)| **i == c).map(|(_, &at)| at);
            // Off the diagonal of a letter that is there twice.
            if self.input.iter().any(|&c| of(c).any(|at| Some(at) != of(c).next())) {
                return Ok(());
            }
            let to: usize = self.output.iter().zip(&steps).map(|(&c, step)| of(c).next().unwrap_or(0) * step).sum();
            y[to] += values[flat];
            Ok(())
        })?;
        Ok(tvec![narrowed(x.datum_type(), &shape, &y)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_diagonals_and_transpositions() {
        let x = tensor2(&[[1f32, 2.0], [3.0, 4.0]]);
        let run = |input: &str, output: &str| {
            let op = Einsum { input: input.chars().collect(), output: output.chars().collect() };
            op.eval(&[Some(&x)]).map(|y| y[0].clone())
        };
        assert_eq!(run("ij", "").unwrap(), tensor0(10f32));
        assert_eq!(run("ij", "ji").unwrap(), tensor2(&[[1f32, 3.0], [2.0, 4.0]]));
        assert_eq!(run("ii", "i").unwrap(), tensor1(&[1f32, 4.0]));
        assert_eq!(run("ij", "j").unwrap(), tensor1(&[4f32, 6.0]));
        assert!(run("ijk", "i").is_err());
        let empty = Tensor::zero::<f32>(&[0, 2]).unwrap();
        let op = Einsum { input: vec!['i', 'j'], output: vec!['j'] };
        assert_eq!(op.eval(&[Some(&empty)]).unwrap()[0], tensor1(&[0f32, 0.0]));
        assert_eq!(implicit("iji"), ['j']);
    }
}
