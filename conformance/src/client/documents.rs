//! The commands of the profile `documents`. Knows no case.

use super::context::{Replica, done};
use super::driver::Outcome;
use crate::schema::driver::{self as wire, driver_request::Command};
use crate::suite::Stop;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A document's address.
#[derive(Clone, Copy, Debug)]
pub struct Address<'a> {
    /// Its collection.
    pub collection: &'a str,
    /// Its id there.
    pub id: &'a str,
}

/// A document as the application sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its fields.
    pub fields: Map<String, Value>,
    /// Fields that are shown as unreadable, in order.
    pub unreadable: Vec<String>,
}

impl Replica {
    /// Replaces a document, or makes it; `fields` is a JSON object.
    ///
    /// # Errors
    /// [`Stop::Peer`] when the client refuses.
    pub async fn put_document(&self, at: Address<'_>, fields: &Value) -> Result<(), Stop> {
        done(self.try_put_document(at, fields).await?)
    }

    /// The same, and what came of it.
    ///
    /// # Errors
    /// [`Stop::Suite`] when the driver fails.
    pub async fn try_put_document(&self, at: Address<'_>, fields: &Value) -> Result<Outcome, Stop> {
        self.ask(Command::PutDocument(wire::PutDocument {
            replica: self.name.clone(),
            collection: at.collection.to_owned(),
            id: at.id.to_owned(),
            fields: fields.to_string(),
        }))
        .await
    }

    /// Changes fields of a document, and what came of it.
    ///
    /// # Errors
    /// [`Stop::Suite`] when the driver fails.
    pub async fn try_patch_document(
        &self,
        at: Address<'_>,
        fields: &Value,
        remove: &[&str],
    ) -> Result<Outcome, Stop> {
        self.ask(Command::PatchDocument(wire::PatchDocument {
            replica: self.name.clone(),
            collection: at.collection.to_owned(),
            id: at.id.to_owned(),
            fields: fields.to_string(),
            remove: remove.iter().map(|f| (*f).to_owned()).collect(),
        }))
        .await
    }

    /// Deletes a document.
    ///
    /// # Errors
    /// [`Stop::Peer`] when the client refuses.
    pub async fn delete_document(&self, at: Address<'_>) -> Result<(), Stop> {
        let command = Command::DeleteDocument(wire::DeleteDocument {
            replica: self.name.clone(),
            collection: at.collection.to_owned(),
            id: at.id.to_owned(),
        });
        done(self.ask(command).await?)
    }

    /// A document; `None` when there is none.
    ///
    /// # Errors
    /// [`Stop`].
    pub async fn document(&self, at: Address<'_>) -> Result<Option<Shown>, Stop> {
        let command = Command::GetDocument(wire::GetDocument {
            replica: self.name.clone(),
            collection: at.collection.to_owned(),
            id: at.id.to_owned(),
        });
        Ok(shown(self.ask(command).await?)?.remove(at.id))
    }

    /// The documents of a collection, by id.
    ///
    /// # Errors
    /// [`Stop`].
    pub async fn documents(&self, collection: &str) -> Result<BTreeMap<String, Shown>, Stop> {
        let command = Command::ListDocuments(wire::ListDocuments {
            replica: self.name.clone(),
            collection: collection.to_owned(),
        });
        shown(self.ask(command).await?)
    }

    async fn ask(&self, command: Command) -> Result<Outcome, Stop> {
        self.cx.command(command, self.cx.patience()).await
    }
}

fn shown(outcome: Outcome) -> Result<BTreeMap<String, Shown>, Stop> {
    let found = match outcome {
        Outcome::Documents(found) => found.documents,
        other => {
            done(other)?;
            return Err(Stop::Suite("the driver tells no documents".into()));
        }
    };
    found
        .into_iter()
        .map(|mut d| {
            let fields = serde_json::from_str(&d.fields)
                .map_err(|e| Stop::Suite(format!("the driver's document is no JSON: {e}")))?;
            d.unreadable.sort();
            let unreadable = d.unreadable;
            Ok((d.id, Shown { fields, unreadable }))
        })
        .collect()
}
