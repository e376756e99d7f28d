//! Hello: versions, features, limits, grants, status, equality.

use crate::oracle::{CEILING, FLOOR, Record, fingerprint, limit_field};
use crate::schema::v1;
use crate::server::{Cx, Options, Space, everything, held, key_range, time};
use crate::suite::{Case, Profile, Stop, negative, positive};

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "hello/minimal",
        profile: Profile::Core,
        needs: &[],
        about: "A Hello for a space that nobody has used, without features and ranges.",
        checks: &[
            positive("version", &["HELLO-003"], "the answer chooses version 1"),
            positive(
                "clock",
                &["HELLO-012"],
                "the answer tells the server's wall clock",
            ),
            positive("limits", &["HELLO-013"], "the answer tells limits"),
            positive(
                "empty",
                &["MODEL-002"],
                "the unused space is an empty one: head at sequence 0",
            ),
            positive(
                "nothing-asked",
                &["HELLO-018", "HELLO-024"],
                "held and equal are empty, total_records is 0",
            ),
        ],
        run: |cx| Box::pin(minimal(cx)),
    },
    Case {
        name: "hello/features",
        profile: Profile::Core,
        needs: &[],
        about: "Known, unknown and no features are named.",
        checks: &[
            positive(
                "unknown-ignored",
                &["HELLO-009", "EXT-004"],
                "a feature number that nobody knows does no harm",
            ),
            positive(
                "only-named",
                &["HELLO-010"],
                "the answer names only features of the request",
            ),
            positive(
                "none-named",
                &["HELLO-010"],
                "to a request without features the answer names none",
            ),
        ],
        run: |cx| Box::pin(features(cx)),
    },
    Case {
        name: "hello/unsupported-version",
        profile: Profile::Core,
        needs: &[],
        about: "Versions with 1 among them, versions without it, and an empty list.",
        checks: &[
            positive(
                "highest-common",
                &["HELLO-003"],
                "of 1 and 4,000,000 version 1 is chosen",
            ),
            negative(
                "none-common",
                "highest-common",
                &["HELLO-004", "ERR-001", "ERR-002"],
                "UNSUPPORTED_VERSION when 1 is not offered",
            ),
            negative(
                "none-offered",
                "highest-common",
                &["HELLO-004"],
                "UNSUPPORTED_VERSION for an empty list",
            ),
            negative(
                "lists-own",
                "highest-common",
                &["HELLO-005", "ERR-003"],
                "the refusal's ServerDetail lists version 1",
            ),
        ],
        run: |cx| Box::pin(unsupported_version(cx)),
    },
    Case {
        name: "hello/version-metadata",
        profile: Profile::Core,
        needs: &[],
        about: "Push and Snapshot with the metadata gosync-version right, absent and wrong.",
        checks: &[
            positive(
                "right",
                &["HELLO-006", "HELLO-007"],
                "with gosync-version 1 the push is applied",
            ),
            negative(
                "absent",
                "right",
                &["HELLO-007"],
                "UNSUPPORTED_VERSION without the metadata",
            ),
            negative(
                "wrong",
                "right",
                &["HELLO-007"],
                "UNSUPPORTED_VERSION for gosync-version 77",
            ),
            negative(
                "no-number",
                "right",
                &["HELLO-007"],
                "UNSUPPORTED_VERSION for gosync-version one",
            ),
        ],
        run: |cx| Box::pin(version_metadata(cx)),
    },
    Case {
        name: "hello/limits",
        profile: Profile::Core,
        needs: &[],
        about: "The advertised limits are held against the floors.",
        checks: &[
            positive("floor", &["LIMIT-001"], "no limit is below its floor"),
            positive("ceiling", &["LIMIT-015"], "none is above its ceiling"),
            positive(
                "watchdog",
                &["WATCH-028"],
                "the watchdog is longer than the heartbeat interval",
            ),
        ],
        run: |cx| Box::pin(limits(cx)),
    },
    Case {
        name: "hello/grants",
        profile: Profile::Core,
        needs: &[],
        about: "The grants of the token that the other cases write with.",
        checks: &[positive(
            "listed",
            &["HELLO-014"],
            "a grant to write every key is listed",
        )],
        run: |cx| Box::pin(grants(cx)),
    },
    Case {
        name: "hello/status",
        profile: Profile::Core,
        needs: &[],
        about: "Entries without a cursor, with the head, with a foreign epoch, a wrong tag, and a sequence beyond the head.",
        checks: &[
            positive("absent", &["HIST-015"], "no cursor is SAME, mapped to 0"),
            positive(
                "head",
                &["HIST-005", "HIST-015"],
                "the head's cursor is SAME",
            ),
            positive(
                "foreign-epoch",
                &["HIST-015"],
                "a cursor of an epoch that never was is UNKNOWN",
            ),
            positive(
                "wrong-tag",
                &["HIST-004", "HIST-015"],
                "the head's sequence with another tag is UNKNOWN",
            ),
            positive(
                "beyond-head",
                &["HIST-018"],
                "a sequence beyond the head is UNKNOWN",
            ),
            positive(
                "in-order",
                &["HELLO-018"],
                "statuses come in the order of the entries",
            ),
            positive("not-refused", &["HELLO-019"], "none of them is refused"),
        ],
        run: |cx| Box::pin(status(cx)),
    },
    Case {
        name: "hello/newest-commit",
        profile: Profile::Core,
        needs: &[],
        about: "newest_commit names a commit that the server never made, while the cursor is good.",
        checks: &[
            positive(
                "good",
                &["HIST-016"],
                "a newest_commit that exists leaves the status SAME",
            ),
            positive(
                "worse-counts",
                &["HIST-016"],
                "a newest_commit that does not exist makes the status UNKNOWN",
            ),
        ],
        run: |cx| Box::pin(newest_commit(cx)),
    },
    Case {
        name: "hello/equal",
        profile: Profile::Heal,
        needs: &[],
        about: "Fingerprints of two ranges, of which one is right and one is not.",
        checks: &[
            positive(
                "compared",
                &["HELLO-026", "MERKLE-001", "MODEL-020"],
                "equal says true for the right fingerprint and false for the other",
            ),
            positive(
                "other-horizon",
                &["HELLO-025"],
                "equal is empty when the horizons differ",
            ),
            positive(
                "none-sent",
                &["HELLO-024"],
                "equal is empty when no fingerprints were sent",
            ),
            positive(
                "empty-range",
                &["MERKLE-001"],
                "the fingerprint of an empty range is 32 zero bytes",
            ),
        ],
        run: |cx| Box::pin(equal(cx)),
    },
    Case {
        name: "hello/fingerprint-form",
        profile: Profile::Hardened,
        needs: &[],
        about: "Fingerprints of a wrong length and a wrong number.",
        checks: &[
            positive(
                "one-each",
                &["HELLO-023"],
                "one fingerprint of 32 bytes for one range is accepted",
            ),
            negative(
                "short",
                "one-each",
                &["HELLO-023"],
                "MALFORMED for 31 bytes",
            ),
            negative(
                "too-many",
                "one-each",
                &["HELLO-023"],
                "MALFORMED for two fingerprints of one range",
            ),
        ],
        run: |cx| Box::pin(fingerprint_form(cx)),
    },
    Case {
        name: "hello/space-id",
        profile: Profile::Hardened,
        needs: &[],
        about: "Space ids with every legal kind of character, and with others.",
        checks: &[
            positive(
                "legal",
                &["MODEL-001"],
                "letters, digits, dot, underscore and hyphen are accepted",
            ),
            negative(
                "empty",
                "legal",
                &["MODEL-001"],
                "MALFORMED for the empty id",
            ),
            negative("slash", "legal", &["MODEL-001"], "MALFORMED for a slash"),
            negative(
                "umlaut",
                "legal",
                &["MODEL-001"],
                "MALFORMED for a letter outside ASCII",
            ),
            negative("long", "legal", &["MODEL-001"], "MALFORMED for 129 bytes"),
        ],
        run: |cx| Box::pin(space_id(cx)),
    },
];

