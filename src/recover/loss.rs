//! Losses of outputs, with their gradients.

use crate::error::{Error, Result};
use crate::math::{Array, elementwise2, log_softmax, softmax, sum};
use crate::ops::gradient::Element;

/// A loss and its gradient by the output.
pub struct Loss<T> {
    /// Mean over the rows.
    pub value: f64,
    /// Same shape as the output.
    pub gradient: Array<T>,
}

/// Rows of scores: `[rows, classes]` from `[n, classes]` or `[n, classes, ...]`.
struct Scores<T> {
    rows: Vec<T>,
    classes: usize,
    dims: Vec<usize>,
}

impl<T: Element> Scores<T> {
    fn of(x: &Array<T>) -> Result<Self> {
        let (dims, classes) = match x.dims() {
            [_, c, ..] if *c > 0 => (x.dims().to_vec(), *c),
            dims => return Err(Error::usage(format!("an output of shape {dims:?} holds no scores of classes"))),
        };
        let plane: usize = dims[2..].iter().product();
        Ok(Self { rows: turned(x.data(), classes, plane), classes, dims })
    }

    fn count(&self) -> usize {
        self.rows.len() / self.classes
    }

    /// Rows as an array of the output's shape.
    fn back(&self, rows: &[T]) -> Array<T> {
        let plane: usize = self.dims[2..].iter().product();
        Array::new(&self.dims, turned(rows, plane, self.classes))
    }
}

/// `[n, a, b]` as `[n, b, a]`.
fn turned<T: Element>(x: &[T], a: usize, b: usize) -> Vec<T> {
    if a == 1 || b == 1 || x.is_empty() {
        return x.to_vec();
    }
    x.chunks(a * b).flat_map(|x| (0..a * b).map(|k| x[k % a * b + k / a])).collect()
}

fn finite_mean<T: Element>(losses: &[T], rows: usize) -> f64 {
    losses.iter().map(|l| l.wide()).sum::<f64>() / rows.max(1) as f64
}

/// Mean cross-entropy of scores before the softmax against class labels, one per row.
///
/// # Errors
/// Labels that do not fit.
pub fn cross_entropy<T: Element>(logits: &Array<T>, labels: &[i64]) -> Result<Loss<T>> {
    let scores = Scores::of(logits)?;
    let (n, c) = (scores.count(), scores.classes);
    if labels.len() != n {
        return Err(Error::data(format!("{} labels for {n} rows of scores", labels.len())));
    }
    let logs = log_softmax(&scores.rows, c);
    let by = T::one() / T::of(n.max(1) as f64);
    let mut gradient: Vec<T> = logs.iter().map(|l| l.exp() * by).collect();
    let mut value = 0.0;
    for (row, &label) in labels.iter().enumerate() {
        let class = usize::try_from(label).ok().filter(|&k| k < c);
        let class = class.ok_or_else(|| Error::data(format!("label {label} of {c} classes")))?;
        value -= logs[row * c + class].wide();
        gradient[row * c + class] -= by;
    }
    Ok(Loss { value: value / n.max(1) as f64, gradient: scores.back(&gradient) })
}

fn same_shape<T: Element>(a: &Array<T>, b: &Array<T>) -> Result<()> {
    match a.dims() == b.dims() {
        true => Ok(()),
        false => Err(Error::data(format!("outputs of shapes {:?} and {:?} cannot be compared", a.dims(), b.dims()))),
    }
}

