use super::*;
use crate::drift::Gate;

fn compared<T: Element>(u: &[T], v: &[T], shape: &[usize], labels: Option<&[i64]>) -> OutputDrift {
    let mut c = Comparison::new();
    c.update(u, v, shape, labels).unwrap();
    c.finish("y")
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-12 * b.abs().max(1.0), "{a} is not {b}");
}

#[test]
fn figures_by_hand() {
    let d = compared(&[3.0f32, 4.0, 0.0, 5.0], &[3.0, 3.0, 0.0, 7.0], &[2, 2, 1], None);
    close(d.max_abs, 2.0);
    close(d.mean_abs, 0.75);
    close(d.relative_l2, (5.0f64 / 50.0).sqrt());
    close(d.sqnr_db, 10.0);
    close(d.cosine, 56.0 / (50.0f64.sqrt() * 67.0f64.sqrt()));
    close(d.mean_cosine, (21.0 / (5.0 * 18.0f64.sqrt()) + 1.0) / 2.0);
    assert_eq!((d.samples, d.elements, d.non_finite), (2, 4, 0));
    // Rank 3: no classes.
    assert_eq!((d.top1_agreement, d.top5_agreement, d.accuracy), (None, None, None));
}

#[test]
fn equal_outputs_are_infinitely_good() {
    let d = compared(&[1.0f32, -2.0], &[1.0, -2.0], &[2], None);
    assert_eq!((d.sqnr_db, d.relative_l2, d.max_abs), (f64::INFINITY, 0.0, 0.0));
    close(d.cosine, 1.0);
    let zero = compared(&[0.0f32; 4], &[0.0; 4], &[2, 2], None);
    assert_eq!((zero.sqnr_db, zero.cosine, zero.mean_cosine), (f64::INFINITY, 1.0, 1.0));
    let noise = compared(&[0.0f32], &[1.0], &[1], None);
    close(noise.sqnr_db, -300.0);
    assert_eq!(noise.cosine, 0.0);
}

#[test]
fn integers_and_bools_are_numbers() {
    assert_eq!(compared(&[1i64, 5], &[1, 7], &[2], None).max_abs, 2.0);
    assert_eq!(compared(&[true, false], &[true, true], &[2], None).max_abs, 1.0);
    let mut c = Comparison::new();
    let (a, b) = (Tensor::from_u8(&[2], &[250, 3]), Tensor::from_u8(&[2], &[3, 3]));
    c.update_tensors(&a, &b, None).unwrap();
    assert_eq!(c.finish("y").max_abs, 247.0);
    let (a, b) = (Tensor::from_f64(&[1], &[1.0]), Tensor::from_f64(&[1], &[1.0 + 1e-12]));
    c.update_tensors(&a, &b, None).unwrap();
    assert!(c.finish("y").mean_abs > 82.0);
}

#[test]
fn classes_ties_and_ranks() {
    // The first of equals is the best, as in numpy.
    let d = compared(&[1.0f32, 1.0, 0.0], &[0.0, 1.0, 1.0], &[1, 3], None);
    assert_eq!((d.top1_agreement, d.top5_agreement), (Some(0.0), None));
    // The best class of the reference is sixth, then fifth.
    let u = [9.0f32, 0.0, 0.0, 0.0, 0.0, 0.0];
    let sixth = compared(&u, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &[1, 6], None);
    let fifth = compared(&u, &[1.5, 1.0, 2.0, 3.0, 4.0, 5.0], &[1, 6], None);
    assert_eq!((sixth.top5_agreement, fifth.top5_agreement), (Some(0.0), Some(1.0)));
    // One column is no class.
    assert_eq!(compared(&[1.0f32], &[1.0], &[1, 1], None).top1_agreement, None);
}