async fn minimal(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let request = v1::HelloRequest {
        features: vec![],
        ..space.hello_request(vec![])
    };
    let answer = cx.hello(&request).await.good()?;
    cx.equal("version", 1, answer.version);
    // 2020 in milliseconds: the suite's own clock may be off, a year is not
    cx.check(
        "clock",
        answer.server_time_ms > 1_577_836_800_000,
        "Unix milliseconds after 2020",
        answer.server_time_ms,
    );
    cx.check(
        "limits",
        answer.limits.is_some_and(|l| l.max_message_bytes > 0),
        "limits",
        format!("{:?}", answer.limits),
    );
    let sequence = answer.position.and_then(|p| p.head).map(|h| h.sequence);
    cx.equal("empty", Some(0), sequence);
    cx.equal(
        "nothing-asked",
        (0, 0, 0),
        (answer.held.len(), answer.equal.len(), answer.total_records),
    );
    Ok(())
}

async fn features(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let ask = |features: Vec<i32>| v1::HelloRequest {
        features,
        ..space.hello_request(vec![])
    };
    let named = vec![2, 1, 77_777];
    let answer = cx.hello(&ask(named.clone())).await;
    cx.check(
        "unknown-ignored",
        answer.message.is_some(),
        "an answer",
        answer.reply.summary(),
    );
    let answer = answer.good()?;
    cx.check(
        "only-named",
        answer
            .features
            .iter()
            .all(|f| named.contains(f) && *f != 77_777),
        "features out of 1 and 2",
        format!("{:?}", answer.features),
    );
    let answer = cx.hello(&ask(vec![])).await.good()?;
    cx.equal("none-named", Vec::<i32>::new(), answer.features);
    let answer = cx.hello(&ask(vec![2])).await.good()?;
    cx.check(
        "only-named",
        answer.features.iter().all(|f| *f == 2),
        "features out of 2",
        format!("{:?}", answer.features),
    );
    Ok(())
}

