//! Upgrading the models of the shared folder. That the upgraded models compute the same is checked by executing them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use sardonyx::analysis::{opset, shapes::infer_types};
use sardonyx::ir::Type;
use std::path::Path;

/// Cases of the standard whose operator set is lower are upgraded to this one.
const TARGET: i64 = 21;

/// Every case of the standard below [`TARGET`] upgrades, or is refused with the operator's name; refusals stay under 3%.
/// With `SARDONYX_UPGRADED=FOLDER` the upgraded models are written there as `CASE.onnx`, to be executed elsewhere.
#[test]
fn operator_cases_upgrade() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/onnx-node-tests");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: {} is absent", folder.display());
        return;
    };
    let mut cases: Vec<_> = entries.map(|e| e.unwrap().path()).filter(|p| p.join("model.onnx").is_file()).collect();
    cases.sort();
    let (mut lower, mut refused) = (0, vec![]);
    for case in &cases {
        let name = case.file_name().unwrap().to_str().unwrap();
        let mut model = sardonyx::io::load(&case.join("model.onnx")).unwrap_or_else(|e| panic!("{name}: {e}"));
        if !(1..TARGET).contains(&model.opset("").unwrap_or(0)) {
            continue;
        }
        lower += 1;
        if let Err(e) = opset::require(&mut model, TARGET) {
            let node = model.graph.nodes().any(|id| e.to_string().contains(&*model.graph.node(id).op.op_type));
            assert!(node, "{name}: the refusal names no operator: {e}");
            refused.push(format!("{name}: {e}"));
            continue;
        }
        model.verify().unwrap_or_else(|e| panic!("{name}: {e}"));
        infer_types(&mut model).unwrap_or_else(|e| panic!("{name}: {e}"));
        if let Ok(to) = std::env::var("SARDONYX_UPGRADED") {
            sardonyx::io::save(&model, &Path::new(&to).join(format!("{name}.onnx"))).unwrap();
        }
    }
    eprintln!("{} of {lower} refused:\n{}", refused.len(), refused.join("\n"));
    assert!(lower > 800 && refused.len() * 100 < lower * 3, "{} of {lower} refused", refused.len());
}

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
                // As text, where every size without a name is the same.
                let types = |m: &sardonyx::ir::Model| -> Vec<Option<String>> {
                    m.graph.outputs().iter().map(|&v| m.graph.ty(v).map(Type::to_string)).collect()
                };
                assert_eq!(types(&model), types(&original), "{} at {version}", path.display());
                upgraded += 1;
            }
        }
    }
    eprintln!("{upgraded} upgrades");
}
