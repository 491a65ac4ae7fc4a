//! Fuzzes `targets::decode`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: sardonyx_fuzz::only_our_panics(), |data: &[u8]| {
    sardonyx_fuzz::targets::decode(data);
});
