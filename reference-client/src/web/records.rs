//! Records as bytes, for applications with keys and values of their own, such
//! as encrypted ones. Knows nothing of documents.

use super::api::{Replica, durable, promise};
use super::errors::Failure;
use crate::client::{Pending, Row};
use crate::store::Store;
use gosync_proto::{Key, KeyRange};
use js_sys::{Array, BigInt, Object, Promise, Reflect, Uint8Array};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

#[wasm_bindgen]
impl Replica {
    /// Sets the value under a key. Resolves as [`Replica::write`] does.
    #[wasm_bindgen(js_name = putRecord)]
    pub fn put_record(&self, key: Vec<u8>, value: Vec<u8>) -> Promise {
        let client = self.client.clone();
        promise(async move { durable(client.put(Key::new(key)?, value).await?) })
    }

    /// Deletes what is under a key. Resolves as [`Replica::write`] does.
    #[wasm_bindgen(js_name = deleteRecord)]
    pub fn delete_record(&self, key: Vec<u8>) -> Promise {
        let client = self.client.clone();
        promise(async move { durable(client.delete(Key::new(key)?).await?) })
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

    /// The keys of records that the server lost and that may not be written
    /// back from here.
    #[wasm_bindgen(js_name = quarantinedRecords)]
    pub fn quarantined_records(&self) -> Promise {
        let client = self.client.clone();
        promise(async move {
            let records = client.quarantined().await?;
            let keys: Array = records.iter().map(|r| bytes(r.key.as_bytes())).collect();
            Ok(keys.into())
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

fn record(row: &Row) -> Result<JsValue, Failure> {
    let record = Object::new();
    let set = |name: &str, value: JsValue| {
        Reflect::set(&record, &name.into(), &value).map_err(Failure::script)
    };
    set("key", bytes(row.key.as_bytes()))?;
    set("value", bytes(&row.value))?;
    set("time", BigInt::from(row.version.time.0).into())?;
    set("writer", BigInt::from(row.version.replica.0).into())?;
    set("pending", (row.pending == Pending::Waiting).into())?;
    let rejected = matches!(row.pending, Pending::Rejected { .. });
    set("rejected", rejected.into())?;
    Ok(record.into())
}

fn bytes(bytes: &[u8]) -> JsValue {
    Uint8Array::from(bytes).into()
}
