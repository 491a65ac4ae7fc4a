//! What the normalizations of rows share: LayerNormalization, RMSNormalization, InstanceNormalization and
//! GroupNormalization.

use super::gradient::{Backward, Computed, Element, Forward, Gradients};
use super::rules::float;
use crate::error::{Error, Result};
use crate::math::{Array, Moments, binary, moments, normalize_backward, reduce_to};

/// How a normalization sees its input.
pub struct Rows {
    /// Elements of a row.
    pub len: usize,
    /// Whether the mean is subtracted.
    pub centred: bool,
    /// Shape in which scale and bias broadcast against the input, as [`Rows::input`] has it.
    pub parameters: Vec<usize>,
    /// Shape of the input for that.
    pub input: Vec<usize>,
    /// `epsilon` where the attribute is absent.
    pub epsilon: f32,
}

/// Input 0 normalized, times input 1, plus input 2 where it is present.
pub fn forward<T: Element>(f: &Forward<T>, rows: &Rows) -> Result<Computed<T>> {
    let (x, scale) = (f.float(0)?, f.float(1)?.reshaped(&rows.parameters));
    let epsilon = T::of(float(f.cx, "epsilon", rows.epsilon)?.into());
    let m = moments(x.data(), rows.len, epsilon, rows.centred);
    let normal = Array::new(&rows.input, m.apply(x.data(), rows.len));
    let mut y = binary(&normal, &scale, &rows.input, |n, s| n * s);
    if let Some(bias) = f.optional(2) {
        y = binary(&y, &bias.reshaped(&rows.parameters), &rows.input, |y, b| y + b);
    }
    Ok(Computed::one(y.reshaped(x.dims())).saving(vec![normal.data().to_vec(), m.mean, m.variance, m.scale]))
}

/// Backward of [`forward`].
pub fn backward<T: Element>(b: &Backward<T>, rows: &Rows) -> Result<Gradients<T>> {
    let (x, scale, dy) = (b.float(0)?, b.float(1)?, b.grad()?.reshaped(&rows.input));
    let [normal, mean, variance, inverse] = &b.saved.arrays[..] else {
        return Err(Error::internal("moments are not saved"));
    };
    let m = Moments { mean: mean.clone(), variance: variance.clone(), scale: inverse.clone() };
    let normal = Array::new(&rows.input, normal.clone());
    let mut grads = vec![None; b.inputs.len()];
    if b.wants(0) {
        let dn = binary(&dy, &scale.reshaped(&rows.parameters), &rows.input, |d, s| d * s);
        grads[0] = Some(Array::new(x.dims(), normalize_backward(normal.data(), dn.data(), &m, rows.len, rows.centred)));
    }
    if b.wants(1) {
        let product = binary(&dy, &normal, &rows.input, |d, n| d * n);
        grads[1] = Some(reduce_to(product, &rows.parameters).reshaped(scale.dims()));
    }
    if b.wants(2) {
        grads[2] = Some(reduce_to(dy, &rows.parameters).reshaped(b.float(2)?.dims()));
    }
    Ok(grads)
}
