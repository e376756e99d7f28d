//! A replica in one file: writes that never wait for the network, reads that
//! need none, and sync when there is a server.
//!
//! ```text
//! gosync-server serve --db sqlite:server.db            # in one terminal
//! cargo run -p gosync-client --example quickstart      # in another
//! cargo run -p gosync-client --example quickstart -- http://127.0.0.1:4000 other.db
//! ```
//! Run it without the server too: everything works, and arrives later.

use futures::StreamExt;
use gosync_client::documents::{DocumentId, Documents, collection_range};
use gosync_client::platform::TokioRuntime;
use gosync_client::store::SqliteStore;
use gosync_client::transport::GrpcTransport;
use gosync_client::{Client, Config};
use serde_json::json;
use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or("http://127.0.0.1:4000".into());
    let file = args.next().unwrap_or("quickstart.db".into());

    // 1. Open a store. Syncing begins in the background.
    let client = Client::open(
        SqliteStore::open(&file)?,
        GrpcTransport::new(&url)?,
        TokioRuntime::current()?,
        Config::new("quickstart")?,
    )
    .await?;
    let documents = Documents::new(client.clone());

    // 2. Write. It is durable on this device when the call returns.
    let id = format!("{:016x}", client.replica().0);
    let fields = BTreeMap::from([
        ("title".to_owned(), json!(format!("Milk for {file}"))),
        ("done".to_owned(), json!(false)),
    ]);
    let written = documents
        .put(DocumentId::new("todos", &id)?, fields)
        .await?;

    // 3. Read. Offline as well; `pending` tells what the server has not got.
    for d in documents.list("todos", "").await? {
        let pending = if d.pending { "  (pending)" } else { "" };
        println!("{} {:?}{pending}", d.id, d.fields);
    }

    // 4. Ask what the server made of it, but do not depend on it.
    match tokio::time::timeout(Duration::from_secs(5), written.server()).await {
        Ok(verdict) => println!("server: {:?}", verdict?),
        Err(_) => println!("no server at {url} yet; the write is kept and sent later"),
    }

    // 5. See the status, and what others write, as it comes.
    let mut changes = client.subscribe(collection_range("todos", "")?);
    let mut statuses = client.statuses();
    println!("watching for 10 seconds; run this example again with another file");
    let end = tokio::time::sleep(Duration::from_secs(10));
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            Some(s) = statuses.next() => println!(
                "status: {}, {} pending, verified: {}",
                s.connection.as_str(), s.pending, s.verified
            ),
            Some(_) = changes.next() => {
                println!("{} todos now", documents.list("todos", "").await?.len());
            }
        }
    }

    // 6. Close. Whatever has not arrived stays in the file for the next time.
    let waiting = client.close(false).await?;
    println!("closed; {waiting} writes still wait");
    Ok(())
}
