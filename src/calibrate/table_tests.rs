use super::*;
use proptest::prelude::*;

fn table(values: &[f32]) -> CalibrationTable {
    let mut statistics = Statistics::new();
    statistics.update(values).unwrap();
    let mut table = CalibrationTable::new("main", "sha256:0123", 3, false);
    table.values.insert("x".into(), statistics);
    table
}

fn message(text: &str) -> String {
    CalibrationTable::from_json(text).unwrap_err().to_string()
}

proptest! {
    #[test]
    fn saved_tables_give_the_same_ranges(values in prop::collection::vec(proptest::num::f32::NORMAL | proptest::num::f32::SUBNORMAL | proptest::num::f32::ZERO, 0..60)) {
        let table = table(&values);
        let text = table.to_json().unwrap();
        let again = CalibrationTable::from_json(&text).unwrap();
        prop_assert_eq!(&again, &table);
        prop_assert_eq!(again.to_json().unwrap(), text);
        for method in [Method::MinMax, Method::Percentile(99.9)] {
            let spec = RangeSpec::new(8, true, false).unwrap();
            let bits = |t: &CalibrationTable| t.range("x", method, &spec).map(|(l, h)| (l.to_bits(), h.to_bits()));
            prop_assert_eq!(bits(&again), bits(&table));
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,60}", histogram in "[0-9x ]{0,40}", first in any::<i32>(), exponent in any::<i32>()) {
        let _ = CalibrationTable::from_json(&text);
        let record = Record { min: -1.0, max: 1.0, count: 5, zeros: 1, exponent, first_bin: first, histogram };
        let _ = Statistics::try_from(record);
    }
}

#[test]
fn text_is_readable_and_compact() {
    let text = table(&[0.0, 0.0, 1.0, -0.5]).to_json().unwrap();
    assert!(text.contains("\"graph\": \"main\"") && text.contains("\"samples\": 3"), "{text}");
    assert!(text.contains("\"histogram\": \"1 0x2047 2 0x4095 1\""), "{text}");
}

#[test]
fn what_is_not_a_table_is_refused_with_a_reason() {
    let good = table(&[0.0, 0.0, 1.0, -0.5]).to_json().unwrap();
    assert!(message("{").contains("calibration table"));
    assert!(message("{\"graph\": \"main\"}").contains("version"));
    assert!(
        message(&good.replace("\"version\": 1", "\"version\": 2, \"new\": 0")).contains("version 2 is not supported")
    );
    assert!(message(&good.replace("\"random\"", "\"radnom\"")).contains("radnom"));
    assert!(message(&good.replace("\"count\": 4", "\"count\": 5")).contains("count is 5"));
    assert!(message(&good.replace("\"zeros\": 2", "\"zeros\": 3")).contains("zeros"));
    assert!(message(&good.replace("0x4095", "0x4094")).contains("do not fit the range"));
    assert!(message(&good.replace("0x4095", "0x99999999999")).contains("more than 8192 bins"));
    assert!(message(&good.replace("0x4095", "0x-1")).contains("not a count"));
    assert!(message(&good.replace("\"max\": 1.0", "\"max\": 1e300")).contains("is not one"));
    assert!(message(&good.replace("\"exponent\": -12", "\"exponent\": 2000000000")).contains("do not fit"));
}
