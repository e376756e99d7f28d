//! What a replica computes of its records: fingerprints of what is clean, and the
//! points at which the server held them.

use super::tools::{
    bend, calls, from_hello, granted, hello_says, reconciles, server_loses, settled, until,
};
use super::{others, same_as_server, sync_patiently, time};
use crate::client::context::pushed;
use crate::client::{Cx, Replica};
use crate::oracle::Record;
use crate::peer::{Action, Refusal, Script, Seen};
use crate::schema::v1;
use crate::suite::{Case, Need, Profile, Stop, positive};
use prost::Message;
use std::time::Duration;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "hello/fingerprints",
        profile: Profile::Heal,
        needs: &[Need::Reconcile, Need::Damage],
        about: "A replica with clean records, tombstones, unsent writes over some of them, and one that rotted says Hello.",
        checks: &[
            positive(
                "of-clean-records",
                &["MERKLE-003", "CLIENT-004"],
                "its fingerprint is that of the server's records, without what is unsent",
            ),
            positive(
                "without-damage",
                &["MERKLE-003", "MODEL-023"],
                "and, once it has read it, without the damaged one",
            ),
            positive(
                "horizon",
                &["HIST-030"],
                "each is sent with the horizon that the server told",
            ),
        ],
        run: |cx| Box::pin(fingerprints(cx)),
    },
    Case {
        name: "hello/fingerprints-of-ranges",
        profile: Profile::Heal,
        needs: &[Need::Reconcile, Need::Ranges],
        about: "A replica that holds the keys of two prefixes, beside whose ends others lie, says Hello again.",
        checks: &[
            positive(
                "arrive",
                &["MODEL-006"],
                "what lies in the ranges arrives, of keys below and above the byte 80",
            ),
            positive(
                "each",
                &["MERKLE-002"],
                "each fingerprint is that of the records in its range",
            ),
        ],
        run: |cx| Box::pin(fingerprints_of_ranges(cx)),
    },
    Case {
        name: "hello/another-horizon",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "The server compacted what the replica had followed.",
        checks: &[
            positive(
                "again",
                &["HELLO-027", "HELLO-032"],
                "a Hello follows with the fingerprint at the new horizon",
            ),
            positive(
                "equal",
                &["HIST-031"],
                "nothing is reconciled, and both sides hold the same",
            ),
        ],
        run: |cx| Box::pin(another_horizon(cx)),
    },
    Case {
        name: "hello/odd-answers",
        profile: Profile::Hardened,
        needs: &[Need::Reconcile],
        about: "Hello answers without a position, with an `equal` of another number, and with one at another horizon.",
        checks: &[
            positive(
                "position",
                &["HELLO-032"],
                "without a position it is a failed Hello: nothing else is called",
            ),
            positive(
                "equal",
                &["HELLO-032", "MERKLE-008"],
                "a wrong number of answers proves nothing: what differs is found all the same",
            ),
            positive(
                "lineage",
                &["EXT-004", "HELLO-032"],
                "a lineage of a later version is LINEAGE_UNKNOWN: the replica reconciles",
            ),
        ],
        run: |cx| Box::pin(odd_hello(cx)),
    },
    Case {
        name: "history/point-of-equality",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "The server begins a new history with the same records, which Hello finds equal; then some are deleted, and compacted.",
        checks: &[
            positive(
                "deleted",
                &["HELLO-030", "HIST-034"],
                "the records count as deleted, not as lost",
            ),
            positive("others-stay", &["HIST-035"], "the others stay"),
        ],
        run: |cx| Box::pin(points(cx, Way::Hello)),
    },
    Case {
        name: "history/point-of-reconcile",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "As before, but one record differs, and a session of Reconcile confirms the others.",
        checks: &[
            positive(
                "deleted",
                &["RECON-042", "HIST-034"],
                "the records count as deleted, not as lost",
            ),
            positive("others-stay", &["HIST-035"], "the others stay"),
        ],
        run: |cx| Box::pin(points(cx, Way::Reconcile)),
    },
    Case {
        name: "history/point-of-snapshot",
        profile: Profile::Core,
        needs: &[],
        about: "As before, of a server without Reconcile: a Snapshot confirms the records.",
        checks: &[
            positive(
                "deleted",
                &["SNAP-026", "HIST-034"],
                "the records count as deleted, not as lost",
            ),
            positive("others-stay", &["HIST-035"], "the others stay"),
        ],
        run: |cx| Box::pin(points(cx, Way::Snapshot)),
    },
    Case {
        name: "history/tombstone-of-another-history",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "The server is replaced by one that never heard of a deletion, and whose horizon lies above it.",
        checks: &[
            positive(
                "offered",
                &["HIST-032"],
                "the tombstone is offered, with its version",
            ),
            positive(
                "not-counted",
                &["HIST-029", "MERKLE-003"],
                "a fingerprint at the horizon leaves it out",
            ),
            positive(
                "gone",
                &["HIST-032"],
                "and the record is gone on both sides",
            ),
        ],
        run: |cx| Box::pin(foreign_tombstone(cx)),
    },
    Case {
        name: "history/quarantine-does-not-count",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "A record that the server lost, and that may not be written, is in quarantine.",
        checks: &[positive(
            "left-out",
            &["HIST-039", "MERKLE-003"],
            "the next Hello's fingerprint is that of the server's records",
        )],
        run: |cx| Box::pin(quarantine(cx)),
    },
    Case {
        name: "history/two-aside",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "A record goes into quarantine because the server went back to an older one, which it then lost as well.",
        checks: &[positive(
            "greater",
            &["HIST-046", "HIST-041"],
            "of the two in quarantine the greater stays, and is shown",
        )],
        run: |cx| Box::pin(two_aside(cx)),
    },
    Case {
        name: "history/damaged-and-lost",
        profile: Profile::Heal,
        needs: &[Need::Reconcile, Need::Damage],
        about: "The server lost a record, and the replica's copy of it rotted unnoticed.",
        checks: &[
            positive(
                "not-sent",
                &["MODEL-024", "MODEL-022"],
                "the spoilt content is never sent",
            ),
            positive("others", &["HIST-037"], "another lost record is offered"),
        ],
        run: |cx| Box::pin(damaged_and_lost(cx)),
    },
    Case {
        name: "history/damaged-and-sent",
        profile: Profile::Core,
        needs: &[Need::Damage],
        about: "Records rotted unnoticed; then a Snapshot brings them again, as they were.",
        checks: &[positive(
            "whole",
            &["MODEL-023"],
            "what comes takes the place of what rotted: the next read finds all of it",
        )],
        run: |cx| Box::pin(damaged_and_sent(cx)),
    },
    Case {
        name: "history/damage-known",
        profile: Profile::Core,
        needs: &[Need::Damage],
        about: "The replica read a record that rotted; the server offers no Reconcile, and the cursor is in order.",
        checks: &[
            positive("asked", &["CLIENT-047"], "the next session reconciles"),
            positive("healed", &["MODEL-023"], "and brings the record"),
        ],
        run: |cx| Box::pin(damage_known(cx)),
    },
    Case {
        name: "watch/shown-when-caught-up",
        profile: Profile::Core,
        needs: &[Need::Live],
        about: "A catch-up ends with the checkpoint; then the stream is silent for long.",
        checks: &[positive(
            "shown",
            &["WATCH-017"],
            "what came before the checkpoint is seen within a second",
        )],
        run: |cx| Box::pin(shown_when_caught_up(cx)),
    },
];

