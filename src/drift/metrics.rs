//! Distance of two models' outputs, batch by batch.
//!
//! Everything is accumulated in f64, within a batch in the order of its elements and over batches in the order of their
//! [merging](Comparison::merge), so that results do not depend on the number of threads.

use crate::error::{Error, Result};
use crate::ir::{DType, Tensor};
use serde::{Serialize, Serializer};

/// Energy below which an output counts as zero; keeps the ratios defined.
const LEAST_ENERGY: f64 = 1e-30;
/// How many best classes "top-5" means.
const TOP: usize = 5;
/// Two-sided 95% quantile of the standard normal distribution.
const Z95: f64 = 1.959_963_984_540_054;

/// An element that can be compared.
pub trait Element: Copy {
    /// Its value, 0 and 1 for bool.
    fn value(self) -> f64;
}

macro_rules! element {
    ($($t:ty)*) => {$(
        impl Element for $t {
            fn value(self) -> f64 {
                self as f64
            }
        }
    )*};
}

element!(f32 f64 i8 u8 i16 u16 i32 u32 i64 u64);

impl Element for bool {
    fn value(self) -> f64 {
        u8::from(self).into()
    }
}

/// What one output of the original and of the rewritten model have in common so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    sums: Sums,
    cosines: f64,
    samples: u64,
    classes: Option<Classes>,
    /// Outputs that are not one score per class, or not of equal size throughout, have no best class.
    unclassed: bool,
}

/// Sums over the elements `u` of the reference and `v` of the rewritten output, and their differences `d`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    elements: u64,
    uu: f64,
    vv: f64,
    uv: f64,
    dd: f64,
    abs: f64,
    max: f64,
    /// Elements that only the rewritten model has as NaN or infinity.
    broken: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Classes {
    columns: usize,
    rows: u64,
    top1: u64,
    top5: u64,
    labelled: u64,
    right: [u64; 2],
    /// Right in the reference only, right in the rewritten model only.
    discordant: [u64; 2],
}

impl Comparison {
    /// A comparison of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a batch: both outputs of `shape`, axis 0 being samples, and where there are any, the samples' classes.
    ///
    /// # Errors
    /// Numbers of elements or labels that do not fit the shape.
    pub fn update<T: Element>(&mut self, u: &[T], v: &[T], shape: &[usize], labels: Option<&[i64]>) -> Result<()> {
        let size = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if size != Some(u.len()) || u.len() != v.len() {
            return Err(Error::data(format!(
                "outputs of {} and {} elements cannot be compared as shape {shape:?}",
                u.len(),
                v.len()
            )));
        }
        let samples = shape.first().copied().unwrap_or(1);
        let mut batch = Self { samples: samples as u64, ..Self::default() };
        let width = (u.len() / samples.max(1)).max(1);
        for (a, b) in u.chunks(width).zip(v.chunks(width)) {
            let row = Sums::of(a, b);
            batch.cosines += row.cosine();
            batch.sums.add(&row);
        }
        match shape {
            &[rows, columns] if columns > 1 => batch.classes = Some(Classes::of(u, v, rows, columns, labels)?),
            _ => batch.unclassed = true,
        }
        self.merge(&batch);
        Ok(())
    }

    /// [`Self::update`] with tensors of any numeric type but complex numbers.
    ///
    /// # Errors
    /// Different types or shapes, types that are not numbers, and the wrong number of labels.
    pub fn update_tensors(&mut self, reference: &Tensor, rewritten: &Tensor, labels: Option<&[i64]>) -> Result<()> {
        let (dtype, dims) = (reference.dtype, &reference.dims);
        if (dtype, dims) != (rewritten.dtype, &rewritten.dims) {
            return Err(Error::data(format!(
                "the output changed from {dtype}{dims:?} to {}{:?}",
                rewritten.dtype, rewritten.dims
            )));
        }
        match dtype {
            DType::F64 => self.update(&doubles(reference)?, &doubles(rewritten)?, dims, labels),
            _ if dtype.is_float() => self.update(&reference.to_f32()?, &rewritten.to_f32()?, dims, labels),
            _ => self.update(&reference.to_i64()?, &rewritten.to_i64()?, dims, labels),
        }
    }

