//! Runs a crate's `wasm-bindgen-test` tests in a headless Chromium.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use crate::setup::{browser, wasm};
use crate::{process, test, workspace};

/// Runs the integration tests `test` of `package` with `features`, compiled to WASM, in a browser.
pub fn run(package: &str, test: &str, features: &str) -> Result<()> {
    let toolchain = wasm::ensure()?;
    let browser = browser::ensure()?;
    test::programs()?;
    let capabilities = workspace::target().join("webdriver.json");
    fs::write(&capabilities, capabilities_of(browser.chrome()))?;
    process::run(
        workspace::cargo()
            .current_dir(workspace::root())
            .envs(toolchain.env())
            .envs(browser.env())
            .env(
                "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER",
                workspace::program("debug", "wasm-test-runner"),
            )
            .env("WASM_BINDGEN_TEST_WEBDRIVER_JSON", capabilities)
            .env("WASM_BINDGEN_TEST_ONLY_WEB", "1")
            // Seconds for all tests together; the default of 20 is too few for a busy machine.
            .env("WASM_BINDGEN_TEST_TIMEOUT", "300")
            .args([
                "test",
                "--package",
                package,
                "--test",
                test,
                "--features",
                features,
                "--target",
                wasm::TARGET,
            ]),
    )
}

/// What the driver is asked for: this very browser, quiet and without a window. The runner adds what it needs.
fn capabilities_of(chrome: &Path) -> String {
    let args = [
        "--headless",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ];
    json!({ "goog:chromeOptions": { "binary": chrome, "args": args } }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_is_asked_for_the_browser_that_setup_found() {
        let asked: serde_json::Value =
            serde_json::from_str(&capabilities_of(Path::new("/opt/chrome"))).unwrap();
        assert_eq!(asked["goog:chromeOptions"]["binary"], "/opt/chrome");
    }
}