pub(super) async fn compact(cx: &Cx, before: u64) {
    let space = cx.space().to_owned();
    cx.server(|p| p.service.with_space(&space, |s| s.compact(before)))
        .await;
}

/// The fingerprint of all that the server holds, and its horizon.
pub(super) async fn of_server(cx: &Cx) -> (Vec<u8>, u64) {
    let space = cx.space().to_owned();
    cx.server(|p| {
        p.service.with_space(&space, |s| {
            (s.range_state(&v1::Range::default()).fingerprint, s.horizon)
        })
    })
    .await
}

/// The Hello requests from the call `before` on.
pub(super) async fn hellos(cx: &Cx, before: usize) -> Vec<v1::HelloRequest> {
    let seen = cx.seen().await;
    calls(&seen[before..], "Hello")
        .into_iter()
        .filter_map(|s| v1::HelloRequest::decode(s.message.as_slice()).ok())
        .collect()
}

async fn shows(replica: &Replica, key: &str) -> Result<bool, Stop> {
    Ok(replica.entries().await?.iter().any(|(k, _)| k == key))
}

async fn fingerprints(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&[Record::tombstone("gone", time(1), 77)])
        .await;
    cx.server_writes(&[Record::tombstone("kept", time(5_000), 77)])
        .await;
    cx.server_writes(&others(20)).await;
    compact(&cx, time(2_000)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    replica.put("mine", "unsent").await?;
    replica.put("k003", "unsent").await?;
    replica.delete("k004").await?;
    let before = cx.seen().await.len();
    let later = Refusal::new("UNAVAILABLE", "later");
    cx.server(|p| p.script(|s| s.always("Push", Action::Refuse(later))))
        .await;
    let _ = replica.try_sync(Duration::from_millis(400)).await?;
    let (want, horizon) = of_server(&cx).await;
    let first = hellos(&cx, before).await;
    cx.check(
        "of-clean-records",
        first.first().map(|h| &h.fingerprints) == Some(&vec![want]),
        "the fingerprint of the server's records",
        "another, or none",
    );
    let horizons: Vec<u64> = first.iter().map(|h| h.horizon).collect();
    cx.check(
        "horizon",
        !horizons.is_empty() && horizons.iter().all(|h| *h == horizon),
        horizon,
        format!("{horizons:?}"),
    );
    replica.damage("k007").await?;
    let _ = replica.entries().await?;
    let before = cx.seen().await.len();
    let _ = replica.try_sync(Duration::from_millis(1_500)).await?;
    let lost = cx
        .server_records()
        .await
        .into_iter()
        .find(|r| r.key == b"k007");
    let space = cx.space().to_owned();
    let want = cx
        .server(|p| {
            p.service.with_space(&space, |s| {
                let mut without = s.clone();
                without.records.remove(b"k007".as_slice());
                without.range_state(&v1::Range::default()).fingerprint
            })
        })
        .await;
    let next = hellos(&cx, before).await;
    let sent = next.first().map(|h| h.fingerprints.clone());
    let sent_text = format!("{sent:?}, not {want:?}");
    cx.check(
        "without-damage",
        lost.is_some() && sent.is_some_and(|f| f.is_empty() || f == [want]),
        "the fingerprint of the other records, or none",
        format!("{} Hellos, {sent_text}", next.len()),
    );
    Ok(())
}

