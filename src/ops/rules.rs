//! Rules that the files of several operators share: reading attributes, axes, broadcasting, arithmetic on dimensions.

use super::spec::{InferContext, Inferred, Upgrade};
use crate::error::{Error, Result};
use crate::ir::{AttributeValue, DType, Dim, Node, Tensor, Type};
use crate::proto;
use crate::proto::type_proto::{Optional, Sequence, Value as TypeValue};

/// Shape arithmetic works on vectors of at most this many elements; longer ones are data, not shapes.
pub const DATA_LIMIT: usize = 1024;

fn wrong_kind<T>(name: &str, kind: &str) -> Result<T> {
    Err(Error::invalid(format!("attribute \"{name}\" is not {kind}")))
}

/// An integer attribute, or `default` where it is absent.
pub fn int(cx: &InferContext, name: &str, default: i64) -> Result<i64> {
    match cx.node.attribute(name) {
        None => Ok(default),
        Some(AttributeValue::Int(i)) => Ok(*i),
        Some(_) => wrong_kind(name, "an integer"),
    }
}

/// A float attribute, or `default` where it is absent.
pub fn float(cx: &InferContext, name: &str, default: f32) -> Result<f32> {
    match cx.node.attribute(name) {
        None => Ok(default),
        Some(AttributeValue::Float(x)) => Ok(*x),
        Some(_) => wrong_kind(name, "a float"),
    }
}

/// A list of integers, where the attribute is present.
pub fn ints<'a>(cx: &InferContext<'a>, name: &str) -> Result<Option<&'a [i64]>> {
    match cx.node.attribute(name) {
        None => Ok(None),
        Some(AttributeValue::Ints(v)) => Ok(Some(v)),
        Some(_) => wrong_kind(name, "a list of integers"),
    }
}

/// A string attribute, or `default` where it is absent.
pub fn string<'a>(cx: &InferContext<'a>, name: &str, default: &'a str) -> Result<&'a str> {
    match (cx.node.attribute(name), cx.node.string(name)) {
        (None, _) => Ok(default),
        (_, Some(s)) => Ok(s),
        _ => wrong_kind(name, "a string"),
    }
}

/// The one output of an op with a single output.
pub fn output(elem: Option<DType>, shape: Option<Vec<Dim>>) -> Result<Vec<Inferred>> {
    Ok(vec![Inferred::tensor(elem, shape)])
}

/// Output 0 has the type of input `k`.
pub fn same_as(cx: &InferContext, k: usize) -> Result<Vec<Inferred>> {
    output(cx.elem(k), cx.shape(k).map(<[Dim]>::to_vec))
}

/// Whether input `k` is known to be f32: roles in quantization exist for that only.
pub fn is_f32(cx: &InferContext, k: usize) -> bool {
    cx.elem(k) == Some(DType::F32)
}

/// Counts `axis` from the front.
pub fn axis(axis: i64, rank: usize) -> Result<usize> {
    let from_front = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    let inside = usize::try_from(from_front).ok().filter(|&k| k < rank);
    inside.ok_or_else(|| Error::invalid(format!("axis {axis} is outside a tensor of rank {rank}")))
}

/// Which axes `list` names, as a mask over `rank` axes.
pub fn axis_mask(list: &[i64], rank: usize) -> Result<Vec<bool>> {
    let mut mask = vec![false; rank];
    for &a in list {
        let k = axis(a, rank)?;
        if std::mem::replace(&mut mask[k], true) {
            return Err(Error::invalid(format!("axis {a} is named twice")));
        }
    }
    Ok(mask)
}

/// A list that newer operator sets pass as an input and older ones as an attribute.
pub enum Listed {
    /// Neither attribute nor input.
    Absent,
    /// Its elements.
    Known(Vec<i64>),
    /// An input whose data are not known.
    Unknown,
}

/// Reads `name` as an attribute before operator set `since`, from input `slot` as of it.
pub fn listed(cx: &InferContext, name: &str, slot: usize, since: i64) -> Result<Listed> {
    if cx.opset < since {
        return Ok(ints(cx, name)?.map_or(Listed::Absent, |v| Listed::Known(v.to_vec())));
    }
    if !cx.present(slot) {
        return Ok(Listed::Absent);
    }
    Ok(cx.ints(slot).map_or(Listed::Unknown, Listed::Known))
}

/// The node without attribute `name`, whose integers become input `slot`.
pub fn attribute_to_input(cx: &InferContext, name: &str, slot: usize) -> Upgrade {
    match cx.node.attribute(name) {
        None => Upgrade::Same,
        Some(AttributeValue::Ints(v)) => {
            let constant = Tensor::from_i64(&[v.len()], v);
            Upgrade::Changed { node: Box::new(without(cx.node, &[name])), new_inputs: vec![(slot, constant)] }
        }
        Some(_) => Upgrade::Impossible(format!("its attribute \"{name}\" is not a list of integers")),
    }
}

