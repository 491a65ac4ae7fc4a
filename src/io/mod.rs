//! Files: decoding, encoding, external data.

mod decode;
mod encode;
mod external;
mod feeds;
mod files;
mod mapped;
mod nesting;
mod npz;
mod options;
mod relocate;
mod sink;
mod size;
pub mod text;

pub use decode::{decode_model, model_from_proto, tensor_from_proto};
pub use encode::{graph_to_proto, model_to_proto, tensor_to_proto};
pub use external::load_external;
pub use feeds::{Batches, Dataset, Feed, Probe, State, StateLink, probes};
pub use files::{check_writable, load, save, save_with, write_atomically};
pub use mapped::{peek, same_bytes};
pub use npz::{read_npz, write_npz};
pub use options::{ExternalData, SaveOptions};
pub use size::{encoded_size, model_bytes};
