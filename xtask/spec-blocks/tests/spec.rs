//! The specification's generated blocks and vectors are what their sources make of them, its requirements have the
//! agreed form, and something guards each.
//! `GOSYNC_GENERATE=1 cargo test --workspace --test spec` rewrites what is generated.

use std::process::Command;

#[test]
fn the_specification_is_current() {
    if std::env::var_os("GOSYNC_GENERATE").is_some() {
        assert!(
            spec_blocks("write"),
            "it could not be written: the reason stands above"
        );
    }
    assert!(
        spec_blocks("check"),
        "the reason stands above; `cargo xtask generate spec` brings up to date what is generated"
    );
}

/// What is wrong goes to the terminal, whole.
fn spec_blocks(command: &str) -> bool {
    Command::new(env!("CARGO_BIN_EXE_spec-blocks"))
        .arg(command)
        .status()
        .unwrap()
        .success()
}
