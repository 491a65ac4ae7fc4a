//! What can be known about a model without executing it.

pub mod axis_groups;
pub mod cost;
pub mod opset;
pub mod shapes;

#[cfg(test)]
mod shapes_tests;
#[cfg(test)]
mod testing;
