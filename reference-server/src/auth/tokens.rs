//! The file of static tokens: its format, reading it, adding to it. The file
//! holds hashes; a token itself is shown once, when it is made.
//!
//! ```toml
//! [[token]]
//! name = "alice's phone"
//! sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
//! expires = "2027-01-31T00:00:00Z"          # optional
//! grants = [
//!   { space = "team-1", access = "write" },
//!   { space = "public-*", prefix = "news/", access = "read" },
//! ]
//! ```

use crate::clock::LAST_DATE_MS;
use crate::service::{Access, Right};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use gosync_proto::{Key, SpaceId};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// One token of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenEntry {
    /// For people and logs.
    pub name: String,
    /// Of the token's text.
    pub sha256: [u8; 32],
    /// Unix milliseconds; from then on the token is not valid.
    pub expires_ms: Option<u64>,
    /// What it allows.
    pub grants: Vec<Grant>,
}

/// A part of what a token allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// A space id, or the beginning of one followed by `*`.
    space: String,
    prefix: Vec<u8>,
    right: Right,
}

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It could not be read or written.
    #[error("cannot {doing} the token file {path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why not.
        error: std::io::Error,
    },
    /// It does not say what a token file says.
    #[error("the token file {path} is not usable: {problem}")]
    Bad {
        /// Which file.
        path: PathBuf,
        /// What is wrong and where.
        problem: String,
    },
    /// No randomness for a new token.
    #[error("the system gave no randomness for a token: {0}")]
    Entropy(getrandom::Error),
    /// An expiry that the file has no date for.
    #[error(
        "token {name:?} would expire after 9999-12-31, which no date says; \
         give it less time, or none for a token that does not expire"
    )]
    Expiry {
        /// The token that was to be.
        name: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    token: Vec<RawToken>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawToken {
    name: String,
    sha256: String,
    expires: Option<String>,
    grants: Vec<RawGrant>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGrant {
    space: String,
    #[serde(default)]
    prefix: String,
    prefix_hex: Option<String>,
    access: RawAccess,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawAccess {
    Read,
    Write,
}

impl Grant {
    /// Checks a space or pattern and a key prefix.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn new(space: &str, prefix: Vec<u8>, right: Right) -> Result<Grant, String> {
        // an id with the star replaced must be a legal id
        let sample = space.strip_suffix('*').map(|s| format!("{s}x"));
        SpaceId::new(sample.as_deref().unwrap_or(space)).map_err(|_| {
            format!("{space:?} is neither a space id nor the beginning of one followed by *")
        })?;
        if prefix.len() > Key::MAX_BYTES {
            return Err(format!(
                "the prefix is longer than a key: {} bytes, allowed {}",
                prefix.len(),
                Key::MAX_BYTES
            ));
        }
        Ok(Grant {
            space: space.to_owned(),
            prefix,
            right,
        })
    }

    fn covers(&self, space: &SpaceId) -> bool {
        match self.space.strip_suffix('*') {
            Some(beginning) => space.as_str().starts_with(beginning),
            None => self.space == space.as_str(),
        }
    }

    /// As an inline table of the file, which is also how people read it.
    fn to_toml(&self) -> String {
        let access = match self.right {
            Right::Read => "read",
            Right::Write => "write",
        };
        let prefix = match std::str::from_utf8(&self.prefix) {
            Ok("") => String::new(),
            Ok(text) => format!(", prefix = {}", toml::Value::from(text)),
            Err(_) => format!(", prefix_hex = \"{}\"", to_hex(&self.prefix)),
        };
        format!(
            "{{ space = {}{prefix}, access = \"{access}\" }}",
            toml::Value::from(self.space.as_str())
        )
    }
}

impl std::fmt::Display for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_toml())
    }
}

