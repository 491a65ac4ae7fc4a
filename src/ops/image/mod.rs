//! Images, boxes and regions.

pub mod affine_grid;
pub mod col2im;
pub mod grid_sample;
pub mod image_decoder;
pub mod non_max_suppression;
pub mod roi_align;
