//! Arithmetic: NaN, signed zeros, overflow, integers, conversions, broadcasting.

use crate::judge::On::{Nothing, Ordered, Plain, Special, SpecialRounded};
use crate::traps;

traps! {
    // -0 + 0 is 0, which a division shows.
    adding_zero_clears_the_sign: 17, Special,
        "g (float[12] x) => (float[12] y) <float z = {0}, float one = {1}> { a = Add (x, z) y = Div (one, a) }";
    subtracting_zero_keeps_the_sign: 17, Special,
        "g (float[12] x) => (float[12] y) <float z = {0}, float one = {1}> { a = Sub (x, z) y = Div (one, a) }";
    subtracting_from_zero_is_not_negation: 17, Special,
        "g (float[12] x) => (float[12] y) <float z = {0}, float one = {1}> { a = Sub (z, x) y = Div (one, a) }";
    // NaN and infinity times zero are NaN, and -1 times zero is -0.
    times_zero_is_not_zero: 17, Special, "g (float[12] x) => (float[12] y) <float z = {0}> { y = Mul (x, z) }";
    minus_itself_is_not_zero: 17, Special, "g (float[12] x) => (float[12] y) { y = Sub (x, x) }";
    divided_by_itself_is_not_one: 17, Special, "g (float[12] x) => (float[12] y) { y = Div (x, x) }";
    zero_divided_is_not_zero: 17, Special, "g (float[12] x) => (float[12] y) <float z = {0}> { y = Div (z, x) }";
    power_zero_and_one: 17, Special,
        "g (float[12] x) => (float[12] a, float[12] b) <float z = {0}, float one = {1}> { a = Pow (x, z) b = Pow (x, one) }";
    square_root_of_square_is_no_identity: 17, Special,
        "g (float[12] x) => (float[12] y) { s = Mul (x, x) y = Sqrt (s) }";
    logarithm_and_exponential_are_no_inverses: 17, Special,
        "g (float[12] x) => (float[12] a, float[12] b) { l = Log (x) a = Exp (l) e = Exp (x) b = Log (e) }";
    reciprocal_twice_overflows: 17, Special,
        "g (float[12] x) => (float[12] y) { r = Reciprocal (x) y = Reciprocal (r) }";
    negation_and_absolute_value: 17, Special,
        "g (float[12] x) => (float[12] a, float[12] b, float[12] c)
         { n = Neg (x) a = Neg (n) b = Abs (n) p = Abs (x) c = Neg (p) }";
    relu_after_max_with_zero: 17, Special,
        "g (float[12] x) => (float[12] y) <float z = {0}> { m = Max (x, z) y = Relu (m) }";
    minimum_of_maximum_with_crossed_bounds: 17, Ordered,
        "g (float[12] x) => (float[12] y) <float lo = {2}, float hi = {1}> { m = Max (x, lo) y = Min (m, hi) }";
    clip_of_clip_with_disjoint_bounds: 17, Ordered,
        "g (float[12] x) => (float[12] y) <float a = {0}, float b = {1}, float c = {2}, float d = {3}>
         { m = Clip (x, a, b) y = Clip (m, c, d) }";
    clip_with_an_absent_minimum: 17, Ordered,
        "g (float[12] x) => (float[12] y) <float b = {1}> { m = Clip (x, , b) y = Relu (m) }";
    relu_of_clip_below_zero: 17, Ordered,
        "g (float[12] x) => (float[12] y) <float a = {-2}, float b = {-1}> { m = Clip (x, a, b) y = Relu (m) }";
    idempotent_after_something_else: 17, Special,
        "g (float[12] x) => (float[12] y) { a = Floor (x) b = Neg (a) c = Floor (b) y = Ceil (c) }";
    leaky_relu_twice_squares_its_slope: 17, SpecialRounded,
        "g (float[12] x) => (float[12] y) { a = LeakyRelu <alpha = 0.5> (x) y = LeakyRelu <alpha = 0.5> (a) }";
    not_less_is_no_greater_or_equal: 17, Special,
        "g (float[12] x, float[12] z) => (bool[12] y) { l = Less (x, z) y = Not (l) }";
    equal_to_itself_is_false_for_nan: 17, Special, "g (float[12] x) => (bool[12] y) { y = Equal (x, x) }";
    where_is_no_multiplication: 17, Special,
        "g (float[12] x) => (float[12] y) <float z = {0}> { n = IsNaN (x) y = Where (n, z, x) }";
    // The products of the numbers would be 1, infinite and 0.
    scales_that_cancel_overflow_on_the_way: 17, SpecialRounded,
        "g (float[12] x) => (float[12] y) <float a = {1e30}, float b = {1e-30}> { m = Mul (x, a) y = Mul (m, b) }";
    scales_whose_product_overflows: 17, SpecialRounded,
        "g (float[12] x) => (float[12] y) <float a = {1e30}, float b = {1e30}> { m = Mul (x, a) y = Mul (m, b) }";
    scales_whose_product_vanishes: 17, SpecialRounded,
        "g (float[12] x) => (float[12] y) <float a = {1e-30}, float b = {1e-30}> { m = Mul (x, a) y = Mul (m, b) }";
    addends_that_cancel: 17, Special,
        "g (float[12] x) => (float[12] y) <float a = {1e10}, float b = {-1e10}> { m = Add (x, a) y = Add (m, b) }";
    division_of_integers_truncates: 17, Special,
        "g (int32[7] x) => (int32[7] y) <int32 two = {2}> { h = Div (x, two) y = Mul (h, two) }";
    product_of_integers_wraps: 17, Special,
        "g (int32[7] x) => (int32[7] y) <int32 a = {65536}> { m = Mul (x, a) y = Div (m, a) }";
    factors_of_small_integers_wrap: 17, Special,
        "g (int32[7] x) => (int32[7] y) <int32 a = {100000}, int32 b = {100000}> { m = Mul (x, a) y = Mul (m, b) }";
    addends_of_integers_wrap: 17, Nothing("tract panics at overflow in debug builds"),
        "g (int64[7] x) => (int64[7] y) <int64 a = {9223372036854775807}, int64 b = {1}> { m = Add (x, a) y = Add (m, b) }";
    negating_integers: 17, Plain,
        "g (int32[7] x) => (int32[7] a, int32[7] b) { n = Neg (x) a = Neg (n) p = Abs (x) b = Abs (p) }";
    remainder_takes_the_sign_of_the_divisor: 17, Special,
        "g (int32[7] x) => (int32[7] y) <int32 n = {-3}> { a = Mod (x, n) y = Mod (a, n) }";
    through_half_floats: 17, Special,
        "g (float[12] x) => (float[12] y) { h = Cast <to = 10> (x) y = Cast <to = 1> (h) }", "Cast" 2;
    through_integers: 17, Plain,
        "g (float[12] x) => (float[12] y) { i = Cast <to = 7> (x) y = Cast <to = 1> (i) }", "Cast" 2;
    // 2^53 + 1 is no double, and a 64-bit integer is no 32-bit one.
    integers_through_doubles: 17, Special,
        "g (int64[7] x) => (int64[7] y) <int64 m = {9007199254740993}>
         { a = Mod (x, m) d = Cast <to = 11> (a) y = Cast <to = 7> (d) }", "Cast" 2;
    integers_through_fewer_bits: 17, Special,
        "g (int64[7] x) => (int64[7] y) { a = Cast <to = 6> (x) y = Cast <to = 7> (a) }", "Cast" 2;
    truth_of_numbers: 17, Special,
        "g (float[12] x) => (float[12] y) { b = Cast <to = 9> (x) y = Cast <to = 1> (b) }", "Cast" 2;
    two_narrowings_are_not_one: 17, Plain,
        "g (int64[12] x) => (uint8[12] y) <int64 k = {300}> { m = Mul (x, k) a = Cast <to = 6> (m) y = Cast <to = 2> (a) }";
    widening_is_undone: 17, Special,
        "g (int32[7] x) => (int32[7] y) { a = Cast <to = 7> (x) y = Cast <to = 6> (a) }";
    one_of_another_shape_stretches: 17, Special,
        "g (float[3] x) => (float[2,3] y) <float[2,1] one = {1,1}> { y = Mul (x, one) }";
    one_of_a_higher_rank_adds_axes: 17, Special,
        "g (float[3] x) => (float[1,1,3] y) <float[1,1,1] one = {1}> { y = Mul (x, one) }";
    zero_of_another_shape_stretches: 17, Special,
        "g (int32[3] x) => (int32[2,3] y) <int32[2,1] z = {0,0}> { y = Add (x, z) }";
    neutral_for_an_empty_tensor: 17, Special,
        "g (float[0,3] x) => (float[0,3] y) <float[1,3] one = {1,1,1}> { y = Mul (x, one) }";
    emptied_by_broadcasting: 17, Special,
        "g (float[1,3] x) => (float[0,3] y) <float[0,1] one = {}> { y = Mul (x, one) }";
    true_of_another_shape_stretches: 17, Special,
        "g (bool[3] x) => (bool[2,3] y) <bool[2,1] t = {1,1}> { y = And (x, t) }";
    where_of_equal_branches_stretches: 17, Special,
        "g (bool[2,1] c, float[3] x) => (float[2,3] y) { y = Where (c, x, x) }";
    where_of_a_constant_condition_stretches: 17, Special,
        "g (float[3] x, float[1] z) => (float[2,3] y) <bool[2,1] c = {1,1}> { y = Where (c, x, z) }";
    where_of_a_mixed_condition: 17, Special,
        "g (float[2] x, float[2] z) => (float[2] y) <bool[2] c = {1,0}> { y = Where (c, x, z) }";
    sum_of_one_and_mean_of_one: 17, Special,
        "g (float[12] x) => (float[12] a, float[12] b, float[12] c) { a = Sum (x) b = Mean (x) m = Max (x) c = Neg (m) }";
    the_same_operand_twice: 17, Special,
        "g (float[12] x, float[12] z) => (float[12] a, float[12] b) { a = Sub (x, z) b = Sub (z, x) }", "Sub" 2;
    unlike_attributes_are_not_merged: 17, Special,
        "g (float[12] x) => (float[12] a, float[12] b) { a = LeakyRelu <alpha = 0.5> (x) b = LeakyRelu <alpha = -0.5> (x) }",
        "LeakyRelu" 2;
    constants_that_differ_in_the_sign_of_zero: 17, Special,
        "g (float[12] x) => (float[12] a, float[12] b) <float p = {0.0}, float n = {-0.0}> { a = Add (x, p) b = Add (x, n) }";
    constants_that_differ_in_type: 17, Special,
        "g (int32[7] x, float[12] z) => (int32[7] a, float[12] b) <int32 i = {0}, float f = {0}> { a = Mul (x, i) b = Mul (z, f) }";
    constants_that_differ_in_shape: 17, Special,
        "g (float[2] x) => (float[2] a, float[1,2] b) <float[2] i = {2, 3}, float[1,2] f = {2, 3}> { a = Mul (x, i) b = Mul (x, f) }",
        "Mul" 2;
}
