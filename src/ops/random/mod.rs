//! Random numbers.

pub mod generate;
pub mod like;
pub mod multinomial;
