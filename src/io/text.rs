//! ONNX's text syntax: parsing and printing models (onnx/docs/Syntax.md, onnx/defs/parser.cc).
//!
//! ```text
//! <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
//! small (float[N,3] x) => (float[N,2] y)
//! <float[3,2] w = {1,2,3,4,5,6}, float[N,2] h>
//! {
//!     # outputs = [domain.]Operator <attributes> (inputs)
//!     h = Gemm <alpha = 0.5, transB: int = 0> (x, w)
//!     [name] y = com.microsoft.Gelu (h)
//! }
//! ```
//! `float x` is a scalar, `float[] x` a tensor of unknown rank, `?` a dimension about which nothing is known, `"any text"`
//! a name that is no identifier, `""` an absent optional input. `<float x = {0}>` is an initializer, `<float[3] x>` a
//! declaration; an initializer among the graph inputs is a default. Attributes may follow the inputs, and may be bodies:
//! `then_branch = name () => (float y) { ... }`.
//!
//! Beyond ONNX's own parser this one checks that a tensor literal has as many values as its shape, and accepts quoted
//! parts in domains, lists of tensors, bodies and types, and float16 and bfloat16 elements written with a decimal point
//! as values (without one they are bit patterns, as in ONNX).

mod attributes;
mod cursor;
mod parse;
mod print;
mod tensors;

pub use parse::{parse_graph, parse_model};
pub use print::{print_model, print_model_with};

#[cfg(test)]
mod tests;
