//! The worked session of chapter 18, acted out: what each message of it says, and what each side holds in between.

mod sides;

use anyhow::{Context, Result, ensure};
use gosync_proto::version::Time;
use gosync_proto::{Content, Key, Record, wire};
use prost::Message;

use crate::dump::{self, hex};
use crate::world::NOW_MS;
use sides::{Replica, Server};

const MINUTE: u64 = 60_000;
const LAPTOP: u64 = 0x0102_0304_0506_0708;
const PHONE: u64 = 0x1112_1314_1516_1718;
/// Salts have to be random; these are written down so that the page stays the same.
const SALTS: [u64; 2] = [0x5eed_0123_4567_89ab, 0x5eed_ba98_7654_3210];

/// The block of that name.
pub fn block(name: &str) -> Result<String> {
    let story = Story::act()?;
    let found = story.blocks.into_iter().find(|(known, _)| known == name);
    let (_, text) = found.with_context(|| format!("the session has no part `{name}`"))?;
    Ok(text)
}

#[derive(Default)]
struct Story {
    blocks: Vec<(String, String)>,
}

impl Story {
    fn act() -> Result<Story> {
        let mut story = Story::default();
        let (mut server, mut laptop, mut phone) =
            (Server::default(), Replica::new(LAPTOP), Replica::new(PHONE));

        // before the page begins: the phone made the space
        phone.write(NOW_MS, "bread", Some("rye"))?;
        phone.write(NOW_MS, "milk", Some("1 litre"))?;
        let made = server.push(&phone.push(), NOW_MS)?;
        phone.verdicts(&made)?;
        for message in server.watch(&phone.watch(), NOW_MS) {
            phone.watched(&message)?;
        }
        story.state("start", &server, &laptop, &phone);

        let at = NOW_MS + 5 * MINUTE;
        let answer = story.hello("first-hello", "Laptop", &laptop, &server, at)?;
        ensure!(answer.equal == [false], "an empty replica differs");
        let request = laptop.snapshot();
        let stream = server.snapshot(&request);
        laptop.copied(&stream)?;
        let mut said = vec![(
            "Laptop to server",
            "SnapshotRequest",
            request.encode_to_vec(),
        )];
        said.extend(
            stream
                .iter()
                .map(|m| ("Server to laptop", "SnapshotResponse", m.encode_to_vec())),
        );
        story.exchange("first-snapshot", &said)?;
        story.state("first", &server, &laptop, &phone);

        // both are offline
        laptop.write(NOW_MS + 10 * MINUTE, "milk", Some("2 litres"))?;
        laptop.write(NOW_MS + 11 * MINUTE, "bread", None)?;
        phone.write(NOW_MS + 20 * MINUTE, "milk", Some("oat milk"))?;
        phone.write(NOW_MS + 21 * MINUTE, "eggs", Some("12"))?;
        story.state("offline", &server, &laptop, &phone);

        story.push(
            "phone-push",
            "Phone",
            &mut phone,
            &mut server,
            NOW_MS + 25 * MINUTE,
        )?;
        story.push(
            "laptop-push",
            "Laptop",
            &mut laptop,
            &mut server,
            NOW_MS + 30 * MINUTE,
        )?;
        let request = laptop.watch();
        let stream = server.watch(&request, NOW_MS + 30 * MINUTE + 100);
        let mut said = vec![("Laptop to server", "WatchRequest", request.encode_to_vec())];
        for message in &stream {
            laptop.watched(message)?;
            said.push(("Server to laptop", "WatchResponse", message.encode_to_vec()));
        }
        story.exchange("laptop-watch", &said)?;
        ensure!(
            laptop.fingerprint() == server.fingerprint(),
            "the laptop is verified"
        );
        story.state("conflict", &server, &laptop, &phone);

        // a bit of the laptop's disk flips
        let eggs = Key::new(*b"eggs")?;
        let (whole, _) = laptop.clean.remove(&eggs).context("the laptop has eggs")?;
        story.damage("damage", &whole)?;
        let at = NOW_MS + 40 * MINUTE;
        let answer = story.hello("heal-hello", "Laptop", &laptop, &server, at)?;
        ensure!(answer.equal == [false], "the damage shows");
        story.reconcile("heal-reconcile", "Laptop", &mut laptop, &server, SALTS[0])?;
        let answer = story.hello("heal-confirm", "Laptop", &laptop, &server, at + 200)?;
        ensure!(answer.equal == [true], "the laptop is healed");

        // the tombstone's time has come
        server.compact(Time::from_millis(NOW_MS + 15 * MINUTE))?;
        story.state("compacted", &server, &laptop, &phone);
        let at = NOW_MS + 60 * MINUTE;
        let answer = story.hello("laptop-horizon", "Laptop", &laptop, &server, at)?;
        ensure!(
            answer.equal.is_empty() && !answer.held[0].behind_compaction,
            "another horizon"
        );
        laptop.learn_horizon(answer.position.context("a position")?.horizon);
        let answer = story.hello("laptop-again", "Laptop", &laptop, &server, at + 100)?;
        ensure!(answer.equal == [true], "only the tombstone went");

        let at = NOW_MS + 90 * MINUTE;
        let answer = story.hello("phone-horizon", "Phone", &phone, &server, at)?;
        ensure!(
            answer.held[0].behind_compaction,
            "the phone was away for too long"
        );
        phone.learn_horizon(answer.position.context("a position")?.horizon);
        let answer = story.hello("phone-again", "Phone", &phone, &server, at + 100)?;
        ensure!(answer.equal == [false], "the phone holds what was deleted");
        let dropped = story.reconcile("phone-reconcile", "Phone", &mut phone, &server, SALTS[1])?;
        ensure!(dropped == [Key::new(*b"bread")?], "bread was deleted");
        let answer = story.hello("phone-confirm", "Phone", &phone, &server, at + 300)?;
        ensure!(answer.equal == [true], "all hold the same");
        story.state("end", &server, &laptop, &phone);
        Ok(story)
    }

