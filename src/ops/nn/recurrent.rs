//! RNN, GRU and LSTM.

use crate::error::{Error, Result};
use crate::ir::{Dim, Type};
use crate::ops::axes::{AxisFact, AxisLinks, AxisMap, Kept, LinkContext, Narrowed, input, output as out};
use crate::ops::rules::{count, int, string};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, Upgrade, op};

/// Recurrent layers.
pub struct Recurrent;

struct Sizes {
    steps: Dim,
    batch: Dim,
    directions: Dim,
    hidden: Dim,
    batch_first: bool,
}

fn sizes(cx: &InferContext) -> Result<Sizes> {
    let directions = match string(cx, "direction", "forward")? {
        "forward" | "reverse" => 1,
        "bidirectional" => 2,
        other => return Err(Error::invalid(format!("unknown direction \"{other}\""))),
    };
    let batch_first = cx.opset >= 14 && int(cx, "layout", 0)? != 0;
    let (mut steps, mut batch) = match cx.shape(0) {
        None => (Dim::Unknown, Dim::Unknown),
        Some([a, b, _]) => (a.clone(), b.clone()),
        Some(s) => return Err(Error::invalid(format!("input has rank {}, expected 3", s.len()))),
    };
    if batch_first {
        std::mem::swap(&mut steps, &mut batch);
    }
    let hidden = match int(cx, "hidden_size", 0)? {
        n if n > 0 => Dim::Known(n),
        _ => cx.shape(2).and_then(|r| r.get(2)).cloned().unwrap_or(Dim::Unknown),
    };
    Ok(Sizes { steps, batch, directions: Dim::Known(directions), hidden, batch_first })
}

impl OpSpec for Recurrent {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("RNN", &[1, 7, 14, 22]), op("GRU", &[1, 3, 7, 14, 22]), op("LSTM", &[1, 7, 14, 22])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let Sizes { steps, batch, directions, hidden, batch_first } = sizes(cx)?;
        let (sequence, last) = if batch_first {
            let last = vec![batch.clone(), directions.clone(), hidden.clone()];
            (vec![batch, steps, directions, hidden], last)
        } else {
            let last = vec![directions.clone(), batch.clone(), hidden.clone()];
            (vec![steps, directions, batch, hidden], last)
        };
        let last = Inferred::tensor(cx.elem(0), Some(last));
        let mut out = vec![Inferred::tensor(cx.elem(0), Some(sequence)), last.clone()];
        if &*cx.node.op.op_type == "LSTM" {
            out.push(last);
        }
        Ok(out)
    }

    fn macs(&self, cx: &InferContext, _outputs: &[Option<&Type>]) -> Option<u64> {
        let s = sizes(cx).ok()?;
        let gates: u64 = match &*cx.node.op.op_type {
            "LSTM" => 4,
            "GRU" => 3,
            _ => 1,
        };
        let hidden = count(std::slice::from_ref(&s.hidden));
        let input = count(cx.shape(0)?.get(2..)?);
        let rows = count(&[s.steps, s.batch, s.directions]);
        let per_row = gates.saturating_mul(hidden).saturating_mul(hidden.saturating_add(input));
        Some(rows.saturating_mul(per_row))
    }

    fn upgrade(&self, cx: &InferContext, _to: i64) -> Upgrade {
        if cx.opset < 7 {
            return Upgrade::Impossible("its form before operator set 7 is not supported".into());
        }
        Upgrade::Same
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let batch_first = cx.cx.opset >= 14 && int(cx.cx, "layout", 0).ok()? != 0;
        let mut links = AxisLinks::default();
        links.same(input(0, 2), input(1, 2));
        // Gates lie side by side: [gates * hidden, ...], biases of both weights too.
        let gates = AxisMap::Stride { inner: 1 };
        links.link(input(1, 1), input(2, 2), gates.clone());
        links.link(input(2, 1), input(2, 2), gates.clone());
        for slot in [3, 7].into_iter().filter(|&slot| cx.cx.present(slot)) {
            links.link(input(slot, 1), input(2, 2), gates.clone());
        }
        for slot in [5, 6].into_iter().filter(|&slot| cx.cx.present(slot)) {
            links.same(input(slot, 2), input(2, 2));
        }
        if cx.out_rank(0).is_some() {
            links.same(out(0, 3), input(2, 2));
            let (steps, batch) = if batch_first { (1, 0) } else { (0, 2) };
            links.same(out(0, steps), input(0, usize::from(batch_first)));
            links.same(out(0, batch), input(0, usize::from(!batch_first)));
        }
        for slot in (1..3).filter(|&slot| cx.out_rank(slot).is_some()) {
            links.same(out(slot, 2), input(2, 2));
        }
        links.0.push(AxisFact::Takes(input(2, 2)));
        Some(links)
    }

    fn narrow(&self, cx: &LinkContext, kept: &Kept) -> Narrowed {
        match kept.of(input(2, 2)) {
            Some(hidden) => Narrowed::with_int(cx.cx.node, "hidden_size", hidden.len()),
            None => Narrowed::Same,
        }
    }
}
