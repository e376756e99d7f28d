//! Input that no honest replica sends, and what must be ignored.

use crate::net::{Reply, framing};
use crate::oracle::{Code, Record};
use crate::schema::v1;
use crate::server::{Cx, Options, Space, everything, time};
use crate::suite::{Case, Profile, Stop, negative, positive};
use flate2::Compression;
use flate2::read::GzEncoder;
use prost::Message;
use std::io::Read;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "malformed/undecodable",
        profile: Profile::Hardened,
        needs: &[],
        about: "Bytes that are no message: cut off, a length beyond the end, an endless varint, a group that nobody closes, a wrong wire type, text that is not UTF-8.",
        checks: &[
            positive(
                "decodable",
                &["PUSH-010"],
                "the same message unharmed is applied",
            ),
            negative(
                "cut",
                "decodable",
                &["ERR-001", "ERR-004", "ERR-014"],
                "MALFORMED for a message that is cut off",
            ),
            negative(
                "length",
                "decodable",
                &["ERR-001", "ERR-004", "ERR-014"],
                "MALFORMED for a length beyond the end",
            ),
            negative(
                "varint",
                "decodable",
                &["ERR-001", "ERR-004", "ERR-014"],
                "MALFORMED for a varint of eleven bytes",
            ),
            negative(
                "group",
                "decodable",
                &["ERR-001", "ERR-004", "ERR-014"],
                "MALFORMED for a group without end, and for 100,000 of them, one in the other",
            ),
            negative(
                "wire-type",
                "decodable",
                &["ERR-001", "ERR-004", "ERR-014"],
                "MALFORMED for records as a varint",
            ),
            negative(
                "utf-8",
                "decodable",
                &["ERR-001", "ERR-004", "ERR-014"],
                "MALFORMED for a space that is not UTF-8",
            ),
        ],
        run: |cx| Box::pin(undecodable(cx)),
    },
    Case {
        name: "malformed/framing",
        profile: Profile::Hardened,
        needs: &[],
        about: "Requests that are no single gRPC frame: none, half of one, two of them, an unknown flag.",
        checks: &[
            positive("one-frame", &["TRANS-012"], "one frame is answered"),
            negative(
                "nothing",
                "one-frame",
                &["TRANS-001"],
                "a request without a message is not answered with OK",
            ),
            negative(
                "half",
                "one-frame",
                &["TRANS-001"],
                "half a frame is not answered with OK",
            ),
            negative(
                "flag",
                "one-frame",
                &["TRANS-001"],
                "a frame with an unknown flag is not answered with OK",
            ),
            positive("lives", &["TRANS-001"], "the server goes on serving"),
        ],
        run: |cx| Box::pin(bad_framing(cx)),
    },
    Case {
        name: "malformed/too-large",
        profile: Profile::Hardened,
        needs: &[],
        about: "A message over max_message_bytes, as it is and packed to a thousandth.",
        checks: &[
            positive(
                "within",
                &["LIMIT-002"],
                "a message a little below is applied",
            ),
            negative(
                "over",
                "within",
                &["LIMIT-003", "LIMIT-004"],
                "LIMIT_EXCEEDED, and nothing of it is stored",
            ),
            negative(
                "named",
                "within",
                &["LIMIT-005"],
                "LimitDetail names max_message_bytes and its value",
            ),
        ],
        run: |cx| Box::pin(too_large(cx)),
    },
    Case {
        name: "malformed/unknown-method",
        profile: Profile::Hardened,
        needs: &[],
        about: "A call that the service does not have.",
        checks: &[
            positive("known", &["TRANS-001"], "Hello is answered"),
            negative(
                "unknown",
                "known",
                &["TRANS-038"],
                "another name is UNIMPLEMENTED",
            ),
        ],
        run: |cx| Box::pin(unknown_method(cx)),
    },
    Case {
        name: "malformed/compressed",
        profile: Profile::Hardened,
        needs: &[],
        about: "A message in a compression that nobody has.",
        checks: &[
            positive(
                "plain",
                &["TRANS-012"],
                "without compression it is answered",
            ),
            negative(
                "unknown",
                "plain",
                &["TRANS-015", "TRANS-034"],
                "UNIMPLEMENTED for grpc-encoding conf-zip, with the server's own list",
            ),
        ],
        run: |cx| Box::pin(compressed(cx)),
    },
    Case {
        name: "extension/unknown-fields",
        profile: Profile::Core,
        needs: &[],
        about: "Requests of a later minor version: fields, enum values and metadata that nobody knows.",
        checks: &[
            positive(
                "fields",
                &["TRANS-030"],
                "unknown fields of every wire type are ignored",
            ),
            positive("in-records", &["TRANS-030"], "also within a record"),
            positive("metadata", &["TRANS-010"], "unknown metadata is ignored"),
            positive(
                "content-types",
                &["TRANS-003"],
                "each content type of the specification is accepted",
            ),
        ],
        run: |cx| Box::pin(unknown_fields(cx)),
    },
];

