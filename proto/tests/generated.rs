//! The checked-in wire code is what the schema generates.
//! `GOSYNC_GENERATE=1 cargo test -p gosync-proto --test generated` rewrites it.

use std::path::Path;

const FILES: [&str; 2] = ["gosync.v1.rs", "gosync.v1.bin"];

#[test]
fn wire_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wire");
    std::fs::create_dir_all(&out).unwrap();
    let set = protox::compile(["gosync/v1/types.proto", "gosync/v1/sync.proto"], [root]).unwrap();
    tonic_prost_build::configure()
        .out_dir(&out)
        .file_descriptor_set_path(out.join("gosync.v1.bin"))
        .build_transport(false)
        .bytes(".gosync.v1.Record.value")
        .codec_path("crate::wire::StubCodec")
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .compile_fds(set.clone())
        .unwrap();
    std::fs::write(
        out.join("gosync.v1.bin"),
        prost::Message::encode_to_vec(&set),
    )
    .unwrap();
    let kept = root.join("src/wire");
    for file in FILES {
        let fresh = std::fs::read(out.join(file)).unwrap();
        if std::env::var_os("GOSYNC_GENERATE").is_some() {
            std::fs::write(kept.join(file), &fresh).unwrap();
        }
        let current = std::fs::read(kept.join(file)).unwrap_or_default();
        assert!(
            fresh == current,
            "src/wire/{file} is stale: run `cargo xtask generate`"
        );
    }
}
