//! Connections and what bounds them: silence, half a header, pings, deadlines,
//! compression.

use super::http::broken;
use crate::net::connection::{self, Idle, PREFACE, SETTINGS, kind};
use crate::net::{Wire, framing};
use crate::oracle::Record;
use crate::schema::v1;
use crate::server::{Cx, Options, Space, time};
use crate::suite::{Case, Profile, Stop, positive};
use flate2::Compression;
use flate2::read::GzEncoder;
use prost::Message;
use std::io::Read;
use std::time::Duration;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "connection/too-little",
        profile: Profile::Hardened,
        needs: &[],
        about: "Connections that say nothing, or a part of what they have to say, for up to a minute.",
        checks: &[
            positive("works", &["TRANS-001"], "one that says all is answered"),
            positive("nothing", &["TRANS-017"], "a silent one is closed"),
            positive(
                "half-preface",
                &["TRANS-017"],
                "one with half of HTTP/2's preface is closed",
            ),
            positive(
                "half-header",
                &["TRANS-017"],
                "one with half a header of HTTP/1.1 is closed",
            ),
            positive(
                "half-headers",
                &["TRANS-017"],
                "one with half a header of HTTP/2 is closed",
            ),
        ],
        run: |cx| Box::pin(too_little(cx)),
    },
    Case {
        name: "connection/idle",
        profile: Profile::Hardened,
        needs: &[],
        about: "An HTTP/2 connection without calls, which answers no pings.",
        checks: &[
            positive("pinged", &["TRANS-018"], "a ping comes within a minute"),
            positive(
                "closed",
                &["TRANS-035"],
                "and the end of the connection within another",
            ),
        ],
        run: |cx| Box::pin(idle(cx)),
    },
    Case {
        name: "connection/pinging",
        profile: Profile::Hardened,
        needs: &[],
        about: "A ping every 10 seconds, four of them.",
        checks: &[positive(
            "answered",
            &["TRANS-019"],
            "each is answered, and the connection stays",
        )],
        run: |cx| Box::pin(pinging(cx)),
    },
    Case {
        name: "connection/deadline",
        profile: Profile::Hardened,
        needs: &[],
        about: "Calls with a deadline of a minute, and of a nanosecond.",
        checks: &[
            positive("in-time", &["TRANS-027"], "the first are answered"),
            positive(
                "given-up",
                &["TRANS-027"],
                "the second are not: DEADLINE_EXCEEDED, or a call that is broken off",
            ),
            positive(
                "whole",
                &["TRANS-027", "PUSH-018"],
                "a Push that was given up is stored wholly or not at all",
            ),
        ],
        run: |cx| Box::pin(deadline(cx)),
    },
    Case {
        name: "connection/gzip",
        profile: Profile::Hardened,
        needs: &[],
        about: "A Push over gRPC, compressed with gzip.",
        checks: &[
            positive("plain", &["TRANS-012"], "uncompressed it is answered"),
            positive(
                "taken",
                &["TRANS-014"],
                "compressed it is answered, and stored, like any other",
            ),
        ],
        run: |cx| Box::pin(gzip(cx)),
    },
];

/// "Bounded" is not forever: the specification names no number.
const BOUNDED: Duration = Duration::from_secs(60);

/// What a replica may ping at (TRANS-019).
const PING_EVERY: Duration = Duration::from_secs(10);

async fn too_little(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let hello = cx.hello(&space.hello_request(vec![])).await;
    cx.check(
        "works",
        hello.message.is_some(),
        "an answer",
        hello.reply.summary(),
    );
    // the first field of a request, and no END_HEADERS
    let head = [0, 0, 1, kind::HEADERS, 0, 0, 0, 0, 1, 0x83];
    let path = crate::net::path("Hello");
    let tried = [
        ("nothing", Vec::new()),
        ("half-preface", PREFACE[..12].to_vec()),
        (
            "half-header",
            format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nx-slow: ").into_bytes(),
        ),
        ("half-headers", [PREFACE, &SETTINGS, &head].concat()),
    ];
    let endpoint = cx.target().endpoint();
    let closed = tried
        .iter()
        .map(|(_, says)| connection::closed_after(&endpoint, says, BOUNDED));
    let closed = futures::future::join_all(closed).await;
    for ((check, _), closed) in tried.iter().zip(closed) {
        let closed = closed.map_err(broken)?;
        cx.check(
            check,
            closed.is_some(),
            format!("closed within {BOUNDED:?}"),
            "open",
        );
    }
    Ok(())
}

