//! The length-prefixed frames that gRPC and gRPC-web share.

use bytes::{Buf, Bytes, BytesMut};

/// The flag bit of a compressed message.
pub const COMPRESSED: u8 = 1;
/// The flag bit of a trailer frame (gRPC-web only).
pub const TRAILERS: u8 = 0x80;
/// Larger frames are taken for nonsense and not waited for.
const MAX_FRAME: usize = 64 << 20;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// [`COMPRESSED`], [`TRAILERS`].
    pub flags: u8,
    /// What it carries.
    pub payload: Bytes,
}

/// The bytes of a frame.
pub fn encode(flags: u8, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(payload.len() + 5);
    out.push(flags);
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend(payload);
    out.into()
}

/// The trailer frame of gRPC-web.
pub fn encode_trailers(trailers: &[(String, String)]) -> Bytes {
    let text: String = trailers
        .iter()
        .map(|(name, value)| format!("{name}:{value}\r\n"))
        .collect();
    encode(TRAILERS, text.as_bytes())
}

/// The fields of a trailer frame.
///
/// # Errors
/// A sentence that says what is wrong with them.
pub fn parse_trailers(payload: &[u8]) -> Result<Vec<(String, String)>, String> {
    let text =
        std::str::from_utf8(payload).map_err(|_| "the trailer frame is not text".to_owned())?;
    text.split("\r\n")
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| format!("the trailer line {line:?} has no colon"))?;
            Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect()
}

/// Cuts a stream of bytes into frames.
#[derive(Default, Debug)]
pub struct Cutter {
    rest: BytesMut,
}

impl Cutter {
    /// Takes what arrived.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// A sentence about a length that nobody means.
    pub fn cut(&mut self) -> Result<Option<Frame>, String> {
        if self.rest.len() < 5 {
            return Ok(None);
        }
        let length = u32::from_be_bytes([self.rest[1], self.rest[2], self.rest[3], self.rest[4]]);
        let length = length as usize;
        if length > MAX_FRAME {
            return Err(format!("a frame claims a length of {length} bytes"));
        }
        if self.rest.len() < 5 + length {
            return Ok(None);
        }
        let flags = self.rest[0];
        self.rest.advance(5);
        Ok(Some(Frame {
            flags,
            payload: self.rest.split_to(length).freeze(),
        }))
    }

    /// Bytes of a frame that did not arrive whole.
    pub fn left(&self) -> usize {
        self.rest.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_they_are_cut() {
        let mut bytes = encode(0, b"one").to_vec();
        bytes.extend(encode(TRAILERS, b"grpc-status:0\r\n"));
        let mut cutter = Cutter::default();
        let mut seen = Vec::new();
        for byte in bytes {
            cutter.feed(&[byte]);
            while let Some(frame) = cutter.cut().unwrap() {
                seen.push(frame);
            }
        }
        assert_eq!(seen.len(), 2);
        assert_eq!(&seen[0].payload[..], b"one");
        assert_eq!(
            parse_trailers(&seen[1].payload).unwrap(),
            [("grpc-status".to_owned(), "0".to_owned())]
        );
        assert_eq!(cutter.left(), 0);
    }

    #[test]
    fn an_absurd_length_is_an_error() {
        let mut cutter = Cutter::default();
        cutter.feed(&[0, 0xff, 0xff, 0xff, 0xff]);
        assert!(cutter.cut().is_err());
    }
}
