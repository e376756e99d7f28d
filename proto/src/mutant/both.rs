//! The deliberate errors of what both sides compute.

/// Hands them on, behind those before.
macro_rules! both {
    ($($before:tt)*) => {
        server! {
            $($before)*
            Both NoOp "no-op" [] "Changes nothing, and must not be caught.";
            Both TombstoneLosesTie "tombstone-loses-tie" ["MODEL-018"] "At equal versions a put beats a tombstone.";
            Both SmallerHashWins "smaller-hash-wins" ["MODEL-018"] "At equal versions the smaller value hash wins.";
            Both FlagsOutOfDigest "flags-out-of-digest" ["MODEL-020"] "The digest does not cover the flags.";
            Both KeyOutOfDigest "key-out-of-digest" ["MODEL-020"] "The digest does not cover the key.";
            Both ReplicaOutOfDigest "replica-out-of-digest" ["MODEL-020"] "The digest does not cover who wrote.";
            Both BranchTagForgotten "branch-tag-forgotten" ["MERKLE-001"] "A branch is hashed without its tag.";
            Both LongKeysTaken "long-keys-taken" ["MODEL-005", "SNAP-030", "LIMIT-010"] "Keys may be longer than 512 bytes.";
            Both VersionOptional "version-optional" ["MODEL-013"] "A record may have no version.";
            Both UnknownFlagsTaken "unknown-flags-taken" ["MODEL-014"] "Flags that nobody knows are dropped.";
            Both LongestKeyRefused "longest-key-refused" ["LIMIT-010", "SNAP-014"] "Keys of 512 bytes are too long.";
            Both LargestValueRefused "largest-value-refused" ["LIMIT-002"] "A value of max_value_bytes is too large.";
            Both KeysFolded "keys-folded" ["MODEL-007"] "Keys are sent in lower case.";
            Both ValuesAsText "values-as-text" ["MODEL-016"] "Values are sent as if they were UTF-8.";
            Both SmallerReplicaWins "smaller-replica-wins" ["MODEL-017"] "At equal times the smaller replica id wins.";
            Both EmptyKeysTaken "empty-keys-taken" ["MODEL-004"] "Keys may be empty.";
            Both TombstonesWithValue "tombstones-with-value" ["MODEL-015"] "A tombstone may bring a value, which is dropped.";
            Both LongVarintsTaken "long-varints-taken" ["RECON-002"] "Varints may be longer than they need be.";
            Both UnknownFieldsKept "unknown-fields-kept" ["EXT-008", "EXT-009"] "Unknown fields of a record are kept in its value.";
        }
    };
}
