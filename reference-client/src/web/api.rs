//! The object that the TypeScript surface calls: text in, promises of text out.
//!
//! Methods return promises of their own instead of being `async`: an `async`
//! method would borrow its object until it ends.

use super::errors::Failure;
use super::news::{self, Repairs};
use super::runtime::WebRuntime;
use crate::client::{AuthError, Authenticate, Client, Config, Event, TokenRequest, WriteHandle};
use crate::documents::{Document, DocumentEdit, DocumentId, Documents};
use crate::engine::Phase;
use crate::platform::{BoxFuture, wall_ms};
use crate::store::{IndexedDbStore, WriteId, WriteState};
use crate::transport::{GrpcWebTransport, Token};
use futures::StreamExt;
use gosync_proto::{Invalid, KeyRange, RangeSet};
use js_sys::{Function, Promise, Uint8Array};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_futures::{JsFuture, future_to_promise, spawn_local};

/// One opening of a store in IndexedDB. Opened without networking.
#[wasm_bindgen]
pub struct Replica {
    pub(super) client: Client<IndexedDbStore>,
    repairs: Rc<RefCell<Repairs>>,
    is_new: bool,
}

#[wasm_bindgen]
impl Replica {
    /// Opens the store `name` for `space` of the server at `url`.
    ///
    /// `token`, where given, is called with whether the last token was
    /// refused, and returns a token or a promise of one. `listener` is called
    /// with each event: its kind, what it says, and what other tabs must hear
    /// of it, if anything. Kinds: `changed` (names of collections as JSON, or
    /// `null` for any), `status`, `news` (only for other tabs). `prefixes`,
    /// where given: only keys that begin with one of them are held.
    /// `plaintext_tokens`: tokens may be sent where others can read them.
    pub fn open(
        name: String,
        url: String,
        space: String,
        token: Option<Function>,
        listener: Function,
        prefixes: Option<Vec<Uint8Array>>,
        plaintext_tokens: Option<bool>,
    ) -> Promise {
        promise(async move {
            let mut config = Config::new(&space)?;
            if let Some(prefixes) = prefixes {
                let ranges = prefixes.iter().map(|p| KeyRange::prefix(&p.to_vec()));
                config.ranges = RangeSet::union(ranges.collect::<Result<_, _>>()?);
            }
            config.online = false;
            config.auth = token.map(authenticate);
            let store = IndexedDbStore::open(&name).await?;
            let is_new = store.is_new().await?;
            let mut transport = GrpcWebTransport::new(&url);
            if plaintext_tokens == Some(true) {
                transport = transport.allow_plaintext_tokens();
            }
            let client = Client::open(store, transport, WebRuntime::start(), config).await?;
            let repairs = Rc::new(RefCell::new(Repairs::default()));
            pump(&client, repairs.clone(), listener);
            let replica = Replica {
                client,
                repairs,
                is_new,
            };
            Ok(replica.into())
        })
    }

    /// Whether the store was empty when it was opened.
    #[wasm_bindgen(js_name = isNew)]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether this opening talks to the server: at most one of a store's
    /// should.
    #[wasm_bindgen(js_name = setNetworking)]
    pub fn set_networking(&self, on: bool) {
        self.client.set_online(on);
    }

    /// Talks to the server again, where another opening of the store has taken
    /// that over since this one began.
    #[wasm_bindgen(js_name = takeOver)]
    pub fn take_over(&self) {
        if self.client.status().phase == Phase::Offline {
            self.client.set_online(true);
        }
    }

    /// Takes what another opening of the store shared; without it, anything
    /// may have changed.
    pub fn hear(&self, news: Option<String>) {
        let event = news.map_or(Event::Missed, |text| news::hear(&text));
        self.client.hear(event);
    }

    /// The status, as JSON.
    pub fn status(&self) -> String {
        news::status(&self.client.status(), &self.repairs.borrow())
    }

