//! Operators that move, select or describe elements.

pub mod cast;
pub mod concat;
pub mod constant;
pub mod constant_of_shape;
pub mod depth_space;
pub mod expand;
pub mod flatten;
pub mod gather;
pub mod gather_elements;
pub mod gather_nd;
pub mod identity;
pub mod in_place;
pub mod non_zero;
pub mod one_hot;
pub mod pad;
pub mod range;
pub mod reshape;
pub mod resize;
pub mod shape;
pub mod slice;
pub mod split;
pub mod squeeze;
pub mod tile;
pub mod topk;
pub mod transpose;
pub mod unsqueeze;
