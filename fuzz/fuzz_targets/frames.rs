//! What a server may send: see `causeway_fuzz::frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    causeway_fuzz::frames(bytes);
});