/// Mean KL divergence of the student's from the teacher's softmax at this temperature, times the temperature squared so
/// that its gradients keep their size (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network").
///
/// # Errors
/// Outputs of different shapes, or without classes.
pub fn divergence<T: Element>(student: &Array<T>, teacher: &Array<T>, temperature: f64) -> Result<Loss<T>> {
    same_shape(student, teacher)?;
    let (s, t) = (Scores::of(student)?, Scores::of(teacher)?);
    let (n, c, heat) = (s.count(), s.classes, T::of(temperature));
    let logs = |x: &Scores<T>| log_softmax(&x.rows.iter().map(|&x| x / heat).collect::<Vec<T>>(), c);
    let (log_s, log_t) = (logs(&s), logs(&t));
    let losses = elementwise2(&log_t, &log_s, |t, s| if t.exp() > T::zero() { t.exp() * (t - s) } else { T::zero() });
    let by = heat / T::of(n.max(1) as f64);
    let gradient = elementwise2(&log_s, &log_t, |s, t| (s.exp() - t.exp()) * by);
    Ok(Loss { value: finite_mean(&losses, n) * temperature * temperature, gradient: s.back(&gradient) })
}

/// Mean KL divergence between outputs that are probabilities already.
///
/// # Errors
/// Outputs of different shapes, or without classes.
pub fn probability_divergence<T: Element>(student: &Array<T>, teacher: &Array<T>) -> Result<Loss<T>> {
    same_shape(student, teacher)?;
    let rows = Scores::of(student)?.count();
    let least = T::of(1e-12);
    let loss = |t: T, s: T| if t > T::zero() { t * (t.max(least) / s.max(least)).ln() } else { T::zero() };
    let losses = elementwise2(teacher.data(), student.data(), loss);
    let by = T::one() / T::of(rows.max(1) as f64);
    let gradient = elementwise2(teacher.data(), student.data(), |t, s| -t / s.max(least) * by);
    Ok(Loss { value: finite_mean(&losses, rows), gradient: Array::new(student.dims(), gradient) })
}

/// Mean squared error.
///
/// # Errors
/// Outputs of different shapes.
pub fn squared_error<T: Element>(student: &Array<T>, teacher: &Array<T>) -> Result<Loss<T>> {
    same_shape(student, teacher)?;
    let difference = elementwise2(student.data(), teacher.data(), |s, t| s - t);
    let squares: Vec<T> = difference.iter().map(|&d| d * d).collect();
    let by = T::of(2.0 / difference.len().max(1) as f64);
    let gradient = difference.iter().map(|&d| d * by).collect();
    Ok(Loss { value: finite_mean(&squares, squares.len()), gradient: Array::new(student.dims(), gradient) })
}

/// Squared error as a share of the teacher's squares: comparable between values of any size and scale.
///
/// # Errors
/// Values of different shapes.
pub fn relative_error<T: Element>(student: &Array<T>, teacher: &Array<T>) -> Result<Loss<T>> {
    same_shape(student, teacher)?;
    let difference = elementwise2(student.data(), teacher.data(), |s, t| s - t);
    let square = |x: &[T]| sum(&crate::math::elementwise(x, |x| x * x));
    let scale = T::one() / square(teacher.data()).max(T::of(1e-12));
    let value = (square(&difference) * scale).wide();
    let by = scale + scale;
    Ok(Loss { value, gradient: Array::new(student.dims(), crate::math::elementwise(&difference, |d| d * by)) })
}

/// One minus the mean cosine of rows along the last axis.
///
/// # Errors
/// Outputs of different shapes, or scalars.
pub fn cosine_distance<T: Element>(student: &Array<T>, teacher: &Array<T>) -> Result<Loss<T>> {
    same_shape(student, teacher)?;
    let n = *student.dims().last().ok_or_else(|| Error::usage("a scalar output has no direction"))?;
    let rows = student.len() / n.max(1);
    let (mut value, mut gradient) = (0.0, Vec::with_capacity(student.len()));
    let least = T::of(1e-12);
    for (s, t) in student.data().chunks(n.max(1)).zip(teacher.data().chunks(n.max(1))) {
        let inner = |a: &[T], b: &[T]| sum(&a.iter().zip(b).map(|(&a, &b)| a * b).collect::<Vec<T>>());
        let (ss, tt) = (inner(s, s).sqrt().max(least), inner(t, t).sqrt().max(least));
        let cosine = inner(s, t) / (ss * tt);
        value += 1.0 - cosine.wide();
        let by = T::one() / (ss * T::of(rows.max(1) as f64));
        gradient.extend(s.iter().zip(t).map(|(&s, &t)| (cosine * s / ss - t / tt) * by));
    }
    Ok(Loss { value: value / rows.max(1) as f64, gradient: Array::new(student.dims(), gradient) })
}

