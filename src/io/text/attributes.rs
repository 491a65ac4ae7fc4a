//! Attributes.

use super::cursor::{Cursor, Literal, is_float_word, real};
use super::parse::graph_after_name;
use super::tensors::{next_is_type, tensor, type_proto};
use crate::error::Result;
use crate::proto::AttributeProto;
use crate::proto::attribute_proto::AttributeType as T;

/// (name, type, type of one item where it is a list)
pub(super) const TYPES: &[(&str, T, Option<T>)] = &[
    ("float", T::Float, None),
    ("int", T::Int, None),
    ("string", T::String, None),
    ("tensor", T::Tensor, None),
    ("graph", T::Graph, None),
    ("type_proto", T::TypeProto, None),
    ("floats", T::Floats, Some(T::Float)),
    ("ints", T::Ints, Some(T::Int)),
    ("strings", T::Strings, Some(T::String)),
    ("tensors", T::Tensors, Some(T::Tensor)),
    ("graphs", T::Graphs, Some(T::Graph)),
    ("type_protos", T::TypeProtos, Some(T::TypeProto)),
    ("sparse_tensor", T::SparseTensor, None),
    ("sparse_tensors", T::SparseTensors, Some(T::SparseTensor)),
];

/// `<name = value, ...>`, or nothing.
pub(super) fn attributes(c: &mut Cursor) -> Result<Vec<AttributeProto>> {
    let mut out = vec![];
    if c.eat("<") {
        c.list(">", |c| {
            let name = c.name("the name of an attribute")?;
            out.push(attribute(c, name)?);
            Ok(())
        })?;
    }
    Ok(out)
}

/// `[: type] = value`, after the name.
pub(super) fn attribute(c: &mut Cursor, name: String) -> Result<AttributeProto> {
    let mut declared = None;
    if c.eat(":") {
        let start = c.position();
        let word = c.identifier("the type of an attribute")?;
        let found = TYPES.iter().find(|row| row.0 == word);
        declared = Some(*found.ok_or_else(|| c.error_at(start, "unknown attribute type"))?);
    }
    c.expect("=")?;
    let start = c.position();
    let mut a = if c.eat("[") {
        list(c, declared)?
    } else {
        let a = single(c, declared.map(|d| d.1))?;
        check(c, start, declared.map(|d| d.1), &a)?;
        a
    };
    a.name = Some(name);
    Ok(a)
}

fn list(c: &mut Cursor, declared: Option<(&str, T, Option<T>)>) -> Result<AttributeProto> {
    let start = c.position();
    let mut item = None;
    if let Some((name, _, of)) = declared {
        item = Some(of.ok_or_else(|| c.error_at(start, format!("a list where type {name} is declared")))?);
    }
    let mut a = AttributeProto::default();
    c.list("]", |c| {
        let start = c.position();
        let mut one = single(c, item)?;
        check(c, start, item, &one)?;
        item = Some(one.r#type());
        a.floats.extend(one.f);
        a.ints.extend(one.i);
        a.strings.extend(one.s.take());
        a.tensors.extend(one.t.take());
        a.graphs.extend(one.g.take());
        a.type_protos.extend(one.tp.take());
        Ok(())
    })?;
    let of_items = TYPES.iter().find(|row| row.2.is_some() && row.2 == item);
    let ty = of_items.ok_or_else(|| c.error_at(start, "an empty list needs a type: `name: ints = []`"))?.1;
    a.r#type = Some(ty as i32);
    Ok(a)
}

fn check(c: &Cursor, start: usize, wanted: Option<T>, a: &AttributeProto) -> Result<()> {
    let is = a.r#type();
    match wanted {
        Some(w) if w != is => {
            let name = |t: T| TYPES.iter().find(|row| row.1 == t).map_or("nothing", |row| row.0);
            Err(c.error_at(start, format!("a value of type {} where {} is expected", name(is), name(w))))
        }
        _ => Ok(()),
    }
}

/// One value; an integer becomes a float where a float is wanted.
fn single(c: &mut Cursor, wanted: Option<T>) -> Result<AttributeProto> {
    let mut a = AttributeProto::default();
    if c.eat("@") {
        a.ref_attr_name = Some(c.name("the name of an attribute of the function")?);
        a.r#type = wanted.map(|t| t as i32);
        return Ok(a);
    }
    let start = c.position();
    let ty = match c.peek_identifier() {
        Some(_) if next_is_type(c) => typed(c, &mut a)?,
        Some(word) if !is_float_word(word) => {
            let name = c.name("the name of a body")?;
            a.g = Some(c.nested(|c| graph_after_name(c, name))?);
            T::Graph
        }
        _ => {
            let bad = |c: &Cursor| c.error_at(start, "expected a number in the range of its type");
            match c.literal()? {
                Literal::Int(s) if wanted != Some(T::Float) => {
                    a.i = Some(s.parse().map_err(|_| bad(c))?);
                    T::Int
                }
                Literal::Int(s) | Literal::Float(s) => {
                    a.f = Some(real(s).ok_or_else(|| bad(c))?);
                    T::Float
                }
                Literal::Text(name) if c.peek() == Some(b'(') => {
                    a.g = Some(c.nested(|c| graph_after_name(c, name))?);
                    T::Graph
                }
                Literal::Text(s) => {
                    a.s = Some(s.into_bytes());
                    T::String
                }
            }
        }
    };
    a.r#type = Some(ty as i32);
    Ok(a)
}

/// A type, or a tensor: `float[2] {1, 2}`, `float[2] name = {1, 2}`.
fn typed(c: &mut Cursor, a: &mut AttributeProto) -> Result<T> {
    let ty = type_proto(c)?;
    let is_tensor = matches!(c.peek(), Some(b'{' | b'=' | b'"')) || c.peek_identifier().is_some();
    if !is_tensor {
        a.tp = Some(ty);
        return Ok(T::TypeProto);
    }
    let name = c.optional_name()?.filter(|n| !n.is_empty());
    c.eat("=");
    a.t = Some(tensor(c, Some(&ty), name)?);
    Ok(T::Tensor)
}
