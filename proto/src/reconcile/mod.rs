//! Merkle-range descent, both sides.
