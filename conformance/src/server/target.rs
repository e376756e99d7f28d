//! The server under test.

use super::adapter::Adapter;
use crate::net::Endpoint;
use crate::schema::driver::StartServer;
use crate::schema::v1;
use crate::suite::Need;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How ids of the suite's spaces begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpacePrefix(String);

impl SpacePrefix {
    /// Ids have at most 128 bytes (MODEL-001); cases append up to this many.
    const REST: usize = 22;
    const MOST: usize = 128 - SpacePrefix::REST;
}

impl Default for SpacePrefix {
    fn default() -> SpacePrefix {
        SpacePrefix("conf-".into())
    }
}

impl fmt::Display for SpacePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SpacePrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<SpacePrefix, String> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
        if !text.bytes().all(legal) {
            return Err("a space id has only ASCII letters, ASCII digits, '.', '_' and '-'".into());
        }
        if text.len() > SpacePrefix::MOST {
            return Err(format!(
                "it has {} bytes; with more than {} no room is left for the rest of a space id",
                text.len(),
                SpacePrefix::MOST
            ));
        }
        Ok(SpacePrefix(text.to_owned()))
    }
}

/// What the suite calls with.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    /// A token that may write every space that begins with `space_prefix`.
    pub full: Option<String>,
    /// Spaces of this suite begin so.
    pub space_prefix: SpacePrefix,
}

/// Which token a call carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// The one that may do everything.
    Full,
    /// None.
    None,
    /// This one.
    Literal(String),
    /// This whole `authorization` header.
    Header(String),
}

/// Where the server is, and what can be done to it.
pub struct Target {
    /// Changes when the server is started again.
    pub endpoint: Mutex<Endpoint>,
    /// What calls carry.
    pub tokens: Tokens,
    /// Where control is possible.
    pub adapter: Option<Arc<Adapter>>,
    /// How the adapter is asked to start it.
    pub start: StartServer,
    /// Patience with one call, or one message of a stream.
    pub patience: Duration,
    /// What the server told in the probe.
    pub limits: v1::Limits,
    /// And which features it has in force.
    pub features: Vec<i32>,
    /// What can be asked of it.
    pub offers: Vec<Need>,
    /// For the report.
    pub name: String,
}

impl Target {
    /// Where it is now.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// It was started again somewhere.
    pub fn moved(&self, endpoint: Endpoint) {
        *self.endpoint.lock().unwrap_or_else(PoisonError::into_inner) = endpoint;
    }

    /// Whether a case's need is met.
    pub fn meets(&self, need: Need) -> bool {
        self.offers.contains(&need)
    }
}
