//! Other float types: the whole graph in f16 or back in f32, and weights that are only stored in fewer bits.

mod keep;
mod restore;
mod retype;

pub use keep::{FloatRange, Keep, Kept, has_values_of};
pub use restore::StoreFloats;
pub use retype::Retype;