async fn unsupported_version(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let ask = |versions: Vec<u32>| v1::HelloRequest {
        versions,
        ..space.hello_request(vec![])
    };
    let answer = cx.hello(&ask(vec![1, 4_000_000])).await;
    cx.equal("highest-common", Some(1), answer.message.map(|m| m.version));
    let none = cx.hello(&ask(vec![4_000_000])).await.reply;
    space
        .refused("none-common", &none, "UNSUPPORTED_VERSION")
        .await;
    let empty = cx.hello(&ask(vec![])).await.reply;
    space
        .refused("none-offered", &empty, "UNSUPPORTED_VERSION")
        .await;
    let versions = none
        .status
        .and_then(|s| s.detail::<v1::ServerDetail>("gosync.v1.ServerDetail"))
        .map(|d| d.versions);
    cx.check(
        "lists-own",
        versions.as_ref().is_some_and(|v| v.contains(&1)),
        "ServerDetail.versions with 1",
        format!("{versions:?}"),
    );
    Ok(())
}

async fn version_metadata(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let record = Record::put("a", time(1), 1, "v");
    let version = |v: Option<&str>| Options {
        version: v.map(str::to_owned),
        ..Options::default()
    };
    let right = space
        .push_with(std::slice::from_ref(&record), &version(Some("1")))
        .await;
    cx.check(
        "right",
        right.message.is_some(),
        "an answer",
        right.reply.summary(),
    );
    space.expect(&record);
    let second = Record::put("b", time(2), 1, "v");
    for (check, value) in [
        ("absent", None),
        ("wrong", Some("77")),
        ("no-number", Some("one")),
    ] {
        let reply = space
            .push_with(std::slice::from_ref(&second), &version(value))
            .await
            .reply;
        space.refused(check, &reply, "UNSUPPORTED_VERSION").await;
        let request = space.snapshot_request(vec![everything()]);
        let reply = cx
            .stream_to_end("Snapshot", &request, &version(value))
            .await;
        space.refused(check, &reply, "UNSUPPORTED_VERSION").await;
    }
    Ok(())
}

