//! Range.

use crate::error::{Error, Result};
use crate::ir::Dim;
use crate::ops::rules::{DATA_LIMIT, output, vector};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Numbers from a start below a limit.
pub struct Range;

impl OpSpec for Range {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Range", &[11]).f16(27)] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let integers = cx.elem(0).is_some_and(|t| t.is_int());
        let single = |k| vector(cx, k).filter(|v| v.len() == 1 && integers).map_or(Dim::Unknown, |v| v[0].clone());
        let (start, limit, delta) = (single(0), single(1), single(2));
        let (mut len, mut data) = (Dim::Unknown, None);
        match (&start, &limit, &delta) {
            (_, _, Dim::Known(0)) => return Err(Error::invalid("its step is 0")),
            (Dim::Known(s), Dim::Known(l), Dim::Known(d)) => {
                let (s, l, d) = (i128::from(*s), i128::from(*l), i128::from(*d));
                let n = ((l - s + d - d.signum()) / d).max(0);
                len = i64::try_from(n).map_or(Dim::Unknown, Dim::Known);
                if n <= DATA_LIMIT as i128 {
                    let element = |k: i128| i64::try_from(s + k * d).map_or(Dim::Unknown, Dim::Known);
                    data = Some((0..n).map(element).collect());
                }
            }
            (Dim::Known(0), size @ Dim::Sym(_), Dim::Known(1)) => len = size.clone(),
            _ => {}
        }
        let mut out = output(cx.elem(0), Some(vec![len]))?;
        if let [inferred] = &mut out[..] {
            inferred.data = data;
        }
        Ok(out)
    }
}
