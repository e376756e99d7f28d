//! The commands of the profile `documents`: their encoding, and what they ask
//! of the client.

use super::opening::{AnyClient, Opening, on, refusal};
use anyhow::{Context, Result};
use gosync_client::documents::{Document, DocumentEdit, DocumentError, DocumentId, Documents};
use gosync_client::replica::edit::WriteError as ClientError;
use gosync_conformance::schema::driver::{
    DeleteDocument, Document as WireDocument, Documents as WireDocuments, Done, PatchDocument,
    PutDocument, driver_response::Result as Answer,
};
use gosync_proto::Invalid;

/// What the command asks for, or the client's refusal of its names.
type Wanted = Result<DocumentEdit, Invalid>;

/// # Errors
/// The fields are no JSON object: the driver's fault, not the client's.
pub fn put(command: PutDocument) -> Result<Wanted> {
    let fields = serde_json::from_str(&command.fields).context("the fields")?;
    let id = DocumentId::new(&command.collection, &command.id);
    Ok(id.map(|id| DocumentEdit::Put(id, fields)))
}

/// # Errors
/// As for [`put`].
pub fn patch(command: PatchDocument) -> Result<Wanted> {
    let fields = serde_json::from_str(&command.fields).context("the fields")?;
    let id = DocumentId::new(&command.collection, &command.id);
    Ok(id.map(|id| DocumentEdit::Patch(id, fields, command.remove)))
}

/// What a deletion asks for.
pub fn delete(command: &DeleteDocument) -> Wanted {
    DocumentId::new(&command.collection, &command.id).map(DocumentEdit::Delete)
}

impl Opening {
    /// Writes; a refusal of the client's is an answer.
    pub async fn edit_document(&self, edit: Wanted) -> Result<Answer> {
        let written = match edit {
            Err(invalid) => Err(DocumentError::Invalid(invalid)),
            Ok(edit) => on!(&self.client, c => Documents::new(c.clone()).write(vec![edit]).await),
        };
        Ok(written.map_or_else(refused, |_| Answer::Done(Done {})))
    }

    /// One document, or none.
    pub async fn document(&self, collection: &str, id: &str) -> Result<Answer> {
        let found = match DocumentId::new(collection, id) {
            Err(invalid) => Err(DocumentError::Invalid(invalid)),
            Ok(id) => on!(&self.client, c => Documents::new(c.clone()).get(&id).await),
        };
        found.map_or_else(|e| Ok(refused(e)), shown)
    }

    /// All of a collection.
    pub async fn documents(&self, collection: &str) -> Result<Answer> {
        let found = on!(&self.client, c => Documents::new(c.clone()).list(collection, "").await);
        found.map_or_else(|e| Ok(refused(e)), shown)
    }
}

fn shown(found: impl IntoIterator<Item = Document>) -> Result<Answer> {
    let document = |d: Document| -> Result<WireDocument> {
        Ok(WireDocument {
            id: d.id,
            fields: serde_json::to_string(&d.fields)?,
            unreadable: d.unreadable,
        })
    };
    let documents = found.into_iter().map(document).collect::<Result<_>>()?;
    Ok(Answer::Documents(WireDocuments { documents }))
}

fn refused(error: DocumentError) -> Answer {
    let detail = error.to_string();
    let mut refusal = refusal(match error {
        DocumentError::Invalid(invalid) => ClientError::Invalid(invalid),
        DocumentError::NoDocument { .. } => ClientError::Invalid(Invalid::malformed("id", "")),
        DocumentError::Write(error) => error,
        DocumentError::Store(error) => ClientError::Store(error),
    });
    refusal.detail = detail;
    Answer::WriteError(refusal)
}
