//! Bounds the nesting of a protobuf message before it is decoded.
//!
//! Bodies nest in nodes and types in types, so decoding recurses. prost's own limit is too low for that (a body takes
//! three levels of messages), and without it a hostile file overflows the stack, which no error handling survives. This
//! scan of the wire format takes no recursion, skips element data without reading them, and costs next to nothing.

use crate::error::{Error, Result};

/// Deepest accepted nesting of messages: 84 bodies inside each other.
const MAX_DEPTH: usize = 256;

/// A kind of message, as far as its fields can nest further. `Leaf`: it holds no messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Model,
    Training,
    Function,
    Graph,
    Node,
    Attribute,
    ValueInfo,
    Annotation,
    Tensor,
    Sparse,
    Type,
    TensorType,
    Wrapper,
    MapType,
    Shape,
    DeviceConfiguration,
    Sharding,
    ShardedDim,
    Leaf,
}

/// The kind of message that a field holds; `None` for scalars, strings and unknown fields, which are skipped whole.
fn child(kind: Kind, field: u64) -> Option<Kind> {
    use Kind::*;
    Some(match (kind, field) {
        (Model, 7) => Graph,
        (Model, 8 | 14 | 26) => Leaf,
        (Model, 20) => Training,
        (Model, 25) => Function,
        (Training, 1 | 2) => Graph,
        (Training, 3 | 4) => Leaf,
        (Function, 7) => Node,
        (Function, 9 | 14) => Leaf,
        (Function, 11) => Attribute,
        (Function, 12) => ValueInfo,
        (Graph, 1) => Node,
        (Graph, 5) => Tensor,
        (Graph, 11..=13) => ValueInfo,
        (Graph, 14) => Annotation,
        (Graph, 15) => Sparse,
        (Graph, 16) => Leaf,
        (Node, 5) => Attribute,
        (Node, 9) => Leaf,
        (Node, 10) => DeviceConfiguration,
        (Attribute, 5 | 10) => Tensor,
        (Attribute, 6 | 11) => Graph,
        (Attribute, 14 | 15) => Type,
        (Attribute, 22 | 23) => Sparse,
        (ValueInfo, 2) => Type,
        (ValueInfo, 4) => Leaf,
        (Annotation, 2) => Leaf,
        (Tensor, 3 | 13 | 16) => Leaf,
        (Sparse, 1 | 2) => Tensor,
        (Type, 1 | 8) => TensorType,
        (Type, 4 | 9) => Wrapper,
        (Type, 5) => MapType,
        (Type, 7) => Leaf,
        (Wrapper, 1) => Type,
        (MapType, 2) => Type,
        (TensorType, 2) => Shape,
        (Shape, 1) => Leaf,
        (DeviceConfiguration, 2) => Sharding,
        (Sharding, 3) => Leaf,
        (Sharding, 4) => ShardedDim,
        (ShardedDim, 2) => Leaf,
        _ => return None,
    })
}

/// Checks that `bytes`, a message of kind `root`, nests no deeper than can be decoded safely.
///
/// # Errors
/// Nesting that is too deep, groups (which ONNX does not use and which nest too), truncated or malformed bytes.
pub(super) fn check(bytes: &[u8], root: Kind) -> Result<()> {
    let mut open = vec![(root, bytes.len())];
    let mut at = 0;
    while let Some(&(kind, end)) = open.last() {
        if at >= end {
            open.pop();
            continue;
        }
        let key = varint(bytes, &mut at)?;
        let skip = match key & 7 {
            0 => {
                varint(bytes, &mut at)?;
                0
            }
            1 => 8,
            2 => varint(bytes, &mut at)?,
            5 => 4,
            3 | 4 => return Err(malformed("it holds groups")),
            _ => return Err(malformed("unknown wire type")),
        };
        let next = usize::try_from(skip).ok().and_then(|n| at.checked_add(n)).filter(|&next| next <= end);
        let next = next.ok_or_else(|| malformed("a field ends beyond its message, so the file may be truncated"))?;
        match child(kind, key >> 3).filter(|_| key & 7 == 2) {
            Some(_) if open.len() >= MAX_DEPTH => {
                return Err(Error::unsupported(format!("messages nested deeper than {MAX_DEPTH} levels")));
            }
            Some(child) => open.push((child, next)),
            None => at = next,
        }
    }
    Ok(())
}

fn malformed(why: &str) -> Error {
    Error::invalid(format!("not a readable ONNX protobuf: {why}"))
}

fn varint(bytes: &[u8], at: &mut usize) -> Result<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).ok_or_else(|| malformed("it is truncated"))?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(malformed("a number of more than 10 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every field of message type in the schema is in the table: a field that a newer schema adds fails here.
    #[test]
    fn the_table_covers_the_schema() {
        let schema = include_str!("../../proto/onnx.proto");
        let enums = ["AttributeType", "DataLocation", "DataType"];
        let mut fields = 0;
        for line in schema.lines() {
            let words: Vec<&str> = line.split("//").next().unwrap_or_default().split_whitespace().collect();
            let words = words.strip_prefix(&["optional"]).or(words.strip_prefix(&["repeated"])).unwrap_or(&words);
            let [ty, _, "=", number, ..] = words else { continue };
            let is_number = number.trim_end_matches(';').parse::<u32>().is_ok();
            fields += usize::from(is_number && ty.starts_with(char::is_uppercase) && !enums.contains(ty));
        }
        let kinds = [
            Kind::Model,
            Kind::Training,
            Kind::Function,
            Kind::Graph,
            Kind::Node,
            Kind::Attribute,
            Kind::ValueInfo,
            Kind::Annotation,
            Kind::Tensor,
            Kind::Sparse,
            Kind::Type,
            Kind::TensorType,
            Kind::Wrapper,
            Kind::MapType,
            Kind::Shape,
            Kind::DeviceConfiguration,
            Kind::Sharding,
            Kind::ShardedDim,
        ];
        let table: usize = kinds.iter().map(|&k| (0..100).filter(|&f| child(k, f).is_some()).count()).sum();
        // In the schema Sequence and Optional are two messages with one field each, here both are `Wrapper`; so are the
        // two tensor types.
        assert_eq!(table + 2, fields);
    }

    #[test]
    fn malformed_bytes_are_errors() {
        for bytes in [&[0x80][..], &[0x3a, 5, 1], &[0x0b], &[0x0e], &[0xff; 11], &[0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f]]
        {
            assert!(check(bytes, Kind::Model).is_err(), "{bytes:?}");
        }
        assert!(check(&[], Kind::Model).is_ok());
    }
}
