//! Types, tensor literals and declarations.

use super::cursor::{Cursor, Literal, real};
use crate::error::Result;
use crate::ir::DType;
use crate::proto::tensor_shape_proto::{Dimension, dimension::Value as DimValue};
use crate::proto::{
    StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_proto::DataLocation,
    type_proto::{self, Value},
};

/// Words that begin a type that is not a tensor's.
const KEYWORDS: [&str; 5] = ["seq", "map", "optional", "sparse_tensor", "opaque"];

/// Whether a word begins a type.
pub(super) fn is_type_word(word: &str) -> bool {
    DType::from_name(word).is_some() || KEYWORDS.contains(&word)
}

/// Whether a type is next.
pub(super) fn next_is_type(c: &mut Cursor) -> bool {
    c.peek_identifier().is_some_and(is_type_word)
}

pub(super) fn type_proto(c: &mut Cursor) -> Result<TypeProto> {
    let boxed = |c: &mut Cursor| c.nested(type_proto).map(|t| Some(Box::new(t)));
    let value = if c.peek_identifier().and_then(DType::from_name).is_some() {
        let (elem_type, shape) = tensor_type(c)?;
        Value::TensorType(type_proto::Tensor { elem_type, shape })
    } else {
        let word = c.peek_identifier().filter(|w| KEYWORDS.contains(w)).ok_or_else(|| c.error("expected a type"))?;
        c.identifier("a type")?;
        c.expect("(")?;
        let value = match word {
            "seq" => Value::SequenceType(Box::new(type_proto::Sequence { elem_type: boxed(c)? })),
            "optional" => Value::OptionalType(Box::new(type_proto::Optional { elem_type: boxed(c)? })),
            "map" => {
                let key_type = Some(elem(c)?.onnx());
                c.expect(",")?;
                Value::MapType(Box::new(type_proto::Map { key_type, value_type: boxed(c)? }))
            }
            "sparse_tensor" => {
                let (elem_type, shape) = tensor_type(c)?;
                Value::SparseTensorType(type_proto::SparseTensor { elem_type, shape })
            }
            _ => Value::OpaqueType(opaque(c)?),
        };
        c.expect(")")?;
        value
    };
    Ok(TypeProto { denotation: None, value: Some(value) })
}

fn elem(c: &mut Cursor) -> Result<DType> {
    let found = c.peek_identifier().and_then(DType::from_name).ok_or_else(|| c.error("expected an element type"))?;
    c.identifier("an element type")?;
    Ok(found)
}

/// `float` is a scalar, `float[]` of unknown rank, `float[N,3]` of known rank.
fn tensor_type(c: &mut Cursor) -> Result<(Option<i32>, Option<TensorShapeProto>)> {
    let elem = Some(elem(c)?.onnx());
    let mut dim = vec![];
    if !c.eat("[") {
        return Ok((elem, Some(TensorShapeProto { dim })));
    }
    if c.eat("]") {
        return Ok((elem, None));
    }
    c.list("]", |c| {
        let value = if c.eat("?") {
            None
        } else if let Some(name) = c.optional_name()? {
            Some(DimValue::DimParam(name))
        } else {
            Some(DimValue::DimValue(c.int()?))
        };
        dim.push(Dimension { denotation: None, value });
        Ok(())
    })?;
    Ok((elem, Some(TensorShapeProto { dim })))
}

fn opaque(c: &mut Cursor) -> Result<type_proto::Opaque> {
    let mut parts: Vec<String> = vec![];
    if c.peek() == Some(b')') {
        return Ok(type_proto::Opaque::default());
    }
    loop {
        parts.push(c.name("a name")?);
        if !c.eat(".") {
            break;
        }
    }
    let first = Some(parts.join("."));
    if c.eat(",") {
        return Ok(type_proto::Opaque { domain: first, name: Some(c.name("a name")?) });
    }
    Ok(type_proto::Opaque { domain: None, name: first })
}

