//! Tokens for cases, in the server's own token file. Knows the file's shape
//! only as far as taking an entry out needs.

use anyhow::{Context, Result, ensure};
use gosync_conformance::schema::driver::MintToken;
use gosync_server::auth::tokens::{self, Grant};
use gosync_server::service::access::Right;
use std::path::Path;

/// Makes a token.
pub fn mint(file: &Path, mint: &MintToken, now_ms: u64) -> Result<String> {
    let right = if mint.write {
        Right::Write
    } else {
        Right::Read
    };
    let grant =
        Grant::new(&mint.space, mint.key_prefix.clone(), right).map_err(anyhow::Error::msg)?;
    let expires_ms = match mint.lifetime_ms {
        0 => None,
        lifetime => Some(
            now_ms
                .checked_add_signed(lifetime)
                .context("lifetime_ms is out of range")?,
        ),
    };
    Ok(tokens::mint(file, "conformance", expires_ms, &[grant])?)
}

/// Takes a token's entry out of the file.
pub fn revoke(file: &Path, token: &str) -> Result<()> {
    let hash: String = tokens::hash(token)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let mut table: toml::Table = toml::from_str(&std::fs::read_to_string(file)?)?;
    let entries = table
        .get_mut("token")
        .and_then(toml::Value::as_array_mut)
        .context("the file has no tokens")?;
    let before = entries.len();
    entries.retain(|e| e.get("sha256").and_then(toml::Value::as_str) != Some(&hash));
    ensure!(entries.len() < before, "there is no such token");
    Ok(std::fs::write(file, toml::to_string(&table)?)?)
}
