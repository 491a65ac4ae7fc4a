//! Signal processing.

pub mod dft;
pub mod mel_weight_matrix;
pub mod stft;
pub mod window;
