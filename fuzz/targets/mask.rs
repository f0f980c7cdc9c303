#![no_main]

#[path = "../checks/mask.rs"]
mod mask;

libfuzzer_sys::fuzz_target!(|data: &[u8]| mask::check(data));
