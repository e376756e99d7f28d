//! Who a caller is: from a bearer token to the rights it carries. Knows no
//! requests and no streams; it says when a caller's rights have changed.

pub mod tokens;

use crate::clock::WallClock;
use crate::service::{Access, Refusal};
use gosync_proto::{Reason, SpaceId, mutant};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokens::{TokenEntry, TokenFileError};
use tokio::sync::watch;

/// How callers are recognised.
pub struct Auth {
    source: Source,
    clock: WallClock,
    changes: watch::Sender<u64>,
}

enum Source {
    Open,
    File {
        path: PathBuf,
        tokens: RwLock<Arc<[Arc<TokenEntry>]>>,
        /// Modification time and length of what was read last.
        seen: Mutex<Option<(SystemTime, u64)>>,
    },
}

/// The hash of a caller's token.
pub type TokenId = [u8; 32];

/// A caller who was recognised.
#[derive(Clone)]
pub struct Caller {
    auth: Arc<Auth>,
    token: Option<Arc<TokenEntry>>,
}

impl Auth {
    /// Everybody may do everything: for loopback listeners.
    pub fn open() -> Auth {
        Auth {
            source: Source::Open,
            clock: WallClock::system(),
            changes: watch::Sender::new(0),
        }
    }

    /// Callers show a token of the file.
    ///
    /// # Errors
    /// [`TokenFileError`] when the file cannot be read or understood.
    pub fn from_file(path: &Path, clock: WallClock) -> Result<Auth, TokenFileError> {
        let seen = stamp(path);
        Ok(Auth {
            source: Source::File {
                path: path.to_owned(),
                tokens: RwLock::new(tokens::read(path)?.into()),
                seen: Mutex::new(seen),
            },
            clock,
            changes: watch::Sender::new(0),
        })
    }

    /// Recognises a caller by the value of the `authorization` metadata.
    ///
    /// # Errors
    /// UNAUTHENTICATED without a valid token, TOKEN_EXPIRED after its time.
    pub fn identify(self: &Arc<Auth>, authorization: Option<&str>) -> Result<Caller, Refusal> {
        let Source::File { .. } = &self.source else {
            return Ok(Caller {
                auth: self.clone(),
                token: None,
            });
        };
        let refuse = |why: &str| Refusal::new(Reason::Unauthenticated, why);
        let anyone = || Caller {
            auth: self.clone(),
            token: None,
        };
        if authorization.is_none() && mutant!(NoTokenNeeded) {
            return Ok(anyone());
        }
        let header = authorization.ok_or_else(|| {
            refuse("no token came; send it as metadata `authorization: Bearer <token>`")
        })?;
        let token = match header.split_once(' ') {
            Some((scheme, token))
                if scheme.eq_ignore_ascii_case("bearer") || mutant!(AnyScheme) =>
            {
                token.trim()
            }
            _ => return Err(refuse("the authorization metadata is not `Bearer <token>`")),
        };
        let found = self
            .find(&tokens::hash(token))
            .filter(|_| !mutant!(NoTokenValid));
        if found.is_none() && mutant!(AnyToken) {
            return Ok(anyone());
        }
        let found = found.ok_or_else(|| refuse("the token is not valid here"))?;
        if found.expired(self.clock.now_ms()) && !mutant!(ExpiredTaken) {
            return Err(expired());
        }
        Ok(Caller {
            auth: self.clone(),
            token: Some(found),
        })
    }

    /// Looks at every entry, whatever it finds, so that the time taken says
    /// nothing about how much of a guess was right.
    fn find(&self, hash: &[u8; 32]) -> Option<Arc<TokenEntry>> {
        use subtle::ConstantTimeEq;
        let Source::File { tokens, .. } = &self.source else {
            return None;
        };
        let tokens = tokens.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = None;
        for entry in tokens.iter() {
            if bool::from(entry.sha256.ct_eq(hash)) {
                found = Some(entry.clone());
            }
        }
        found
    }

    /// Reads the file again when it has changed, or in any case when `force`
    /// is set. Returns whether it was read. A file that cannot be used leaves
    /// the tokens as they were.
    ///
    /// # Errors
    /// [`TokenFileError`].
    pub fn reload(&self, force: bool) -> Result<bool, TokenFileError> {
        let Source::File { path, tokens, seen } = &self.source else {
            return Ok(false);
        };
        let now = stamp(path);
        {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == now && !force {
                return Ok(false);
            }
            *seen = now;
        }
        let fresh = tokens::read(path)?;
        *tokens.write().unwrap_or_else(PoisonError::into_inner) = fresh.into();
        self.changes.send_modify(|n| *n += 1);
        Ok(true)
    }

    /// Follows the file for as long as the server runs.
    pub async fn follow(self: Arc<Auth>) {
        if matches!(self.source, Source::Open) {
            return;
        }
        let mut hangup = hangup_signal();
        loop {
            let force = tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(500)) => false,
                () = hangup.recv() => true,
            };
            match self.reload(force) {
                Ok(true) => tracing::info!("tokens read again"),
                Ok(false) => {}
                Err(e) => tracing::error!(error = %e, "the tokens stay as they were"),
            }
        }
    }
}

impl Caller {
    /// Tells callers apart; the same for all where no tokens are asked for.
    pub fn id(&self) -> TokenId {
        self.token.as_ref().map_or([0; 32], |t| t.sha256)
    }

