//! Codes as tensors.

use crate::ir::{DType, Tensor};

/// Codes of `bits` bits in as few bytes as there are, the first in the low bits (specification: TensorProto, types under 8
/// bits; MatMulNBits).
pub fn pack(codes: &[i16], bits: usize) -> Vec<u8> {
    let (per_byte, mask) = (8 / bits, (1u16 << bits) - 1);
    let byte = |codes: &[i16]| {
        let part = |(k, &code): (usize, &i16)| (code as u16 & mask) << (k * bits);
        codes.iter().enumerate().map(part).fold(0, |byte, part| byte | part) as u8
    };
    codes.chunks(per_byte).map(byte).collect()
}

/// Codes as a tensor of 8-bit integers, or of 4-bit ones where they are `few`.
pub(super) fn tensor(codes: &[i16], dims: &[usize], signed: bool, few: bool) -> Tensor {
    let (dtype, bits) = match (signed, few) {
        (true, true) => (DType::I4, 4),
        (false, true) => (DType::U4, 4),
        (true, false) => (DType::I8, 8),
        (false, false) => (DType::U8, 8),
    };
    Tensor::raw(dtype, dims, pack(codes, bits))
}

/// Codes of up to 4 bits as a tensor of such.
pub fn nibbles(codes: &[i64], dims: &[usize], signed: bool) -> Tensor {
    let codes: Vec<i16> = codes.iter().map(|&c| c as i16).collect();
    tensor(&codes, dims, signed, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nibbles_are_packed_low_first() {
        assert_eq!(pack(&[1, -1, 7], 4), [0xf1, 0x07]);
        assert_eq!(pack(&[3, 0, 2, 1, 1], 2), [0b01_10_00_11, 1]);
        assert_eq!(pack(&[-128, 127], 8), [0x80, 0x7f]);
    }
}
