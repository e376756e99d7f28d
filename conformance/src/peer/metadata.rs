//! What a call's headers ask of the peer beside its message: compression and a
//! deadline. Knows no calls.

use crate::net::framing;
use bytes::Bytes;
use flate2::read::GzDecoder;
use std::io::Read;
use std::time::Duration;

/// The body with its message as it was before gzip; another body as it is.
///
/// # Errors
/// A sentence, when the message is not gzip, or larger than `most` bytes.
pub(super) fn inflated(body: Bytes, encoding: Option<&str>, most: u64) -> Result<Bytes, String> {
    let packed = body.first() == Some(&framing::COMPRESSED) && encoding == Some("gzip");
    let Some(message) = body.get(5..).filter(|_| packed) else {
        return Ok(body);
    };
    let mut plain = Vec::new();
    GzDecoder::new(message)
        .take(most + 1)
        .read_to_end(&mut plain)
        .map_err(|e| format!("the message is not gzip: {e}"))?;
    match plain.len() as u64 > most {
        true => Err(format!("the message is larger than {most} bytes")),
        false => Ok(framing::encode(0, &plain)),
    }
}

/// What `grpc-timeout` allows; nothing for what is no deadline.
pub(super) fn deadline(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let n: u32 = digits.parse().ok().filter(|n| *n < 100_000_000)?;
    let unit = match unit {
        "H" => Duration::from_secs(3_600),
        "M" => Duration::from_secs(60),
        "S" => Duration::from_secs(1),
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => return None,
    };
    Some(unit * n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::read::GzEncoder;

    #[test]
    fn a_compressed_message_is_read_as_far_as_it_may_be_large() {
        let mut packed = Vec::new();
        let mut encoder = GzEncoder::new(&[7u8; 1_000][..], Compression::fast());
        encoder.read_to_end(&mut packed).unwrap();
        let body = framing::encode(framing::COMPRESSED, &packed);
        let plain = framing::encode(0, &[7; 1_000]);
        assert_eq!(inflated(body.clone(), Some("gzip"), 1_000), Ok(plain));
        assert!(inflated(body.clone(), Some("gzip"), 999).is_err());
        assert_eq!(inflated(body.clone(), Some("zip"), 1_000), Ok(body));
    }

    #[test]
    fn deadlines_are_read() {
        assert_eq!(deadline("1n"), Some(Duration::from_nanos(1)));
        assert_eq!(deadline("2M"), Some(Duration::from_secs(120)));
        for none in ["", "S", "5", "1x", "-1S", "123456789S"] {
            assert_eq!(deadline(none), None, "{none}");
        }
    }
}
