//! What travels around the calls: browsers' questions, headers for proxies,
//! HTTP/2 settings, shutting down, input that is no call.

use super::figures::side_by_side;
use crate::net::plain::{self, Page};
use crate::net::{self, framing};
use crate::oracle::{Record, reason_name};
use crate::schema::v1;
use crate::server::{Cx, Options, Space, TokenKind, everything, time};
use crate::suite::{Case, Need, Profile, Stop, negative, positive};
use bytes::Bytes;
use http_body_util::Full;
use prost::Message;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "http/preflight",
        profile: Profile::Core,
        needs: &[Need::GrpcWeb],
        about: "A page on this machine asks whether it may call, then calls; so does one from anywhere.",
        checks: &[
            positive(
                "works",
                &["TRANS-002", "TRANS-031"],
                "gRPC-web is served on the same port",
            ),
            positive(
                "origin",
                &["TRANS-023"],
                "the preflight allows its loopback origin",
            ),
            positive("method", &["TRANS-024"], "and the method POST"),
            positive(
                "headers",
                &["TRANS-024"],
                "and every header that a client may send",
            ),
            positive(
                "exposed",
                &["TRANS-025"],
                "the call's answer exposes grpc-status, grpc-message and grpc-status-details-bin",
            ),
            positive(
                "credentials",
                &["TRANS-026"],
                "credentials are not allowed for every origin",
            ),
        ],
        run: |cx| Box::pin(preflight(cx)),
    },
    Case {
        name: "http/web-over-http2",
        profile: Profile::Core,
        needs: &[Need::GrpcWeb],
        about: "A gRPC-web call over HTTP/2, on the port of gRPC.",
        checks: &[
            positive(
                "works",
                &["HELLO-003"],
                "over the ordinary way it is answered",
            ),
            positive(
                "answered",
                &["TRANS-002"],
                "over HTTP/2 it is as well, with trailers in the body",
            ),
        ],
        run: |cx| Box::pin(web_over_http2(cx)),
    },
    Case {
        name: "http/not-buffered",
        profile: Profile::Core,
        needs: &[],
        about: "What streams tell proxies.",
        checks: &[
            positive("streams", &["WATCH-018"], "Watch and Snapshot are served"),
            positive(
                "header",
                &["TRANS-022"],
                "with Cache-Control no-store and no-transform",
            ),
        ],
        run: |cx| Box::pin(not_buffered(cx)),
    },
    Case {
        name: "http/uncompressed",
        profile: Profile::Core,
        needs: &[],
        about: "A replica names no compression, and one that nobody has.",
        checks: &[
            positive(
                "none-named",
                &["TRANS-012", "TRANS-013"],
                "the answer is not compressed",
            ),
            positive("unknown-named", &["TRANS-013"], "nor is it then"),
        ],
        run: |cx| Box::pin(uncompressed(cx)),
    },
    Case {
        name: "http/concurrent-streams",
        profile: Profile::Hardened,
        needs: &[],
        about: "What the connection says about concurrent calls.",
        checks: &[
            positive(
                "told",
                &["HELLO-013"],
                "Hello tells max_streams_per_connection",
            ),
            positive("same", &["TRANS-016"], "the HTTP/2 SETTINGS say the same"),
        ],
        run: |cx| Box::pin(concurrent_streams(cx)),
    },
    Case {
        name: "http/shutdown",
        profile: Profile::Live,
        needs: &[Need::Stop, Need::Live],
        about: "The server is stopped in good order while a Watch is open.",
        checks: &[
            positive("open", &["WATCH-018"], "the stream is caught up"),
            positive(
                "end",
                &["TRANS-029", "WATCH-036", "WATCH-037"],
                "it ends with StreamEnd UNAVAILABLE and status OK",
            ),
        ],
        run: |cx| Box::pin(shutdown(cx)),
    },
    Case {
        name: "http/many-calls-at-once",
        profile: Profile::Hardened,
        needs: &[],
        about: "Sixty calls at once, some of which are broken off.",
        checks: &[positive(
            "all",
            &["SEC-008"],
            "each is answered as if it were alone",
        )],
        run: |cx| Box::pin(many_at_once(cx)),
    },
    Case {
        name: "security/garbage",
        profile: Profile::Hardened,
        needs: &[],
        about: "Random bytes as bodies of every call, half frames, and connections that are dropped.",
        checks: &[
            positive("before", &["PUSH-010"], "before, it works"),
            negative(
                "refused",
                "before",
                &["SEC-008"],
                "no garbage is answered with OK, and nothing is stored of it",
            ),
            positive("after", &["SEC-008"], "afterwards it works as before"),
        ],
        run: |cx| Box::pin(garbage(cx)),
    },
    Case {
        name: "security/nothing-told",
        profile: Profile::Hardened,
        needs: &[],
        about: "Refusals of every kind for requests that hold a secret value.",
        checks: &[
            positive(
                "good",
                &["PUSH-010"],
                "the same value is APPLIED where it is right",
            ),
            negative(
                "no-values",
                "good",
                &["ERR-006"],
                "no message and no detail repeats the value, or speaks of files or tables",
            ),
            positive(
                "reasons",
                &["ERR-001", "ERR-002", "ERR-004"],
                "each has a reason of the table and its status",
            ),
        ],
        run: |cx| Box::pin(nothing_told(cx)),
    },
    Case {
        name: "auth/every-call",
        profile: Profile::Core,
        needs: &[Need::Tokens],
        about: "Each of the five calls without a token.",
        checks: &[
            positive("with", &["HELLO-014"], "with one Hello succeeds"),
            negative(
                "without",
                "with",
                &["SEC-001", "TRANS-011"],
                "UNAUTHENTICATED, whatever the call",
            ),
        ],
        run: |cx| Box::pin(every_call(cx)),
    },
];

