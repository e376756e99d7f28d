//! A server in this process, clients for it, and the requests that the tests
//! send.

use gosync_proto::wire::sync_service_client::SyncServiceClient;
use gosync_proto::wire::{self, HeldRanges, Range, watch_response};
use gosync_server::Server;
use gosync_server::config::{Config, Database};
use prost::Message;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

pub use wire::watch_response::Event;

pub type Client = SyncServiceClient<Channel>;

/// Long enough for anything that should happen at all.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A server that stops when the test ends.
pub struct Running {
    pub url: String,
    pub metrics_url: Option<String>,
    _dir: tempfile::TempDir,
    pub stop: CancellationToken,
    pub done: JoinHandle<()>,
}

/// Starts a server on a free port, with a database of its own.
pub async fn start(change: impl FnOnce(&mut Config)) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        db: Database::Sqlite(dir.path().join("test.db")),
        ..Config::default()
    };
    change(&mut config);
    let server = Server::bind(config).await.unwrap();
    let url = server.url();
    let metrics_url = server.metrics_address().map(|a| format!("http://{a}"));
    let stop = CancellationToken::new();
    let done = tokio::spawn({
        let stop = stop.clone();
        async move { server.run(stop).await.unwrap() }
    });
    Running {
        url,
        metrics_url,
        _dir: dir,
        stop,
        done,
    }
}

impl Running {
    pub fn address(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    /// A client on a connection of its own.
    pub async fn client(&self) -> Client {
        connect(&self.url).await
    }
}

pub async fn connect(url: &str) -> Client {
    let channel = Endpoint::from_shared(url.to_owned())
        .unwrap()
        .connect()
        .await
        .unwrap();
    SyncServiceClient::new(channel)
}

/// A request with the version that Hello would have chosen.
pub fn v1<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("gosync-version", "1".parse().unwrap());
    request
}

/// The same with a token.
pub fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = v1(message);
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

pub fn hello(space: &str) -> wire::HelloRequest {
    wire::HelloRequest {
        versions: vec![1],
        features: vec![
            wire::Feature::Reconcile as i32,
            wire::Feature::Live as i32,
            99,
        ],
        space: space.to_owned(),
        ..Default::default()
    }
}

pub fn record(key: &str, time: u64, value: &str) -> wire::Record {
    wire::Record {
        key: key.as_bytes().to_vec(),
        version: Some(wire::Version { time, replica: 7 }),
        flags: 0,
        value: value.as_bytes().to_vec().into(),
    }
}

pub fn push(space: &str, records: Vec<wire::Record>) -> wire::PushRequest {
    wire::PushRequest {
        space: space.to_owned(),
        records,
        ..Default::default()
    }
}

pub fn all(cursor: Option<wire::Cursor>) -> Vec<HeldRanges> {
    vec![HeldRanges {
        ranges: vec![Range {
            start: vec![],
            end: None,
        }],
        cursor,
    }]
}

pub fn watch(space: &str, cursor: Option<wire::Cursor>) -> wire::WatchRequest {
    wire::WatchRequest {
        space: space.to_owned(),
        held: all(cursor),
        ..Default::default()
    }
}

pub fn snapshot(space: &str) -> wire::SnapshotRequest {
    wire::SnapshotRequest {
        space: space.to_owned(),
        held: all(None),
        ..Default::default()
    }
}

/// The next event of a watch.
pub async fn next(stream: &mut Streaming<wire::WatchResponse>) -> Event {
    tokio::time::timeout(PATIENCE, stream.message())
        .await
        .expect("a message in time")
        .expect("no gRPC error within a stream")
        .expect("a stream ends with StreamEnd")
        .event
        .expect("an event")
}

/// Skips to the first event that `pick` takes.
pub async fn until<T>(
    stream: &mut Streaming<wire::WatchResponse>,
    mut pick: impl FnMut(Event) -> Option<T>,
) -> T {
    loop {
        if let Some(found) = pick(next(stream).await) {
            return found;
        }
    }
}

pub async fn end_of(stream: &mut Streaming<wire::WatchResponse>) -> wire::StreamEnd {
    until(stream, |event| match event {
        watch_response::Event::End(end) => Some(end),
        _ => None,
    })
    .await
}

/// `reason` of `google.rpc.ErrorInfo`.
pub fn reason(status: &Status) -> String {
    use tonic_types::StatusExt;
    let info = status
        .get_details_error_info()
        .unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "gosync");
    info.reason
}

/// A detail of the protocol's own.
pub fn detail<M: Message + Default>(status: &Status, name: &str) -> M {
    let packed = tonic_types::Status::decode(status.details()).unwrap();
    let url = format!("type.googleapis.com/gosync.v1.{name}");
    let any = packed.details.iter().find(|d| d.type_url == url);
    M::decode(
        &*any
            .unwrap_or_else(|| panic!("no {name} in {status:?}"))
            .value,
    )
    .unwrap()
}
