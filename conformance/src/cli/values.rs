//! Values of options, read where they come in: a wrong one is a usage error
//! before anything runs, and no verdict. Each reader's error ends a sentence
//! that names the option and the value. Knows no command.

use gosync_conformance::net::Endpoint;
use gosync_conformance::process;
use gosync_conformance::server::TokenFile;
use gosync_conformance::suite;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

/// `--url`.
pub fn url(text: &str) -> Result<String, String> {
    Endpoint::parse(text).map(|_| text.to_owned())
}

/// `--exec`.
pub fn command(text: &str) -> Result<String, String> {
    process::words(text).map(|_| text.to_owned())
}

/// `--listen`.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "expected an IP address and a port: 127.0.0.1:4711".into())
}

/// `--timeout`. 32 bits, so that a multiple of it is a time as well.
pub fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(n) if n > 0 => Ok(Duration::from_millis(n.into())),
        _ => Err(format!("expected milliseconds, from 1 to {}", u32::MAX)),
    }
}

/// `--jobs`.
pub fn jobs(text: &str) -> Result<usize, String> {
    match text.parse::<u16>() {
        Ok(n) if n > 0 => Ok(n.into()),
        _ => Err(format!("expected a number from 1 to {}", u16::MAX)),
    }
}

/// `--requirement`.
pub fn requirement(id: &str) -> Result<String, String> {
    match suite::requirement(id) {
        Some(_) => Ok(id.to_owned()),
        None => Err("the specification has no such requirement; ids look like PUSH-001".into()),
    }
}

/// `--token-file`. No error shows anything of what the file holds.
pub fn token(file: &str) -> Result<TokenFile, String> {
    let text = fs::read_to_string(file).map_err(|e| format!("it cannot be read: {e}"))?;
    match text.trim() {
        "" => Err("the file is empty; it is to hold one bearer token".into()),
        token if token.bytes().all(|b| b.is_ascii_graphic()) => Ok(TokenFile {
            token: token.to_owned(),
            path: file.to_owned(),
        }),
        _ => Err(
            "no header can carry what it holds; it is to hold one bearer token, of printable \
             ASCII characters without spaces or line breaks"
                .into(),
        ),
    }
}