/// `[type] name`.
pub(super) fn value_info(c: &mut Cursor) -> Result<ValueInfoProto> {
    let ty = if next_is_type(c) { Some(type_proto(c)?) } else { None };
    let name = Some(c.name("the name of a value")?);
    Ok(ValueInfoProto { name, r#type: ty, ..Default::default() })
}

/// `"key": "value", ...` up to `]`.
pub(super) fn entries(c: &mut Cursor) -> Result<Vec<StringStringEntryProto>> {
    let mut out = vec![];
    c.list("]", |c| {
        let key = Some(c.string()?);
        c.expect(":")?;
        out.push(StringStringEntryProto { key, value: Some(c.string()?) });
        Ok(())
    })?;
    Ok(out)
}

/// The elements of a tensor of type `ty`: `{1, 2}`, or `["location": "file", ...]` for external data.
pub(super) fn tensor(c: &mut Cursor, ty: Option<&TypeProto>, name: Option<String>) -> Result<TensorProto> {
    let start = c.position();
    let Some(Value::TensorType(ty)) = ty.and_then(|t| t.value.as_ref()) else {
        return Err(c.error("a tensor literal needs a tensor type before its name"));
    };
    let dtype = ty.elem_type.and_then(DType::from_onnx).ok_or_else(|| c.error("unknown element type"))?;
    let shape = ty.shape.as_ref().ok_or_else(|| c.error("a tensor literal needs a shape of numbers"))?;
    let size = |d: &Dimension| match d.value {
        Some(DimValue::DimValue(n)) if n >= 0 => Some(n),
        _ => None,
    };
    let dims: Option<Vec<i64>> = shape.dim.iter().map(size).collect();
    let dims = dims.ok_or_else(|| c.error("a tensor literal needs a shape of numbers"))?;
    let mut t = TensorProto { dims, data_type: Some(dtype.onnx()), name, ..Default::default() };
    if c.eat("[") {
        t.data_location = Some(DataLocation::External as i32);
        t.external_data = entries(c)?;
        return Ok(t);
    }
    c.expect("{")?;
    let mut count = 0;
    c.list("}", |c| {
        count += 1;
        element(c, dtype, &mut t)
    })?;
    let len = t.dims.iter().try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?));
    let wanted = len.and_then(|n| match dtype {
        DType::C64 | DType::C128 => n.checked_mul(2),
        d if d.bits() > 0 && d.bits() < 8 => d.bytes_for(n), // one value per byte of packed elements
        _ => Some(n),
    });
    if wanted != Some(count) {
        let wanted = wanted.map_or("more than fit in memory".into(), |n| n.to_string());
        return Err(c.error_at(start, format!("{count} values for shape {:?}, which takes {wanted}", t.dims)));
    }
    Ok(t)
}

/// One element, into the field that the specification assigns to its type.
fn element(c: &mut Cursor, dtype: DType, t: &mut TensorProto) -> Result<()> {
    use DType::*;
    match dtype {
        F32 | C64 => t.float_data.push(c.real()?),
        F64 | C128 => t.double_data.push(c.real()?),
        I64 => t.int64_data.push(c.int()?),
        U64 => t.uint64_data.push(c.int()?),
        U32 => t.uint64_data.push(c.int::<u32>()?.into()),
        I32 => t.int32_data.push(c.int()?),
        I16 => t.int32_data.push(c.int::<i16>()?.into()),
        U16 => t.int32_data.push(c.int::<u16>()?.into()),
        I8 => t.int32_data.push(c.int::<i8>()?.into()),
        F16 | BF16 => t.int32_data.push(half(c, dtype)?.into()),
        String => t.string_data.push(c.string()?.into_bytes()),
        Bool | U8 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 => t.int32_data.push(c.int::<u8>()?.into()),
        I4 | U4 | F4E2M1 | I2 | U2 => t.int32_data.push(c.int::<u8>()?.into()),
    }
    Ok(())
}

/// A value, or without a decimal point a bit pattern.
fn half(c: &mut Cursor, dtype: DType) -> Result<u16> {
    let start = c.position();
    let bits = match c.literal()? {
        Literal::Int(s) => s.parse().ok(),
        Literal::Float(s) => real::<f64>(s).map(|x| match dtype {
            DType::BF16 => half::bf16::from_f64(x).to_bits(),
            _ => half::f16::from_f64(x).to_bits(),
        }),
        Literal::Text(_) => None,
    };
    bits.ok_or_else(|| c.error_at(start, "expected a value with a decimal point or a 16-bit pattern"))
}
