//! Any SQL that is given to a function: see `causeway_fuzz::given`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    causeway_fuzz::given(bytes);
});
