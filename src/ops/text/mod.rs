//! Strings.

pub mod regex_full_match;
pub mod string_concat;
pub mod string_normalizer;
pub mod string_split;
pub mod tf_idf;
