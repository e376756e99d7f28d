//! What several areas need: calls by name, cursors that were sent, answers bent
//! on their way, waiting for what the client does by itself.

use super::{others, sync_patiently, time};
use crate::client::Replica;
use crate::client::context::Cx;
use crate::oracle::Record;
use crate::peer::{Action, Refusal, Script, Seen};
use crate::schema::v1;
use crate::suite::Stop;
use prost::Message;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Every cursor that the client sent, with the call that it came in.
pub fn cursors(seen: &[Seen]) -> Vec<(usize, v1::Cursor)> {
    seen.iter()
        .enumerate()
        .flat_map(|(i, s)| {
            s.held()
                .into_iter()
                .filter_map(move |h| Some((i, h.cursor?)))
        })
        .collect()
}

/// 200 records of 20 KB each from another replica: many messages.
pub async fn fill(cx: &Cx) {
    for i in 0..20u64 {
        let batch: Vec<Record> = (0..10)
            .map(|n| Record::put(format!("k{i:02}{n}"), time(i), 77, vec![b'v'; 20_000]))
            .collect();
        cx.server_writes(&batch).await;
    }
}

/// The calls of a method.
pub fn calls<'a>(seen: &'a [Seen], method: &str) -> Vec<&'a Seen> {
    seen.iter().filter(|s| s.method == method).collect()
}

/// What a new session did: from its Hello on, since a call of the session
/// before may arrive late.
pub fn from_hello(seen: &[Seen]) -> &[Seen] {
    let hello = seen.iter().position(|s| s.method == "Hello");
    &seen[hello.unwrap_or(seen.len())..]
}

/// The Reconcile requests, decoded.
pub fn reconciles(seen: &[Seen]) -> Vec<v1::ReconcileRequest> {
    calls(seen, "Reconcile")
        .into_iter()
        .filter_map(|s| v1::ReconcileRequest::decode(s.message.as_slice()).ok())
        .collect()
}

/// The Reconcile requests, call after call: a run ends with any other call.
pub fn runs(seen: &[Seen]) -> Vec<Vec<v1::ReconcileRequest>> {
    seen.split(|s| s.method != "Reconcile")
        .filter(|run| !run.is_empty())
        .map(reconciles)
        .collect()
}

/// Changes each message of an answer.
pub fn bend<T: Message + Default>(
    change: impl Fn(usize, &mut T) + Send + Sync + 'static,
) -> Action {
    Action::Rewrite(Arc::new(move |i, bytes| {
        match T::decode(bytes.as_slice()) {
            Ok(mut message) => {
                change(i, &mut message);
                vec![message.encode_to_vec()]
            }
            Err(_) => vec![bytes],
        }
    }))
}

/// Changes the answer to a call, by its request.
pub fn reply<Q: Message + Default, A: Message + Default>(
    change: impl Fn(&Q, &mut A) + Send + Sync + 'static,
) -> Action {
    Action::Reply(Arc::new(move |request, bytes| {
        match (Q::decode(request), A::decode(bytes.as_slice())) {
            (Ok(request), Ok(mut answer)) => {
                change(&request, &mut answer);
                answer.encode_to_vec()
            }
            _ => bytes,
        }
    }))
}

/// Changes the Changes messages of a Watch.
pub fn bend_changes(change: impl Fn(&mut v1::Changes) + Send + Sync + 'static) -> Action {
    bend(move |_, message: &mut v1::WatchResponse| {
        if let Some(v1::watch_response::Event::Changes(changes)) = &mut message.event {
            change(changes);
        }
    })
}

/// From now on nothing corrects what a replica holds: Watch is silent, and
/// Reconcile is refused.
pub fn nothing_more(script: &mut Script) {
    let busy = Refusal::new("UNAVAILABLE", "busy");
    script.always("Watch", Action::Silent);
    script.always("Reconcile", Action::Refuse(busy));
}

/// Looks again and again at what the server has seen, until it is enough or
/// patience runs out.
pub async fn until(cx: &Cx, enough: impl Fn(&[Seen]) -> bool) -> Result<bool, Stop> {
    let deadline = Instant::now() + cx.patience();
    while Instant::now() < deadline {
        if enough(&cx.seen().await) {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    Ok(false)
}

/// Takes records out of the server's store as a fault does: without a commit.
pub async fn server_loses(cx: &Cx, keys: &[&str]) {
    let space = cx.space().to_owned();
    cx.server(|p| {
        p.service.with_space(&space, |s| {
            for key in keys {
                s.records.remove(key.as_bytes());
            }
        });
    })
    .await;
}

/// The cursor of the server's head.
pub async fn head(cx: &Cx) -> v1::Cursor {
    let space = cx.space().to_owned();
    cx.server(|p| p.service.with_space(&space, |s| s.head()))
        .await
}

/// A replica that holds what the server holds: `n` records.
pub async fn settled(cx: &Cx, n: usize) -> Result<Replica, Stop> {
    cx.server_writes(&others(n)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, cx).await?;
    Ok(replica)
}

/// What differs is found at a checkpoint, in the session or after it.
pub async fn heal(cx: &Cx, replica: &Replica) -> Result<(), Stop> {
    for _ in 0..3 {
        sync_patiently(replica, cx).await?;
    }
    Ok(())
}

/// From now on each answer to Hello is changed.
pub async fn hello_says(cx: &Cx, change: impl Fn(&mut v1::HelloResponse) + Send + Sync + 'static) {
    let bent = bend(move |_, m: &mut v1::HelloResponse| change(m));
    cx.server(|p| p.script(|s| s.always("Hello", bent))).await;
}

/// Hello grants this access to all keys, and nothing else.
pub async fn granted(cx: &Cx, access: i32) {
    hello_says(cx, move |m| {
        m.grants = vec![v1::Grant {
            key_prefix: vec![],
            access,
        }];
    })
    .await;
}