#[test]
fn accuracy_and_its_paired_interval() {
    // 100 samples of two classes: 10 only the reference has right, 2 only the rewritten model, 80 both.
    let one_hot = |class: usize| if class == 0 { [1.0f32, 0.0] } else { [0.0, 1.0] };
    let pairs = [((0, 0), 80), ((0, 1), 10), ((1, 0), 2), ((1, 1), 8)];
    let samples: Vec<(usize, usize)> = pairs.iter().flat_map(|&(p, n)| std::iter::repeat_n(p, n)).collect();
    let u: Vec<f32> = samples.iter().flat_map(|p| one_hot(p.0)).collect();
    let v: Vec<f32> = samples.iter().flat_map(|p| one_hot(p.1)).collect();
    let a = compared(&u, &v, &[100, 2], Some(&[0; 100])).accuracy.unwrap();
    assert_eq!((a.labelled, a.lost, a.gained), (100, 10, 2));
    close(a.reference, 0.9);
    close(a.rewritten, 0.82);
    close(a.drop_points, 8.0);
    // (10.5 - 2.5) / 102 -+ 1.96 sqrt(13 - 64 / 102) / 102
    let (centre, half) = (800.0 / 102.0, 195.996_398_454_005_4 * (13.0f64 - 64.0 / 102.0).sqrt() / 102.0);
    close(a.drop_interval[0], centre - half);
    close(a.drop_interval[1], centre + half);
}

#[test]
fn broken_elements_are_counted_and_left_out() {
    let inf = f32::INFINITY;
    let d = compared(&[1.0, 2.0, -inf, inf, f32::NAN], &[1.0, f32::NAN, -inf, 0.0, 1.0], &[5], None);
    assert_eq!((d.non_finite, d.elements), (1, 2 - 1));
    assert_eq!(d.sqnr_db, f64::INFINITY);
    assert!(!Gate::default().violations(&[d]).is_empty());
}

#[test]
fn ragged_outputs_have_no_classes() {
    let mut c = Comparison::new();
    c.update(&[1.0f32, 0.0], &[1.0, 0.0], &[1, 2], None).unwrap();
    assert_eq!(c.finish("y").top1_agreement, Some(1.0));
    c.update(&[1.0f32, 0.0, 0.0], &[1.0, 0.0, 0.0], &[1, 3], None).unwrap();
    assert_eq!(c.finish("y").top1_agreement, None);
    c.update(&[1.0f32, 0.0], &[1.0, 0.0], &[1, 2], None).unwrap();
    let d = c.finish("y");
    assert_eq!((d.top1_agreement, d.samples), (None, 3));
}

#[test]
fn merging_batches_in_order_is_the_same_as_streaming() {
    let values = |k: usize, phase: f32| (0..30).map(|i| ((k * 30 + i) as f32 * 0.7 + phase).sin()).collect::<Vec<_>>();
    let labels = [0i64, 1, 2];
    let mut streamed = Comparison::new();
    let mut merged = Comparison::new();
    for k in 0..7 {
        let (u, v) = (values(k, 0.0), values(k, 0.2));
        streamed.update(&u, &v, &[3, 10], Some(&labels)).unwrap();
        let mut one = Comparison::new();
        one.update(&u, &v, &[3, 10], Some(&labels)).unwrap();
        merged.merge(&one);
    }
    assert_eq!(streamed, merged);
    let d = streamed.finish("y");
    assert_eq!((d.samples, d.accuracy.unwrap().labelled), (21, 21));
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut c = Comparison::new();
    assert!(c.update(&[1.0f32], &[1.0, 2.0], &[1], None).is_err());
    assert!(c.update(&[1.0f32], &[1.0], &[2], None).is_err());
    assert!(c.update(&[1.0f32, 2.0], &[1.0, 2.0], &[1, 2], Some(&[0, 1])).is_err());
    assert!(c.update::<f32>(&[], &[], &[usize::MAX, 2], None).is_err());
    assert!(c.update_tensors(&Tensor::from_f32(&[1], &[1.0]), &Tensor::from_i32(&[1], &[1]), None).is_err());
    assert_eq!(c, Comparison::new());
    c.update::<f32>(&[], &[], &[0, 10], None).unwrap();
    assert_eq!(c.finish("y").top1_agreement, None);
}
