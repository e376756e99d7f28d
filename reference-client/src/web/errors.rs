//! Errors as JavaScript gets them: an `Error` with a `code` of the TypeScript
//! surface's closed list.

use crate::client::{Closed, Connection, Interrupted, OpenError, Status};
use crate::documents::DocumentError;
use crate::replica::edit::WriteError;
use crate::store::StoreError;
use gosync_proto::{Invalid, Reason};
use wasm_bindgen::JsValue;

/// What a promise is rejected with.
#[derive(Clone, Debug)]
pub struct Failure {
    /// One of `ErrorCode` in `js/src/errors.ts`.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// The protocol's reason, where a rule of it is broken.
    pub reason: Option<Reason>,
}

impl Failure {
    fn new(code: &'static str, message: impl std::fmt::Display) -> Failure {
        Failure {
            code,
            message: message.to_string(),
            reason: None,
        }
    }

    /// An argument is wrong.
    pub fn invalid(why: impl std::fmt::Display) -> Failure {
        Failure::new("invalid", why)
    }

    /// There is no such thing, or there no longer is.
    pub fn not_found(what: impl std::fmt::Display) -> Failure {
        Failure::new("not-found", what)
    }

    /// Something that JavaScript threw.
    pub fn script(thrown: JsValue) -> Failure {
        let message = js_sys::Reflect::get(&thrown, &"message".into());
        let message = message.ok().and_then(|m| m.as_string());
        Failure::new("internal", message.unwrap_or_else(|| format!("{thrown:?}")))
    }

    /// Syncing did not come to its end; where it stands now says why.
    pub fn interrupted(why: Interrupted, status: &Status) -> Failure {
        let code = match status.connection {
            Connection::NeedsAuth => "needs-auth",
            Connection::UpgradeRequired => "upgrade-required",
            Connection::StorageError => "storage",
            Connection::Connecting | Connection::Online | Connection::Offline => "offline",
        };
        Failure {
            reason: status.problem.as_ref().and_then(|p| p.reason),
            ..Failure::new(code, why)
        }
    }

    /// As JavaScript gets it.
    pub fn into_js(self) -> JsValue {
        let error = js_sys::Error::new(&self.message);
        // fails only on frozen objects
        let _ = js_sys::Reflect::set(&error, &"code".into(), &self.code.into());
        if let Some(reason) = self.reason {
            let _ = js_sys::Reflect::set(&error, &"reason".into(), &reason.as_str().into());
        }
        error.into()
    }
}

impl From<Invalid> for Failure {
    fn from(e: Invalid) -> Failure {
        Failure {
            reason: Some(e.reason),
            ..Failure::invalid(e)
        }
    }
}

impl From<StoreError> for Failure {
    fn from(e: StoreError) -> Failure {
        let code = match e {
            StoreError::Full(_) => "quota",
            StoreError::OtherSpace { .. } => "invalid",
            StoreError::NewerSchema { .. } => "upgrade-required",
            StoreError::Closed => "closed",
            _ => "storage",
        };
        Failure::new(code, e)
    }
}

impl From<WriteError> for Failure {
    fn from(e: WriteError) -> Failure {
        match e {
            WriteError::Store(e) => e.into(),
            WriteError::Invalid(e) => e.into(),
            e => Failure::invalid(e),
        }
    }
}

impl From<DocumentError> for Failure {
    fn from(e: DocumentError) -> Failure {
        match e {
            DocumentError::Write(e) => e.into(),
            DocumentError::Store(e) => e.into(),
            e => Failure::invalid(e),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(e: OpenError) -> Failure {
        match e {
            OpenError::Store(e) => e.into(),
            OpenError::Randomness(e) => Failure::new("storage", e),
        }
    }
}

impl From<Closed> for Failure {
    fn from(e: Closed) -> Failure {
        Failure::new("closed", e)
    }
}
