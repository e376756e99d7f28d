//! `token mint` and `token list`.

use super::Outcome;
use super::output::{note, say, show};
use crate::auth::tokens::{self, Grant};
use crate::cli::{AccessArg, TokenCommand};
use crate::clock::WallClock;
use crate::service::Right;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

pub(super) fn run(command: TokenCommand) -> Outcome {
    match command {
        TokenCommand::Mint {
            tokens: path,
            name,
            space,
            prefix,
            prefix_hex,
            access,
            expires_in,
        } => {
            let prefix = match prefix_hex {
                Some(hex) => tokens::from_hex(&hex)
                    .ok_or_else(|| format!("--prefix-hex {hex:?} is not pairs of hex digits"))?,
                None => prefix.into_bytes(),
            };
            let right = match access {
                AccessArg::Read => Right::Read,
                AccessArg::Write => Right::Write,
            };
            let grants = space
                .iter()
                .map(|s| Grant::new(s, prefix.clone(), right))
                .collect::<Result<Vec<_>, _>>()?;
            let expires_ms = expires_in.map(|d| {
                let ms = u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
                WallClock::system().now_ms().saturating_add(ms)
            });
            let token = tokens::mint(&path, &name, expires_ms, &grants)?;
            show(format_args!("{token}\n")).map_err(|error| {
                format!(
                    "the new token is in {} but could not be shown, so nobody can use it; \
                     delete its entry, the last one, and mint another: {error}",
                    path.display()
                )
            })?;
            note!(
                "This is the only time that it is shown; {} keeps its hash.",
                path.display()
            );
        }
        TokenCommand::Revoke { tokens: path, name } => match tokens::revoke(&path, &name)? {
            0 => return Err(format!("{} has no token named {name:?}", path.display()).into()),
            n => note!("{n} taken out of {}", path.display()),
        },
        TokenCommand::List { tokens: path } => {
            let now_ms = WallClock::system().now_ms();
            for token in tokens::read(&path)? {
                let expiry = match token.expires_ms {
                    None => "no expiry".to_owned(),
                    Some(at) => {
                        let word = if token.expired(now_ms) {
                            "expired"
                        } else {
                            "until"
                        };
                        let at = UNIX_EPOCH + Duration::from_millis(at);
                        format!("{word} {}", humantime::format_rfc3339_seconds(at))
                    }
                };
                say!("{} ({expiry})", token.name)?;
                for grant in &token.grants {
                    say!("  {grant}")?;
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