impl TokenEntry {
    /// Whether its time is over.
    pub fn expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|at| at <= now_ms)
    }

    /// What it allows in a space.
    pub fn access(&self, space: &SpaceId) -> Access {
        Access::new(
            self.grants
                .iter()
                .filter(|g| g.covers(space))
                .map(|g| (g.prefix.clone(), g.right))
                .collect(),
        )
    }

    fn from_raw(raw: RawToken) -> Result<TokenEntry, String> {
        let name = raw.name;
        let bad = |problem: String| format!("token {name:?}: {problem}");
        let sha256 = from_hex(&raw.sha256)
            .and_then(|b| <[u8; 32]>::try_from(b).ok())
            .ok_or_else(|| bad("sha256 is not 64 hex digits".into()))?;
        let expires_ms = raw
            .expires
            .map(|text| {
                humantime::parse_rfc3339_weak(&text)
                    .ok()
                    .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
                    .map(|d| d.as_millis() as u64)
                    .ok_or_else(|| {
                        bad(format!(
                            "expires is {text:?}; write it as \"2027-01-31T00:00:00Z\""
                        ))
                    })
            })
            .transpose()?;
        let grants =
            raw.grants
                .into_iter()
                .map(|g| {
                    let prefix = match g.prefix_hex {
                        Some(hex) => from_hex(&hex)
                            .ok_or_else(|| bad("prefix_hex is not hex digits".into()))?,
                        None => g.prefix.into_bytes(),
                    };
                    let right = match g.access {
                        RawAccess::Read => Right::Read,
                        RawAccess::Write => Right::Write,
                    };
                    Grant::new(&g.space, prefix, right).map_err(bad)
                })
                .collect::<Result<_, _>>()?;
        Ok(TokenEntry {
            sha256,
            expires_ms,
            grants,
            name,
        })
    }
}

/// SHA-256 of a token's text.
pub fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Reads a token file.
///
/// # Errors
/// [`TokenFileError`].
pub fn read(path: &Path) -> Result<Vec<Arc<TokenEntry>>, TokenFileError> {
    let text = std::fs::read_to_string(path).map_err(|error| TokenFileError::Io {
        path: path.to_owned(),
        doing: "read",
        error,
    })?;
    parse(&text)
        .map(|tokens| tokens.into_iter().map(Arc::new).collect())
        .map_err(|problem| TokenFileError::Bad {
            path: path.to_owned(),
            problem,
        })
}

fn parse(text: &str) -> Result<Vec<TokenEntry>, String> {
    let raw: RawFile = toml::from_str(text).map_err(|e| e.to_string())?;
    raw.token.into_iter().map(TokenEntry::from_raw).collect()
}

/// Makes a token, adds its hash to the file (which is made if need be) and
/// returns the token: the only time that it is seen.
///
/// # Errors
/// [`TokenFileError`]; then the file is as it was.
pub fn mint(
    path: &Path,
    name: &str,
    expires_ms: Option<u64>,
    grants: &[Grant],
) -> Result<String, TokenFileError> {
    if expires_ms.is_some_and(|at| at > LAST_DATE_MS) {
        return Err(TokenFileError::Expiry {
            name: name.to_owned(),
        });
    }
    let mut secret = [0u8; 32];
    getrandom::fill(&mut secret).map_err(TokenFileError::Entropy)?;
    let token = format!("gosync_{}", BASE64_URL_SAFE_NO_PAD.encode(secret));

    let io = |doing| {
        move |error| TokenFileError::Io {
            path: path.to_owned(),
            doing,
            error,
        }
    };
    let mut text = if path.exists() {
        read(path)?;
        std::fs::read_to_string(path).map_err(io("read"))?
    } else {
        "# Tokens of a GoSync server, as hashes. Delete an entry to revoke it:\n\
         # a running server notices within a second.\n"
            .to_owned()
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text += &format!(
        "\n[[token]]\nname = {}\nsha256 = \"{}\"\n",
        toml::Value::from(name),
        to_hex(&hash(&token))
    );
    if let Some(at) = expires_ms {
        let at = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(at));
        text += &format!("expires = \"{at}\"\n");
    }
    text += "grants = [\n";
    for grant in grants {
        text += &format!("  {},\n", grant.to_toml());
    }
    text += "]\n";
    replace(path, &text).map_err(io("write"))?;
    Ok(token)
}

/// Takes every token of a name out of the file and returns how many those
/// were. Everything else in the file stays, comments included.
///
/// # Errors
/// [`TokenFileError`]; then the file is as it was.
pub fn revoke(path: &Path, name: &str) -> Result<usize, TokenFileError> {
    let before = read(path)?;
    let text = std::fs::read_to_string(path).map_err(|error| TokenFileError::Io {
        path: path.to_owned(),
        doing: "read",
        error,
    })?;
    let bad = |problem| TokenFileError::Bad {
        path: path.to_owned(),
        problem,
    };
    // each entry reaches from its header to the next one
    let mut starts: Vec<usize> = text
        .match_indices("[[token]]")
        .map(|(at, _)| at)
        .filter(|at| text[..*at].ends_with('\n') || *at == 0)
        .collect();
    starts.push(text.len());
    let mut kept = text[..starts[0]].to_owned();
    for entry in starts.windows(2).map(|w| &text[w[0]..w[1]]) {
        let named = parse(entry).map_err(&bad)?.iter().any(|t| t.name == name);
        if !named {
            kept += entry;
        }
    }
    let after = parse(&kept).map_err(&bad)?;
    let wanted = before.iter().filter(|t| t.name != name).map(|t| &**t);
    if !after.iter().eq(wanted) {
        return Err(bad(format!(
            "its layout is unusual; delete the entries named {name:?} by hand"
        )));
    }
    if after.len() < before.len() {
        replace(path, &kept).map_err(|error| TokenFileError::Io {
            path: path.to_owned(),
            doing: "write",
            error,
        })?;
    }
    Ok(before.len() - after.len())
}