async fn another_horizon(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&[Record::tombstone("gone", time(1), 77)])
        .await;
    let replica = settled(&cx, 20).await?;
    cx.server_writes(&[Record::put("later", time(9_000), 77, "v")])
        .await;
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    compact(&cx, time(5_000)).await;
    let (want, horizon) = of_server(&cx).await;
    let before = cx.seen().await.len();
    sync_patiently(&replica, &cx).await?;
    let again = hellos(&cx, before)
        .await
        .iter()
        .any(|h| h.horizon == horizon && h.fingerprints == [want.clone()]);
    cx.check("again", again, "such a Hello", "none");
    let seen = cx.seen().await;
    let heals = reconciles(&seen[before..]).len() + calls(&seen[before..], "Snapshot").len();
    cx.equal("equal", 0, heals);
    same_as_server(&cx, "equal", &replica).await
}

async fn fingerprints_of_ranges(cx: Cx) -> Result<(), Stop> {
    let keys: [&[u8]; 8] = [
        b"a",
        b"a/",
        b"a/1",
        b"a0",
        b"\x7f",
        b"\x80",
        b"\x80\xff",
        b"\x81",
    ];
    let records: Vec<Record> = keys
        .iter()
        .map(|key| Record::put(*key, time(1), 77, "v"))
        .collect();
    cx.server_writes(&records).await;
    let two = vec![b"a/".to_vec(), b"\x80".to_vec()];
    let replica = cx
        .open_with("a", "a", |open| open.key_prefixes = two)
        .await?;
    for _ in 0..4 {
        let _ = replica.try_sync(cx.patience()).await?;
    }
    let held = replica.contents().await?.entries.len();
    cx.equal("arrive", 4, held);
    let before = cx.seen().await.len();
    let _ = replica.try_sync(cx.patience()).await?;
    let Some(hello) = hellos(&cx, before).await.into_iter().next() else {
        return Err(Stop::Peer("no second Hello".into()));
    };
    let ranges: Vec<v1::Range> = hello
        .held
        .into_iter()
        .flat_map(|held| held.ranges)
        .collect();
    let space = cx.space().to_owned();
    let want: Vec<Vec<u8>> = cx
        .server(|p| {
            p.service.with_space(&space, |s| {
                let states = ranges.iter().map(|range| s.range_state(range));
                states.map(|state| state.fingerprint).collect()
            })
        })
        .await;
    let equal = hello.fingerprints == want && want.len() > 1;
    cx.check(
        "each",
        equal,
        "the fingerprints of the server's records there",
        format!("{:02x?}, not {want:02x?}", hello.fingerprints),
    );
    Ok(())
}

