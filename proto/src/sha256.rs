//! SHA-256 of the short preimages of fixed length that reconciliation hashes by
//! the hundred thousand. Knows no preimage.

use sha2::block_api::compress256;

/// FIPS 180-4, 5.3.3.
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// SHA-256 of a preimage that fills two blocks at most, padding included: the
/// hasher's buffer costs nearly as much as a block does.
#[inline]
pub(crate) fn sha256_of<const N: usize>(preimage: &[u8; N]) -> [u8; 32] {
    const { assert!(N + 9 <= 128) };
    let mut blocks = [[0; 64]; 2];
    let used = if N + 9 <= 64 { 1 } else { 2 };
    let bytes = blocks.as_flattened_mut();
    bytes[..N].copy_from_slice(preimage);
    bytes[N] = 0x80;
    bytes[used * 64 - 8..used * 64].copy_from_slice(&(N as u64 * 8).to_be_bytes());
    let mut state = INITIAL;
    compress256(&mut state, &blocks[..used]);
    let mut digest = [0; 32];
    for (out, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *out = word.to_be_bytes();
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    fn check<const N: usize>() {
        let preimage: [u8; N] = std::array::from_fn(|i| i as u8 ^ 0xa5);
        let want: [u8; 32] = Sha256::digest(preimage).into();
        assert_eq!(sha256_of(&preimage), want, "{N} bytes");
    }

    #[test]
    fn short_preimages_hash_as_the_hasher_hashes_them() {
        check::<0>();
        check::<40>();
        check::<55>();
        check::<56>();
        check::<64>();
        check::<80>();
        check::<119>();
    }
}
