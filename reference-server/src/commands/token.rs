//! `token mint` and `token list`.

use super::Outcome;
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
                WallClock::system()
                    .now_ms()
                    .saturating_add(d.as_millis() as u64)
            });
            let token = tokens::mint(&path, &name, expires_ms, &grants)?;
            println!("{token}");
            eprintln!(
                "This is the only time that it is shown; {} keeps its hash.",
                path.display()
            );
        }
        TokenCommand::Revoke { tokens: path, name } => match tokens::revoke(&path, &name)? {
            0 => return Err(format!("{} has no token named {name:?}", path.display()).into()),
            n => eprintln!("{n} taken out of {}", path.display()),
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
                println!("{} ({expiry})", token.name);
                for grant in &token.grants {
                    println!("  {grant}");
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
