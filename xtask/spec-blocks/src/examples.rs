//! Digests and fingerprints with every byte of what is hashed. Each is hashed a second time from the bytes that are
//! shown, so that the text cannot drift from the rules.

use anyhow::{Context, Result, ensure};
use gosync_proto::merkle::{self, Stream};
use gosync_proto::record::{BRANCH_TAG, RECORD_TAG};
use gosync_proto::{Content, Digest, Record};

use crate::dump::hex;
use crate::world::{put, sha256, tombstone};

/// A put and a tombstone with every byte of their digests' inputs.
pub fn digests() -> Result<String> {
    let mut out = String::from("```\n");
    for record in [
        put("todos\0t1\0title", 2, "\"Milk\"")?,
        tombstone("todos\0t2\0", 3)?,
    ] {
        out += &digest(&record)?;
        out.push('\n');
    }
    Ok(out.trim_end().to_owned() + "\n```")
}

/// The tree over three records: their keys' bits, and the input of each inner node.
pub fn fingerprint() -> Result<String> {
    let records = [put("a", 1, "1")?, put("ab", 2, "2")?, put("b", 3, "3")?];
    let mut stream = Stream::new();
    let mut out = String::from("```\n");
    for record in &records {
        let (key, digest) = (record.key.as_bytes(), record.digest());
        stream.push(key, digest)?;
        let bits: Vec<String> = (0..=key.len() as u32)
            .map(|byte| {
                (0..9)
                    .map(|at| {
                        if merkle::bit(key, byte * 9 + at) {
                            '1'
                        } else {
                            '0'
                        }
                    })
                    .collect()
            })
            .collect();
        out += &format!(
            "key {:<5} bits {}...\n      time {:?}, value {:?}\n      digest {}\n",
            format!("\"{}\"", record.key),
            bits.join(" "),
            record.version.time,
            String::from_utf8_lossy(record.content.value()),
            digest.to_hex(),
        );
    }
    let [a, ab, b] = records.map(|record| (record.key.as_bytes().to_vec(), record.digest()));
    let inner = node(&mut out, "{\"a\", \"ab\"}", &a, &ab, a.1, ab.1)?;
    let root = node(&mut out, "{\"a\", \"ab\", \"b\"}", &ab, &b, inner, b.1)?;
    ensure!(
        stream.finish().fingerprint == root,
        "the shown tree does not give the fingerprint"
    );
    Ok(out.trim_end().to_owned() + "\n```")
}

/// Shows the node that splits between the neighbours `below` and `above`.
fn node(
    out: &mut String,
    set: &str,
    below: &(Vec<u8>, Digest),
    above: &(Vec<u8>, Digest),
    left: Digest,
    right: Digest,
) -> Result<Digest> {
    let bit = merkle::critical_bit(&below.0, &above.0).context("the keys are equal")?;
    let input = [&BRANCH_TAG[..], &left.0, &right.0].concat();
    let fingerprint = sha256(input);
    ensure!(
        merkle::branch(&left, &right) == fingerprint,
        "the documented bytes do not hash to the fingerprint"
    );
    *out += &format!(
        "\nfp({set}): the keys first differ in bit {bit}\n  {}  \"gosync.v1.branch\"\n  {}\n  {}\n= {}\n",
        hex(BRANCH_TAG),
        left.to_hex(),
        right.to_hex(),
        fingerprint.to_hex()
    );
    Ok(fingerprint)
}

fn digest(record: &Record) -> Result<String> {
    let key = record.key.as_bytes();
    let parts: [(&str, Vec<u8>); 7] = [
        ("\"gosync.v1.record\"", RECORD_TAG.to_vec()),
        ("flags", record.content.flags().to_be_bytes().to_vec()),
        ("version.time", record.version.time.0.to_be_bytes().to_vec()),
        (
            "version.replica",
            record.version.replica.0.to_be_bytes().to_vec(),
        ),
        (
            "length of the key",
            (key.len() as u32).to_be_bytes().to_vec(),
        ),
        ("key", key.to_vec()),
        (
            "SHA-256 of the value, or zeros",
            record.content.value_hash().0.to_vec(),
        ),
    ];
    let input: Vec<u8> = parts.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    ensure!(
        sha256(input.clone()) == record.digest(),
        "the documented bytes do not hash to the digest"
    );
    let what = match &record.content {
        Content::Put(value) => format!(
            "put, value {} ({} bytes)",
            value.escape_ascii(),
            value.len()
        ),
        Content::Tombstone => "tombstone".to_owned(),
    };
    let mut out = format!(
        "key \"{}\", {what}\ntime {:?} = 0x{:016x}, replica {:?}\n",
        key.escape_ascii(),
        record.version.time,
        record.version.time.0,
        record.version.replica,
    );
    for (name, bytes) in parts {
        let mut chunks = bytes.chunks(16);
        let first = hex(chunks.next().unwrap_or_default());
        out += &format!("  {first:<34}{name}\n");
        for chunk in chunks {
            out += &format!("  {}\n", hex(chunk));
        }
    }
    out += &format!(
        "  {} bytes\ndigest {}\n",
        input.len(),
        record.digest().to_hex()
    );
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_example_shows_every_node() {
        assert_eq!(
            fingerprint().unwrap().matches("gosync.v1.branch").count(),
            2
        );
    }

    #[test]
    fn the_digest_example_shows_both_kinds_of_record() {
        let text = digests().unwrap();
        assert!(text.contains("put, value") && text.contains("tombstone"));
    }
}