async fn limits(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let answer = cx.hello(&space.hello_request(vec![])).await.good()?;
    let limits = answer
        .limits
        .ok_or_else(|| Stop::Peer("Hello without limits".into()))?;
    let below: Vec<String> = FLOOR
        .iter()
        .filter_map(|(name, floor)| {
            let value = limit_field(&limits, name)?;
            // 0 says "no such limit" where the floor is 0
            (value < *floor).then(|| format!("{name} is {value}, the floor is {floor}"))
        })
        .collect();
    let above: Vec<String> = CEILING
        .iter()
        .filter_map(|(name, ceiling)| {
            let value = limit_field(&limits, name)?;
            (value > *ceiling).then(|| format!("{name} is {value}, the ceiling is {ceiling}"))
        })
        .collect();
    cx.check(
        "ceiling",
        above.is_empty(),
        "no limit above its ceiling",
        above.join("; "),
    );
    cx.check(
        "floor",
        below.is_empty(),
        "no limit below its floor",
        below.join("; "),
    );
    cx.check(
        "watchdog",
        limits.watchdog_ms > limits.heartbeat_interval_ms,
        "watchdog_ms above heartbeat_interval_ms",
        format!(
            "{} and {}",
            limits.watchdog_ms, limits.heartbeat_interval_ms
        ),
    );
    Ok(())
}

async fn grants(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let answer = cx.hello(&space.hello_request(vec![])).await.good()?;
    let full = answer
        .grants
        .iter()
        .any(|g| g.key_prefix.is_empty() && g.access() == v1::Access::Write);
    cx.check(
        "listed",
        full,
        "ACCESS_WRITE with an empty key_prefix",
        format!("{:?}", answer.grants),
    );
    Ok(())
}

async fn status(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let pushed = space.seed(&[Record::put("m", time(1), 1, "v")]).await?;
    let head = pushed
        .position
        .and_then(|p| p.head)
        .ok_or_else(|| Stop::Peer("Push without position.head".into()))?;
    let cursors = [
        None,
        Some(head),
        Some(v1::Cursor {
            epoch: !head.epoch,
            ..head
        }),
        Some(v1::Cursor {
            tag: !head.tag,
            ..head
        }),
        Some(v1::Cursor {
            sequence: head.sequence.saturating_add(1000),
            ..head
        }),
    ];
    let entries = cursors
        .iter()
        .enumerate()
        .map(|(i, cursor)| {
            let (start, end) = (vec![b'a' + 2 * i as u8], vec![b'b' + 2 * i as u8]);
            held(vec![key_range(start, end)], *cursor)
        })
        .collect();
    let answer = cx.hello(&space.hello_request(entries)).await;
    cx.check(
        "not-refused",
        answer.message.is_some(),
        "an answer",
        answer.reply.summary(),
    );
    let statuses = answer.good()?.held;
    // the head's is the only one that is mapped to anything
    let mapped: Vec<bool> = statuses.iter().map(|s| s.mapped_sequence > 0).collect();
    cx.equal("in-order", vec![false, true, false, false, false], mapped);
    let seen = |i: usize| statuses.get(i).map(|s| (s.lineage(), s.mapped_sequence));
    cx.equal("absent", Some((v1::Lineage::Same, 0)), seen(0));
    cx.equal("head", Some((v1::Lineage::Same, head.sequence)), seen(1));
    cx.equal("foreign-epoch", Some((v1::Lineage::Unknown, 0)), seen(2));
    cx.equal("wrong-tag", Some((v1::Lineage::Unknown, 0)), seen(3));
    cx.equal("beyond-head", Some((v1::Lineage::Unknown, 0)), seen(4));
    Ok(())
}

