#![no_main]

#[path = "../checks/photo.rs"]
mod photo;

libfuzzer_sys::fuzz_target!(|data: &[u8]| photo::check(data));
