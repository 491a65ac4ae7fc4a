//! DynamicQuantizeLSTM of ONNX Runtime.

use crate::error::Result;
use crate::ir::Type;
use crate::ops::nn::recurrent::{infer, macs};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, StoredRole, contrib};

/// LSTM on 8-bit weights `[directions, inputs, 4 * hidden]`, with inputs and state rounded to 8 bits as it runs.
pub struct DynamicLstm;

impl OpSpec for DynamicLstm {
    fn schemas(&self) -> &'static [Schema] {
        &const { [contrib("DynamicQuantizeLSTM")] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        infer(cx, true)
    }

    fn stored_weights(&self, _: &InferContext) -> Vec<StoredRole> {
        [1, 2].map(|slot| StoredRole { slot, rows: vec![0, 2] }).into()
    }

    fn macs(&self, cx: &InferContext, _outputs: &[Option<&Type>]) -> Option<u64> {
        macs(cx, 4)
    }
}