    /// Adds what a comparison of later batches found.
    pub fn merge(&mut self, later: &Self) {
        self.sums.add(&later.sums);
        self.cosines += later.cosines;
        self.samples += later.samples;
        self.unclassed |= later.unclassed;
        self.classes = match (self.classes, later.classes) {
            (Some(a), Some(b)) if a.columns == b.columns => Some(a.plus(&b)),
            (Some(_), Some(_)) => {
                self.unclassed = true;
                None
            }
            (a, b) => a.or(b),
        };
    }

    /// The figures.
    pub fn finish(&self, name: &str) -> OutputDrift {
        let (s, classes) = (&self.sums, self.classes.filter(|c| !self.unclassed && c.rows > 0));
        let share = |n: u64, of: u64| n as f64 / of as f64;
        let energy = s.uu.max(LEAST_ENERGY);
        OutputDrift {
            name: name.to_owned(),
            samples: self.samples,
            elements: s.elements,
            max_abs: s.max,
            mean_abs: s.abs / s.elements.max(1) as f64,
            relative_l2: (s.dd / energy).sqrt(),
            sqnr_db: if s.dd == 0.0 { f64::INFINITY } else { 10.0 * (energy / s.dd).log10() },
            cosine: s.cosine(),
            mean_cosine: if self.samples == 0 { 1.0 } else { self.cosines / self.samples as f64 },
            non_finite: s.broken,
            top1_agreement: classes.map(|c| share(c.top1, c.rows)),
            top5_agreement: classes.filter(|c| c.columns > TOP).map(|c| share(c.top5, c.rows)),
            accuracy: classes.filter(|c| c.labelled > 0).map(|c| c.accuracy()),
        }
    }
}

impl Sums {
    fn of<T: Element>(u: &[T], v: &[T]) -> Self {
        let mut s = Self::default();
        for (u, v) in u.iter().zip(v).map(|(u, v)| (u.value(), v.value())) {
            let d = (u - v).abs();
            if !d.is_finite() {
                // Equal infinities are no drift; where the reference is not finite, nothing can be said.
                s.broken += u64::from(u.is_finite() && !v.is_finite());
                continue;
            }
            s.elements += 1;
            s.uu += u * u;
            s.vv += v * v;
            s.uv += u * v;
            s.dd += d * d;
            s.abs += d;
            s.max = s.max.max(d);
        }
        s
    }

    fn add(&mut self, other: &Self) {
        self.elements += other.elements;
        self.uu += other.uu;
        self.vv += other.vv;
        self.uv += other.uv;
        self.dd += other.dd;
        self.abs += other.abs;
        self.max = self.max.max(other.max);
        self.broken += other.broken;
    }

    /// 1 where both are zero, 0 where one is.
    fn cosine(&self) -> f64 {
        if self.uu == 0.0 && self.vv == 0.0 {
            return 1.0;
        }
        let norms = self.uu.sqrt() * self.vv.sqrt();
        if norms > 0.0 { (self.uv / norms).clamp(-1.0, 1.0) } else { 0.0 }
    }
}

impl Classes {
    fn of<T: Element>(u: &[T], v: &[T], rows: usize, columns: usize, labels: Option<&[i64]>) -> Result<Self> {
        if let Some(n) = labels.map(<[i64]>::len).filter(|&n| n != rows) {
            return Err(Error::data(format!("{n} labels for an output of {rows} samples")));
        }
        let mut c = Self { columns, rows: rows as u64, ..Self::default() };
        for (k, (u, v)) in u.chunks_exact(columns).zip(v.chunks_exact(columns)).enumerate() {
            let (a, b) = (best(u), best(v));
            c.top1 += u64::from(a == b);
            c.top5 += u64::from(place(v, a) < TOP);
            let Some(label) = labels.map(|l| l[k]) else { continue };
            if !usize::try_from(label).is_ok_and(|l| l < columns) {
                return Err(Error::data(format!(
                    "label {label} of sample {k} of the batch is none of {columns} classes"
                )));
            }
            let right = [a as i64 == label, b as i64 == label];
            c.labelled += 1;
            for (total, right) in c.right.iter_mut().zip(right) {
                *total += u64::from(right);
            }
            c.discordant[0] += u64::from(right[0] && !right[1]);
            c.discordant[1] += u64::from(right[1] && !right[0]);
        }
        Ok(c)
    }

