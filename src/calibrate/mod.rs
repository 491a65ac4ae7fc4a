//! What values look like: streaming statistics of activations and weights, and the quantization ranges they imply.
//!
//! [`Statistics`] observes any number of samples in constant memory and does not depend on their order, so one pass
//! over the calibration data serves every [`Method`], and a saved [`CalibrationTable`] can be asked again without data.

mod channels;
mod collector;
mod entropy;
mod gram;
mod histogram;
mod means;
mod mse;
mod params;
mod range;
mod regression;
mod sample;
mod table;

pub use channels::ChannelStatistics;
pub use collector::Collector;
pub use gram::Gram;
pub use histogram::{NonFinite, Statistics};
pub use means::ChannelMeans;
pub use params::{QuantParams, RangeSpec};
pub use range::{Method, range};
pub use regression::Regression;
pub use sample::Sample;
pub use table::{CalibrationTable, TABLE_VERSION};