async fn odd_hello(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 20).await?;
    hello_says(&cx, |m| m.position = None).await;
    let before = cx.seen().await.len();
    let _ = replica.try_sync(Duration::from_millis(700)).await?;
    let seen = cx.seen().await;
    let own: Vec<&str> = from_hello(&seen[before..])
        .iter()
        .map(|s| s.method.as_str())
        .collect();
    let nothing_else = !own.is_empty() && own.iter().all(|m| *m == "Hello");
    cx.check(
        "position",
        nothing_else,
        "Hello and nothing else",
        format!("{own:?}"),
    );
    cx.server(|p| p.script(Script::clear)).await;
    sync_patiently(&replica, &cx).await?;
    server_loses(&cx, &["k003"]).await;
    cx.server_writes(&[Record::put("unheard", time(9_000), 77, "v")])
        .await;
    let head = super::tools::head(&cx).await;
    let before = cx.seen().await.len();
    let many = bend(|_, m: &mut v1::HelloResponse| m.equal = vec![true, true]);
    cx.server(|p| p.script(|s| s.next("Hello", many))).await;
    for _ in 0..3 {
        sync_patiently(&replica, &cx).await?;
    }
    let seen = cx.seen().await;
    let watch = seen[before..].iter().position(|s| s.method == "Watch");
    let early = super::tools::cursors(&seen)
        .into_iter()
        .filter(|(i, c)| Some(*i) == watch.map(|w| w + before) && c.sequence >= head.sequence)
        .count();
    cx.equal("equal", (21, 0), (cx.server_records().await.len(), early));
    let (first_heal, first_watch) = after_odd_lineage(&cx, &replica).await?;
    cx.check(
        "lineage",
        first_heal.is_some() && first_heal < first_watch,
        "a Reconcile or a Snapshot before the Watch",
        format!("{first_heal:?}, {first_watch:?}"),
    );
    cx.equal("lineage", 21, cx.server_records().await.len());
    Ok(())
}

/// The first Reconcile or Snapshot and the first Watch after an answer whose
/// lineage is of a later version. A client that had to say Hello again, as on a
/// busy machine, followed the ordinary answer: it is asked once more.
async fn after_odd_lineage(
    cx: &Cx,
    replica: &Replica,
) -> Result<(Option<usize>, Option<usize>), Stop> {
    let odd = || {
        bend(|_, m: &mut v1::HelloResponse| {
            m.held.iter_mut().for_each(|h| h.lineage = 9);
        })
    };
    let mut found = (None, None);
    for lost in ["k004", "k005", "k006"] {
        server_loses(cx, &[lost]).await;
        let before = cx.seen().await.len();
        cx.server(|p| p.script(|s| s.next("Hello", odd()))).await;
        sync_patiently(replica, cx).await?;
        sync_patiently(replica, cx).await?;
        let seen = cx.seen().await;
        let own = from_hello(&seen[before..]);
        let first = |methods: &[&str]| {
            own.iter()
                .position(|s| methods.contains(&s.method.as_str()))
        };
        found = (first(&["Reconcile", "Snapshot"]), first(&["Watch"]));
        if own.get(1).is_none_or(|next| next.method != "Hello") {
            break;
        }
    }
    Ok(found)
}

/// How a replica learns that it holds what a new history holds.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Hello,
    Reconcile,
    Snapshot,
}

