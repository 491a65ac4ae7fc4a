//! How a linear layer sees its input: as columns that each meet every row of the weight.

/// What makes the columns that a layer multiplies its weight with out of its input.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Unfold {
    /// MatMul and Gemm: the last axis holds a column, all others count columns.
    Last,
    /// Conv: a column for each place of the window (im2col).
    Patches(Patches),
}

/// The windows of a convolution over `[batch, channels, spatial...]`. Lists have an element per spatial axis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Patches {
    /// Groups of channels that do not see each other.
    pub groups: usize,
    /// Window sizes.
    pub kernel: Vec<usize>,
    /// Steps between windows.
    pub strides: Vec<usize>,
    /// Steps between the elements of a window.
    pub dilations: Vec<usize>,
    /// Padding.
    pub padding: Padding,
}

/// Zeros around the input (specification: Conv, `auto_pad`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Padding {
    /// Before and after each axis.
    Fixed(Vec<(usize, usize)>),
    /// As much as makes the output `ceil(input / stride)`; the odd one goes after.
    SameUpper,
    /// The same; the odd one goes before.
    SameLower,
}

/// Windows over an input of one size.
struct Places {
    /// Elements of each spatial axis.
    input: Vec<usize>,
    output: Vec<usize>,
    before: Vec<usize>,
}

impl Patches {
    fn places(&self, input: &[usize]) -> Option<Places> {
        let n = self.kernel.len();
        if input.len() != n || self.strides.len() != n || self.dilations.len() != n {
            return None;
        }
        let (mut output, mut before) = (vec![], vec![]);
        for (i, &size) in input.iter().enumerate() {
            let (extent, stride) = ((self.kernel[i].checked_sub(1)?) * self.dilations[i] + 1, self.strides[i]);
            let same = |out: usize| ((out.max(1) - 1) * stride + extent).saturating_sub(size);
            let (start, padded) = match &self.padding {
                Padding::Fixed(pads) => (pads.get(i)?.0, size + pads[i].0 + pads[i].1),
                Padding::SameUpper => (same(size.div_ceil(stride)) / 2, size + same(size.div_ceil(stride))),
                Padding::SameLower => (same(size.div_ceil(stride)).div_ceil(2), size + same(size.div_ceil(stride))),
            };
            output.push((padded.checked_sub(extent)?) / stride + 1);
            before.push(start);
        }
        Some(Places { input: input.to_vec(), output, before })
    }

    /// The columns of one sample and group, side by side: `[channels * window, places]`, and the number of places. `None`
    /// where the window does not fit the input.
    ///
    /// `x` is `[channels, spatial...]` with the spatial sizes `input`.
    pub fn columns(&self, x: &[f32], channels: usize, input: &[usize]) -> Option<(Vec<f32>, usize)> {
        let places = self.places(input)?;
        let (plane, count): (usize, usize) = (input.iter().product(), places.output.iter().product());
        let taps: usize = self.kernel.iter().product();
        if x.len() != channels * plane {
            return None;
        }
        let mut columns = vec![0f32; channels * taps * count];
        if count == 0 {
            return Some((columns, 0));
        }
        for (k, row) in columns.chunks_mut(count).enumerate() {
            let source = &x[k / taps * plane..][..plane];
            self.fill(row, source, &position(k % taps, &self.kernel), &places);
        }
        Some((columns, count))
    }

    /// One element of the window at all of its places.
    fn fill(&self, row: &mut [f32], source: &[f32], tap: &[usize], places: &Places) {
        let Some((&width, outer)) = places.output.split_last() else { return };
        let last = outer.len();
        let at = |axis: usize, out: usize| {
            let i = (out * self.strides[axis] + tap[axis] * self.dilations[axis]).checked_sub(places.before[axis])?;
            (i < places.input[axis]).then_some(i)
        };
        for (k, run) in row.chunks_mut(width).enumerate() {
            let lines = position(k, outer);
            let line = lines
                .iter()
                .enumerate()
                .try_fold(0, |sum, (axis, &out)| Some(sum * places.input[axis] + at(axis, out)?));
            let Some(line) = line else { continue };
            let line = &source[line * places.input[last]..][..places.input[last]];
            for (out, x) in run.iter_mut().enumerate() {
                *x = at(last, out).map_or(0.0, |i| line[i]);
            }
        }
    }
}

/// Index `k` of an array of these sizes as one index per axis.
fn position(mut k: usize, sizes: &[usize]) -> Vec<usize> {
    let mut at = vec![0; sizes.len()];
    for (i, &size) in sizes.iter().enumerate().rev() {
        at[i] = k % size;
        k /= size;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patches(kernel: &[usize], strides: &[usize], dilations: &[usize], padding: Padding) -> Patches {
        let own = <[usize]>::to_vec;
        Patches { groups: 1, kernel: own(kernel), strides: own(strides), dilations: own(dilations), padding }
    }

    #[test]
    fn columns_hold_the_windows() {
        let p = patches(&[2, 2], &[1, 2], &[1, 1], Padding::Fixed(vec![(0, 0), (1, 0)]));
        // One channel of 2 x 3.
        let (columns, places) = p.columns(&[1., 2., 3., 4., 5., 6.], 1, &[2, 3]).unwrap();
        assert_eq!(places, 2);
        assert_eq!(columns, [0., 2., 1., 3., 0., 5., 4., 6.]);
    }

    #[test]
    fn same_padding_puts_the_odd_one_where_it_says() {
        let x = [1., 2., 3., 4.];
        let upper = patches(&[2], &[1], &[1], Padding::SameUpper).columns(&x, 1, &[4]).unwrap().0;
        assert_eq!(upper, [1., 2., 3., 4., 2., 3., 4., 0.]);
        let lower = patches(&[2], &[1], &[1], Padding::SameLower).columns(&x, 1, &[4]).unwrap().0;
        assert_eq!(lower, [0., 1., 2., 3., 1., 2., 3., 4.]);
    }

    #[test]
    fn dilation_skips_and_what_does_not_fit_is_refused() {
        let p = patches(&[2], &[1], &[3], Padding::Fixed(vec![(0, 0)]));
        assert_eq!(p.columns(&[1., 2., 3., 4., 5.], 1, &[5]).unwrap().0, [1., 2., 4., 5.]);
        assert!(p.columns(&[1., 2., 3.], 1, &[3]).is_none());
        assert!(p.columns(&[1., 2., 3.], 1, &[3, 1]).is_none());
    }
}
