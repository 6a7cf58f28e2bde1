//! Any SQL text: see `causeway_fuzz::classify`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    causeway_fuzz::classify(bytes);
});
