//! Element types, `TensorProto.DataType` of the specification.

use std::fmt;

/// Element type of a tensor. The discriminants are the specification's own numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(i32)]
#[allow(missing_docs)]
pub enum DType {
    F32 = 1,
    U8 = 2,
    I8 = 3,
    U16 = 4,
    I16 = 5,
    I32 = 6,
    I64 = 7,
    String = 8,
    Bool = 9,
    F16 = 10,
    F64 = 11,
    U32 = 12,
    U64 = 13,
    C64 = 14,
    C128 = 15,
    BF16 = 16,
    F8E4M3FN = 17,
    F8E4M3FNUZ = 18,
    F8E5M2 = 19,
    F8E5M2FNUZ = 20,
    U4 = 21,
    I4 = 22,
    F4E2M1 = 23,
    F8E8M0 = 24,
    U2 = 25,
    I2 = 26,
}

/// (type, name in ONNX's text syntax, bits of one element; 0 = no fixed size)
const TABLE: &[(DType, &str, usize)] = &[
    (DType::F32, "float", 32),
    (DType::U8, "uint8", 8),
    (DType::I8, "int8", 8),
    (DType::U16, "uint16", 16),
    (DType::I16, "int16", 16),
    (DType::I32, "int32", 32),
    (DType::I64, "int64", 64),
    (DType::String, "string", 0),
    (DType::Bool, "bool", 8),
    (DType::F16, "float16", 16),
    (DType::F64, "double", 64),
    (DType::U32, "uint32", 32),
    (DType::U64, "uint64", 64),
    (DType::C64, "complex64", 64),
    (DType::C128, "complex128", 128),
    (DType::BF16, "bfloat16", 16),
    (DType::F8E4M3FN, "float8e4m3fn", 8),
    (DType::F8E4M3FNUZ, "float8e4m3fnuz", 8),
    (DType::F8E5M2, "float8e5m2", 8),
    (DType::F8E5M2FNUZ, "float8e5m2fnuz", 8),
    (DType::U4, "uint4", 4),
    (DType::I4, "int4", 4),
    (DType::F4E2M1, "float4e2m1", 4),
    (DType::F8E8M0, "float8e8m0", 8),
    (DType::U2, "uint2", 2),
    (DType::I2, "int2", 2),
];

impl DType {
    fn row(self) -> &'static (DType, &'static str, usize) {
        let found = TABLE.iter().find(|row| row.0 == self);
        found.unwrap_or(&TABLE[0])
    }

    /// The type with the specification's number `code`, if there is one.
    pub fn from_onnx(code: i32) -> Option<Self> {
        TABLE.iter().map(|row| row.0).find(|&t| t as i32 == code)
    }

    /// The type with this name in ONNX's text syntax.
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The specification's number.
    pub fn onnx(self) -> i32 {
        self as i32
    }

    /// Name in ONNX's text syntax: `float`, `int8`, ...
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Bits of one element; 0 for strings.
    pub fn bits(self) -> usize {
        self.row().2
    }

    /// Bytes that `len` elements take in `raw_data` (types under 8 bits are packed; see the specification's TensorProto).
    pub fn bytes_for(self, len: usize) -> Option<usize> {
        len.checked_mul(self.bits()).map(|bits| bits.div_ceil(8))
    }

    /// f16, bf16, f32 or f64.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::F64 | DType::BF16)
    }

    /// An integer type of any width, signed or not.
    pub fn is_int(self) -> bool {
        use DType::*;
        matches!(self, U8 | I8 | U16 | I16 | I32 | I64 | U32 | U64 | U4 | I4 | U2 | I2)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
