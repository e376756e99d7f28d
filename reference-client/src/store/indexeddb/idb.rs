//! IndexedDB as futures: a database that reopens itself, transactions that
//! abort when they are dropped, requests that can be awaited. Knows nothing of
//! records.
//!
//! Why not one of the crates for it: with them an early return commits half a
//! transaction, and a commit that the browser aborts can look like success.
//! Here a transaction commits only through [`Transaction::commit`], and that
//! returns `Ok` only after the browser said `complete`.

use js_sys::{Array, Uint8Array};
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use wasm_bindgen::closure::Closure;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{
    IdbDatabase, IdbFactory, IdbKeyRange, IdbObjectStore, IdbOpenDbRequest, IdbRequest,
    IdbTransaction, IdbTransactionMode,
};

/// What went wrong in the browser's storage.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdbError {
    /// This environment has no IndexedDB, or refuses it (some private modes).
    #[error("this browser offers no IndexedDB here ({0}); data cannot be kept on this device")]
    Unavailable(String),
    /// The origin's quota, or the disk, is full. Nothing of the transaction
    /// was written.
    #[error("the browser's storage for this site is full; free some space and try again")]
    QuotaExceeded,
    /// The database was made by newer software.
    #[error("the local database {name:?} has the newer schema version {found}")]
    TooNew {
        /// The database's name.
        name: String,
        /// Its schema version.
        found: u32,
    },
    /// Another tab with an older version holds the database open and does not
    /// let go of it.
    #[error("another tab holds an older version of {name:?} open; close it and try again")]
    Blocked {
        /// The database's name.
        name: String,
    },
    /// The browser closed the connection, and so the transaction.
    #[error("the browser closed the database connection ({0})")]
    ConnectionLost(String),
    /// Anything else, in the browser's words.
    #[error("IndexedDB failed: {name}: {message}")]
    Other {
        /// The name of the DOMException.
        name: String,
        /// Its message.
        message: String,
    },
}

impl IdbError {
    /// Of anything that JavaScript threw.
    pub fn from_js(value: &JsValue) -> IdbError {
        let field = |name: &str| {
            js_sys::Reflect::get(value, &name.into())
                .ok()
                .and_then(|v| v.as_string())
                .unwrap_or_default()
        };
        let (name, message) = (field("name"), field("message"));
        match name.as_str() {
            "QuotaExceededError" => IdbError::QuotaExceeded,
            // Thrown by transaction() on a closed connection, and by requests
            // on a transaction that the browser ended.
            "InvalidStateError" | "TransactionInactiveError" => IdbError::ConnectionLost(message),
            _ => IdbError::Other { name, message },
        }
    }

    fn of_request(request: &IdbRequest) -> IdbError {
        match request.error() {
            Ok(Some(e)) => IdbError::from_js(&e),
            Ok(None) => IdbError::ConnectionLost("the request was dropped".into()),
            Err(e) => IdbError::from_js(&e),
        }
    }

    /// Whether a new connection may cure it.
    fn lost_connection(&self) -> bool {
        matches!(self, IdbError::ConnectionLost(_))
            // What engines report when the storage process went away.
            || matches!(self, IdbError::Other { name, .. } if name == "UnknownError" || name == "AbortError")
    }
}

/// Creates the object stores when the database is new or older than `version`.
pub struct Schema {
    /// The present version, from 1.
    pub version: u32,
    /// Brings a database of the given older version (0: new) to the present
    /// one, in this transaction.
    pub upgrade: fn(&IdbDatabase, &IdbTransaction, u32) -> Result<(), JsValue>,
}

/// An open database. Reopens itself when the browser closes the connection
/// (mobile engines do so in the background) or another tab needs it closed.
pub struct Database {
    name: String,
    schema: &'static Schema,
    connection: RefCell<Option<Rc<Connection>>>,
}