async fn idle(cx: Cx) -> Result<(), Stop> {
    let Idle { pinged, closed } = connection::idle(&cx.target().endpoint(), BOUNDED)
        .await
        .map_err(broken)?;
    let within = format!("within {BOUNDED:?}");
    cx.check("pinged", pinged, format!("a ping {within}"), "none");
    cx.check("closed", closed, format!("the end {within}"), "still open");
    Ok(())
}

async fn pinging(cx: Cx) -> Result<(), Stop> {
    let endpoint = cx.target().endpoint();
    let answered = connection::ping(&endpoint, 4, PING_EVERY, cx.target().patience)
        .await
        .map_err(broken)?;
    cx.equal("answered", 4, answered);
    Ok(())
}

async fn deadline(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    space.seed(&[Record::put("k", time(1), 1, "v")]).await?;
    let within = |timeout: &str| Options {
        metadata: vec![("grpc-timeout".into(), timeout.into())],
        faulty: true,
        ..Options::default()
    };
    let hello = space.hello_request(vec![]);
    let pushed: Vec<Record> = ["x", "y", "z"]
        .map(|k| Record::put(k, time(2), 1, "v"))
        .into();
    let mut added = space.clone();
    pushed.iter().for_each(|r| added.expect(r));
    let reply = cx.stream_to_end("Hello", &hello, &within("1M")).await;
    cx.check("in-time", reply.is_ok(), "status OK", reply.summary());
    for (method, body) in [
        ("Hello", hello.encode_to_vec()),
        ("Push", space.push_request(&pushed).encode_to_vec()),
    ] {
        let body = framing::encode(0, &body);
        let reply = cx.raw(method, body, &within("1n")).await;
        // broken off, CANCELLED or DEADLINE_EXCEEDED
        let code = reply.status.as_ref().map(|s| s.code);
        cx.check(
            "given-up",
            matches!(code, None | Some(1 | 4)),
            "DEADLINE_EXCEEDED",
            format!("{method}: {}", reply.summary()),
        );
    }
    let (without, with) = (space.as_expected().await, added.as_expected().await);
    cx.check(
        "whole",
        without.is_ok() || with.is_ok(),
        "none of its records, or all",
        format!("{without:?}, {with:?}"),
    );
    let answer: v1::PushResponse = cx
        .unary("Push", &space.push_request(&pushed), &within("1M"))
        .await
        .good()?;
    cx.equal("in-time", pushed.len(), answer.verdicts.len());
    added.verify("whole").await;
    Ok(())
}

async fn gzip(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let plain = space.seed(&[Record::put("plain", time(1), 1, "v")]).await;
    cx.check("plain", plain.is_ok(), "an answer", "none");
    plain?;
    let record = Record::put("packed", time(1), 1, vec![b'a'; 5_000]);
    let request = space.push_request(std::slice::from_ref(&record));
    let mut packed = Vec::new();
    GzEncoder::new(request.encode_to_vec().as_slice(), Compression::fast())
        .read_to_end(&mut packed)
        .map_err(|e| Stop::Suite(e.to_string()))?;
    let options = Options {
        metadata: vec![("grpc-encoding".into(), "gzip".into())],
        ..Options::default()
    };
    let body = framing::encode(framing::COMPRESSED, &packed);
    let reply = cx.raw_over(Wire::Grpc, "Push", body, &options).await;
    space.expect(&record);
    let state = space.as_expected().await;
    cx.check(
        "taken",
        reply.is_ok() && state.is_ok(),
        "status OK, and the record is there",
        format!("{}, {state:?}", reply.summary()),
    );
    Ok(())
}
