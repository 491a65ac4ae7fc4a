//! Structured pruning: whole channels are removed, with everything that they are coupled to.
//!
//! Three things that have nothing to do with each other: which channels go together ([`crate::analysis::axis_groups`]),
//! how much each one matters ([`Importance`]), and cutting them out ([`Slice`]).

mod budget;
mod importance;
mod refit;
mod saliency;
mod select;
mod slice;
mod zero_state;

pub use budget::Budget;
pub use importance::{ChannelMagnitudes, Importance, Measure, Norm, ParameterScores, has_norm_scale};
pub use refit::{Anchor, Moments, anchors, reestimate, refit, refit_layers};
pub use saliency::{Saliencies, removal_scores, takers};
pub use select::{PruneOptions, Selected, Target, select};
pub use slice::{ChannelMap, Cut, Slice, zero_consumers};
pub use zero_state::EliminateZeroState;