    /// Writes `changes`, a JSON list of `Change` (see `js/src/collection.ts`),
    /// as one. Resolves when they are durable, with a promise for the verdict
    /// (JSON) in an object's `server`.
    pub fn write(&self, changes: String) -> Promise {
        let documents = self.documents();
        promise(async move {
            let changes: Vec<Change> = serde_json::from_str(&changes).map_err(Failure::invalid)?;
            let edits = changes
                .into_iter()
                .map(Change::checked)
                .collect::<Result<_, _>>()?;
            durable(documents.write(edits).await?)
        })
    }

    /// A document as JSON, or undefined.
    pub fn get(&self, collection: String, id: String) -> Promise {
        let documents = self.documents();
        promise(async move {
            let found = documents.get(&DocumentId::new(&collection, &id)?).await?;
            Ok(found.map_or(JsValue::UNDEFINED, |d| text(row(&d).to_string())))
        })
    }

    /// The documents whose id begins with `prefix`, as a JSON list.
    pub fn list(&self, collection: String, prefix: String) -> Promise {
        let documents = self.documents();
        promise(async move {
            let found = documents.list(&collection, &prefix).await?;
            let rows: Vec<_> = found.iter().map(row).collect();
            Ok(text(json!(rows).to_string()))
        })
    }

    /// The writes without an acknowledgement, as a JSON list.
    pub fn pending(&self) -> Promise {
        let client = self.client.clone();
        promise(async move {
            let mut all = Vec::new();
            loop {
                let after = all.last().map(|w: &crate::client::PendingWrite| w.id);
                let page = client.pending(after, 1_000).await?;
                if page.is_empty() {
                    break;
                }
                all.extend(page);
            }
            let rows: Vec<_> = all.iter().map(pending).collect();
            Ok(text(json!(rows).to_string()))
        })
    }

    /// Sends a refused write, and the rest of its batch, again.
    pub fn retry(&self, id: f64) -> Promise {
        let client = self.client.clone();
        promise(async move { found(id, client.retry(WriteId(id as u64)).await?) })
    }

    /// Gives a write, and the rest of its batch, up.
    pub fn discard(&self, id: f64) -> Promise {
        let client = self.client.clone();
        promise(async move { found(id, client.discard(WriteId(id as u64)).await?) })
    }

    /// Resolves when both sides hold the same.
    pub fn sync(&self) -> Promise {
        let client = self.client.clone();
        promise(async move {
            let done = client.sync().await;
            done.map_err(|e| Failure::interrupted(e, &client.status()))?;
            Ok(JsValue::UNDEFINED)
        })
    }

    /// Hashes everything again, compares, heals; resolves with a report.
    pub fn verify(&self) -> Promise {
        let client = self.client.clone();
        promise(async move {
            let report = client.verify().await;
            let report = report.map_err(|e| Failure::interrupted(e, &client.status()))?;
            Ok(text(news::verification(&report)))
        })
    }

    /// Ends everything.
    pub fn close(&self, discard_pending: bool) -> Promise {
        let client = self.client.clone();
        promise(async move {
            client.close(discard_pending).await?;
            Ok(JsValue::UNDEFINED)
        })
    }

    fn documents(&self) -> Documents<IndexedDbStore> {
        Documents::new(self.client.clone())
    }
}

/// A write of this id that is not there is an error: it may have been answered
/// or withdrawn while its user thought about it.
fn found(id: f64, there: bool) -> Result<JsValue, Failure> {
    match there {
        true => Ok(JsValue::UNDEFINED),
        false => Err(Failure::not_found(format!(
            "no write {id} is pending: the server acknowledged it, or it was withdrawn, \
             by itself or with another one of its batch"
        ))),
    }
}

/// A change as the TypeScript surface writes it.
#[derive(serde::Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Change {
    Put {
        collection: String,
        id: String,
        fields: BTreeMap<String, Value>,
    },
    Patch {
        collection: String,
        id: String,
        fields: BTreeMap<String, Value>,
        remove: Vec<String>,
    },
    Delete {
        collection: String,
        id: String,
    },
}