/// One field of each wire type, with numbers that nobody uses.
fn unknown() -> Vec<u8> {
    let mut bytes = vec![0xc0, 0x3e, 0x05]; // 1000: varint 5
    bytes.extend([0xc9, 0x3e, 1, 2, 3, 4, 5, 6, 7, 8]); // 1001: fixed64
    bytes.extend([0xd2, 0x3e, 3, b'a', b'b', b'c']); // 1002: bytes
    bytes.extend([0xdd, 0x3e, 1, 2, 3, 4]); // 1003: fixed32
    bytes
}

async fn undecodable(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    space
        .seed_as("decodable", &[Record::put("a", time(1), 1, "v")])
        .await?;
    let request = space
        .push_request(&[Record::put("b", time(2), 1, "v")])
        .encode_to_vec();
    let with = |tail: &[u8]| [request.as_slice(), tail].concat();
    let not_utf8 = [&[0x0a, 2, 0xc3, 0x28], &request[2 + space.id.len()..]].concat();
    for (check, bytes) in [
        ("cut", request[..request.len() - 3].to_vec()),
        ("length", with(&[0x12, 0x7f, 1])),
        (
            "varint",
            with(&[
                0xc0, 0x3e, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1,
            ]),
        ),
        ("group", with(&[0xc3, 0x3e, 0x08, 1])),
        // one in the other, deeper than any stack
        ("group", with(&[0xc3, 0x3e].repeat(100_000))),
        ("wire-type", with(&[0x10, 1])),
        ("utf-8", not_utf8),
    ] {
        let body = framing::encode(0, &bytes);
        let reply = cx.raw("Push", body, &Options::default()).await;
        space.refused(check, &reply, "MALFORMED").await;
    }
    Ok(())
}

/// A framing fault is not the protocol's business: any end but OK will do.
async fn bad_framing(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let request = space.hello_request(vec![]).encode_to_vec();
    let frame = framing::encode(0, &request);
    let options = Options {
        faulty: true,
        ..Options::default()
    };
    let answer = cx.hello(&space.hello_request(vec![])).await;
    cx.check(
        "one-frame",
        answer.message.is_some(),
        "an answer",
        answer.reply.summary(),
    );
    for (check, body) in [
        ("nothing", bytes::Bytes::new()),
        ("half", frame.slice(..frame.len() - 3)),
        ("flag", framing::encode(0x12, &request)),
    ] {
        let reply = cx.raw("Hello", body, &options).await;
        // silence is no answer either: something must come back
        let answered = reply.http_status != 0;
        cx.check(
            check,
            answered && !reply.is_ok(),
            "an answer that is not OK",
            format!("HTTP {}, {}", reply.http_status, reply.summary()),
        );
    }
    let answer = cx.hello(&space.hello_request(vec![])).await;
    cx.check(
        "lives",
        answer.message.is_some(),
        "an answer",
        answer.reply.summary(),
    );
    Ok(())
}

/// A Push that was compressed with gzip.
async fn packed_push(cx: &Cx, request: &[u8]) -> Result<Reply, Stop> {
    let mut packed = Vec::new();
    GzEncoder::new(request, Compression::best())
        .read_to_end(&mut packed)
        .map_err(|e| Stop::Suite(e.to_string()))?;
    let options = Options {
        faulty: true,
        metadata: vec![("grpc-encoding".into(), "gzip".into())],
        ..Options::default()
    };
    let body = framing::encode(framing::COMPRESSED, &packed);
    Ok(cx.raw("Push", body, &options).await)
}

