//! What a client may send before and after its log-in: see `causeway_fuzz::frontend`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    causeway_fuzz::frontend(bytes);
});