async fn points(cx: Cx, way: Way) -> Result<(), Stop> {
    if way == Way::Snapshot {
        cx.server(|p| p.service.with_settings(|s| s.features.clear()))
            .await;
    }
    let replica = settled(&cx, 30).await?;
    cx.server(|p| p.service.wipe()).await;
    cx.server_writes(&others(30)).await;
    if way == Way::Reconcile {
        cx.server_writes(&[Record::put("k020", time(3_000), 77, "another")])
            .await;
    }
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    cx.server_writes(&[
        Record::tombstone("k001", time(1_000), 77),
        Record::tombstone("k002", time(1_000), 77),
    ])
    .await;
    cx.server_writes(&[Record::put("later", time(9_000), 77, "v")])
        .await;
    compact(&cx, time(5_000)).await;
    for _ in 0..3 {
        sync_patiently(&replica, &cx).await?;
    }
    let gone = !shows(&replica, "k001").await? && !shows(&replica, "k002").await?;
    let back = cx.server_records().await.iter().any(|r| r.key == b"k001");
    cx.check(
        "deleted",
        gone && !back,
        "neither here nor at the server",
        format!("gone here: {gone}, back at the server: {back}"),
    );
    cx.equal("others-stay", 29, replica.entries().await?.len());
    same_as_server(&cx, "others-stay", &replica).await
}

async fn foreign_tombstone(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 20).await?;
    let deleted = Record::tombstone("k002", time(1_000), 77);
    cx.server_writes(std::slice::from_ref(&deleted)).await;
    sync_patiently(&replica, &cx).await?;
    cx.server(|p| p.service.wipe()).await;
    // k002 among them, as it was before the deletion
    cx.server_writes(&others(20)).await;
    cx.server_writes(&[Record::put("later", time(9_000), 77, "v")])
        .await;
    compact(&cx, time(5_000)).await;
    let before = cx.seen().await.len();
    let space = cx.space().to_owned();
    // what both sides hold: the replica has not heard of the last write
    let (want, horizon) = cx
        .server(|p| {
            p.service.with_space(&space, |s| {
                let mut common = s.clone();
                common.records.remove(b"k002".as_slice());
                common.records.remove(b"later".as_slice());
                let state = common.range_state(&v1::Range::default());
                (state.fingerprint, s.horizon)
            })
        })
        .await;
    for _ in 0..4 {
        sync_patiently(&replica, &cx).await?;
    }
    let at_horizon = hellos(&cx, before).await.into_iter();
    let first = at_horizon
        .filter(|h| h.horizon == horizon)
        .map(|h| h.fingerprints)
        .next();
    let told = first.filter(|f| !f.is_empty());
    cx.check(
        "not-counted",
        told.as_ref().is_none_or(|f| *f == [want.clone()]),
        format!("{want:x?}"),
        format!("{told:x?}"),
    );
    let offered: Vec<Record> = pushed(&cx.seen().await)
        .into_iter()
        .map(|(_, r)| r)
        .filter(|r| r.key == b"k002")
        .collect();
    cx.check(
        "offered",
        offered.contains(&deleted),
        "the tombstone as it was",
        format!("{offered:?}"),
    );
    cx.equal("gone", false, shows(&replica, "k002").await?);
    same_as_server(&cx, "gone", &replica).await
}

async fn two_aside(cx: Cx) -> Result<(), Stop> {
    granted(&cx, v1::Access::Read as i32).await;
    let replica = settled(&cx, 20).await?;
    let space = cx.space().to_owned();
    cx.server(|p| {
        p.service.with_space(&space, |s| {
            if let Some(stored) = s.records.get_mut(b"k007".as_slice()) {
                stored.record = Record::put("k007", time(3), 77, "older");
            }
        });
    })
    .await;
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    server_loses(&cx, &["k007"]).await;
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    let contents = replica.contents().await?;
    let shown = contents.entries.into_iter().find(|e| e.key == b"k007");
    let shown = shown.map(|e| String::from_utf8_lossy(&e.value).into_owned());
    cx.equal(
        "greater",
        (1, Some("value 7".to_owned())),
        (contents.quarantined, shown),
    );
    Ok(())
}

