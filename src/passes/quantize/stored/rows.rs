//! Rounding the rows of a weight.

use super::super::options::Eight;
use super::super::weights::finite;
use crate::error::Result;
use crate::ir::Tensor;

/// How the rows of a weight lie in it.
pub struct Rows {
    /// Number of rows, each with a scale.
    pub count: usize,
    /// The axis that DequantizeLinear scales along; `None` for one scale for all.
    pub axis: Option<usize>,
    /// Whether the leading axes must be made one for that, as `[rows, columns]`.
    pub flat: bool,
    /// Elements that follow each other in one row.
    pub inner: usize,
}

impl Rows {
    /// Rows along one axis, or along the leading ones; `None` where they lie otherwise.
    pub fn of(dims: &[usize], axes: &[usize], per_channel: bool) -> Option<Self> {
        let inner = |axis: usize| dims[axis + 1..].iter().product::<usize>();
        let last = *axes.last().filter(|&&a| a < dims.len())?;
        if !per_channel {
            return Some(Self { count: 1, axis: None, flat: false, inner: 1 });
        }
        let several: Vec<usize> = axes.iter().copied().filter(|&a| dims[a] != 1).collect();
        if let [] | [_] = several[..] {
            let axis = several.first().copied().unwrap_or(last);
            return Some(Self { count: dims[axis], axis: Some(axis), flat: false, inner: inner(axis) });
        }
        let leading = axes.iter().enumerate().all(|(k, &a)| k == a);
        let count = dims[..=last].iter().product();
        leading.then(|| Self { count, axis: Some(0), flat: true, inner: inner(last) })
    }

    fn row(&self, element: usize) -> usize {
        element / self.inner % self.count
    }
}

/// A weight in 8 bits.
pub struct QuantizedRows {
    /// The elements, in the layout of the original.
    pub data: Tensor,
    /// Of each row.
    pub scale: Vec<f32>,
    /// The integer that means zero.
    pub zero_point: i32,
}

/// `q = round(w / scale) + zero_point` with `scale = max|w| / 127` of the row, which keeps every element within half a
/// step.
///
/// # Errors
/// NaN or infinity in the weight.
pub fn quantize_rows(t: &Tensor, rows: &Rows, eight: Eight) -> Result<QuantizedRows> {
    let data = finite(t)?;
    let mut scale = vec![0f32; rows.count];
    for (k, w) in data.iter().enumerate() {
        let largest = &mut scale[rows.row(k)];
        *largest = largest.max(w.abs());
    }
    for s in &mut scale {
        *s /= 127.0;
        if !s.is_normal() {
            *s = 1.0; // all zero (or denormal): any scale stores it
        }
    }
    let (qmin, qmax) = eight.bounds();
    let zero_point = (qmin + qmax + 1) / 2;
    let code = |(k, w): (usize, &f32)| {
        let q = (w / scale[rows.row(k)]).round_ties_even() as i32 + zero_point;
        q.clamp(qmin, qmax) as u8 // two's complement for s8
    };
    let bytes: Vec<u8> = data.iter().enumerate().map(code).collect();
    Ok(QuantizedRows { data: Tensor::raw(eight.dtype(), &t.dims, bytes), scale, zero_point })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_two_directions_have_scales_of_their_own() {
        let data: Vec<f32> = (0..24).map(|k| (k as f32 - 11.5) * 10f32.powi(k / 6)).collect();
        let t = Tensor::from_f32(&[2, 4, 3], &data);
        let rows = Rows::of(&t.dims, &[0, 1], true).unwrap();
        assert_eq!((rows.count, rows.axis, rows.flat), (8, Some(0), true));
        for eight in [Eight::S8, Eight::U8] {
            let q = quantize_rows(&t, &rows, eight).unwrap();
            for (k, (w, code)) in data.iter().zip(q.data.to_i64().unwrap()).enumerate() {
                let scale = q.scale[k / 3];
                let back = scale * (code - i64::from(q.zero_point)) as f32;
                assert!((back - w).abs() <= scale * 0.501, "{w} came back as {back}");
            }
        }
    }

    #[test]
    fn one_direction_needs_no_other_shape() {
        let rows = Rows::of(&[1, 4, 3], &[0, 1], true).unwrap();
        assert_eq!((rows.count, rows.axis, rows.flat), (4, Some(1), false));
        assert_eq!((rows.row(2), rows.row(3), rows.row(11)), (0, 1, 3));
        let rows = Rows::of(&[5, 4, 3], &[1], true).unwrap();
        assert_eq!((rows.count, rows.axis, rows.row(12)), (4, Some(1), 0));
    }

    #[test]
    fn rows_that_no_operator_can_scale_are_refused() {
        assert!(Rows::of(&[2, 4, 3], &[1, 2], true).is_none());
        assert!(Rows::of(&[2], &[1], true).is_none());
        assert_eq!(Rows::of(&[2, 4, 3], &[1, 2], false).unwrap().count, 1);
    }
}
