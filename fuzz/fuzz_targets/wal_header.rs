#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgpair_fuzz::claims::wal_header::run(data));
