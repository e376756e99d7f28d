//! The native client against the server, over a real connection.

use gosync_client::client::{Connection, Pending, Status};
use gosync_client::platform::TokioRuntime;
use gosync_client::replica::Fate;
use gosync_client::replica::edit::Edit;
use gosync_client::store::{MemoryStore, SqliteStore, Store};
use gosync_client::transport::GrpcTransport;
use gosync_client::{Client, Config};
use gosync_proto::limits::Limits;
use gosync_proto::{Key, KeyRange};
use gosync_server::config;
use gosync_server::server::StartError;
use std::path::Path;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// A server in this process, on a runtime of its own. Dropping it is as good as
/// killing it: nothing is drained.
struct Server {
    url: String,
    runtime: Option<Runtime>,
}

impl Server {
    async fn start(db: &Path, listen: &str) -> Server {
        Server::start_with(db, listen, None).await
    }

    async fn start_with(db: &Path, listen: &str, tls: Option<config::TlsConfig>) -> Server {
        let config = config::Config {
            tls,
            listen: listen.parse().unwrap(),
            db: config::Database::Sqlite(db.to_owned()),
            limits: Limits {
                heartbeat_interval_ms: 100,
                watchdog_ms: 1_000,
                ..Limits::default()
            },
            ..config::Config::default()
        };
        let runtime = Runtime::new().unwrap();
        let started = runtime.spawn(async move {
            // the port of the server before is free a moment after its end
            for _ in 0..100 {
                match gosync_server::Server::bind(config.clone()).await {
                    Ok(server) => return server,
                    Err(StartError::Bind { .. }) => {}
                    Err(e) => panic!("{e}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            panic!("the port does not become free");
        });
        let server = started.await.unwrap();
        let url = server.url();
        runtime.spawn(server.run(CancellationToken::new()));
        Server {
            url,
            runtime: Some(runtime),
        }
    }

    fn listen(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn open<S: Store>(store: S, url: &str) -> Client<S> {
    open_over(store, GrpcTransport::new(url).unwrap()).await
}

async fn open_over<S: Store>(store: S, transport: GrpcTransport) -> Client<S> {
    Client::open(
        store,
        transport,
        TokioRuntime::current().unwrap(),
        Config::new("test").unwrap(),
    )
    .await
    .unwrap()
}

fn key(k: &str) -> Key {
    Key::new(k.as_bytes()).unwrap()
}

async fn soon<T>(f: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), f)
        .await
        .expect("within 20 s")
}

async fn synced<S: Store>(client: &Client<S>) {
    let result = soon(async {
        loop {
            match client.sync().await {
                Ok(()) => return,
                Err(e) => eprintln!("{e}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    result.await;
}

async fn until<S: Store>(client: &Client<S>, is: impl Fn(&Status) -> bool) {
    let mut statuses = client.statuses();
    soon(async {
        while let Some(status) = futures::StreamExt::next(&mut statuses).await {
            if is(&status) {
                return;
            }
        }
        panic!("the client was closed");
    })
    .await;
}

async fn values<S: Store>(client: &Client<S>) -> Vec<(String, String)> {
    let rows = client.list_all(&KeyRange::all()).await.unwrap();
    rows.iter()
        .map(|r| {
            assert_eq!(r.pending, Pending::Synced, "{:?}", r.key);
            (
                String::from_utf8_lossy(r.key.as_bytes()).into_owned(),
                String::from_utf8_lossy(&r.value).into_owned(),
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clients_exchange_writes_live_and_are_verified() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("s.db"), "127.0.0.1:0").await;
    let a = open(
        SqliteStore::open(dir.path().join("a.db")).unwrap(),
        &server.url,
    )
    .await;
    let w = a.put(key("k1"), "v1").await.unwrap();
    assert_eq!(soon(w.server()).await, Ok(Fate::Applied));
    synced(&a).await;
    let b = open(MemoryStore::new(), &server.url).await;
    synced(&b).await;
    assert_eq!(values(&b).await, [("k1".into(), "v1".into())]);
    let mut changes = b.subscribe(KeyRange::all());
    let w = a
        .batch(vec![
            Edit::Put(key("k2"), "x".into()),
            Edit::Delete(key("k1")),
        ])
        .await
        .unwrap();
    assert_eq!(soon(w.server()).await, Ok(Fate::Applied));
    soon(futures::StreamExt::next(&mut changes)).await.unwrap();
    assert_eq!(values(&b).await, [("k2".into(), "x".into())]);
    synced(&a).await;
    synced(&b).await;
    assert!(a.status().verified && b.status().verified);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_made_offline_arrive_after_the_server_was_killed_and_replaced_by_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("s1.db"), "127.0.0.1:0").await;
    let listen = server.listen().to_owned();
    let a = open(
        SqliteStore::open(dir.path().join("a.db")).unwrap(),
        &server.url,
    )
    .await;
    for i in 0..300 {
        let _ = a.put(key(&format!("k{i:03}")), "one").await.unwrap();
    }
    synced(&a).await;
    drop(server);
    until(&a, |s| s.connection == Connection::Offline).await;
    let _ = a.put(key("k000"), "two").await.unwrap();
    let _ = a.delete(key("k001")).await.unwrap();
    let server = Server::start(&dir.path().join("s2.db"), &listen).await;
    synced(&a).await;
    let b = open(MemoryStore::new(), &server.url).await;
    synced(&b).await;
    let held = values(&b).await;
    assert_eq!(held.len(), 299);
    assert_eq!(held[0], ("k000".into(), "two".into()));
    assert_eq!(held, values(&a).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("s.db");
    let server = Server::start(&db, "127.0.0.1:0").await;
    let listen = server.listen().to_owned();
    let a = open(MemoryStore::new(), &server.url).await;
    let b = open(MemoryStore::new(), &server.url).await;
    let _ = a.put(key("k1"), "before").await.unwrap();
    synced(&a).await;
    synced(&b).await;
    drop(server);
    let w = a.put(key("k2"), "while it was away").await.unwrap();
    let _server = Server::start(&db, &listen).await;
    assert_eq!(soon(w.server()).await, Ok(Fate::Applied));
    synced(&b).await;
    assert_eq!(values(&b).await, values(&a).await);
    assert_eq!(values(&b).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_records_are_found_and_healed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("s.db"), "127.0.0.1:0").await;
    let a = open(
        SqliteStore::open(dir.path().join("a.db")).unwrap(),
        &server.url,
    )
    .await;
    let edits = (0..2_000).map(|i| Edit::Put(key(&format!("k{i:04}")), "value".into()));
    let _ = a.batch(edits.collect()).await.unwrap();
    synced(&a).await;
    a.store()
        .damage(&[key("k0100"), key("k0101")])
        .await
        .unwrap();
    let report = soon(a.verify()).await.unwrap();
    assert_eq!(report.damaged, [key("k0100"), key("k0101")]);
    assert!(!report.equal && report.rounds > 0 && !report.healed_ranges.is_empty());
    assert_eq!(values(&a).await.len(), 2_000);
    let report = soon(a.verify()).await.unwrap();
    assert!(report.equal && report.tree_intact && report.damaged.is_empty());
}

/// `pending` stayed at the number of offers: an answer that settles nothing but
/// offers has no other news, and the client did not count again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_emptied_server_got_back_no_longer_counts_as_pending() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("s1.db"), "127.0.0.1:0").await;
    let listen = server.listen().to_owned();
    let a = open(MemoryStore::new(), &server.url).await;
    for i in 0..20 {
        let _ = a.put(key(&format!("k{i:03}")), "v").await.unwrap();
    }
    synced(&a).await;
    drop(server);
    until(&a, |s| s.connection == Connection::Offline).await;
    let _server = Server::start(&dir.path().join("s2.db"), &listen).await;
    until(&a, |s| {
        s.connection == Connection::Online && s.verified && s.pending == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_syncs_over_tls_with_an_authority_that_it_was_given_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (cert, private) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&private, made.signing_key.serialize_pem()).unwrap();
    let tls = config::TlsConfig { cert, key: private };
    let db = dir.path().join("s.db");
    let server = Server::start_with(&db, "127.0.0.1:0", Some(tls)).await;
    let port = server.url.rsplit_once(':').unwrap().1;
    let url = format!("https://localhost:{port}");

    let client = open_over(
        MemoryStore::new(),
        GrpcTransport::with_authority(&url, &made.cert.pem()).unwrap(),
    )
    .await;
    let w = client.put(key("k"), "v").await.unwrap();
    assert_eq!(soon(w.server()).await, Ok(Fate::Applied));

    let stranger = open(MemoryStore::new(), &url).await;
    let failed = soon(stranger.sync()).await.unwrap_err();
    assert_eq!(
        stranger.status().connection,
        Connection::Offline,
        "{failed}"
    );
    assert!(values(&stranger).await.is_empty());
}