fn post() -> http::request::Builder {
    http::Request::builder()
        .method("POST")
        .header("content-type", "application/grpc-web+proto")
        .header("x-grpc-web", "1")
}

pub(super) fn broken(problem: impl std::fmt::Display) -> Stop {
    Stop::Peer(problem.to_string())
}

/// A Hello over gRPC-web, made by hand.
async fn web_hello(cx: &Cx, space: &Space, http2: bool, origin: &str) -> Result<Page, Stop> {
    let message = space.hello_request(vec![]).encode_to_vec();
    let mut request = post().uri(net::path("Hello")).header("origin", origin);
    if let Some(token) = &cx.target().tokens.full {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request
        .body(Full::new(framing::encode(0, &message)))
        .map_err(|e| Stop::Suite(e.to_string()))?;
    plain::request(
        &cx.target().endpoint(),
        http2,
        request,
        cx.target().patience,
    )
    .await
    .map_err(broken)
}

/// Whether a gRPC-web body ends with a trailers frame of status OK.
fn good(page: &Page) -> bool {
    let mut cutter = framing::Cutter::default();
    cutter.feed(&page.body);
    let mut trailers = Vec::new();
    while let Ok(Some(frame)) = cutter.cut() {
        if frame.flags & framing::TRAILERS != 0 {
            trailers = framing::parse_trailers(&frame.payload).unwrap_or_default();
        }
    }
    page.status == 200 && trailers.iter().any(|(n, v)| n == "grpc-status" && v == "0")
}

async fn preflight(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let origin = "http://localhost:5173";
    let called = web_hello(&cx, &space, false, origin).await?;
    cx.check("works", good(&called), "status OK", called.status);
    let wanted = [
        "authorization",
        "content-type",
        "gosync-version",
        "grpc-accept-encoding",
        "grpc-encoding",
        "grpc-timeout",
        "x-grpc-web",
        "x-user-agent",
    ];
    let request = http::Request::builder()
        .method("OPTIONS")
        .uri(net::path("Hello"))
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", wanted.join(","))
        .body(Full::default())
        .map_err(|e| Stop::Suite(e.to_string()))?;
    let endpoint = cx.target().endpoint();
    let asked = plain::request(&endpoint, false, request, cx.target().patience)
        .await
        .map_err(broken)?;
    let origins = asked.list("access-control-allow-origin");
    cx.check(
        "origin",
        asked.status < 300 && origins.iter().any(|o| o == origin || o == "*"),
        origin,
        format!("{} {origins:?}", asked.status),
    );
    let methods = asked.list("access-control-allow-methods");
    cx.check(
        "method",
        methods.iter().any(|m| m == "post" || m == "*"),
        "POST",
        format!("{methods:?}"),
    );
    let headers = asked.list("access-control-allow-headers");
    let star = headers.iter().any(|h| h == "*");
    let missing: Vec<&str> = wanted
        .into_iter()
        // a star does not cover authorization
        .filter(|w| !headers.iter().any(|h| h == w) && (!star || *w == "authorization"))
        .collect();
    cx.check(
        "headers",
        missing.is_empty(),
        "all of them",
        format!("without {missing:?}"),
    );
    let exposed = called.list("access-control-expose-headers");
    let missing: Vec<&str> = ["grpc-status", "grpc-message", "grpc-status-details-bin"]
        .into_iter()
        .filter(|w| !exposed.iter().any(|h| h == w || h == "*"))
        .collect();
    cx.check(
        "exposed",
        missing.is_empty(),
        "all three",
        format!("without {missing:?}"),
    );
    // whoever lets a page in that nobody can have listed lets every page in
    let stranger = format!("https://conf-{:016x}.example", cx.random());
    let strange = web_hello(&cx, &space, false, &stranger).await?;
    let says = |page: &Page, name: &str, value: &str| page.list(name).iter().any(|v| v == value);
    let pages = [&asked, &called, &strange];
    let to_all = says(&strange, "access-control-allow-origin", &stranger)
        || pages
            .iter()
            .any(|p| says(p, "access-control-allow-origin", "*"));
    let credentials = |p: &&Page| says(p, "access-control-allow-credentials", "true");
    cx.check(
        "credentials",
        !(to_all && pages.iter().any(credentials)),
        "not for every origin",
        "true, and every origin is allowed",
    );
    Ok(())
}

async fn web_over_http2(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let hello = cx.hello(&space.hello_request(vec![])).await;
    cx.check(
        "works",
        hello.message.is_some(),
        "an answer",
        hello.reply.summary(),
    );
    let page = web_hello(&cx, &space, true, "http://localhost:5173").await?;
    cx.check(
        "answered",
        good(&page),
        "status OK in a trailers frame",
        page.status,
    );
    Ok(())
}

async fn not_buffered(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let options = Options::default();
    let watch = space.catch_up_request(None);
    let watch = cx.stream_to_end("Watch", &watch, &options).await;
    let snapshot = space.snapshot_request(vec![everything()]);
    let snapshot = cx.stream_to_end("Snapshot", &snapshot, &options).await;
    for reply in [watch, snapshot] {
        cx.check("streams", reply.is_ok(), "status OK", reply.summary());
        let all: Vec<String> = reply
            .headers
            .iter()
            .filter(|(n, _)| n == "cache-control")
            .flat_map(|(_, v)| v.split(','))
            .map(|v| v.trim().to_ascii_lowercase())
            .collect();
        let said = ["no-store", "no-transform"]
            .iter()
            .all(|w| all.iter().any(|h| h == w));
        cx.check("header", said, "no-store, no-transform", format!("{all:?}"));
    }
    Ok(())
}

async fn uncompressed(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    space
        .seed(&[Record::put("k", time(1), 1, vec![b'a'; 60_000])])
        .await?;
    let request = space.snapshot_request(vec![everything()]);
    for (check, accept) in [("none-named", None), ("unknown-named", Some("no-such"))] {
        let metadata = accept.map(|a| ("grpc-accept-encoding".to_owned(), a.to_owned()));
        let options = Options {
            metadata: metadata.into_iter().collect(),
            ..Options::default()
        };
        let reply = cx.stream_to_end("Snapshot", &request, &options).await;
        let encoding = reply.headers.iter().find(|(n, _)| n == "grpc-encoding");
        let plain = encoding.is_none_or(|(_, v)| v == "identity");
        cx.check(
            check,
            reply.is_ok() && reply.problems.is_empty() && plain,
            "messages as they are",
            format!("{} {encoding:?}", reply.summary()),
        );
    }
    Ok(())
}

async fn concurrent_streams(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let hello = cx.hello(&space.hello_request(vec![])).await.good()?;
    let told = hello.limits.map_or(0, |l| l.max_streams_per_connection);
    cx.check("told", told > 0, "a limit", told);
    let said = plain::concurrent_streams(&cx.target().endpoint(), cx.target().patience)
        .await
        .map_err(broken)?;
    cx.equal("same", Some(told), said.map(u64::from));
    Ok(())
}

async fn shutdown(cx: Cx) -> Result<(), Stop> {
    use v1::watch_response::Event;
    let space = Space::fresh(&cx);
    let request = v1::WatchRequest {
        until_caught_up: false,
        ..space.catch_up_request(None)
    };
    let mut stream = cx.open("Watch", &request, &Options::default()).await;
    let open = stream.until_checkpoint().await;
    cx.check("open", open.is_ok(), "a checkpoint", "none");
    let stopping = cx.clone();
    let stopped = tokio::spawn(async move { stopping.stop_server().await });
    let mut end = None;
    for _ in 0..100 {
        match stream.event().await {
            Ok(Event::End(e)) => {
                end = Some(reason_name(e.reason));
                break;
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    cx.equal("end", Some("UNAVAILABLE"), end);
    let after = stream.bytes().await.is_err();
    cx.check(
        "end",
        after && stream.reply().is_ok(),
        "nothing more, and status OK",
        stream.reply().summary(),
    );
    let result = stopped.await.map_err(|e| Stop::Suite(e.to_string()));
    cx.start_server().await?;
    result?
}

async fn many_at_once(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let calls = (0..60u64).map(|i| {
        let (cx, space) = (cx.clone(), space.clone());
        async move {
            if i % 5 == 4 {
                let request = space.catch_up_request(None);
                drop(cx.open("Watch", &request, &Options::default()).await);
                return true;
            }
            let record = Record::put(format!("k{i:02}"), time(i), i, "v");
            let answer = space.push_with(&[record], &side_by_side()).await;
            answer.message.is_some_and(|a| {
                a.verdicts.first().map(v1::Verdict::outcome) == Some(v1::Outcome::Applied)
            })
        }
    });
    let answered = futures::future::join_all(calls).await;
    let good = answered.iter().filter(|a| **a).count();
    cx.check("all", good == 60, "60 of 60", good);
    let mut expected = space.clone();
    for i in (0..60u64).filter(|i| i % 5 != 4) {
        expected.expect(&Record::put(format!("k{i:02}"), time(i), i, "v"));
    }
    expected.verify("all").await;
    Ok(())
}

async fn garbage(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let record = Record::put("k", time(1), 1, "v");
    space.seed_as("before", &[record]).await?;
    let options = Options {
        faulty: true,
        ..Options::default()
    };
    for method in ["Hello", "Push", "Watch", "Snapshot", "Reconcile"] {
        for n in 0..4u64 {
            let length = 1 + cx.below(300) as usize;
            let mut bytes: Vec<u8> = (0..length).map(|_| cx.random() as u8).collect();
            // a first tag of a wire type that does not exist: never a message
            bytes[0] = 0x0f;
            let body = match n {
                0 => Bytes::from(bytes),
                _ => framing::encode(0, &bytes),
            };
            let cut = body.len().saturating_sub(usize::from(n == 1));
            let reply = cx.raw(method, body.slice(..cut), &options).await;
            cx.check(
                "refused",
                !reply.is_ok(),
                "no status OK",
                format!("{method}: {}", reply.summary()),
            );
        }
    }
    let state = space.as_expected().await;
    cx.check(
        "refused",
        state.is_ok(),
        "an unchanged space",
        format!("{state:?}"),
    );
    space.seed(&[Record::put("l", time(2), 1, "v")]).await?;
    space.verify("after").await;
    Ok(())
}

async fn nothing_told(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let secret = "correct-horse-battery-staple";
    space.seed(&[Record::put("k", time(1), 1, secret)]).await?;
    space.verify("good").await;
    let record = |key: &str, time: u64| Record::put(key, time, 1, secret);
    let mut texts = Vec::new();
    let bad = [
        record("", time(1)),
        record("end", u64::MAX),
        Record {
            flags: 6,
            ..record("flags", time(1))
        },
        Record {
            flags: 1,
            ..record("tombstone", time(1))
        },
    ];
    let answer = space.push(&bad).await.good()?;
    texts.extend(answer.verdicts.iter().map(|v| v.detail.clone()));
    let mut replies = vec![
        space
            .push(&[record("a", time(1)), record("a", time(2))])
            .await
            .reply,
        cx.push(&v1::PushRequest {
            space: "no space id!".into(),
            ..space.push_request(&[record("a", time(1))])
        })
        .await
        .reply,
    ];
    let wrong_version = Options {
        version: Some("99".into()),
        ..Options::default()
    };
    replies.push(
        space
            .push_with(&[record("a", time(1))], &wrong_version)
            .await
            .reply,
    );
    let no_ranges = v1::WatchRequest {
        held: vec![],
        ..space.catch_up_request(None)
    };
    replies.push(
        cx.stream_to_end("Watch", &no_ranges, &Options::default())
            .await,
    );
    for reply in &replies {
        let Some(status) = &reply.status else {
            return Err(Stop::Peer(reply.summary()));
        };
        texts.push(status.message.clone());
        texts.extend(
            status
                .details
                .iter()
                .map(|d| String::from_utf8_lossy(&d.value).into_owned()),
        );
        let code = crate::oracle::status_of(&status.reason).map(|c| c as u32);
        cx.check(
            "reasons",
            code == Some(status.code),
            "a reason of the table, and its status",
            status,
        );
    }
    let told = |word: &str| {
        texts
            .iter()
            .find(|t| t.to_ascii_lowercase().contains(word))
            .cloned()
    };
    for word in [
        secret, ".db", "sqlite", "select ", "panicked", "/tmp", ".rs:",
    ] {
        let found = told(word);
        cx.check(
            "no-values",
            found.is_none(),
            format!("nothing like {word:?}"),
            found.unwrap_or_default(),
        );
    }
    Ok(())
}

async fn every_call(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let hello = cx.hello(&space.hello_request(vec![])).await;
    cx.check(
        "with",
        hello.message.is_some(),
        "an answer",
        hello.reply.summary(),
    );
    let options = Options {
        token: TokenKind::None,
        ..Options::default()
    };
    let reconcile = v1::ReconcileRequest {
        space: space.id.clone(),
        ..v1::ReconcileRequest::default()
    };
    let replies = [
        cx.stream_to_end("Hello", &space.hello_request(vec![]), &options)
            .await,
        cx.stream_to_end("Push", &space.push_request(&[]), &options)
            .await,
        cx.stream_to_end("Watch", &space.catch_up_request(None), &options)
            .await,
        cx.stream_to_end(
            "Snapshot",
            &space.snapshot_request(vec![everything()]),
            &options,
        )
        .await,
        cx.stream_to_end("Reconcile", &reconcile, &options).await,
    ];
    for reply in &replies {
        space.refused("without", reply, "UNAUTHENTICATED").await;
    }
    Ok(())
}
