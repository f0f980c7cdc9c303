#![no_main]

#[path = "../checks/operator.rs"]
mod operator;

libfuzzer_sys::fuzz_target!(|data: &[u8]| operator::check(data));
