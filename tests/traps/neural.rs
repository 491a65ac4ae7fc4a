//! Convolutions, pooling, normalization, products, quantization.

use crate::judge::On::{Nothing, Plain, Special};
use crate::traps;

traps! {
    // A maximum of negative numbers and a padded 0 is 0; the pool's own padding does not take part.
    zero_padding_before_max_pool: 17, Plain,
        "g (float[1,1,4,4] x) => (float[1,1,3,3] y) <int64[8] p = {0,0,1,1,0,0,1,1}>
         { q = Pad (x, p) y = MaxPool <kernel_shape = [2,2], strides = [2,2]> (q) }", "Pad" 1;
    // Padded by hand the zeros are counted, padded by the pool they are not.
    padding_before_an_average_that_does_not_count: 17, Plain,
        "g (float[1,1,4,4] x) => (float[1,1,3,3] y) <int64[8] p = {0,0,1,1,0,0,1,1}>
         { q = Pad (x, p) y = AveragePool <kernel_shape = [2,2], strides = [2,2]> (q) }";
    padding_before_an_average_that_counts: 17, Plain,
        "g (float[1,1,4,4] x) => (float[1,1,3,3] y) <int64[8] p = {0,0,1,1,0,0,1,1}>
         { q = Pad (x, p) y = AveragePool <kernel_shape = [2,2], strides = [2,2], count_include_pad = 1> (q) }";
    padding_before_an_average_that_rounds_up: 17, Plain,
        "g (float[1,1,4,4] x) => (float[1,1,3,3] y) <int64[8] p = {0,0,0,0,0,0,1,1}>
         { q = Pad (x, p) y = AveragePool <kernel_shape = [2,2], strides = [2,2], ceil_mode = 1> (q) }";
    padding_by_one_before_convolution: 17, Plain,
        "g (float[1,1,4,4] x) => (float[1,1,4,4] y) <int64[8] p = {0,0,1,1,0,0,1,1}, float one = {1}, float[1,1,3,3] w = {1,2,3,4,5,6,7,8,9}>
         { q = Pad (x, p, one) y = Conv (q, w) }", "Pad" 1;
    padding_by_reflection_before_convolution: 17, Plain,
        "g (float[1,1,4,4] x) => (float[1,1,4,4] y) <int64[8] p = {0,0,1,1,0,0,1,1}, float[1,1,3,3] w = {1,2,3,4,5,6,7,8,9}>
         { q = Pad <mode = \"reflect\"> (x, p) y = Conv (q, w) }", "Pad" 1;
    padding_by_the_edge_before_convolution: 17, Plain,
        "g (float[1,1,4,4] x) => (float[1,1,4,4] y) <int64[8] p = {0,0,1,1,0,0,1,1}, float[1,1,3,3] w = {1,2,3,4,5,6,7,8,9}>
         { q = Pad <mode = \"edge\"> (x, p) y = Conv (q, w) }", "Pad" 1;
    cropping_before_convolution: 17, Plain,
        "g (float[1,1,6,6] x) => (float[1,1,2,2] y) <int64[8] p = {0,0,-1,-1,0,0,-1,-1}, float[1,1,3,3] w = {1,2,3,4,5,6,7,8,9}>
         { q = Pad (x, p) y = Conv (q, w) }", "Pad" 1;
    padding_of_channels_before_convolution: 17, Plain,
        "g (float[1,1,3,3] x) => (float[1,1,1,1] y) <int64[8] p = {0,1,0,0,0,0,0,0}, float[1,2,3,3] w = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9}>
         { q = Pad (x, p) y = Conv (q, w) }", "Pad" 1;
    // The output would have another size, or another place.
    padding_before_automatic_padding: 17, Plain,
        "g (float[1,1,4,4] x) => (float[1,1,6,6] y) <int64[8] p = {0,0,1,1,0,0,1,1}, float[1,1,3,3] w = {1,2,3,4,5,6,7,8,9}>
         { q = Pad (x, p) y = Conv <auto_pad = \"SAME_UPPER\"> (q, w) }";
    lower_and_upper_padding_differ: 17, Plain,
        "g (float[1,1,4,4] x) => (float[1,1,2,2] a, float[1,1,2,2] b) <float[1,1,3,3] w = {1,2,3,4,5,6,7,8,9}>
         { a = Conv <auto_pad = \"SAME_UPPER\", strides = [2,2]> (x, w) b = Conv <auto_pad = \"SAME_LOWER\", strides = [2,2]> (x, w) }",
        "Conv" 2;
    dilated_grouped_convolution_and_normalization: 17, Plain,
        "g (float[1,2,5,5] x) => (float[1,2,3,3] y)
         <float[2,1,2,2] w = {1,2,3,4,5,6,7,8}, float[2] s = {2,3}, float[2] b = {1,-1}, float[2] m = {0.5,1}, float[2] v = {1,4}>
         { c = Conv <dilations = [2,2], group = 2> (x, w) y = BatchNormalization (c, s, b, m, v) }";
    // Height, width and channels are all 2, so the shapes fit whatever the axis.
    factor_along_the_width: 17, Plain,
        "g (float[1,2,2,2] x) => (float[1,2,2,2] y) <float[2,2,1,1] w = {1,2,3,4}, float[2] f = {2,3}>
         { c = Conv (x, w) y = Mul (c, f) }";
    factor_along_the_height: 17, Plain,
        "g (float[1,2,2,2] x) => (float[1,2,2,2] y) <float[2,2,1,1] w = {1,2,3,4}, float[2,1] f = {2,3}>
         { c = Conv (x, w) y = Mul (c, f) }";
    factor_along_the_batch: 17, Plain,
        "g (float[2,2,2,2] x) => (float[2,2,2,2] y) <float[2,2,1,1] w = {1,2,3,4}, float[2,1,1,1] f = {2,3}>
         { c = Conv (x, w) y = Mul (c, f) }";
    factor_that_stretches: 17, Plain,
        "g (float[1,1,2,2] x) => (float[1,2,2,2] y) <float[1,1,1,1] w = {2}, float[2,1,1] f = {2,3}>
         { c = Conv (x, w) y = Mul (c, f) }";
    addend_along_the_width: 17, Plain,
        "g (float[1,2,2,2] x) => (float[1,2,2,2] y) <float[2,2,1,1] w = {1,2,3,4}, float[2] b = {2,3}>
         { c = Conv (x, w) y = Add (c, b) }", "Add" 1;
    factor_before_a_padded_convolution_is_fine_an_addend_is_not: 17, Plain,
        "g (float[1,1,2,2] x) => (float[1,1,2,2] y) <float[1,1,3,3] w = {1,2,3,4,5,6,7,8,9}, float b = {1}>
         { a = Add (x, b) y = Conv <pads = [1,1,1,1]> (a, w) }", "Add" 1;
    weights_of_two_convolutions: 17, Plain,
        "g (float[1,1,2,2] x) => (float[1,2,2,2] y, float[1,2,2,2] z)
         <float[2,1,1,1] w = {1,2}, float[2] s = {2,3}, float[2] b = {1,-1}, float[2] m = {0.5,1}, float[2] v = {1,4}>
         { c = Conv (x, w) y = BatchNormalization (c, s, b, m, v) n = Neg (x) z = Conv (n, w) }", "Conv" 2;
    bias_of_two_convolutions: 17, Plain,
        "g (float[1,1,2,2] x) => (float[1,2,2,2] y, float[1,2,2,2] z)
         <float[2,1,1,1] w = {1,2}, float[2] s = {5,7}, float[2,1,1] f = {2,3}>
         { c = Conv (x, w, s) y = Mul (c, f) n = Neg (x) z = Conv (n, w, s) }", "Conv" 2;
    convolution_seen_twice: 17, Plain,
        "g (float[1,1,2,2] x) => (float[1,2,2,2] y, float[1,2,2,2] z) <float[2,1,1,1] w = {1,2}, float[2,1,1] f = {2,3}>
         { c = Conv (x, w) y = Mul (c, f) z = Relu (c) }";
    convolution_that_is_an_output: 17, Plain,
        "g (float[1,1,2,2] x) => (float[1,2,2,2] c, float[1,2,2,2] y) <float[2,1,1,1] w = {1,2}, float[2,1,1] f = {2,3}>
         { c = Conv (x, w) y = Mul (c, f) }";
    normalization_by_fed_statistics: 17, Plain,
        "g (float[1,1,2,2] x, float[2] m) => (float[1,2,2,2] y)
         <float[2,1,1,1] w = {1,2}, float[2] s = {2,3}, float[2] b = {1,-1}, float[2] v = {1,4}>
         { c = Conv (x, w) y = BatchNormalization (c, s, b, m, v) }", "BatchNormalization" 1;
    normalization_that_trains: 15, Nothing("the runtime does not train"),
        "g (float[1,1,2,2] x) => (float[1,2,2,2] y)
         <float[2,1,1,1] w = {1,2}, float[2] s = {2,3}, float[2] b = {1,-1}, float[2] m = {0.5,1}, float[2] v = {1,4}>
         { c = Conv (x, w) y, rm, rv = BatchNormalization <training_mode = 1> (c, s, b, m, v) }", "BatchNormalization" 1;
    dropout_that_trains: 17, Nothing("what it drops is random"),
        "g (float[4] x) => (float[4] y) <float r = {0.5}, bool t = {1}> { y = Dropout (x, r, t) }", "Dropout" 1;
    dropout_whose_training_is_fed: 17, Nothing("what it drops is random"),
        "g (float[4] x, bool t) => (float[4] y) <float r = {0.5}> { y = Dropout (x, r, t) }", "Dropout" 1;
    dropout_whose_mask_is_used: 17, Plain,
        "g (float[4] x) => (float[4] y, bool[4] m) { d, m = Dropout (x) y = Neg (d) }";
    pool_whose_indices_are_used: 17, Nothing("tract gives no indices"),
        "g (float[1,1,4,4] x) => (float[1,1,2,2] y, int64[1,1,2,2] i)
         { r = Relu (x) y, i = MaxPool <kernel_shape = [2,2], strides = [2,2]> (r) }", "Relu" 1;
    // Gemm is for matrices, and its C does not enlarge the product.
    product_of_stacks_and_a_bias: 17, Plain,
        "g (float[2,3,4] x) => (float[2,3,2] y) <float[4,2] w = {1,2,3,4,5,6,7,8}, float[2] b = {1,2}> { m = MatMul (x, w) y = Add (m, b) }";
    bias_that_enlarges_the_product: 17, Plain,
        "g (float[1,4] x) => (float[3,2] y) <float[4,2] w = {1,2,3,4,5,6,7,8}, float[3,2] b = {1,2,3,4,5,6}> { m = MatMul (x, w) y = Add (m, b) }";
    bias_of_a_higher_rank: 17, Plain,
        "g (float[3,4] x) => (float[2,3,2] y) <float[4,2] w = {1,2,3,4,5,6,7,8}, float[2,1,1] b = {1,2}> { m = MatMul (x, w) y = Add (m, b) }";
    bias_along_the_rows: 17, Plain,
        "g (float[2,4] x) => (float[2,2] y) <float[4,2] w = {1,2,3,4,5,6,7,8}, float[2,1] b = {1,2}> { m = MatMul (x, w) y = Add (m, b) }";
    bias_that_is_fed: 17, Plain,
        "g (float[2,4] x, float[1] b) => (float[2,2] y) <float[4,2] w = {1,2,3,4,5,6,7,8}> { m = MatMul (x, w) y = Add (m, b) }";
    transposed_factors_with_a_scale: 17, Plain,
        "g (float[4,2] x) => (float[2,2] y) <float[4,2] w = {1,2,3,4,5,6,7,8}, float[2] b = {1,2}>
         { t = Transpose (x) y = Gemm <alpha = 0.5, beta = 2.0, transA = 0> (t, w, b) }";
    product_of_transposes_in_the_other_order: 17, Plain,
        "g (float[2,2] x, float[2,2] z) => (float[2,2] y)
         { a = Transpose (x) b = Transpose (z) m = MatMul (a, b) y = Transpose (m) }";
    factor_of_a_matrix_along_the_rows: 17, Plain,
        "g (float[2,2] x) => (float[2,2] y) <float[2,2] w = {1,2,3,4}, float[2,1] f = {2,3}> { m = MatMul (x, w) y = Mul (m, f) }";
    // Nearly Gelu, LayerNormalization and RMSNormalization.
    gelu_with_another_constant: 20, Plain,
        "g (float[12] x) => (float[12] y) <float r = {1.5}, float one = {1}, float half = {0.5}>
         { d = Div (x, r) e = Erf (d) a = Add (e, one) m = Mul (x, a) y = Mul (m, half) }";
    gelu_of_two_values: 20, Plain,
        "g (float[12] x, float[12] z) => (float[12] y) <float r = {1.4142135}, float one = {1}, float half = {0.5}>
         { d = Div (z, r) e = Erf (d) a = Add (e, one) m = Mul (x, a) y = Mul (m, half) }";
    layer_normalization_over_a_middle_axis: 17, Plain,
        "g (float[2,3,3] x) => (float[2,3,3] y) <float two = {2}, float eps = {0.001}, float[3] s = {1,2,3}, float[3] b = {1,2,3}>
         { m = ReduceMean <axes = [1]> (x) d = Sub (x, m) p = Pow (d, two) v = ReduceMean <axes = [1]> (p)
           e = Add (v, eps) r = Sqrt (e) n = Div (d, r) q = Mul (n, s) y = Add (q, b) }", "LayerNormalization" 0;
    layer_normalization_that_cubes: 17, Plain,
        "g (float[2,3] x) => (float[2,3] y) <float three = {3}, float eps = {0.001}, float[3] s = {1,2,3}, float[3] b = {1,2,3}>
         { m = ReduceMean <axes = [-1]> (x) d = Sub (x, m) p = Pow (d, three) v = ReduceMean <axes = [-1]> (p) w = Abs (v)
           e = Add (w, eps) r = Sqrt (e) n = Div (d, r) q = Mul (n, s) y = Add (q, b) }", "LayerNormalization" 0;
    layer_normalization_of_two_values: 17, Plain,
        "g (float[2,3] x, float[2,3] z) => (float[2,3] y) <float two = {2}, float eps = {0.001}, float[3] s = {1,2,3}, float[3] b = {1,2,3}>
         { m = ReduceMean <axes = [-1]> (x) d = Sub (z, m) p = Pow (d, two) v = ReduceMean <axes = [-1]> (p)
           e = Add (v, eps) r = Sqrt (e) n = Div (d, r) q = Mul (n, s) y = Add (q, b) }", "LayerNormalization" 0;
    root_mean_square_over_two_axes: 23, Plain,
        "g (float[2,3,3] x) => (float[2,3,3] y) <float two = {2}, float eps = {0.001}, float[3] s = {1,2,3}, int64[2] a = {0,2}>
         { p = Pow (x, two) v = ReduceMean (p, a) e = Add (v, eps) r = Sqrt (e) n = Div (x, r) y = Mul (n, s) }", "RMSNormalization" 0;
    // What dequantizes and quantizes again by another scale is a rescaling.
    rescaling_by_dequantize_and_quantize: 17, Special,
        "g (int8[12] x) => (int8[12] y) <float s = {0.5}, float t = {0.25}, int8 z = {0}>
         { d = DequantizeLinear (x, s, z) y = QuantizeLinear (d, t, z) }", "DequantizeLinear" 1, "QuantizeLinear" 1;
    quantize_and_dequantize_rounds: 17, Special,
        "g (float[12] x) => (float[12] y) <float s = {0.5}, int8 z = {0}>
         { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }", "DequantizeLinear" 1, "QuantizeLinear" 1;
    zero_point_moves_between_types: 17, Special,
        "g (int8[12] x) => (uint8[12] y) <float s = {0.5}, int8 z = {0}, uint8 u = {128}>
         { d = DequantizeLinear (x, s, z) y = QuantizeLinear (d, s, u) }", "DequantizeLinear" 1, "QuantizeLinear" 1;
    relu_before_a_zero_point_in_the_middle: 17, Plain,
        "g (float[12] x) => (uint8[12] y) <float s = {0.5}, uint8 z = {128}> { r = Relu (x) y = QuantizeLinear (r, s, z) }", "Relu" 1;
}
