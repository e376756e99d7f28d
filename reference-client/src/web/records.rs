//! Records as bytes, for applications with keys and values of their own, such
//! as encrypted ones. Knows nothing of documents.

use super::api::{Replica, durable, promise};
use super::errors::Failure;
use super::news::reason_name;
use crate::client::{Pending, Row};
use crate::replica::edit::Edit;
use crate::store::{Quarantined, Store};
use gosync_proto::{Content, Key, KeyRange};
use js_sys::{Array, BigInt, Object, Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};

#[wasm_bindgen]
impl Replica {
    /// Writes `changes`, each a list of a key and a value, as one; without a
    /// value it deletes. Resolves as [`Replica::write`] does.
    #[wasm_bindgen(js_name = writeRecords)]
    pub fn write_records(&self, changes: Vec<Array>) -> Promise {
        let client = self.client.clone();
        promise(async move {
            let edits = changes.iter().map(edit).collect::<Result<_, _>>()?;
            durable(client.batch(edits).await?)
        })
    }

    /// A record as `StoredRecord` (see `js/src/records.ts`), or undefined.
    #[wasm_bindgen(js_name = getRecord)]
    pub fn get_record(&self, key: Vec<u8>) -> Promise {
        let client = self.client.clone();
        promise(async move {
            let found = client.get(&Key::new(key)?).await?;
            found.map_or(Ok(JsValue::UNDEFINED), |row| record(&row))
        })
    }

    /// The records whose key begins with `prefix`, in key order.
    pub fn records(&self, prefix: Vec<u8>) -> Promise {
        let client = self.client.clone();
        promise(async move {
            let range = match prefix.is_empty() {
                true => KeyRange::all(),
                false => KeyRange::prefix(&prefix)?,
            };
            let rows = client.list_all(&range).await?;
            let records: Array = rows.iter().map(record).collect::<Result<_, _>>()?;
            Ok(records.into())
        })
    }

    /// The records that the server lost and that may not be written back from
    /// here, as a list of `QuarantinedRecord` without what its key tells.
    pub fn quarantined(&self) -> Promise {
        let client = self.client.clone();
        promise(async move {
            let records = client.quarantined().await?;
            let told: Array = records.iter().map(aside).collect::<Result<_, _>>()?;
            Ok(told.into())
        })
    }

    /// Has a record in quarantine offered to the server again. Resolves as
    /// [`Replica::write`] does.
    #[wasm_bindgen(js_name = offerAgain)]
    pub fn offer_again(&self, key: Vec<u8>) -> Promise {
        let client = self.client.clone();
        promise(async move {
            match client.offer_again(Key::new(key)?).await? {
                Some(handle) => durable(handle),
                None => Err(not_quarantined()),
            }
        })
    }

    /// Gives a record in quarantine up.
    #[wasm_bindgen(js_name = dropQuarantined)]
    pub fn drop_quarantined(&self, key: Vec<u8>) -> Promise {
        let client = self.client.clone();
        promise(async move {
            match client.drop_quarantined(Key::new(key)?).await? {
                true => Ok(JsValue::UNDEFINED),
                false => Err(not_quarantined()),
            }
        })
    }

    /// Changes the stored bytes of a synced record behind the client's back,
    /// as failing storage does. For tests and demonstrations.
    pub fn damage(&self, key: Vec<u8>) -> Promise {
        let client = self.client.clone();
        promise(async move {
            client.store().damage(&[Key::new(key)?]).await?;
            Ok(JsValue::UNDEFINED)
        })
    }
}

fn not_quarantined() -> Failure {
    Failure::not_found(
        "no record is in quarantine under this key: the server has one by now, or it was \
         offered again or dropped",
    )
}

/// A change of one record.
fn edit(change: &Array) -> Result<Edit, Failure> {
    let bytes = |value: JsValue, what: &str| match value.dyn_into::<Uint8Array>() {
        Ok(bytes) => Ok(bytes.to_vec()),
        Err(_) => Err(Failure::invalid(format!("the {what} is no Uint8Array"))),
    };
    let key = Key::new(bytes(change.get(0), "key")?)?;
    Ok(match change.get(1) {
        value if value.is_undefined() => Edit::Delete(key),
        value => Edit::Put(key, bytes(value, "value")?.into()),
    })
}

fn record(row: &Row) -> Result<JsValue, Failure> {
    let rejected = matches!(row.pending, Pending::Rejected { .. });
    object([
        ("key", bytes(row.key.as_bytes())),
        ("value", bytes(&row.value)),
        ("time", BigInt::from(row.version.time.0).into()),
        ("writer", BigInt::from(row.version.replica.0).into()),
        ("pending", (row.pending == Pending::Waiting).into()),
        ("rejected", rejected.into()),
    ])
}

fn aside(quarantined: &Quarantined) -> Result<JsValue, Failure> {
    let record = &quarantined.record;
    let value = match &record.content {
        Content::Put(value) => bytes(value),
        Content::Tombstone => JsValue::NULL,
    };
    object([
        ("key", bytes(record.key.as_bytes())),
        ("value", value),
        ("time", BigInt::from(record.version.time.0).into()),
        ("writer", BigInt::from(record.version.replica.0).into()),
        ("reason", reason_name(quarantined.reason).into()),
        ("detail", quarantined.detail.as_str().into()),
    ])
}

fn object<const N: usize>(entries: [(&str, JsValue); N]) -> Result<JsValue, Failure> {
    let object = Object::new();
    for (name, value) in entries {
        Reflect::set(&object, &name.into(), &value).map_err(Failure::script)?;
    }
    Ok(object.into())
}

fn bytes(bytes: &[u8]) -> JsValue {
    Uint8Array::from(bytes).into()
}
