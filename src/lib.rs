//! Sardonyx: an ONNX graph rewriting optimizer.
//!
//! ```text
//! load (mmap) -> IR (petgraph) -> passes (patches) -> verify -> encode -> execute both in tract -> drift report
//! ```
//!
//! # What the IR means
//! A [`ir::Model`] is a whole `.onnx` file. Its [`ir::Graph`] is bipartite: values and nodes are both vertices, so a
//! value's type and data exist once. Whatever no pass reads is kept as it was read and written back the same.
//!
//! # Five laws
//! 1. One op, one file: every fact about an operator is in `ops/`; passes hold no lists of op names.
//! 2. Rules return patches; only the driver mutates; only dead-code elimination deletes.
//! 3. Nothing leaves a pass unverified; nothing leaves the program unexecuted, unless the user says so.
//! 4. Unknown is opaque: an op without a spec is preserved byte for byte, and is a barrier to every transformation.
//! 5. The command line only spells a [`recipe`]: no logic lives in it.
//!
//! # Layers
//! Imports go downward only: `{proto, math} -> ir -> {io, ops, calibrate} -> analysis -> passes -> runtime ->
//! {recover, drift} -> recipe -> cli`.
#![warn(missing_docs)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::unimplemented)]
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

/// The ONNX protobuf messages, generated from `proto/onnx.proto`.
#[allow(missing_docs, rustdoc::all, clippy::all)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

pub mod analysis;
pub mod calibrate;
pub mod drift;
pub mod error;
pub mod io;
pub mod ir;
pub mod math;
pub mod ops;
pub mod passes;
pub mod recipe;
pub mod recover;
pub mod runtime;

pub use error::{Context, Error, Result};
