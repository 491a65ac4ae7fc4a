//! Upgrading the models of the shared folder. That the upgraded models compute the same is checked by executing them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use sardonyx::analysis::{opset, shapes::infer_types};
use sardonyx::ir::Type;
use std::path::Path;

#[test]
fn real_models_upgrade() {
    let mut upgraded = 0;
    for part in ["digits", "models"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(part);
        let Ok(entries) = std::fs::read_dir(&folder) else {
            eprintln!("skipped: {} is absent", folder.display());
            continue;
        };
        for path in entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "onnx")) {
            let mut original = sardonyx::io::load(&path).unwrap();
            for version in [13, 18, 21, 26] {
                let mut model = original.clone();
                opset::require(&mut model, version).unwrap_or_else(|e| panic!("{} to {version}: {e}", path.display()));
                model.verify().unwrap();
                assert!(model.default_opset() >= version);
                infer_types(&mut model).unwrap_or_else(|e| panic!("{} at {version}: {e}", path.display()));
                infer_types(&mut original).unwrap();
                let types = |m: &sardonyx::ir::Model| -> Vec<Option<Type>> {
                    m.graph.outputs().iter().map(|&v| m.graph.ty(v).cloned()).collect()
                };
                assert_eq!(types(&model), types(&original), "{} at {version}", path.display());
                upgraded += 1;
            }
        }
    }
    eprintln!("{upgraded} upgrades");
}