/// A gradient by scores whose square, back-propagated, is on average over `signs` (random -1 and 1) the diagonal of the
/// Fisher information of the softmax: `B v` with `B B^T = diag(p) - p p^T`. Needs no labels.
///
/// # Errors
/// An output without classes.
pub fn fisher_seed<T: Element>(logits: &Array<T>, signs: impl Fn(usize) -> bool) -> Result<Array<T>> {
    let scores = Scores::of(logits)?;
    let mut rows = softmax(&scores.rows, scores.classes);
    for (r, p) in rows.chunks_mut(scores.classes).enumerate() {
        let sign = |k: usize| if signs(r * scores.classes + k) { T::one() } else { -T::one() };
        let along: T = p.iter().enumerate().map(|(k, p)| p.sqrt() * sign(k)).sum();
        p.iter_mut().enumerate().for_each(|(k, p)| *p = p.sqrt() * sign(k) - *p * along);
    }
    Ok(scores.back(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(dims: &[usize], seed: usize) -> Array<f64> {
        let n = dims.iter().product::<usize>();
        Array::new(dims, (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f64 / 500.0 - 1.0).collect())
    }

    fn check(x: &Array<f64>, loss: impl Fn(&Array<f64>) -> Loss<f64>) {
        let gradient = loss(x).gradient;
        for k in 0..x.len() {
            let moved = |by: f64| {
                let mut x = x.clone();
                x.data_mut()[k] += by;
                loss(&x).value
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((slope - gradient.data()[k]).abs() < 1e-8, "{k}: {slope} {}", gradient.data()[k]);
        }
    }

    #[test]
    fn gradients_are_slopes() {
        for dims in [&[3, 4][..], &[2, 3, 2]] {
            let (x, t) = (numbers(dims, 1), numbers(dims, 2));
            let labels: Vec<i64> = (0..dims[0] * dims[2..].iter().product::<usize>()).map(|k| (k % 3) as i64).collect();
            check(&x, |x| cross_entropy(x, &labels).unwrap());
            check(&x, |x| divergence(x, &t, 3.0).unwrap());
            check(&x, |x| squared_error(x, &t).unwrap());
            check(&x, |x| cosine_distance(x, &t).unwrap());
            check(&x, |x| relative_error(x, &t).unwrap());
            let positive = |a: &Array<f64>| a.map(|x| x + 1.5);
            check(&positive(&x), |x| probability_divergence(x, &positive(&t)).unwrap());
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let x = numbers(&[2, 3], 1);
        assert!(cross_entropy(&x, &[0]).is_err() && cross_entropy(&x, &[0, 3]).is_err());
        assert!(divergence(&x, &numbers(&[3, 2], 1), 1.0).is_err() && Scores::of(&numbers(&[2], 1)).is_err());
    }

    #[test]
    fn the_fisher_seed_has_the_fisher_information_as_its_second_moment() {
        let x = numbers(&[1, 3], 5);
        let p = softmax(x.data(), 3);
        let mut second = [0.0; 9];
        for bits in 0..8usize {
            let seed = fisher_seed(&x, |k| bits >> k & 1 == 1).unwrap();
            (0..9).for_each(|k| second[k] += seed.data()[k / 3] * seed.data()[k % 3] / 8.0);
        }
        for k in 0..9 {
            let want = if k / 3 == k % 3 { p[k / 3] } else { 0.0 } - p[k / 3] * p[k % 3];
            assert!((second[k] - want).abs() < 1e-12);
        }
    }
}
