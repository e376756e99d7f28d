//! One-rule mutants of the peer: each breaks one sentence of the
//! specification. The suite's own tests check that a named check catches each.

macro_rules! quirks {
    ($($(#[$doc:meta])* $name:ident = $text:literal breaks $requirement:literal;)*) => {
        /// A rule that the peer breaks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Quirk { $($(#[$doc])* $name,)* }

        impl Quirk {
            /// Every one.
            pub const ALL: &'static [Quirk] = &[$(Quirk::$name),*];

            /// As it is called on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Quirk::$name => $text,)* }
            }

            /// The requirement that it breaks; empty for the one that breaks
            /// none.
            pub fn breaks(self) -> &'static str {
                match self { $(Quirk::$name => $requirement,)* }
            }

            /// The one of that name.
            pub fn from_name(name: &str) -> Option<Quirk> {
                Quirk::ALL.iter().copied().find(|q| q.name() == name)
            }
        }
    };
}

quirks! {
    /// Behaves as the peer without quirk.
    Nothing = "nothing" breaks "";
    /// The lower replica id wins at equal times.
    TieByReplicaReversed = "tie-by-replica-reversed" breaks "MODEL-017";
    /// The lower value hash wins at equal versions.
    TieByContentReversed = "tie-by-content-reversed" breaks "MODEL-018";
    /// A put wins over a tombstone of the same version.
    TombstoneLosesTie = "tombstone-loses-tie" breaks "MODEL-018";
    /// The newest arrival wins.
    LastArrivalWins = "last-arrival-wins" breaks "MODEL-018";
    /// The digest leaves the flags out.
    FlagsOutOfDigest = "flags-out-of-digest" breaks "MODEL-020";
    /// The fingerprint combines digests by XOR.
    XorFingerprint = "xor-fingerprint" breaks "MERKLE-001";
    /// The end of a range belongs to it.
    RangeEndInclusive = "range-end-inclusive" breaks "MERKLE-002";
    /// Inverted ranges are taken as empty.
    InvertedRangeAccepted = "inverted-range-accepted" breaks "MODEL-008";
    /// Ranges in any order are accepted.
    UnsortedRangesAccepted = "unsorted-ranges-accepted" breaks "MODEL-011";
    /// Space ids are not checked.
    AnySpaceId = "any-space-id" breaks "MODEL-001";
    /// A tombstone with a value is stored.
    TombstoneWithValue = "tombstone-with-value" breaks "MODEL-015";
    /// Unknown flags are stored.
    UnknownFlagsAccepted = "unknown-flags-accepted" breaks "MODEL-014";
    /// Long keys are stored.
    LongKeysAccepted = "long-keys-accepted" breaks "MODEL-005";
    /// Versions of any future are stored.
    NoClockBound = "no-clock-bound" breaks "CLOCK-005";
    /// Old versions are refused.
    OldVersionsRefused = "old-versions-refused" breaks "CLOCK-008";
    /// Sequences have gaps.
    SequenceGaps = "sequence-gaps" breaks "HIST-001";
    /// Records of one push become one commit each, with one tag.
    TagIgnored = "tag-ignored" breaks "HIST-015";
    /// A cursor beyond the head is taken as good.
    FutureCursorAccepted = "future-cursor-accepted" breaks "HIST-018";
    /// A cursor of a foreign epoch is taken as good.
    ForeignEpochAccepted = "foreign-epoch-accepted" breaks "HIST-015";
    /// `newest_commit` is not looked at.
    NewestCommitIgnored = "newest-commit-ignored" breaks "HIST-016";
    /// The version in the metadata is not looked at.
    AnyVersion = "any-version" breaks "HELLO-007";
    /// UNSUPPORTED_VERSION lists no versions.
    VersionsNotListed = "versions-not-listed" breaks "HELLO-005";
    /// Every requested feature is granted.
    FeaturesEchoed = "features-echoed" breaks "HELLO-010";
    /// Hello says equal whatever the fingerprint.
    AlwaysEqual = "always-equal" breaks "HELLO-026";
    /// Fingerprints of any length are taken.
    AnyFingerprintLength = "any-fingerprint-length" breaks "HELLO-023";
    /// Verdicts come in the order of the keys.
    VerdictsSorted = "verdicts-sorted" breaks "PUSH-009";
    /// APPLIED before anything is stored, and nothing is stored.
    AckWithoutStoring = "ack-without-storing" breaks "PUSH-018";
    /// UNCHANGED is answered as APPLIED, and takes a sequence.
    RepeatedIsApplied = "repeated-is-applied" breaks "PUSH-010";
    /// SUPERSEDED comes without the winner.
    WinnerLeftOut = "winner-left-out" breaks "PUSH-015";
    /// A key twice in a batch is accepted.
    DuplicateKeysAccepted = "duplicate-keys-accepted" breaks "PUSH-001";
    /// One bad record refuses the whole push.
    OneBadRecordRefusesAll = "one-bad-record-refuses-all" breaks "PUSH-007";
    /// `atomic` is not looked at.
    AtomicIgnored = "atomic-ignored" breaks "PUSH-022";
    /// More records than max_push_records are taken.
    AnyNumberOfRecords = "any-number-of-records" breaks "PUSH-002";
    /// Values of any size are taken.
    AnyValueSize = "any-value-size" breaks "PUSH-010";
    /// Watch leaves tombstones out.
    WatchWithoutTombstones = "watch-without-tombstones" breaks "WATCH-005";
    /// Watch sends records outside its ranges.
    WatchIgnoresRanges = "watch-ignores-ranges" breaks "WATCH-003";
    /// Watch starts from the beginning whatever the cursor.
    WatchIgnoresCursor = "watch-ignores-cursor" breaks "WATCH-003";
    /// Watch accepts a cursor that is not in order.
    WatchIgnoresStatus = "watch-ignores-status" breaks "WATCH-001";
    /// A Changes message has a cursor in the middle of a commit.
    CursorInsideCommit = "cursor-inside-commit" breaks "WATCH-007";
    /// The checkpoint comes before the last change.
    EarlyCheckpoint = "early-checkpoint" breaks "WATCH-021";
    /// Streams end without StreamEnd.
    NoStreamEnd = "no-stream-end" breaks "WATCH-036";
    /// No heartbeats.
    NoHeartbeat = "no-heartbeat" breaks "WATCH-028";
    /// Live changes come with the next heartbeat only.
    LateChanges = "late-changes" breaks "WATCH-027";
    /// A Snapshot comes in the order of arrival.
    SnapshotByArrival = "snapshot-by-arrival" breaks "SNAP-009";
    /// A Snapshot leaves tombstones out.
    SnapshotWithoutTombstones = "snapshot-without-tombstones" breaks "SNAP-007";
    /// A resumed Snapshot begins with `after_key` itself.
    SnapshotResumesInclusive = "snapshot-resumes-inclusive" breaks "SNAP-014";
    /// A resumed Snapshot gives the fingerprint of the rest only.
    SnapshotFingerprintOfRest = "snapshot-fingerprint-of-rest" breaks "SNAP-013";
    /// A Snapshot's totals count everything.
    SnapshotTotalsOfSpace = "snapshot-totals-of-space" breaks "SNAP-011";
    /// Chunks of any size.
    BigChunks = "big-chunks" breaks "SNAP-010";
    /// Refusals have no details.
    BareErrors = "bare-errors" breaks "ERR-001";
    /// Refusals are all INTERNAL.
    WrongStatus = "wrong-status" breaks "ERR-002";
    /// Streams do not tell proxies to leave them alone.
    StreamsBuffered = "streams-buffered" breaks "TRANS-022";
    /// The connection promises another number of streams than Hello.
    StreamsUntold = "streams-untold" breaks "TRANS-016";
    /// Pages are not answered.
    NoPreflight = "no-preflight" breaks "TRANS-024";
    /// Pages do not get to see the status.
    StatusHidden = "status-hidden" breaks "TRANS-025";
    /// An `after_key` may have any length.
    LongAfterKeyAccepted = "long-after-key-accepted" breaks "SNAP-030";
    /// Every commit has one tag.
    OneTag = "one-tag" breaks "HIST-004";
    /// total_records counts the whole space.
    TotalsOfSpace = "totals-of-space" breaks "HELLO-022";
}
