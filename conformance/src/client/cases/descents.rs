//! How a replica leads a session of Reconcile: one salt, splits that split
//! nothing, many rounds; and totals of a Snapshot that are wrong.

use super::tools::{bend, calls, heal, runs, server_loses};
use super::{others, same_as_server, sync_patiently, time};
use crate::client::{Cx, Replica};
use crate::oracle::Record;
use crate::oracle::descent::{Ask, asked};
use crate::schema::v1;
use crate::suite::{Case, Need, Profile, Stop, positive};

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "reconcile/one-salt",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "A session that takes several requests, over ranges with many items.",
        checks: &[
            positive("several", &["RECON-055"], "there are several requests"),
            positive(
                "same",
                &["RECON-005"],
                "all requests of the session have one salt",
            ),
            positive(
                "shortest",
                &["RECON-001"],
                "their columns have no varint that is longer than it has to be",
            ),
        ],
        run: |cx| Box::pin(one_salt(cx)),
    },
    Case {
        name: "reconcile/split-into-one",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "The server answers parts that differ by a split into one part.",
        checks: &[
            positive(
                "finer",
                &["RECON-051"],
                "no question is asked twice in a session",
            ),
            positive("done", &["RECON-044"], "and the difference is found"),
        ],
        run: |cx| Box::pin(split_into_one(cx)),
    },
    Case {
        name: "reconcile/sixty-rounds",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "The server sends one record with each answer, sixty times.",
        checks: &[positive(
            "one-session",
            &["LIMIT-012"],
            "one session brings all of them",
        )],
        run: |cx| Box::pin(sixty_rounds(cx)),
    },
    Case {
        name: "snapshot/odd-totals",
        profile: Profile::Hardened,
        needs: &[],
        about: "SnapshotStart announces no records, then as many as a number can hold.",
        checks: &[positive(
            "all",
            &["SNAP-035", "SEC-012"],
            "the store holds what the server holds, each time",
        )],
        run: |cx| Box::pin(odd_totals(cx)),
    },
];

async fn settled(cx: &Cx, n: usize) -> Result<Replica, Stop> {
    cx.server(|p| {
        p.service
            .with_settings(|s| s.limits.max_push_records = 2_000)
    })
    .await;
    cx.server_writes(&others(n)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, cx).await?;
    Ok(replica)
}

/// Whether something was asked by its fingerprint: what is listed is resolved at
/// once, and a client may list as much in one request as the limits let it.
fn descends(runs: &[Vec<v1::ReconcileRequest>]) -> bool {
    let asked = runs.iter().flatten().filter_map(|r| asked(r).ok());
    asked
        .flatten()
        .any(|asked| asked.part.ask == Ask::Fingerprint)
}

async fn one_salt(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 900).await?;
    let before = cx.seen().await.len();
    server_loses(&cx, &["k100", "k850"]).await;
    heal(&cx, &replica).await?;
    let seen = cx.seen().await;
    let runs = runs(&seen[before..]);
    let longest = runs.iter().map(Vec::len).max().unwrap_or(0);
    cx.check(
        "several",
        longest > 1 || longest == 1 && !descends(&runs),
        "more than one, where fingerprints are asked",
        longest,
    );
    for run in &runs {
        let salts: Vec<u64> = run.iter().map(|r| r.salt).collect();
        cx.check(
            "same",
            salts.iter().all(|s| *s == salts[0]),
            "one salt",
            format!("{salts:x?}"),
        );
    }
    let malformed: Vec<String> = runs
        .iter()
        .flatten()
        .filter_map(|r| asked(r).err())
        .collect();
    let long = runs
        .iter()
        .flatten()
        .any(|r| r.parts.len() > 1 || r.parts.iter().any(|b| *b > 127));
    cx.check(
        "shortest",
        malformed.is_empty() && long,
        "well-formed columns, among them long ones",
        format!("{malformed:?}"),
    );
    Ok(())
}

