//! Shapes: zeros in targets, empty tensors, axes, operator sets, indices.

use crate::judge::On::{Nothing, Plain, Special};
use crate::traps;

traps! {
    // The 0 copies the dimension of its own input, 4, not the 2 of x.
    zero_in_the_second_reshape: 17, Plain,
        "g (float[2,3,4] x) => (float[4,6] y) <int64[3] a = {4,3,2}, int64[2] b = {0,-1}> { r = Reshape (x, a) y = Reshape (r, b) }";
    zero_in_the_first_reshape: 17, Plain,
        "g (float[N,3,4] x) => (float[N,2,6] y) <int64[2] a = {0,-1}, int64[3] b = {0,2,6}> { r = Reshape (x, a) y = Reshape (r, b) }";
    zero_that_means_zero: 17, Plain,
        "g (float[0,3] x) => (float[3,0] y) <int64[2] a = {3,0}> { y = Reshape <allowzero = 1> (x, a) }";
    reshape_of_an_empty_tensor: 17, Plain,
        "g (float[0,4] x) => (float[0,2,2] y) <int64[3] a = {0,2,2}> { y = Reshape (x, a) }";
    reshape_and_transpose_are_no_inverses: 17, Plain,
        "g (float[2,3] x) => (float[2,3] y) <int64[2] a = {3,2}> { r = Reshape (x, a) y = Transpose <perm = [1,0]> (r) }",
        "Transpose" 1;
    transposes_that_do_not_cancel: 17, Plain,
        "g (float[2,2,2] x) => (float[2,2,2] y) { a = Transpose <perm = [1,2,0]> (x) y = Transpose <perm = [1,2,0]> (a) }",
        "Transpose" 1;
    transpose_without_permutation_reverses: 17, Plain,
        "g (float[2,2,2] x) => (float[2,2,2] y) { a = Transpose (x) y = Transpose <perm = [2,0,1]> (a) }";
    flatten_at_zero_adds_an_axis: 17, Plain, "g (float[2,3] x) => (float[1,6] y) { y = Flatten <axis = 0> (x) }";
    flatten_of_a_vector_adds_an_axis: 17, Plain, "g (float[6] x) => (float[6,1] y) { y = Flatten (x) }";
    flatten_at_a_negative_axis: 17, Plain, "g (float[2,3,4] x) => (float[6,4] y) { y = Flatten <axis = -1> (x) }";
    // With a batch of 1 it drops that axis too.
    squeeze_of_every_axis_of_size_one: 17, Nothing("the rank of the output depends on the batch"),
        "g (float[N,1,3] x) => (float[] y) { y = Squeeze (x) }", "Squeeze" 1;
    squeeze_by_attribute: 11, Plain, "g (float[1,3,1] x) => (float[1,3] y) { y = Squeeze <axes = [-1]> (x) }";
    squeeze_moved_to_a_newer_set: 11 => 21, Plain, "g (float[1,3,1] x) => (float[1,3] y) { y = Squeeze <axes = [-1]> (x) }";
    unsqueeze_in_any_order: 17, Plain,
        "g (float[2,3] x) => (float[1,2,3,1] y) <int64[2] a = {3,0}> { y = Unsqueeze (x, a) }";
    squeeze_of_another_axis: 17, Plain,
        "g (float[1,3] x) => (float[3,1] y) <int64[1] a = {2}, int64[1] b = {0}> { u = Unsqueeze (x, a) y = Squeeze (u, b) }";
    backwards_twice_on_different_axes: 17, Plain,
        "g (float[3,4] x) => (float[3,4] y)
         <int64[1] s = {-1}, int64[1] e = {-9223372036854775807}, int64[1] a = {0}, int64[1] b = {1}, int64[1] m = {-1}>
         { r = Slice (x, s, e, a, m) y = Slice (r, s, e, b, m) }";
    backwards_leaves_out_the_first: 17, Plain,
        "g (float[5] x) => (float[4] y) <int64[1] s = {-1}, int64[1] e = {0}, int64[1] a = {0}, int64[1] m = {-1}>
         { y = Slice (x, s, e, a, m) }";
    slice_of_a_clamped_slice: 17, Plain,
        "g (float[5] x) => (float[2] y)
         <int64[1] s = {1}, int64[1] e = {100}, int64[1] a = {0}, int64[1] t = {-2}, int64[1] f = {9223372036854775807}>
         { r = Slice (x, s, e, a) y = Slice (r, t, f, a) }";
    slice_of_a_slice_that_ends_before: 17, Plain,
        "g (float[9] x) => (float[2] y) <int64[1] s = {2}, int64[1] e = {5}, int64[1] t = {1}, int64[1] f = {8}>
         { r = Slice (x, s, e) y = Slice (r, t, f) }";
    steps_of_steps: 17, Plain,
        "g (float[11] x) => (float[2] y)
         <int64[1] s = {1}, int64[1] e = {10}, int64[1] a = {0}, int64[1] m = {3}, int64[1] t = {2}, int64[1] f = {-4}, int64[1] n = {-2}>
         { r = Slice (x, s, e, a, m) y = Slice (r, t, f, a, n) }";
    // The whole of a batch of 2, not of 3.
    slice_of_a_symbolic_axis: 17, Plain,
        "g (float[N,4] x) => (float[M,4] y) <int64[1] s = {0}, int64[1] e = {2}> { y = Slice (x, s, e) }", "Slice" 1;
    slice_without_axes: 9, Plain,
        "g (float[3,4] x) => (float[2,3] y) { y = Slice <starts = [0,1], ends = [2,4]> (x) }";
    gather_at_negative_indices: 17, Plain,
        "g (float[5,2] x) => (float[3,2] y) <int64[3] i = {-1,0,-5}> { y = Gather <axis = 0> (x, i) }";
    gather_of_a_scalar_drops_the_axis: 17, Plain,
        "g (float[1,3] x) => (float[3] y) <int64 i = {0}> { y = Gather <axis = 0> (x, i) }";
    gather_of_everything_in_another_order: 17, Plain,
        "g (float[3] x) => (float[3] y) <int64[3] i = {2,1,0}> { y = Gather (x, i) }", "Gather" 1;
    gather_from_the_shape_by_a_negative_index: 17, Plain,
        "g (float[N,3,4] x) => (float[N,12] y) <int64 i = {-3}, int64[1] z = {0}, int64[1] r = {-1}>
         { s = Shape (x) n = Gather (s, i) u = Unsqueeze (n, z) t = Concat <axis = 0> (u, r) y = Reshape (x, t) }";
    part_of_a_shape: 17, Plain,
        "g (float[N,3,4] x) => (int64[1] a, int64[2] b) { a = Shape <start = -3, end = -2> (x) b = Shape <start = 1, end = 99> (x) }";
    size_of_an_unknown_batch: 17, Plain, "g (float[N,3] x) => (int64 y) { y = Size (x) }", "Size" 1;
    expansion_enlarges: 17, Plain,
        "g (float[1,3] x) => (float[2,3] y) <int64[2] s = {2,1}> { y = Expand (x, s) }";
    expansion_to_less_does_nothing: 17, Plain,
        "g (float[2,3] x) => (float[2,3] y) <int64[1] s = {1}> { e = Expand (x, s) y = Neg (e) }";
    expansion_adds_axes: 17, Plain,
        "g (float[3] x) => (float[1,3] y) <int64[2] s = {1,1}> { y = Expand (x, s) }";
    // The Add stretches too, but not as far.
    expansion_before_broadcasting: 17, Plain,
        "g (float[1,3] x, float[1,3] z) => (float[2,3] y) <int64[2] s = {2,3}> { e = Expand (x, s) y = Add (e, z) }";
    tile_that_repeats: 17, Plain, "g (float[2,1] x) => (float[2,3] y) <int64[2] r = {1,3}> { y = Tile (x, r) }";
    tile_that_empties: 17, Plain, "g (float[2,3] x) => (float[0,3] y) <int64[2] r = {0,1}> { y = Tile (x, r) }";
    concatenation_with_nothing: 17, Plain,
        "g (float[2,3] x) => (float[2,3] y) <float[0,3] e = {}> { c = Concat <axis = 0> (e, x) y = Neg (c) }";
    concatenation_of_the_same: 17, Plain, "g (float[2,3] x) => (float[4,3] y) { y = Concat <axis = 0> (x, x) }";
    concatenation_of_parts_in_another_order: 17, Plain,
        "g (float[4] x) => (float[4] y) <int64[2] s = {2,2}> { a, b = Split <axis = 0> (x, s) y = Concat <axis = 0> (b, a) }";
    split_unevenly: 18, Plain,
        "g (float[5] x) => (float[3] a, float[2] b) { a, b = Split <axis = 0, num_outputs = 2> (x) }";
    split_into_one: 17, Plain, "g (float[5] x) => (float[5] y) <int64[1] s = {5}> { a = Split <axis = 0> (x, s) y = Neg (a) }";
    mean_over_no_axes_is_a_no_op: 18, Special,
        "g (float[2,6] x) => (float[2,6] y) <int64[0] a = {}> { m = ReduceMean <noop_with_empty_axes = 1> (x, a) y = Neg (m) }";
    mean_over_no_axes_is_over_all: 18, Plain,
        "g (float[2,6] x) => (float[1,1] y) <int64[0] a = {}> { y = ReduceMean (x, a) }", "ReduceMean" 1;
    reduction_that_drops_an_axis_of_one: 17, Plain,
        "g (float[2,1] x) => (float[2] y) <int64[1] a = {1}> { y = ReduceSum <keepdims = 0> (x, a) }";
    reductions_that_change_single_elements: 17, Plain,
        "g (float[2,1] x) => (float[2,1] a, float[2,1] b, float[2,1] c, float[2,1] d)
         { a = ReduceSumSquare <axes = [1]> (x) b = ReduceL1 <axes = [1]> (x) c = ReduceL2 <axes = [1]> (x)
           d = ReduceLogSumExp <axes = [1]> (x) }";
    mean_of_means_over_unequal_groups: 17, Plain,
        "g (float[2,3] x) => (float[1,1] y) { a = ReduceMean <axes = [1]> (x) y = ReduceMean <axes = [0]> (a) }";
    sum_over_attribute_axes_moved_to_a_newer_set: 11 => 21, Plain,
        "g (float[2,3] x) => (float[2] y) { y = ReduceSum <axes = [1], keepdims = 0> (x) }";
    // Before set 13 it is over all axes from `axis` on.
    softmax_over_several_axes: 11, Plain, "g (float[2,3,4] x) => (float[2,3,4] y) { y = Softmax <axis = 1> (x) }";
    softmax_moved_to_a_newer_set: 11 => 21, Plain, "g (float[2,3,4] x) => (float[2,3,4] y) { y = Softmax <axis = 1> (x) }";
    softmax_without_an_axis_moved: 11 => 21, Plain, "g (float[2,3,4] x) => (float[2,3,4] y) { y = Softmax (x) }";
    clip_moved_to_a_newer_set: 6 => 21, Nothing("operator set 6 broadcasts in another way"),
        "g (float[12] x) => (float[12] y) { y = Clip <max = 1.0> (x) }";
    clip_by_attribute_moved: 9 => 21, Special, "g (float[12] x) => (float[12] y) { y = Clip <max = 1.0> (x) }";
    pad_moved_to_a_newer_set: 9 => 21, Plain,
        "g (float[2,3] x) => (float[3,4] y) { y = Pad <pads = [1,0,0,1], value = 2.0> (x) }";
    dropout_moved_to_a_newer_set: 9 => 21, Plain, "g (float[2,3] x) => (float[2,3] y) { d = Dropout <ratio = 0.3> (x) y = Neg (d) }";
    upsample_moved_to_a_newer_set: 9 => 21, Nothing("Upsample is not in tract"),
        "g (float[1,1,2,2] x) => (float[1,1,4,6] y) <float[4] s = {1,1,2,3}> { y = Upsample (x, s) }";
    depth_and_space_in_unlike_modes: 17, Plain,
        "g (float[1,8,2,2] x) => (float[1,8,2,2] y)
         { d = DepthToSpace <blocksize = 2, mode = \"CRD\"> (x) y = SpaceToDepth <blocksize = 2> (d) }";
    range_of_floats_rounds_its_length_up: 17, Nothing("tract counts a range of floats in whole steps"),
        "g (float[2] x) => (float[2] y) <float a = {0}, float b = {3}, float s = {1.5}> { r = Range (a, b, s) y = Add (x, r) }";
    identity_by_pad_of_nothing: 17, Plain,
        "g (float[2,3] x) => (float[2,3] y) <int64[4] p = {0,0,0,0}> { q = Pad <mode = \"reflect\"> (x, p) y = Neg (q) }";
    pad_that_moves: 17, Plain,
        "g (float[4] x) => (float[4] y) <int64[2] p = {1,-1}> { y = Pad (x, p) }", "Pad" 1;
    pads_that_crop_and_fill: 17, Plain,
        "g (float[4] x) => (float[4] y) <int64[2] p = {-1,0}, int64[2] q = {1,0}> { a = Pad (x, p) y = Pad (a, q) }";
    resize_to_the_same_size_through_another: 17, Plain,
        "g (float[1,1,2,2] x) => (float[1,1,2,2] y) <float[4] up = {1,1,2,2}, float[4] down = {1,1,0.5,0.5}>
         { u = Resize <mode = \"linear\"> (x, , up) y = Resize <mode = \"linear\"> (u, , down) }";
    matrix_product_of_a_vector: 17, Plain, "g (float[3] x) => (float[2] y) <float[3,2] w = {1,2,3,4,5,6}> { y = MatMul (x, w) }";
    one_hot_of_negative_indices: 17, Plain,
        "g (float[2,3] x) => (float[2,3] y) <int64[2] i = {-1,1}, int64 n = {3}, float[2] v = {0,1}> { h = OneHot (i, n, v) y = Add (x, h) }";
    cumulative_sum_exclusive_and_reverse: 17, Plain,
        "g (float[4] x) => (float[4] a, float[4] b) <int64 i = {0}> { a = CumSum <exclusive = 1> (x, i) b = CumSum <reverse = 1> (x, i) }",
        "CumSum" 2;
    largest_index_first_or_last: 17, Plain,
        "g (float[4] x) => (int64[1] a, int64[1] b) { a = ArgMax (x) b = ArgMax <select_last_index = 1> (x) }", "ArgMax" 2;
}
