//! Messages on stdin and stdout, as `driver.proto` frames them: four bytes of
//! length, big-endian, then the message. Knows no command.

use anyhow::{Context, Result, bail};
use prost::Message;
use std::io::{Read, Write};

/// No request of the suite is longer. A length beyond it is noise on the
/// channel, not a message.
const MAX_BYTES: usize = 64 << 20;

/// The next message; `None` when the input ended between two messages.
///
/// # Errors
/// When the input ends within a message, or does not carry messages.
pub fn read<M: Message + Default>(input: &mut impl Read) -> Result<Option<M>> {
    let mut length = [0; 4];
    match input.read(&mut length[..1]).context("reading a request")? {
        0 => return Ok(None),
        _ => input
            .read_exact(&mut length[1..])
            .context("the input ended within a length")?,
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_BYTES {
        bail!("a request of {length} bytes: the input does not carry framed messages");
    }
    let mut bytes = vec![0; length];
    input
        .read_exact(&mut bytes)
        .context("the input ended within a message")?;
    M::decode(&bytes[..])
        .map(Some)
        .context("a request that is no message")
}

/// Writes one message and flushes.
///
/// # Errors
/// When the output is closed.
pub fn write(output: &mut impl Write, message: &impl Message) -> Result<()> {
    let bytes = message.encode_to_vec();
    output.write_all(&u32::try_from(bytes.len())?.to_be_bytes())?;
    output.write_all(&bytes)?;
    output.flush().context("writing an answer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gosync_conformance::schema::driver::{DriverRequest, Put, driver_request::Command};

    #[test]
    fn a_message_survives_the_frame_and_the_end_is_told_apart_from_a_cut() {
        let request = DriverRequest {
            id: 7,
            command: Some(Command::Put(Put {
                replica: "a".into(),
                key: b"k".into(),
                value: b"v".into(),
            })),
        };
        let mut bytes = Vec::new();
        write(&mut bytes, &request).unwrap();
        let mut input = &bytes[..];
        assert_eq!(read::<DriverRequest>(&mut input).unwrap(), Some(request));
        assert_eq!(read::<DriverRequest>(&mut input).unwrap(), None);
        for cut in 1..bytes.len() {
            assert!(
                read::<DriverRequest>(&mut &bytes[..cut]).is_err(),
                "cut at {cut}"
            );
        }
        assert!(read::<DriverRequest>(&mut &b"HTTP/1.1 200"[..]).is_err());
    }
}
