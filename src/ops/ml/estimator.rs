//! The operators of `ai.onnx.ml`. Few models have them, so that shapes of outputs are left to the declarations.

use crate::error::Result;
use crate::ir::{DType, Dim};
use crate::ops::rules::output;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, foreign};

const DOMAIN: &str = "ai.onnx.ml";

/// Feature extractors, encoders, trees and linear models.
pub struct Estimator;

impl OpSpec for Estimator {
    fn schemas(&self) -> &'static [Schema] {
        &const {
            [
                foreign(DOMAIN, "ArrayFeatureExtractor", &[1]),
                foreign(DOMAIN, "Binarizer", &[1]),
                foreign(DOMAIN, "CastMap", &[1]),
                foreign(DOMAIN, "CategoryMapper", &[1]),
                foreign(DOMAIN, "DictVectorizer", &[1]),
                foreign(DOMAIN, "FeatureVectorizer", &[1]),
                foreign(DOMAIN, "Imputer", &[1]),
                foreign(DOMAIN, "LabelEncoder", &[1, 2, 4]),
                foreign(DOMAIN, "LinearClassifier", &[1]),
                foreign(DOMAIN, "LinearRegressor", &[1]),
                foreign(DOMAIN, "Normalizer", &[1]),
                foreign(DOMAIN, "OneHotEncoder", &[1]),
                foreign(DOMAIN, "SVMClassifier", &[1]),
                foreign(DOMAIN, "SVMRegressor", &[1]),
                foreign(DOMAIN, "Scaler", &[1]),
                foreign(DOMAIN, "TreeEnsemble", &[5]),
                foreign(DOMAIN, "TreeEnsembleClassifier", &[1, 3, 5]),
                foreign(DOMAIN, "TreeEnsembleRegressor", &[1, 3, 5]),
                foreign(DOMAIN, "ZipMap", &[1]),
            ]
        }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let shape = || cx.shape(0).map(<[Dim]>::to_vec);
        match &*cx.node.op.op_type {
            "Binarizer" | "Imputer" => output(cx.elem(0), shape()),
            "Scaler" | "Normalizer" => output(Some(DType::F32), shape()),
            _ => Ok(vec![]),
        }
    }
}
