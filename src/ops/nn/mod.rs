//! Layers of neural networks.

pub mod attention;
pub mod batch_norm;
pub mod clip;
pub mod conv;
pub mod conv_transpose;
pub mod deform_conv;
pub mod dropout;
pub mod global_pool;
pub mod group_norm;
pub mod layer_norm;
pub mod max_unpool;
pub mod norm;
pub mod pool;
pub mod recurrent;
pub mod relu;
pub mod rotary_embedding;
pub mod softmax;
