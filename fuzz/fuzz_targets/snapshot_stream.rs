#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    trilith::sim::fuzz::snapshot_stream(input);
});