impl Change {
    fn checked(self) -> Result<DocumentEdit, Invalid> {
        Ok(match self {
            Change::Put {
                collection,
                id,
                fields,
            } => DocumentEdit::Put(DocumentId::new(&collection, &id)?, fields),
            Change::Patch {
                collection,
                id,
                fields,
                remove,
            } => DocumentEdit::Patch(DocumentId::new(&collection, &id)?, fields, remove),
            Change::Delete { collection, id } => {
                DocumentEdit::Delete(DocumentId::new(&collection, &id)?)
            }
        })
    }
}

/// `StoredRow` of the TypeScript surface.
fn row(d: &Document) -> Value {
    json!({
        "id": d.id,
        "pending": d.pending,
        "rejected": d.rejected,
        "fields": d.fields,
        "unreadable": d.unreadable,
    })
}

/// What a write resolves with: an object whose `server` promises the verdict.
pub(super) fn durable(handle: WriteHandle) -> Result<JsValue, Failure> {
    let server = promise(async move {
        let fate = handle.server().await?;
        Ok(text(news::fate(&fate).to_string()))
    });
    let durable = js_sys::Object::new();
    js_sys::Reflect::set(&durable, &"server".into(), &server).map_err(Failure::script)?;
    Ok(durable.into())
}

pub(super) fn promise(work: impl Future<Output = Result<JsValue, Failure>> + 'static) -> Promise {
    future_to_promise(async move { work.await.map_err(Failure::into_js) })
}

fn text(text: String) -> JsValue {
    JsValue::from_str(&text)
}

/// Passes the client's events on until it is closed.
fn pump(client: &Client<IndexedDbStore>, repairs: Rc<RefCell<Repairs>>, listener: Function) {
    let mut events = client.events();
    let client = client.clone();
    spawn_local(async move {
        while let Some(event) = events.next().await {
            let shared = news::share(&event).map_or(JsValue::UNDEFINED, text);
            let (kind, said) = match &event {
                Event::Wrote { keys, .. } | Event::Changed(keys) => {
                    ("changed", news::collections(keys))
                }
                Event::Damaged(keys) => ("changed", news::collections(keys)),
                Event::Missed => ("changed", "null".to_owned()),
                _ => ("news", String::new()),
            };
            // A listener that throws has thrown on its own account.
            let _ = listener.call3(&JsValue::NULL, &kind.into(), &said.into(), &shared);
            let restated = repairs.borrow_mut().follow(&event, wall_ms());
            if restated {
                let status = news::status(&client.status(), &repairs.borrow());
                let _ = listener.call2(&JsValue::NULL, &"status".into(), &status.into());
            }
        }
    });
}

fn authenticate(token: Function) -> Authenticate {
    Authenticate::new(move |request: TokenRequest| -> BoxFuture<'static, _> {
        let asked = token.call1(&JsValue::NULL, &request.refused.into());
        Box::pin(async move {
            let failed = |e: JsValue| AuthError::Unavailable(Failure::script(e).message);
            let answer = JsFuture::from(Promise::resolve(&asked.map_err(failed)?)).await;
            match answer.map_err(failed)?.as_string() {
                Some(token) if !token.is_empty() => Ok(Token::new(token)),
                _ => Err(AuthError::SignIn),
            }
        })
    })
}

/// `PendingWrite` of the TypeScript surface, without what its key tells.
fn pending(w: &crate::client::PendingWrite) -> Value {
    let (state, reason, detail) = match &w.state {
        WriteState::Waiting if w.attempted => ("sent", None, None),
        WriteState::Waiting => ("waiting", None, None),
        WriteState::Rejected { reason, detail } => {
            ("rejected", Some(news::reason_name(*reason)), Some(detail))
        }
    };
    let mut row = json!({
        "id": w.id.0,
        "key": news::hex(w.key.as_bytes()),
        "state": state,
        "deletes": w.value.is_none(),
        "batch": w.batch.map(|id| id.0),
        "inDoubt": w.in_doubt,
    });
    if let (Some(reason), Some(detail)) = (reason, detail) {
        row["reason"] = json!(reason);
        row["detail"] = json!(detail);
    }
    row
}
