//! Classical machine learning (`ai.onnx.ml`).

pub mod estimator;