    fn add(&mut self, name: &str, text: String) {
        self.blocks.push((name.to_owned(), text));
    }

    /// Messages one after the other: who speaks, the message, its bytes.
    fn exchange(&mut self, name: &str, said: &[(&str, &str, Vec<u8>)]) -> Result<()> {
        let mut parts = Vec::new();
        for (who, message, bytes) in said {
            parts.push(format!(
                "**{who}: {message}**\n\n{}",
                dump::render(message, bytes)?
            ));
        }
        self.add(name, parts.join("\n\n"));
        Ok(())
    }

    fn hello(
        &mut self,
        name: &str,
        who: &str,
        replica: &Replica,
        server: &Server,
        now_ms: u64,
    ) -> Result<wire::HelloResponse> {
        let request = replica.hello(&format!("{}-app/1.0", who.to_lowercase()));
        let answer = server.hello(&request, now_ms);
        self.exchange(
            name,
            &[
                (
                    &format!("{who} to server"),
                    "HelloRequest",
                    request.encode_to_vec(),
                ),
                (&to(who), "HelloResponse", answer.encode_to_vec()),
            ],
        )?;
        Ok(answer)
    }

    fn push(
        &mut self,
        name: &str,
        who: &str,
        replica: &mut Replica,
        server: &mut Server,
        now_ms: u64,
    ) -> Result<()> {
        let request = replica.push();
        let answer = server.push(&request, now_ms)?;
        replica.verdicts(&answer)?;
        self.exchange(
            name,
            &[
                (
                    &format!("{who} to server"),
                    "PushRequest",
                    request.encode_to_vec(),
                ),
                (&to(who), "PushResponse", answer.encode_to_vec()),
            ],
        )
    }

    fn reconcile(
        &mut self,
        name: &str,
        who: &str,
        replica: &mut Replica,
        server: &Server,
        salt: u64,
    ) -> Result<Vec<Key>> {
        let (request, answer, dropped) = replica.reconcile(salt, server)?;
        self.exchange(
            name,
            &[
                (
                    &format!("{who} to server"),
                    "ReconcileRequest",
                    request.encode_to_vec(),
                ),
                (&to(who), "ReconcileResponse", answer.encode_to_vec()),
            ],
        )?;
        Ok(dropped)
    }

    /// The digest that was kept, and that of what is read.
    fn damage(&mut self, name: &str, whole: &Record) -> Result<()> {
        let mut bytes = whole.content.value().to_vec();
        *bytes.last_mut().context("a value to damage")? ^= 1;
        let read = Record {
            content: Content::Put(bytes.clone().into()),
            ..whole.clone()
        };
        ensure!(read.digest() != whole.digest(), "the damage shows");
        let text = format!(
            "```\nkept with \"{}\"            {}\ncomputed from what is read  {}   value {}, not {}\n```",
            whole.key,
            whole.digest().to_hex(),
            read.digest().to_hex(),
            hex(&bytes),
            hex(whole.content.value()),
        );
        self.add(name, text);
        Ok(())
    }

    /// What each side holds, and the fingerprints.
    fn state(&mut self, name: &str, server: &Server, laptop: &Replica, phone: &Replica) {
        let mut out = String::from("```\n");
        out += &format!(
            "server   sequence {}{}\n",
            server.head,
            below(server.horizon)
        );
        for (record, sequence) in server.records.values() {
            out += &line(record, &format!("at {sequence}"));
        }
        out += &format!("  fingerprint {}\n", server.fingerprint().to_hex());
        for (side, replica) in [("laptop", laptop), ("phone", phone)] {
            let cursor = replica
                .cursor
                .map_or("no cursor".to_owned(), |c| format!("cursor {c}"));
            out += &format!("{side:<8} {cursor}{}\n", below(replica.horizon));
            for (record, point) in replica.clean.values() {
                out += &line(record, &format!("point {point}"));
            }
            for record in &replica.outbox {
                out += &line(record, "unsent");
            }
            out += &format!("  fingerprint {}\n", replica.fingerprint().to_hex());
        }
        self.add(&format!("state-{name}"), out + "```");
    }
}

fn to(who: &str) -> String {
    format!("Server to {}", who.to_lowercase())
}

fn below(horizon: Time) -> String {
    match horizon {
        Time(0) => String::new(),
        h => format!(", horizon 0x{:016x}", h.0),
    }
}

fn line(record: &Record, place: &str) -> String {
    let value = match &record.content {
        Content::Put(value) => format!("\"{}\"", value.escape_ascii()),
        Content::Tombstone => "deleted".to_owned(),
    };
    let digest = &record.digest().to_hex()[..16];
    let key = format!("\"{}\"", record.key);
    let time = record.version.time.0;
    format!("  {key:<8} {value:<12} time 0x{time:016x}  digest {digest}...  {place}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_ends_with_all_sides_equal() {
        let end = block("state-end").unwrap();
        let prints: Vec<&str> = end.lines().filter(|l| l.contains("fingerprint")).collect();
        assert_eq!(prints.len(), 3);
        assert!(prints.iter().all(|p| *p == prints[0]), "{end}");
        assert!(!end.contains("bread"));
    }

    #[test]
    fn a_part_that_is_not_there_is_an_error() {
        assert!(block("nothing").is_err());
    }
}