/// Writes beside the file and renames, so that a reader sees the old text or
/// the new one.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let mode = std::fs::metadata(path).map_or(0o600, |m| m.permissions().mode() & 0o777);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// `None` for anything but pairs of hex digits.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Vec<Arc<TokenEntry>>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        std::fs::write(&path, text).unwrap();
        read(&path).map_err(|e| e.to_string())
    }

    #[test]
    fn minted_tokens_are_read_back_with_odd_names_and_prefixes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        let odd = Grant::new("a.b_c-*", vec![0, 0xff, b'x'], Right::Write).unwrap();
        let plain = Grant::new("s", b"q\"\n".to_vec(), Right::Read).unwrap();
        mint(&path, "first", None, std::slice::from_ref(&plain)).unwrap();
        let token = mint(
            &path,
            "it's \"odd\"\n",
            Some(1_800_000_000_123),
            &[odd.clone(), plain],
        )
        .unwrap();
        let entries = read(&path).unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1].name, "it's \"odd\"\n");
        assert_eq!(entries[1].expires_ms, Some(1_800_000_000_123));
        assert_eq!(entries[1].grants[0], odd);
        assert_eq!(entries[1].sha256, hash(&token));
        assert!(!std::fs::read_to_string(&path).unwrap().contains(&token));
    }

    #[test]
    fn an_expiry_without_a_date_is_refused_and_the_last_date_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        let grant = [Grant::new("s", vec![], Right::Read).unwrap()];
        for at in [LAST_DATE_MS + 1, u64::MAX] {
            let e = mint(&path, "n", Some(at), &grant).unwrap_err().to_string();
            assert!(e.contains("9999-12-31"), "{e}");
            assert!(!path.exists());
        }
        mint(&path, "n", Some(LAST_DATE_MS), &grant).unwrap();
        assert_eq!(read(&path).unwrap()[0].expires_ms, Some(LAST_DATE_MS));
    }

    #[test]
    fn revoking_takes_out_the_named_tokens_and_leaves_the_rest_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        let grant = [Grant::new("s", vec![], Right::Read).unwrap()];
        for name in ["a", "b", "a", "c"] {
            mint(&path, name, None, &grant).unwrap();
        }
        assert_eq!(revoke(&path, "nobody").unwrap(), 0);
        assert_eq!(revoke(&path, "a").unwrap(), 2);
        let names: Vec<_> = read(&path)
            .unwrap()
            .iter()
            .map(|t| t.name.clone())
            .collect();
        assert_eq!(names, ["b", "c"]);
        assert!(
            std::fs::read_to_string(&path)
                .unwrap()
                .starts_with("# Tokens")
        );
        revoke(&path, "b").unwrap();
        revoke(&path, "c").unwrap();
        assert!(read(&path).unwrap().is_empty());
    }

    #[test]
    fn a_bad_file_names_what_is_wrong() {
        for (text, what) in [
            (
                "[[token]]\nname='n'\nsha256='ab'\ngrants=[]",
                "64 hex digits",
            ),
            ("[[tokn]]\n", "tokn"),
            (
                &format!(
                    "[[token]]\nname='n'\nsha256='{}'\ngrants=[{{space='a b',access='read'}}]",
                    "0".repeat(64)
                ),
                "\"a b\"",
            ),
            (
                &format!(
                    "[[token]]\nname='n'\nsha256='{}'\nexpires='soon'\ngrants=[]",
                    "0".repeat(64)
                ),
                "soon",
            ),
        ] {
            let e = load(text).unwrap_err();
            assert!(e.contains(what), "{e}");
        }
    }

    #[test]
    fn a_pattern_covers_the_spaces_that_begin_with_it() {
        let grant = |s: &str| Grant::new(s, vec![], Right::Read).unwrap();
        let covers = |p: &str, s: &str| grant(p).covers(&SpaceId::new(s).unwrap());
        assert!(covers("*", "x") && covers("team-*", "team-1") && covers("a", "a"));
        assert!(!covers("team-*", "teal") && !covers("a", "ab") && !covers("team-*", "xteam-1"));
        assert!(Grant::new("a*b", vec![], Right::Read).is_err());
        assert!(Grant::new("", vec![], Right::Read).is_err());
    }
}