/// Makes a split into one part of every split. `None` where there is none.
fn into_one(m: &v1::ReconcileResponse) -> Option<v1::ReconcileResponse> {
    // counts below 32 are single bytes, as small peers' are
    let split = |entry: &&u8| **entry & 3 == 1;
    let parts = m.parts.iter().filter(split).map(|e| usize::from(e >> 2));
    let all: usize = parts.clone().sum();
    if all == 0 {
        return None;
    }
    let width = m.digests.len() / all;
    let mut out = v1::ReconcileResponse {
        bounds: Vec::new(),
        digests: Vec::new(),
        ..m.clone()
    };
    let mut at = 0;
    for n in parts {
        out.digests.extend(&m.digests[at..at + width]);
        at += n * width;
    }
    for entry in out.parts.iter_mut().filter(|e| **e & 3 == 1) {
        *entry = 4 + 1;
    }
    Some(out)
}

async fn split_into_one(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 900).await?;
    let before = cx.seen().await.len();
    server_loses(&cx, &["k850"]).await;
    let action = bend(|_, m: &mut v1::ReconcileResponse| {
        if let Some(one) = into_one(m) {
            *m = one;
        }
    });
    cx.server(|p| p.script(|s| s.always("Reconcile", action)))
        .await;
    heal(&cx, &replica).await?;
    let seen = cx.seen().await;
    let all = runs(&seen[before..]);
    let columns =
        |r: &v1::ReconcileRequest| (r.salt, r.parts.clone(), r.bounds.clone(), r.digests.clone());
    let repeated = all
        .iter()
        .flat_map(|run| run.windows(2))
        .filter(|w| columns(&w[0]) == columns(&w[1]))
        .count();
    let several = all.iter().any(|run| run.len() > 1) || !all.is_empty() && !descends(&all);
    cx.check(
        "finer",
        several && repeated == 0,
        "several questions where fingerprints are asked, none twice",
        format!("several: {several}, {repeated} repeated"),
    );
    cx.equal("done", 900, cx.server_records().await.len());
    same_as_server(&cx, "done", &replica).await
}

async fn sixty_rounds(cx: Cx) -> Result<(), Stop> {
    // one value fills an answer
    cx.server(|p| {
        p.service
            .with_settings(|s| s.limits.max_response_bytes = 64 << 10)
    })
    .await;
    let replica = settled(&cx, 100).await?;
    let space = cx.space().to_owned();
    cx.server(|p| {
        p.service.with_space(&space, |s| {
            for i in 0..60 {
                let key = format!("untold{i:02}");
                let record = Record::put(&key, time(8_000), 78, vec![b'v'; 60_000]);
                let sequence = s.head().sequence;
                let stored = crate::peer::Stored { record, sequence };
                s.records.insert(key.into_bytes(), stored);
            }
        });
    })
    .await;
    let before = cx.seen().await.len();
    heal(&cx, &replica).await?;
    same_as_server(&cx, "one-session", &replica).await?;
    cx.equal("one-session", 160, replica.entries().await?.len());
    let seen = cx.seen().await;
    let sessions = runs(&seen[before..]);
    let most = sessions.iter().map(Vec::len).max().unwrap_or(0);
    let snapshots = calls(&seen[before..], "Snapshot").len();
    cx.check(
        "one-session",
        most >= 60 && snapshots == 0,
        "60 answers or more in a row, no Snapshot",
        format!("{most}, {snapshots} snapshots"),
    );
    Ok(())
}

async fn odd_totals(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(50)).await;
    for (name, total) in [("a", 0), ("b", u64::MAX)] {
        let action = bend(move |_, m: &mut v1::SnapshotResponse| {
            if let Some(v1::snapshot_response::Event::Start(start)) = &mut m.event {
                (start.total_records, start.total_bytes) = (total, total);
            }
        });
        let hello = bend(move |_, m: &mut v1::HelloResponse| m.total_records = total);
        cx.server(|p| {
            p.script(|s| {
                s.always("Snapshot", action);
                s.always("Hello", hello);
            })
        })
        .await;
        let replica = cx.open(name).await?;
        sync_patiently(&replica, &cx).await?;
        same_as_server(&cx, "all", &replica).await?;
    }
    Ok(())
}
