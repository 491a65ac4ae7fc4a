//! Intermediate values of a student that are held against its teacher's.

use super::parameters::parameters_of;
use crate::analysis::shapes::infer_types;
use crate::error::Result;
use crate::ir::{Dim, Graph, Model, Type, ValueId};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Elements of values of the teacher that the student kept, by value name and axis; axes without an entry are whole.
pub type KeptElements = BTreeMap<String, BTreeMap<usize, Vec<usize>>>;

/// A value of the student that should be what it is in the teacher.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Feature {
    /// Its name, in both.
    pub name: String,
    /// The elements of each axis that the student kept.
    pub kept: BTreeMap<usize, Vec<usize>>,
}

/// The narrow points of the student that the teacher has too, by name and (kept) shape, in execution order.
///
/// A narrow point is a value that everything learnt passes through: the end of a residual block, of a transformer layer. What
/// lies between two of them is a block that could be reconstructed by itself; of those without a weight of rank 2 or more
/// between them only the largest counts.
///
/// # Errors
/// A graph with a cycle.
pub fn features(teacher: &Model, student: &Model, kept: &KeptElements) -> Result<Vec<Feature>> {
    let (mut teacher, mut student) = (teacher.clone(), student.clone());
    // Unknown shapes match anything.
    let _ = (infer_types(&mut teacher), infer_types(&mut student));
    let narrow = narrow_points(&student)?;
    let matching = |v: ValueId| {
        let name = student.graph.name(v);
        let kept = kept.get(name).cloned().unwrap_or_default();
        let other = teacher.graph.find(name).filter(|&t| teacher.graph.constant(t).is_none())?;
        let same = same_shape(teacher.graph.ty(other), student.graph.ty(v), &kept);
        same.then(|| Feature { name: name.to_string(), kept })
    };
    Ok(narrow.into_iter().filter_map(matching).collect())
}

/// The narrow points of the teacher that a quantized student has too: those of its own lie between roundings.
///
/// # Errors
/// A graph with a cycle.
pub(super) fn features_of_teacher(teacher: &Model, student: &Model) -> Result<Vec<Feature>> {
    let (mut teacher, mut student) = (teacher.clone(), student.clone());
    let _ = (infer_types(&mut teacher), infer_types(&mut student));
    let kept = BTreeMap::new();
    let matching = |t: ValueId| {
        let name = teacher.graph.name(t);
        let own = student.graph.find(name).filter(|&v| student.graph.constant(v).is_none())?;
        let same = same_shape(teacher.graph.ty(t), student.graph.ty(own), &kept);
        same.then(|| Feature { name: name.to_string(), kept: kept.clone() })
    };
    Ok(narrow_points(&teacher)?.into_iter().filter_map(matching).collect())
}

fn same_shape(teacher: Option<&Type>, student: Option<&Type>, kept: &BTreeMap<usize, Vec<usize>>) -> bool {
    let shape = |ty: Option<&Type>| ty.and_then(Type::shape).map(<[Dim]>::to_vec);
    let (Some(t), Some(s)) = (shape(teacher), shape(student)) else { return true };
    let fits = |(axis, (t, s)): (usize, (&Dim, &Dim))| {
        let t = kept.get(&axis).map(|k| k.len()).or(t.known());
        t.zip(s.known()).is_none_or(|(t, s)| t == s)
    };
    t.len() == s.len() && t.iter().zip(&s).enumerate().all(fits)
}

fn narrow_points(model: &Model) -> Result<Vec<ValueId>> {
    let graph = &model.graph;
    let learnt: HashSet<ValueId> = parameters_of(model).iter().filter_map(|p| graph.find(&p.name)).collect();
    let is_float = |v: ValueId| graph.ty(v).and_then(Type::elem).is_none_or(|e| e.is_float());
    let mut live: HashMap<ValueId, usize> = HashMap::new();
    let mut depends = HashSet::new();
    // Per number of weights passed: the point, and its size.
    let mut found: BTreeMap<usize, (ValueId, usize)> = BTreeMap::new();
    let mut weights = 0;
    for id in graph.order()? {
        let inputs: Vec<ValueId> = graph.node_inputs(id).into_iter().flatten().chain(graph.captures(id)).collect();
        if !inputs.iter().any(|v| learnt.contains(v) || depends.contains(v)) {
            continue;
        }
        let is_weight = |v: &ValueId| learnt.contains(v) && graph.constant(*v).is_some_and(|t| t.rank() > 1);
        weights += usize::from(inputs.iter().any(is_weight));
        for v in &inputs {
            if let Some(uses) = live.get_mut(v) {
                *uses = uses.saturating_sub(1);
            }
        }
        for v in graph.node_outputs(id).into_iter().flatten().filter(|&v| is_float(v)) {
            depends.insert(v);
            // A graph output stays to the end.
            live.insert(v, graph.use_count(v) + usize::from(graph.is_output(v)));
        }
        live.retain(|_, uses| *uses > 0);
        if let Some(&v) = live.keys().next().filter(|&&v| live.len() == 1 && !graph.is_output(v)) {
            let size = elements(graph, v);
            if found.get(&weights).is_none_or(|(_, largest)| size >= *largest) {
                found.insert(weights, (v, size));
            }
        }
    }
    Ok(found.into_values().map(|(v, _)| v).collect())
}

/// Elements of a sample, as far as dimensions are known.
fn elements(graph: &Graph, v: ValueId) -> usize {
    graph.ty(v).and_then(Type::shape).unwrap_or_default().iter().filter_map(Dim::known).product()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(features: &[Feature]) -> Vec<&str> {
        features.iter().map(|f| &*f.name).collect()
    }

    fn model(width: usize) -> Model {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\" : 13]>
             g (float[n, 4] x) => (float[n, 2] y)
             <float[4, 3] w1 = {{1,1,1,1,1,1,1,1,1,1,1,1}}, float[3, {width}] w2 = {{{ones}}},
              float[{width}, 3] w3 = {{{ones}}}, float[3, 2] w4 = {{1,1,1,1,1,1}}>
             {{
                a = MatMul (x, w1)
                b = Relu (a)
                c = MatMul (b, w2)
                d = Relu (c)
                e = MatMul (d, w3)
                f = Add (b, e)
                h = Relu (f)
                y = MatMul (h, w4)
             }}",
            ones = vec!["1"; 3 * width].join(",")
        );
        crate::io::text::parse_model(&text).unwrap()
    }

    #[test]
    fn ends_of_blocks_are_narrow_points() {
        let teacher = model(4);
        assert_eq!(names(&features(&teacher, &model(2), &KeptElements::new()).unwrap()), ["b", "h"]);
    }

    #[test]
    fn shapes_must_match_after_the_cut() {
        let (teacher, student) = (model(4), model(4));
        let cut = |kept: usize| KeptElements::from([("h".to_string(), BTreeMap::from([(1, (0..kept).collect())]))]);
        assert_eq!(names(&features(&teacher, &student, &cut(2)).unwrap()), ["b"]);
        assert_eq!(features(&teacher, &student, &cut(3)).unwrap()[1].kept[&1], [0, 1, 2]);
    }
}