async fn newest_commit(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let pushed = space.seed(&[Record::put("m", time(1), 1, "v")]).await?;
    let head = pushed
        .position
        .and_then(|p| p.head)
        .ok_or_else(|| Stop::Peer("Push without position.head".into()))?;
    let ask = |newest: v1::Cursor| v1::HelloRequest {
        newest_commit: Some(newest),
        ..space.hello_request(vec![held(vec![everything()], Some(head))])
    };
    let lineage = |answer: v1::HelloResponse| answer.held.first().map(v1::HistoryStatus::lineage);
    let good = cx.hello(&ask(head)).await.good()?;
    cx.equal("good", Some(v1::Lineage::Same), lineage(good));
    let bad = v1::Cursor {
        sequence: head.sequence.saturating_add(5),
        tag: 99,
        ..head
    };
    let worse = cx.hello(&ask(bad)).await.good()?;
    cx.equal("worse-counts", Some(v1::Lineage::Unknown), lineage(worse));
    Ok(())
}

async fn equal(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let records: Vec<Record> = ["a", "ab", "b", "ba", "c"]
        .iter()
        .map(|k| Record::put(k, time(1), 1, format!("value of {k}")))
        .chain([Record::tombstone("bb", time(2), 1)])
        .collect();
    let answer = space.seed(&records).await?;
    let horizon = answer.position.map_or(0, |p| p.horizon);
    let ranges = vec![
        key_range("a", "b"),
        key_range("b", "c"),
        key_range("x", "y"),
    ];
    let fingerprints: Vec<Vec<u8>> = ranges.iter().map(|r| space.state(r).fingerprint).collect();
    let mut wrong = fingerprints.clone();
    wrong[1] = fingerprint(&[&records[0]]).to_vec();
    let ask = |horizon: u64, fingerprints: Vec<Vec<u8>>| v1::HelloRequest {
        horizon,
        fingerprints,
        ..space.hello_request(vec![held(ranges.clone(), None)])
    };
    let answer = cx.hello(&ask(horizon, wrong)).await.good()?;
    cx.equal("compared", vec![true, false, true], answer.equal);
    let answer = cx.hello(&ask(horizon, fingerprints.clone())).await.good()?;
    cx.equal("compared", vec![true, true, true], answer.equal.clone());
    cx.equal("empty-range", Some(true), answer.equal.get(2).copied());
    let answer = cx
        .hello(&ask(horizon.saturating_add(7), fingerprints))
        .await
        .good()?;
    cx.equal("other-horizon", Vec::<bool>::new(), answer.equal);
    let answer = cx.hello(&ask(horizon, vec![])).await.good()?;
    cx.equal("none-sent", Vec::<bool>::new(), answer.equal);
    Ok(())
}

async fn fingerprint_form(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let ask = |fingerprints: Vec<Vec<u8>>| v1::HelloRequest {
        fingerprints,
        ..space.hello_request(vec![held(vec![everything()], None)])
    };
    let answer = cx.hello(&ask(vec![vec![0; 32]])).await;
    cx.equal(
        "one-each",
        Some(vec![true]),
        answer.message.map(|m| m.equal),
    );
    let reply = cx.hello(&ask(vec![vec![0; 31]])).await.reply;
    space.refused("short", &reply, "MALFORMED").await;
    let reply = cx.hello(&ask(vec![vec![0; 32]; 2])).await.reply;
    space.refused("too-many", &reply, "MALFORMED").await;
    Ok(())
}

async fn space_id(cx: Cx) -> Result<(), Stop> {
    let legal = format!("{}.A_z-9", cx.fresh_space());
    let space = Space {
        id: legal,
        ..Space::fresh(&cx)
    };
    let answer = cx.hello(&space.hello_request(vec![])).await;
    cx.check(
        "legal",
        answer.message.is_some(),
        "an answer",
        answer.reply.summary(),
    );
    let long = "x".repeat(129);
    for (check, id) in [
        ("empty", ""),
        ("slash", "a/b"),
        ("umlaut", "ä"),
        ("long", long.as_str()),
    ] {
        let request = v1::HelloRequest {
            space: id.to_owned(),
            ..space.hello_request(vec![])
        };
        let reply = cx.hello(&request).await.reply;
        space.refused(check, &reply, "MALFORMED").await;
    }
    Ok(())
}