async fn quarantine(cx: Cx) -> Result<(), Stop> {
    granted(&cx, v1::Access::Read as i32).await;
    let replica = settled(&cx, 40).await?;
    server_loses(&cx, &["k007"]).await;
    for _ in 0..3 {
        sync_patiently(&replica, &cx).await?;
    }
    let aside = replica.contents().await?.quarantined;
    let before = cx.seen().await.len();
    sync_patiently(&replica, &cx).await?;
    let (want, _) = of_server(&cx).await;
    let sent: Vec<Vec<Vec<u8>>> = hellos(&cx, before)
        .await
        .into_iter()
        .map(|h| h.fingerprints)
        .collect();
    cx.check(
        "left-out",
        aside == 1 && sent.first() == Some(&vec![want]),
        "one record aside, and the fingerprint of the server's records",
        format!("{aside} aside, and another"),
    );
    Ok(())
}

async fn damaged_and_lost(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 40).await?;
    replica.damage("k004").await?;
    server_loses(&cx, &["k004", "k005"]).await;
    for _ in 0..3 {
        sync_patiently(&replica, &cx).await?;
    }
    let sent = pushed(&cx.seen().await);
    let odd: Vec<&Record> = sent
        .iter()
        .map(|(_, r)| r)
        .filter(|r| r.key == b"k004" && r.value != b"value 4")
        .collect();
    cx.check(
        "not-sent",
        odd.is_empty(),
        "no such push",
        format!("{odd:?}"),
    );
    let other = sent.iter().any(|(_, r)| r.key == b"k005");
    cx.check("others", other, "k005", "it was not pushed");
    Ok(())
}

async fn damaged_and_sent(cx: Cx) -> Result<(), Stop> {
    cx.server(|p| p.service.with_settings(|s| s.features.clear()))
        .await;
    let replica = settled(&cx, 12).await?;
    for i in 0..10 {
        replica.damage(&format!("k{i:03}")).await?;
    }
    // another history, of the same records
    cx.server(|p| p.service.wipe()).await;
    cx.server_writes(&others(12)).await;
    let before = cx.seen().await.len();
    sync_patiently(&replica, &cx).await?;
    let came = calls(&cx.seen().await[before..], "Snapshot").len();
    let shown = replica.entries().await?.len();
    cx.check(
        "whole",
        came > 0 && shown == 12,
        "12 records after a Snapshot",
        format!("{shown} after {came}"),
    );
    Ok(())
}

async fn damage_known(cx: Cx) -> Result<(), Stop> {
    cx.server(|p| p.service.with_settings(|s| s.features.clear()))
        .await;
    let replica = settled(&cx, 10).await?;
    replica.damage("k004").await?;
    let _ = replica.entries().await?;
    let before = cx.seen().await.len();
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    let asked = calls(&cx.seen().await[before..], "Snapshot").len();
    cx.check("asked", asked > 0, "a Snapshot", "none");
    same_as_server(&cx, "healed", &replica).await
}

async fn shown_when_caught_up(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 5).await?;
    cx.server(|p| {
        p.service.with_settings(|s| {
            s.limits.heartbeat_interval_ms = 20_000;
            s.limits.watchdog_ms = 60_000;
        })
    })
    .await;
    cx.server_writes(&[Record::put("theirs", time(9_000), 77, "v")])
        .await;
    let before = cx.seen().await.len();
    replica.watch().await?;
    // not a stream of the session before, which may be seen late
    let caught_up = |watch: &&Seen| {
        let events = watch.answers.iter().map(|a| {
            let message = v1::WatchResponse::decode(a.as_slice());
            message.ok().and_then(|m| m.event)
        });
        let events: Vec<_> = events.flatten().collect();
        use v1::watch_response::Event;
        let changes = events.iter().any(|e| matches!(e, Event::Changes(_)));
        changes && events.iter().any(|e| matches!(e, Event::Checkpoint(_)))
    };
    let came = until(&cx, |seen| {
        let watches = calls(&seen[before..], "Watch");
        watches.iter().any(caught_up)
    })
    .await?;
    if !came {
        return Err(Stop::Peer("it asks for no Watch".into()));
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(1);
    let mut shown = false;
    while std::time::Instant::now() < deadline && !shown {
        shown = shows(&replica, "theirs").await?;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    cx.equal("shown", true, shown);
    Ok(())
}