    /// The token's name, for logs.
    pub fn name(&self) -> &str {
        self.token.as_ref().map_or("anyone", |t| &t.name)
    }

    /// What the caller may do in a space.
    pub fn access(&self, space: &SpaceId) -> Access {
        let token = self.token.as_ref().filter(|_| !mutant!(GrantsIgnored));
        token.map_or_else(Access::full, |t| t.access(space))
    }

    /// Waits until the caller's rights in `space` are no longer what they
    /// were: the token expired, was revoked or grants something else.
    pub async fn rights_end(&self, space: &SpaceId) -> Refusal {
        let Some(token) = self.token.as_ref().filter(|_| !mutant!(RightsNeverEnd)) else {
            return std::future::pending().await;
        };
        let mut changes = self.auth.changes.subscribe();
        let granted = token.access(space);
        loop {
            let now = self.auth.clock.now_ms();
            if token.expired(now) {
                return expired();
            }
            match self.auth.find(&token.sha256) {
                None => {
                    return Refusal::new(Reason::TokenExpired, "the token was revoked");
                }
                Some(t) if t.expired(now) => return expired(),
                Some(t) if t.access(space) != granted => {
                    return Refusal::new(Reason::TokenExpired, "the token's rights have changed");
                }
                Some(_) => {}
            }
            // a second at most, so that a changed wall clock is noticed
            let nap = token
                .expires_ms
                .map_or(3_600_000, |at| at.saturating_sub(now).clamp(1, 1_000));
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(nap)) => {}
                changed = changes.changed() => if changed.is_err() {
                    return Refusal::new(Reason::Unavailable, "the server is stopping");
                },
            }
        }
    }
}

fn expired() -> Refusal {
    Refusal::new(Reason::TokenExpired, "the token has expired; get a new one")
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

struct Hangup(Option<tokio::signal::unix::Signal>);

fn hangup_signal() -> Hangup {
    use tokio::signal::unix::{SignalKind, signal};
    Hangup(signal(SignalKind::hangup()).ok())
}

impl Hangup {
    async fn recv(&mut self) {
        let came = match &mut self.0 {
            Some(signal) => signal.recv().await,
            None => None,
        };
        if came.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Right;

    fn space(id: &str) -> SpaceId {
        SpaceId::new(id).unwrap()
    }

    fn minted(dir: &Path, expires_ms: Option<u64>) -> (Arc<Auth>, String, PathBuf) {
        let path = dir.join("tokens.toml");
        let grant = tokens::Grant::new("team-*", b"todos/".to_vec(), Right::Read).unwrap();
        let token = tokens::mint(&path, "phone", expires_ms, &[grant]).unwrap();
        (
            Arc::new(Auth::from_file(&path, WallClock::system()).unwrap()),
            token,
            path,
        )
    }

    #[test]
    fn a_minted_token_carries_its_grants_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (auth, token, _) = minted(dir.path(), None);
        let caller = auth.identify(Some(&format!("Bearer {token}"))).unwrap();
        assert_eq!(caller.name(), "phone");
        let access = caller.access(&space("team-1"));
        assert!(access.check_any().is_ok());
        assert!(!access.may_write(&gosync_proto::Key::new(*b"k").unwrap()));
        assert!(caller.access(&space("other")).check_any().is_err());
    }

    #[test]
    fn what_is_no_valid_token_is_unauthenticated() {
        let dir = tempfile::tempdir().unwrap();
        let (auth, token, _) = minted(dir.path(), None);
        let swapped = format!("Bearer {}", token.to_uppercase());
        for bad in [
            None,
            Some("Bearer x"),
            Some(&token),
            Some(&swapped),
            Some(""),
        ] {
            let e = auth.identify(bad).err().unwrap();
            assert_eq!(e.reason, Reason::Unauthenticated, "{bad:?}");
            assert!(!e.detail.contains(&token), "a refusal repeats no token");
        }
    }

    #[test]
    fn a_token_past_its_time_is_expired() {
        let dir = tempfile::tempdir().unwrap();
        let (auth, token, _) = minted(dir.path(), Some(1_000));
        let e = auth
            .identify(Some(&format!("bearer {token}")))
            .err()
            .unwrap();
        assert_eq!(e.reason, Reason::TokenExpired);
    }

    #[tokio::test]
    async fn a_revoked_token_ends_the_callers_rights() {
        let dir = tempfile::tempdir().unwrap();
        let (auth, token, path) = minted(dir.path(), None);
        let caller = auth.identify(Some(&format!("Bearer {token}"))).unwrap();
        let waiting = tokio::spawn({
            let caller = caller.clone();
            async move { caller.rights_end(&space("team-1")).await }
        });
        std::fs::write(&path, "").unwrap();
        assert!(auth.reload(false).unwrap());
        assert_eq!(waiting.await.unwrap().reason, Reason::TokenExpired);
    }

    #[test]
    fn a_broken_file_leaves_the_tokens_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let (auth, token, path) = minted(dir.path(), None);
        std::fs::write(&path, "[[token").unwrap();
        assert!(auth.reload(true).is_err());
        assert!(auth.identify(Some(&format!("Bearer {token}"))).is_ok());
    }
}
