//! Operators of ONNX Runtime's domain that exporters and its own tools write.

pub mod activation;
pub mod attention;
pub mod dynamic_lstm;
pub mod dynamic_matmul;
pub mod embed_layer_norm;
pub mod fused_conv;
pub mod fused_gemm;
pub mod fused_matmul;
pub mod gather_quantized;
pub mod matmul_nbits;
pub mod multi_head_attention;
pub mod skip_norm;