/// The node without these attributes.
pub fn without(node: &Node, names: &[&str]) -> Node {
    let mut node = node.clone();
    node.attributes.retain(|a| !names.contains(&&*a.name));
    node
}

/// Elements of a small integer input of rank 0 or 1, symbolic ones included.
pub fn vector(cx: &InferContext, k: usize) -> Option<Vec<Dim>> {
    if cx.constant(k).is_some_and(|t| t.rank() > 1 || t.len() > DATA_LIMIT) {
        return None;
    }
    cx.dims(k)
}

/// Integers of a small integer input of rank 0 or 1.
pub fn known_vector(cx: &InferContext, k: usize) -> Option<Vec<i64>> {
    vector(cx, k)?.into_iter().map(|d| if let Dim::Known(n) = d { Some(n) } else { None }).collect()
}

/// A requested shape: input `k` holds one dimension per element. Of a vector whose data are unknown, its length still
/// gives the rank.
pub fn requested_shape(cx: &InferContext, k: usize) -> Result<Option<Vec<Dim>>> {
    if let Some(dims) = vector(cx, k) {
        let negative = dims.iter().find(|d| matches!(d, Dim::Known(n) if *n < 0));
        return match negative {
            Some(n) => Err(Error::invalid(format!("the requested shape has the dimension {n}"))),
            None => Ok(Some(dims)),
        };
    }
    Ok(unknown_of_len(cx, k))
}

/// As many unknown dimensions as vector `k` has elements.
pub fn unknown_of_len(cx: &InferContext, k: usize) -> Option<Vec<Dim>> {
    let [len] = cx.shape(k)? else { return None };
    len.known().filter(|&n| n <= DATA_LIMIT).map(|n| vec![Dim::Unknown; n])
}

/// Numpy's broadcasting of one pair of dimensions.
pub fn broadcast_dim(a: &Dim, b: &Dim) -> Result<Dim> {
    match (a, b) {
        (Dim::Known(1), x) | (x, Dim::Known(1)) => Ok(x.clone()),
        (Dim::Known(x), Dim::Known(y)) if x != y => {
            Err(Error::invalid(format!("dimensions {x} and {y} do not broadcast")))
        }
        (Dim::Known(x), _) | (_, Dim::Known(x)) => Ok(Dim::Known(*x)),
        (Dim::Sym(x), Dim::Sym(y)) if x == y => Ok(a.clone()),
        _ => Ok(Dim::Unknown),
    }
}