async fn too_large(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let limits = cx.limits();
    let most = limits.max_message_bytes as usize;
    let piece = (limits.max_value_bytes as usize).min(60_000);
    let bare = space.push_request(&[]);
    let build = |total: usize, prefix: &str| {
        let mut request = bare.clone();
        let mut size = request.encoded_len();
        let mut i = 0;
        while size < total {
            let value = vec![7u8; piece.min(total - size)];
            let record = Record::put(format!("{prefix}{i}"), time(1), 1, value).to_wire();
            size += record.encoded_len() + 4;
            request.records.push(record);
            i += 1;
        }
        request
    };
    let within = build(most - piece.min(most / 2) - 1000, "a");
    if within.records.len() as u64 > limits.max_push_records {
        return Err(Stop::Suite(
            "the limits leave no message that is over one limit only".into(),
        ));
    }
    let answer = cx.push(&within).await;
    cx.check(
        "within",
        answer.message.is_some(),
        format!("an answer to {} bytes", within.encoded_len()),
        answer.reply.summary(),
    );
    for record in &within.records {
        if let Ok(record) = Record::from_wire(record) {
            space.expect(&record);
        }
    }
    let over = build(most + 2000, "b");
    let reply = cx.push(&over).await.reply;
    space.refused("over", &reply, "LIMIT_EXCEEDED").await;
    let much = (most * 15).min(32 << 20);
    let bomb = build(most + much, "c").encode_to_vec();
    let packed = packed_push(&cx, &bomb).await?;
    // whoever does not unpack it need not say how long it is
    if packed
        .status
        .as_ref()
        .is_none_or(|s| s.code != Code::Unimplemented as u32)
    {
        space.refused("over", &packed, "LIMIT_EXCEEDED").await;
    }
    let detail = reply
        .status
        .and_then(|s| s.detail::<v1::LimitDetail>("gosync.v1.LimitDetail"))
        .map(|d| (d.limit, d.allowed));
    cx.equal(
        "named",
        Some(("max_message_bytes".to_owned(), most as u64)),
        detail,
    );
    Ok(())
}

async fn unknown_method(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let answer = cx.hello(&space.hello_request(vec![])).await;
    cx.check(
        "known",
        answer.message.is_some(),
        "an answer",
        answer.reply.summary(),
    );
    let options = Options {
        faulty: true,
        ..Options::default()
    };
    let body = framing::encode(0, &[]);
    let reply = cx.raw("Teleport", body, &options).await;
    let code = reply.status.as_ref().map(|s| s.code);
    cx.equal("unknown", Some(12), code);
    Ok(())
}

async fn compressed(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    space
        .seed_as("plain", &[Record::put("a", time(1), 1, "v")])
        .await?;
    let options = Options {
        faulty: true,
        metadata: vec![("grpc-encoding".into(), "conf-zip".into())],
        ..Options::default()
    };
    let request = space
        .push_request(&[Record::put("b", time(1), 1, "v")])
        .encode_to_vec();
    let reply = cx
        .raw(
            "Push",
            framing::encode(framing::COMPRESSED, &request),
            &options,
        )
        .await;
    let state = space.as_expected().await;
    let code = reply.status.as_ref().map(|s| s.code);
    let listed = reply
        .headers
        .iter()
        .any(|(name, _)| name == "grpc-accept-encoding");
    cx.check(
        "unknown",
        code == Some(Code::Unimplemented as u32) && listed && state.is_ok(),
        "UNIMPLEMENTED with grpc-accept-encoding, and an unchanged space",
        format!("{}, {state:?}", reply.summary()),
    );
    Ok(())
}

async fn unknown_fields(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let record = Record::put("a", time(1), 1, "v");
    let mut request = space
        .push_request(std::slice::from_ref(&record))
        .encode_to_vec();
    request.extend(unknown());
    let reply = cx
        .raw("Push", framing::encode(0, &request), &Options::default())
        .await;
    cx.check("fields", reply.is_ok(), "OK", reply.summary());
    space.expect(&record);
    let inner = Record::put("b", time(1), 1, "v");
    let mut wire = inner.to_wire().encode_to_vec();
    wire.extend(unknown());
    let mut request = space.push_request(&[]).encode_to_vec();
    request.push(0x12);
    prost::encoding::encode_varint(wire.len() as u64, &mut request);
    request.extend(&wire);
    let reply = cx
        .raw("Push", framing::encode(0, &request), &Options::default())
        .await;
    space.expect(&inner);
    let state = space.as_expected().await;
    cx.check(
        "in-records",
        reply.is_ok() && state.is_ok(),
        "OK, and the record is there",
        format!("{}, {state:?}", reply.summary()),
    );
    let options = Options {
        metadata: vec![
            ("gosync-weather".into(), "fine".into()),
            ("x-anything-bin".into(), "AAEC".into()),
        ],
        ..Options::default()
    };
    let seen = cx
        .snapshot_with(&space.snapshot_request(vec![everything()]), &options)
        .await;
    cx.check(
        "metadata",
        seen.is_ok(),
        "a complete stream",
        format!("{:?}", seen.err()),
    );
    for content_type in cx.content_types() {
        let options = Options {
            content_type: Some((*content_type).into()),
            ..Options::default()
        };
        let body = framing::encode(0, &space.hello_request(vec![]).encode_to_vec());
        let reply = cx.raw("Hello", body, &options).await;
        cx.check(
            "content-types",
            reply.is_ok(),
            format!("OK for {content_type}"),
            format!("{} for {content_type}", reply.summary()),
        );
    }
    Ok(())
}