    fn plus(mut self, other: &Self) -> Self {
        let Self { columns: _, rows, top1, top5, labelled, right, discordant } = other;
        self.rows += rows;
        self.top1 += top1;
        self.top5 += top5;
        self.labelled += labelled;
        for k in 0..2 {
            self.right[k] += right[k];
            self.discordant[k] += discordant[k];
        }
        self
    }

    /// The interval adds half a sample to each cell of the paired table and is then the normal one on the discordant
    /// pairs: Agresti and Min, Simple improved confidence intervals for comparing matched proportions, Statistics in
    /// Medicine 24 (2005), 729-740.
    fn accuracy(&self) -> Accuracy {
        let n = self.labelled as f64;
        let [lost, gained] = self.discordant.map(|k| k as f64 + 0.5);
        let centre = (lost - gained) / (n + 2.0);
        let deviation = ((lost + gained) - (lost - gained).powi(2) / (n + 2.0)).max(0.0).sqrt() / (n + 2.0);
        let point = |x: f64| 100.0 * x.clamp(-1.0, 1.0);
        let [reference, rewritten] = self.right.map(|k| k as f64 / n);
        Accuracy {
            labelled: self.labelled,
            reference,
            rewritten,
            drop_points: 100.0 * (self.right[0] as f64 - self.right[1] as f64) / n,
            drop_interval: [point(centre - Z95 * deviation), point(centre + Z95 * deviation)],
            lost: self.discordant[0],
            gained: self.discordant[1],
        }
    }
}

/// Index of the first largest element.
fn best<T: Element>(row: &[T]) -> usize {
    let mut found = 0;
    for (k, x) in row.iter().enumerate() {
        if x.value() > row[found].value() {
            found = k;
        }
    }
    found
}

/// How many elements rank before `index`.
fn place<T: Element>(row: &[T], index: usize) -> usize {
    let x = row[index].value();
    row.iter().enumerate().filter(|(k, y)| y.value() > x || (y.value() == x && *k < index)).count()
}

fn doubles(tensor: &Tensor) -> Result<Vec<f64>> {
    let bytes = tensor.bytes()?;
    Ok(bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect())
}

/// How far one output of the rewritten model is from the original's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutputDrift {
    /// The output's name.
    pub name: String,
    /// Samples compared.
    pub samples: u64,
    /// Elements compared.
    pub elements: u64,
    /// Largest difference.
    pub max_abs: f64,
    /// Mean difference.
    pub mean_abs: f64,
    /// Norm of the difference over the norm of the original's output.
    pub relative_l2: f64,
    /// Signal to quantization noise in dB, `10 log10(sum u^2 / sum (u - v)^2)`; infinite (in JSON `"inf"`) where equal.
    #[serde(serialize_with = "finite_or_text")]
    pub sqnr_db: f64,
    /// Cosine over all elements.
    pub cosine: f64,
    /// Mean of the samples' cosines.
    pub mean_cosine: f64,
    /// Elements that became NaN or infinite; they are left out of all other figures.
    pub non_finite: u64,
    /// Share of samples with the same best class; of outputs with one score per class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top1_agreement: Option<f64>,
    /// Share of samples whose best class is among the five best of the rewritten model; of more than five classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top5_agreement: Option<f64>,
    /// Top-1 accuracy, where there are labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Accuracy>,
}

/// Top-1 accuracy of both models on the same samples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// Samples with a label.
    pub labelled: u64,
    /// The original's, 0 to 1.
    pub reference: f64,
    /// The rewritten model's, 0 to 1.
    pub rewritten: f64,
    /// Loss in percentage points; negative where the rewritten model is better.
    pub drop_points: f64,
    /// Paired 95% confidence interval of the loss in percentage points.
    pub drop_interval: [f64; 2],
    /// Samples that only the original has right.
    pub lost: u64,
    /// Samples that only the rewritten model has right.
    pub gained: u64,
}

/// JSON has no infinity.
fn finite_or_text<S: Serializer>(x: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if x.is_finite() { serializer.serialize_f64(*x) } else { serializer.serialize_str(&x.to_string()) }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
