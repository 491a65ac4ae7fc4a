//! Dense row-major arrays.

use super::Real;
use std::sync::Arc;

/// A dense row-major array. Cloning and reshaping share the elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Array<T> {
    dims: Vec<usize>,
    data: Arc<Vec<T>>,
}

impl<T: Real> Array<T> {
    /// An array of these elements. A number of elements that does not fit the shape is a bug of the caller.
    pub fn new(dims: &[usize], data: Vec<T>) -> Self {
        assert_eq!(dims.iter().product::<usize>(), data.len(), "elements for shape {dims:?}");
        Self { dims: dims.to_vec(), data: Arc::new(data) }
    }

    /// All elements equal.
    pub fn full(dims: &[usize], value: T) -> Self {
        Self::new(dims, vec![value; dims.iter().product()])
    }

    /// All elements 0.
    pub fn zeros(dims: &[usize]) -> Self {
        Self::full(dims, T::zero())
    }

    /// Shape.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The elements.
    pub fn data(&self) -> &[T] {
        &self.data
    }

    /// The elements, to change: copied first where they are shared.
    pub fn data_mut(&mut self) -> &mut [T] {
        let data: &mut Vec<T> = Arc::make_mut(&mut self.data);
        data
    }

    /// Whether no element is NaN or an infinity.
    pub fn is_finite(&self) -> bool {
        self.data.iter().all(|x| x.is_finite())
    }

    /// The same elements in another shape with as many.
    pub fn reshaped(&self, dims: &[usize]) -> Self {
        assert_eq!(dims.iter().product::<usize>(), self.data.len(), "elements for shape {dims:?}");
        Self { dims: dims.to_vec(), data: self.data.clone() }
    }

    /// `f` of every element.
    pub fn map(&self, f: impl Fn(T) -> T + Sync) -> Self {
        Self { dims: self.dims.clone(), data: Arc::new(super::elementwise(&self.data, f)) }
    }

    /// Adds another array of the same shape.
    pub fn add(&mut self, other: &Self) {
        assert_eq!(self.dims, other.dims, "shapes of a sum");
        if other.is_empty() {
            return;
        }
        super::parallel::update(self.data_mut(), &other.data, |a, b| *a += b);
    }
}
