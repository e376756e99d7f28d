//! Runs the tests of a WASM module in a browser: what cargo calls for `cargo test --target wasm32-unknown-unknown`.
//!
//! A crate of its own because only browser tests need it, and it takes a while to compile. Knows nothing of GoSync.

fn main() -> anyhow::Result<()> {
    wasm_bindgen_cli::wasm_bindgen_test_runner::run_cli_with_args(std::env::args_os())
}