/// Numpy's broadcasting of two shapes, aligned at the last axis.
pub fn broadcast(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>> {
    let (long, short) = if a.len() < b.len() { (b, a) } else { (a, b) };
    let (head, tail) = long.split_at(long.len() - short.len());
    let joined: Result<Vec<Dim>> = tail.iter().zip(short).map(|(x, y)| broadcast_dim(x, y)).collect();
    Ok(head.iter().cloned().chain(joined?).collect())
}

/// Broadcasts the shapes of these inputs; `None` where one has unknown rank.
pub fn broadcast_inputs(cx: &InferContext, slots: impl IntoIterator<Item = usize>) -> Result<Option<Vec<Dim>>> {
    let mut joined: Vec<Dim> = vec![];
    for k in slots {
        let Some(shape) = cx.shape(k) else { return Ok(None) };
        joined = broadcast(&joined, shape)?;
    }
    Ok(Some(joined))
}

/// Two claims about one size, merged. `None`: they contradict each other.
pub fn merge_dim(a: &Dim, b: &Dim) -> Option<Dim> {
    match (a, b) {
        (Dim::Known(x), Dim::Known(y)) => (x == y).then(|| a.clone()),
        (Dim::Known(_), _) => Some(a.clone()),
        (_, Dim::Known(_)) => Some(b.clone()),
        (Dim::Unknown, _) => Some(b.clone()),
        _ => Some(a.clone()),
    }
}

/// Sum of two sizes.
pub fn add_dims(a: &Dim, b: &Dim) -> Dim {
    match (a, b) {
        (Dim::Known(0), x) | (x, Dim::Known(0)) => x.clone(),
        (Dim::Known(x), Dim::Known(y)) => x.checked_add(*y).map_or(Dim::Unknown, Dim::Known),
        _ => Dim::Unknown,
    }
}

/// Product of two sizes.
pub fn mul_dims(a: &Dim, b: &Dim) -> Dim {
    match (a, b) {
        (Dim::Known(1), x) | (x, Dim::Known(1)) => x.clone(),
        (Dim::Known(0), _) | (_, Dim::Known(0)) => Dim::Known(0),
        (Dim::Known(x), Dim::Known(y)) => x.checked_mul(*y).map_or(Dim::Unknown, Dim::Known),
        _ => Dim::Unknown,
    }
}

/// Product of a shape's dimensions.
pub fn product(dims: &[Dim]) -> Dim {
    if dims.contains(&Dim::Known(0)) {
        return Dim::Known(0);
    }
    dims.iter().fold(Dim::Known(1), |acc, d| mul_dims(&acc, d))
}

/// Number of elements for cost estimates: a symbolic or unknown dimension counts as 1.
pub fn count(dims: &[Dim]) -> u64 {
    dims.iter().fold(1, |n: u64, d| n.saturating_mul(d.known().map_or(1, |d| d as u64)))
}

/// An error unless the rank of input `k`, where known, is at least `least`.
pub fn require_rank(cx: &InferContext, k: usize, least: usize) -> Result<()> {
    match cx.shape(k) {
        Some(s) if s.len() < least => {
            let rank = s.len();
            Err(Error::invalid(format!("input {k} has rank {rank}, expected at least {least}")))
        }
        _ => Ok(()),
    }
}

/// An attribute that holds an element type, where it is present and not 0.
pub fn elem_attribute(cx: &InferContext, name: &str) -> Result<Option<DType>> {
    match int(cx, name, 0)? {
        0 => Ok(None),
        code => {
            let dtype = i32::try_from(code).ok().and_then(DType::from_onnx);
            dtype.map(Some).ok_or_else(|| Error::invalid(format!("attribute \"{name}\" is no element type")))
        }
    }
}

/// Size of input `k` along axis `at`, as far as it is known.
pub fn size(cx: &InferContext, k: usize, at: usize) -> Dim {
    cx.shape(k).and_then(|s| s.get(at)).cloned().unwrap_or(Dim::Unknown)
}

/// The one integer of input `k`, where it is known.
pub fn single(cx: &InferContext, k: usize) -> Option<Dim> {
    let [one] = &vector(cx, k)?[..] else { return None };
    Some(one.clone())
}

/// A quotient rounded down; `None` of a divisor that is not positive.
pub fn div_dim(a: &Dim, by: i64) -> Dim {
    match a {
        d if by == 1 => d.clone(),
        Dim::Known(n) if by > 0 => Dim::Known(n.div_euclid(by)),
        _ => Dim::Unknown,
    }
}

/// A tensor of any shape as a type, where the element type is known.
pub fn tensor_type(elem: Option<DType>, shape: Option<Vec<Dim>>) -> Option<Type> {
    Inferred::tensor(elem, shape).ty
}

/// A sequence of such elements.
pub fn sequence_of(element: Option<Type>) -> Inferred {
    let element = element.map(|t| Box::new(t.to_proto()));
    let wrap = |element| TypeValue::SequenceType(Box::new(Sequence { elem_type: Some(element) }));
    Inferred { ty: element.map(|e| other(wrap(e))), data: None }
}

/// Something that may be absent.
pub fn optional_of(element: Option<Type>) -> Inferred {
    let element = element.map(|t| Box::new(t.to_proto()));
    let wrap = |element| TypeValue::OptionalType(Box::new(Optional { elem_type: Some(element) }));
    Inferred { ty: element.map(|e| other(wrap(e))), data: None }
}

fn other(value: TypeValue) -> Type {
    Type::Other(Box::new(proto::TypeProto { denotation: None, value: Some(value) }))
}

/// Type of the elements of the sequence, or of the content of the optional, at input `k`.
pub fn content_type(cx: &InferContext, k: usize) -> Option<Type> {
    let Type::Other(proto) = cx.inputs.get(k)?.as_ref()?.ty? else { return None };
    let content = match proto.value.as_ref()? {
        TypeValue::SequenceType(s) => s.elem_type.as_deref(),
        TypeValue::OptionalType(o) => o.elem_type.as_deref(),
        _ => None,
    };
    content.map(Type::from_proto)
}

/// [`content_type`] without the shape of a tensor: of elements whose shapes may differ.
pub fn any_element(cx: &InferContext, k: usize) -> Option<Type> {
    match content_type(cx, k)? {
        Type::Tensor(t) => tensor_type(Some(t.elem), None),
        other => Some(other),
    }
}

/// Output 0 has the type of input `k`, tensor or not.
pub fn same_type(cx: &InferContext, k: usize) -> Inferred {
    Inferred { ty: cx.inputs.get(k).and_then(|i| i.as_ref()?.ty.cloned()), data: None }
}

/// A change without new inputs.
pub fn changed(node: Node) -> Upgrade {
    Upgrade::Changed { node: Box::new(node), new_inputs: vec![] }
}