impl Database {
    /// Opens or creates the database.
    pub async fn open(name: &str, schema: &'static Schema) -> Result<Database, IdbError> {
        let db = Database {
            name: name.to_owned(),
            schema,
            connection: RefCell::new(None),
        };
        db.connect().await?;
        Ok(db)
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    async fn connect(&self) -> Result<Rc<Connection>, IdbError> {
        if let Some(open) = self.connection.borrow().as_ref()
            && !open.lost.get()
        {
            return Ok(open.clone());
        }
        let fresh = Rc::new(Connection::open(&self.name, self.schema).await?);
        *self.connection.borrow_mut() = Some(fresh.clone());
        Ok(fresh)
    }

    /// Runs `body` in one transaction over `stores` and commits it when the
    /// body succeeds; anything else leaves nothing behind. When the connection
    /// turns out to be lost, it is opened again and the body runs once more.
    ///
    /// The body may await nothing but requests of this transaction: IndexedDB
    /// ends a transaction that waits for anything else.
    pub async fn transaction<T, F>(
        &self,
        stores: &[&str],
        mode: IdbTransactionMode,
        mut body: F,
    ) -> Result<T, IdbError>
    where
        F: AsyncFnMut(&Transaction) -> Result<T, IdbError>,
    {
        match self.attempt(stores, mode, &mut body).await {
            Err(e) if e.lost_connection() => {
                self.connection.borrow_mut().take();
                self.attempt(stores, mode, &mut body).await
            }
            other => other,
        }
    }

    async fn attempt<T, F>(
        &self,
        stores: &[&str],
        mode: IdbTransactionMode,
        body: &mut F,
    ) -> Result<T, IdbError>
    where
        F: AsyncFnMut(&Transaction) -> Result<T, IdbError>,
    {
        let connection = self.connect().await?;
        let tx = Transaction::begin(&connection.db, stores, mode)?;
        let result = body(&tx).await?;
        tx.commit().await?;
        Ok(result)
    }
}

struct Connection {
    db: IdbDatabase,
    lost: Rc<std::cell::Cell<bool>>,
    // Kept alive as long as the browser may call them.
    _on_close: Closure<dyn FnMut()>,
    _on_version_change: Closure<dyn FnMut()>,
}

impl Connection {
    async fn open(name: &str, schema: &'static Schema) -> Result<Connection, IdbError> {
        let request = factory()?
            .open_with_u32(name, schema.version)
            .map_err(|e| IdbError::from_js(&e))?;
        let db = opened(&request, name, schema).await?;
        let lost = Rc::new(std::cell::Cell::new(false));
        let on_close = {
            let lost = lost.clone();
            Closure::new(move || lost.set(true))
        };
        let on_version_change = {
            let (lost, db) = (lost.clone(), db.clone());
            // Another tab upgrades or deletes the database: stand aside.
            Closure::new(move || {
                lost.set(true);
                db.close();
            })
        };
        db.set_onclose(Some(on_close.as_ref().unchecked_ref()));
        db.set_onversionchange(Some(on_version_change.as_ref().unchecked_ref()));
        Ok(Connection {
            db,
            lost,
            _on_close: on_close,
            _on_version_change: on_version_change,
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.db.set_onclose(None);
        self.db.set_onversionchange(None);
        self.db.close();
    }
}

/// The factory of the window, the worker or Node with a polyfill.
fn factory() -> Result<IdbFactory, IdbError> {
    let found = js_sys::Reflect::get(&js_sys::global(), &"indexedDB".into())
        .map_err(|e| IdbError::from_js(&e))?;
    if found.is_undefined() || found.is_null() {
        return Err(IdbError::Unavailable("indexedDB is not defined".into()));
    }
    // Not dyn_into: a polyfill's factory is of another class.
    Ok(found.unchecked_into())
}

async fn opened(
    request: &IdbOpenDbRequest,
    name: &str,
    schema: &'static Schema,
) -> Result<IdbDatabase, IdbError> {
    let failure: Rc<RefCell<Option<JsValue>>> = Rc::default();
    let on_upgrade = {
        let (request, failure) = (request.clone(), failure.clone());
        Closure::<dyn FnMut(web_sys::IdbVersionChangeEvent)>::new(
            move |event: web_sys::IdbVersionChangeEvent| {
                let tx = request.transaction();
                let result = match &tx {
                    Some(tx) => request.result().and_then(|db| {
                        (schema.upgrade)(db.unchecked_ref(), tx, event.old_version() as u32)
                    }),
                    None => Err("an upgrade without a transaction".into()),
                };
                if let Err(e) = result {
                    if let Some(tx) = tx {
                        // Fails only where it is over already.
                        let _ = tx.abort();
                    }
                    *failure.borrow_mut() = Some(e);
                }
            },
        )
    };
    request.set_onupgradeneeded(Some(on_upgrade.as_ref().unchecked_ref()));
    let pending = Request::new(request.clone().into());
    let state = pending.state.clone();
    let on_blocked = Closure::<dyn FnMut()>::new(move || {
        settle(
            &state,
            Err(IdbError::Blocked {
                name: String::new(),
            }),
        );
    });
    request.set_onblocked(Some(on_blocked.as_ref().unchecked_ref()));
    let result = pending.await;
    request.set_onupgradeneeded(None);
    request.set_onblocked(None);
    match result {
        Ok(db) => Ok(db.unchecked_into()),
        Err(IdbError::Blocked { .. }) => Err(IdbError::Blocked { name: name.into() }),
        Err(IdbError::Other { name: kind, .. }) if kind == "VersionError" => {
            Err(IdbError::TooNew {
                name: name.into(),
                found: present_version(name).await,
            })
        }
        Err(IdbError::Other {
            name: kind,
            message,
        }) if kind == "SecurityError" => Err(IdbError::Unavailable(message)),
        Err(e) => Err(failure.take().map_or(e, |f| IdbError::from_js(&f))),
    }
}

/// The version of an existing database; 0 where it cannot be told.
async fn present_version(name: &str) -> u32 {
    let Ok(request) = factory().and_then(|f| f.open(name).map_err(|e| IdbError::from_js(&e)))
    else {
        return 0;
    };
    match Request::new(request.into()).await {
        Ok(db) => {
            let db: IdbDatabase = db.unchecked_into();
            db.close();
            db.version() as u32
        }
        Err(_) => 0,
    }
}

#[wasm_bindgen]
extern "C" {
    /// `IDBDatabase` with the third argument of `transaction`, which web-sys
    /// keeps behind a compiler flag.
    type WithOptions;

    #[wasm_bindgen(method, catch)]
    fn transaction(
        this: &WithOptions,
        stores: &Array,
        mode: IdbTransactionMode,
        options: &js_sys::Object,
    ) -> Result<IdbTransaction, JsValue>;
}

/// One transaction. Dropped without [`Transaction::commit`], it aborts.
pub struct Transaction {
    tx: IdbTransaction,
    done: Rc<RefCell<State<()>>>,
    _handlers: [Closure<dyn FnMut()>; 2],
}

impl Transaction {
    fn begin(
        db: &IdbDatabase,
        stores: &[&str],
        mode: IdbTransactionMode,
    ) -> Result<Transaction, IdbError> {
        let names = stores
            .iter()
            .map(|s| JsValue::from_str(s))
            .collect::<Array>();
        // "complete" is to mean that the disk has it, not that it soon will.
        let options = js_sys::Object::new();
        js_sys::Reflect::set(&options, &"durability".into(), &"strict".into())
            .and_then(|_| {
                db.unchecked_ref::<WithOptions>()
                    .transaction(&names, mode, &options)
            })
            .map_err(|e| IdbError::from_js(&e))
            .map(Transaction::over)
    }

    fn over(tx: IdbTransaction) -> Transaction {
        let done: Rc<RefCell<State<()>>> = Rc::default();
        let on_complete = {
            let done = done.clone();
            Closure::new(move || settle(&done, Ok(())))
        };
        let on_abort = {
            let (done, tx) = (done.clone(), tx.clone());
            Closure::new(move || {
                let why = tx.error().map_or_else(
                    || IdbError::ConnectionLost("the transaction was aborted".into()),
                    |e| IdbError::from_js(&e),
                );
                settle(&done, Err(why));
            })
        };
        tx.set_oncomplete(Some(on_complete.as_ref().unchecked_ref()));
        tx.set_onabort(Some(on_abort.as_ref().unchecked_ref()));
        Transaction {
            tx,
            done,
            _handlers: [on_complete, on_abort],
        }
    }

    /// An object store of this transaction.
    pub fn store(&self, name: &str) -> Result<Store, IdbError> {
        self.tx
            .object_store(name)
            .map(Store)
            .map_err(|e| IdbError::from_js(&e))
    }

    async fn commit(self) -> Result<(), IdbError> {
        // Without requests in flight this only spares the browser a round;
        // where it is over already, `done` knows how it ended.
        let _ = js_sys::Reflect::get(&self.tx, &"commit".into())
            .ok()
            .and_then(|f| f.dyn_into::<js_sys::Function>().ok())
            .map(|commit| commit.call0(&self.tx));
        Settled(&self.done).await
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.tx.set_oncomplete(None);
        self.tx.set_onabort(None);
        if self.done.borrow().result.is_none() && !self.done.borrow().taken {
            // Fails only where it is over already.
            let _ = self.tx.abort();
        }
    }
}

/// An object store within a transaction.
pub struct Store(IdbObjectStore);

impl Store {
    /// The value under a key.
    pub async fn get(&self, key: &JsValue) -> Result<Option<JsValue>, IdbError> {
        let value = Request::start(self.0.get(key))?.await?;
        Ok((!value.is_undefined()).then_some(value))
    }

    /// Inserts or replaces. The result is awaited by nobody: a failure aborts
    /// the transaction, and its commit reports it.
    pub fn put(&self, key: &JsValue, value: &JsValue) -> Result<(), IdbError> {
        self.0
            .put_with_key(value, key)
            .map(drop)
            .map_err(|e| IdbError::from_js(&e))
    }

    /// Removes a key, or a range of keys. A failure aborts the transaction.
    pub fn delete(&self, key_or_range: &JsValue) -> Result<(), IdbError> {
        self.0
            .delete(key_or_range)
            .map(drop)
            .map_err(|e| IdbError::from_js(&e))
    }

    /// Keys and values in key order, at most `limit`.
    pub async fn entries(
        &self,
        range: &JsValue,
        limit: u32,
    ) -> Result<Vec<(JsValue, JsValue)>, IdbError> {
        let keys = Request::start(self.0.get_all_keys_with_key_and_limit(range, limit))?;
        let values = Request::start(self.0.get_all_with_key_and_limit(range, limit))?;
        let keys: Array = keys.await?.unchecked_into();
        let values: Array = values.await?.unchecked_into();
        Ok(keys.iter().zip(values.iter()).collect())
    }

    /// Keys of the range in order, at most `limit`.
    pub async fn keys(&self, range: &JsValue, limit: u32) -> Result<Array, IdbError> {
        let keys = Request::start(self.0.get_all_keys_with_key_and_limit(range, limit))?;
        Ok(keys.await?.unchecked_into())
    }

    /// Values in key order, at most `limit`.
    pub async fn values(&self, range: &JsValue, limit: u32) -> Result<Array, IdbError> {
        let values = Request::start(self.0.get_all_with_key_and_limit(range, limit))?;
        Ok(values.await?.unchecked_into())
    }

    /// All values whose index entry lies in `range`.
    pub async fn by_index(&self, index: &str, range: &JsValue) -> Result<Array, IdbError> {
        let index = self.0.index(index).map_err(|e| IdbError::from_js(&e))?;
        let values = Request::start(index.get_all_with_key(range))?;
        Ok(values.await?.unchecked_into())
    }

    /// The same for each of several ranges, asked all at once.
    pub async fn by_index_each(
        &self,
        index: &str,
        ranges: &[JsValue],
    ) -> Result<Vec<Array>, IdbError> {
        let index = self.0.index(index).map_err(|e| IdbError::from_js(&e))?;
        let requests: Vec<Request> = ranges
            .iter()
            .map(|range| Request::start(index.get_all_with_key(range)))
            .collect::<Result<_, _>>()?;
        let mut found = Vec::with_capacity(requests.len());
        for request in requests {
            found.push(request.await?.unchecked_into());
        }
        Ok(found)
    }

    /// How many values there are.
    pub async fn count(&self) -> Result<u64, IdbError> {
        Self::number(Request::start(self.0.count())?).await
    }

    /// How many values the index has.
    pub async fn count_by_index(&self, index: &str) -> Result<u64, IdbError> {
        let index = self.0.index(index).map_err(|e| IdbError::from_js(&e))?;
        Self::number(Request::start(index.count())?).await
    }

    async fn number(request: Request) -> Result<u64, IdbError> {
        Ok(request.await?.as_f64().unwrap_or_default() as u64)
    }

    /// The highest key of the range, with its value.
    pub async fn last(&self, range: &JsValue) -> Result<Option<(JsValue, JsValue)>, IdbError> {
        let cursor = Request::start(
            self.0
                .open_cursor_with_range_and_direction(range, web_sys::IdbCursorDirection::Prev),
        )?
        .await?;
        if cursor.is_null() {
            return Ok(None);
        }
        let cursor: web_sys::IdbCursorWithValue = cursor.unchecked_into();
        let key = cursor.key().map_err(|e| IdbError::from_js(&e))?;
        let value = cursor.value().map_err(|e| IdbError::from_js(&e))?;
        Ok(Some((key, value)))
    }

    /// The lowest key of the range.
    pub async fn first_key(&self, range: &JsValue) -> Result<Option<JsValue>, IdbError> {
        let keys = self.keys(range, 1).await?;
        Ok((keys.length() > 0).then(|| keys.get(0)))
    }
}

/// Bytes as a key or a value. IndexedDB orders binary keys as unsigned bytes,
/// a prefix before what it begins: the order of the protocol.
pub fn bytes(b: &[u8]) -> JsValue {
    Uint8Array::from(b).into()
}

/// The bytes of a binary key (an ArrayBuffer) or value (a Uint8Array).
/// `None` when it is neither.
pub fn to_vec(value: &JsValue) -> Option<Vec<u8>> {
    let is_buffer =
        js_sys::ArrayBuffer::is_view(value) || value.is_instance_of::<js_sys::ArrayBuffer>();
    is_buffer.then(|| Uint8Array::new(value).to_vec())
}

/// Keys from `lower` on (or above it, when `open`).
pub fn from(lower: &JsValue, open: bool) -> Result<JsValue, IdbError> {
    key_range(IdbKeyRange::lower_bound_with_open(lower, open))
}

/// Keys up to `upper`, included.
pub fn up_to(upper: &JsValue) -> Result<JsValue, IdbError> {
    key_range(IdbKeyRange::upper_bound(upper))
}

/// Keys from `lower`, included, to `upper`.
pub fn between(lower: &JsValue, upper: &JsValue, upper_open: bool) -> Result<JsValue, IdbError> {
    key_range(IdbKeyRange::bound_with_lower_open_and_upper_open(
        lower, upper, false, upper_open,
    ))
}

/// Keys from `lower` on, below `upper`; `None` where there can be none.
pub fn span(
    lower: &JsValue,
    lower_open: bool,
    upper: &JsValue,
) -> Result<Option<JsValue>, IdbError> {
    let order = factory()?
        .cmp(lower, upper)
        .map_err(|e| IdbError::from_js(&e))?;
    if order >= 0 {
        return Ok(None);
    }
    key_range(IdbKeyRange::bound_with_lower_open_and_upper_open(
        lower, upper, lower_open, true,
    ))
    .map(Some)
}

fn key_range(range: Result<IdbKeyRange, JsValue>) -> Result<JsValue, IdbError> {
    range.map(Into::into).map_err(|e| IdbError::from_js(&e))
}

struct State<T> {
    result: Option<Result<T, IdbError>>,
    taken: bool,
    waker: Option<Waker>,
}

impl<T> Default for State<T> {
    fn default() -> Self {
        State {
            result: None,
            taken: false,
            waker: None,
        }
    }
}

fn settle<T>(state: &Rc<RefCell<State<T>>>, result: Result<T, IdbError>) {
    let waker = {
        let mut state = state.borrow_mut();
        if state.result.is_some() || state.taken {
            return;
        }
        state.result = Some(result);
        state.waker.take()
    };
    if let Some(waker) = waker {
        waker.wake();
    }
}

struct Settled<'a, T>(&'a Rc<RefCell<State<T>>>);

impl<T> Future for Settled<'_, T> {
    type Output = Result<T, IdbError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.borrow_mut();
        match state.result.take() {
            Some(result) => {
                state.taken = true;
                Poll::Ready(result)
            }
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A request under way.
struct Request {
    request: IdbRequest,
    state: Rc<RefCell<State<JsValue>>>,
    _handlers: [Closure<dyn FnMut()>; 2],
}

impl Request {
    fn start(request: Result<IdbRequest, JsValue>) -> Result<Request, IdbError> {
        request.map(Request::new).map_err(|e| IdbError::from_js(&e))
    }

    fn new(request: IdbRequest) -> Request {
        let state: Rc<RefCell<State<JsValue>>> = Rc::default();
        let on_success = {
            let (state, request) = (state.clone(), request.clone());
            Closure::new(move || {
                settle(&state, request.result().map_err(|e| IdbError::from_js(&e)));
            })
        };
        let on_error = {
            let (state, request) = (state.clone(), request.clone());
            Closure::new(move || settle(&state, Err(IdbError::of_request(&request))))
        };
        request.set_onsuccess(Some(on_success.as_ref().unchecked_ref()));
        request.set_onerror(Some(on_error.as_ref().unchecked_ref()));
        Request {
            request,
            state,
            _handlers: [on_success, on_error],
        }
    }
}

impl Future for Request {
    type Output = Result<JsValue, IdbError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut Settled(&self.state)).poll(cx)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.request.set_onsuccess(None);
        self.request.set_onerror(None);
    }
}
