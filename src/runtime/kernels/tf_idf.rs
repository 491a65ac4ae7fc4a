//! TfIdfVectorizer.

use super::super::custom::{Fact, Kernel};
use super::common::{concrete, fact, i64s, int, ints, text};
use super::layout::required;
use std::collections::HashMap;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// How counts become numbers.
#[derive(Debug, PartialEq)]
enum Mode {
    Tf,
    Idf,
    TfIdf,
}

/// `TfIdfVectorizer` (specification: version 9) over integers: counts n-grams of a pool, whose items may lie some places
/// apart.
#[derive(Debug)]
pub(super) struct TfIdf {
    shortest: usize,
    longest: usize,
    skips: usize,
    mode: Mode,
    /// The column of each n-gram.
    pool: HashMap<Vec<i64>, usize>,
    columns: usize,
    weights: Option<Vec<f32>>,
}

impl TfIdf {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        let size = |name| -> TractResult<usize> { Ok(usize::try_from(int(node, name, 0)?)?) };
        let (shortest, longest) = (size("min_gram_length")?, size("max_gram_length")?);
        ensure!(shortest > 0 && shortest <= longest, "n-grams of {shortest} to {longest} items");
        let mode = match &*text(node, "mode", "")? {
            "TF" => Mode::Tf,
            "IDF" => Mode::Idf,
            "TFIDF" => Mode::TfIdf,
            other => bail!("mode \"{other}\""),
        };
        let items = ints(node, "pool_int64s")?.context("a pool of strings")?;
        let starts = ints(node, "ngram_counts")?.unwrap_or_default();
        let columns = ints(node, "ngram_indexes")?.unwrap_or_default();
        let weights: Option<Vec<f32>> = node.get_attr_opt_vec("weights")?;
        let mut pool = HashMap::new();
        let mut ids = columns.iter();
        for (k, &start) in starts.iter().enumerate() {
            let end = starts.get(k + 1).map_or(Some(items.len()), |&e| usize::try_from(e).ok());
            let part = usize::try_from(start).ok().zip(end).and_then(|(s, e)| items.get(s..e));
            let part = part.with_context(|| format!("ngram_counts {starts:?} for {} items", items.len()))?;
            ensure!(part.len() % (k + 1) == 0, "{} items in n-grams of {}", part.len(), k + 1);
            for gram in part.chunks_exact(k + 1) {
                let column = ids.next().context("more n-grams than ngram_indexes")?;
                let before = pool.insert(gram.to_vec(), usize::try_from(*column)?);
                ensure!(before.is_none(), "the n-gram {gram:?} twice");
            }
        }
        let columns = columns.iter().max().map_or(0, |&c| c as usize + 1);
        ensure!(columns <= items.len().saturating_mul(64).max(1 << 20), "{columns} columns");
        if let Some(w) = &weights {
            // ONNX Runtime and the reference disagree where weights are fewer than columns, or permuted ones.
            let identity =
                ints(node, "ngram_indexes")?.unwrap_or_default().iter().enumerate().all(|(k, &c)| k as i64 == c);
            ensure!(w.len() == columns && (identity || mode == Mode::Tf), "weights of permuted columns");
        }
        Ok(Self { shortest, longest, skips: size("max_skip_count")?, mode, pool, columns, weights })
    }

    fn count(&self, row: &[i64], counts: &mut [f32]) {
        let mut shortest = self.shortest;
        // Items further apart than the row is long are none.
        for apart in 1..=self.skips.saturating_add(1).min(row.len().max(1)) {
            for start in 0..row.len() {
                let mut gram: Vec<i64> = vec![];
                for at in (start..row.len()).step_by(apart).take(self.longest) {
                    gram.push(row[at]);
                    if gram.len() < shortest {
                        continue;
                    }
                    if let Some(&column) = self.pool.get(&gram) {
                        counts[column] += 1.0;
                    }
                }
            }
            // Single items are the same however far apart.
            shortest = shortest.max(2);
            if shortest > self.longest {
                break;
            }
        }
    }

    fn shape(&self, x: &[usize]) -> TractResult<TVec<usize>> {
        Ok(match *x {
            [] | [_] => tvec![self.columns],
            [rows, _] => tvec![rows, self.columns],
            _ => bail!("rows of items are expected, not shape {x:?}"),
        })
    }
}

impl Kernel for TfIdf {
    fn name(&self) -> &'static str {
        "TfIdfVectorizer"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let x = required(inputs, 0)?;
        ensure!(matches!(x.dtype, DatumType::I32 | DatumType::I64), "n-grams of {:?}", x.dtype);
        Ok(tvec![fact(DatumType::F32, &self.shape(&concrete(&x.shape)?)?)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        let shape = self.shape(x.shape())?;
        let items = i64s(x)?;
        let mut y = vec![0f32; shape.iter().product()];
        let width = x.shape().last().copied().unwrap_or(1);
        if width > 0 {
            for (row, counts) in items.chunks_exact(width).zip(y.chunks_mut(self.columns.max(1))) {
                self.count(row, counts);
            }
        }
        for (k, y) in y.iter_mut().enumerate() {
            let weight = self.weights.as_ref().map_or(1.0, |w| w[k % self.columns]);
            *y = match self.mode {
                Mode::Tf => *y,
                Mode::Idf => {
                    if *y > 0.0 {
                        weight
                    } else {
                        0.0
                    }
                }
                Mode::TfIdf => *y * weight,
            };
        }
        Ok(tvec![Tensor::from_shape(&shape, &y)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectorizer(shortest: usize, skips: usize) -> TfIdf {
        let pool = HashMap::from([(vec![1], 0), (vec![1, 2], 1)]);
        TfIdf { shortest, longest: 2, skips, mode: Mode::Tf, pool, columns: 2, weights: None }
    }

    #[test]
    fn single_items_count_once_whatever_the_skips() {
        let x = tensor1(&[1i64, 7, 2, 1, 2]);
        assert_eq!(vectorizer(1, 0).eval(&[Some(&x)]).unwrap()[0], tensor1(&[2f32, 1.0]));
        // 1 _ 2 at distance two, and 1 _ _ _ 2 at distance four.
        assert_eq!(vectorizer(1, usize::MAX).eval(&[Some(&x)]).unwrap()[0], tensor1(&[2f32, 3.0]));
    }

    #[test]
    fn no_items_make_zeros() {
        let none = Tensor::zero::<i64>(&[2, 0]).unwrap();
        assert_eq!(vectorizer(1, 3).eval(&[Some(&none)]).unwrap()[0], tensor2(&[[0f32, 0.0], [0.0, 0.0]]));
    }
}
