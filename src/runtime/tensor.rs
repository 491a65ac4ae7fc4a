//! Tensors between the IR and tract.

use crate::error::{Context, Error, Result};
use crate::ir::{DType, Tensor, TensorData};
use tract_onnx::prelude::{DatumType, Tensor as TractTensor};

/// tract's name of an element type; `None` where tract has none.
pub(super) fn datum_type(dtype: DType) -> Option<DatumType> {
    Some(match dtype {
        DType::F32 => DatumType::F32,
        DType::F16 => DatumType::F16,
        DType::F64 => DatumType::F64,
        DType::U8 => DatumType::U8,
        DType::I8 => DatumType::I8,
        DType::U16 => DatumType::U16,
        DType::I16 => DatumType::I16,
        DType::U32 => DatumType::U32,
        DType::I32 => DatumType::I32,
        DType::U64 => DatumType::U64,
        DType::I64 => DatumType::I64,
        DType::Bool => DatumType::Bool,
        DType::String => DatumType::String,
        _ => return None,
    })
}

/// The element type that tract's stands for; shapes (`TDim`) are int64 in ONNX.
pub(super) fn dtype_of(datum_type: DatumType) -> Result<DType> {
    Ok(match datum_type {
        DatumType::F32 => DType::F32,
        DatumType::F16 => DType::F16,
        DatumType::F64 => DType::F64,
        DatumType::U8 => DType::U8,
        DatumType::I8 => DType::I8,
        DatumType::U16 => DType::U16,
        DatumType::I16 => DType::I16,
        DatumType::U32 => DType::U32,
        DatumType::I32 => DType::I32,
        DatumType::U64 => DType::U64,
        DatumType::I64 | DatumType::TDim => DType::I64,
        DatumType::Bool => DType::Bool,
        DatumType::String => DType::String,
        other => return Err(Error::Execution(format!("returned a tensor of type {other:?}"))),
    })
}

/// A copy of the tensor for tract.
///
/// # Errors
/// An element type that tract does not have; data that do not fit the shape.
pub(super) fn to_tract(t: &Tensor) -> Result<TractTensor> {
    let dt = datum_type(t.dtype).ok_or_else(|| Error::unsupported(format!("tract has no tensors of {}", t.dtype)))?;
    if let TensorData::Strings(strings) = &t.data {
        let text: Vec<String> = strings.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect();
        let flat = tract_onnx::prelude::tensor1(&text);
        return flat.into_shape(&t.dims).map_err(tract_error);
    }
    let bytes = t.bytes()?;
    // SAFETY: the type is one of tract's plain types, and `bytes` checked that the length fits the shape; tract copies.
    unsafe { TractTensor::from_raw_dt(dt, &t.dims, &bytes) }.map_err(tract_error)
}

/// A copy of tract's tensor.
///
/// # Errors
/// An element type that ONNX does not have.
pub(super) fn from_tract(t: &TractTensor) -> Result<Tensor> {
    let dtype = dtype_of(t.datum_type()).context(|| "output")?;
    if dtype == DType::String {
        let view = t.to_plain_array_view::<String>().map_err(tract_error)?;
        let strings: Vec<Vec<u8>> = view.iter().map(|s| s.as_bytes().to_vec()).collect();
        let data = TensorData::Strings(std::sync::Arc::new(strings));
        return Ok(Tensor { dtype, dims: t.shape().to_vec(), data, extra: None });
    }
    if t.datum_type() == DatumType::TDim {
        let cast = t.cast_to::<i64>().map_err(tract_error)?;
        return Ok(Tensor::raw(dtype, cast.shape(), cast.as_bytes().to_vec()));
    }
    Ok(Tensor::raw(dtype, t.shape(), t.as_bytes().to_vec()))
}

/// tract's error with all of its causes on one line.
pub(super) fn tract_error(e: impl std::fmt::Display) -> Error {
    let text = format!("{e:#}").replace('\n', " ");
    let short: String = text.chars().take(400).collect();
    Error::Execution(short)
}
