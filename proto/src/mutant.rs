//! Deliberate errors, one rule each, that tests switch on at run time to see
//! that they are caught: the one list that the conformance suite's adapters and
//! the simulation share. Must not know who catches them.
//!
//! Without the feature `mutants` every place where one could act is
//! `if false`, and the list is not compiled. The feature is asked for by the
//! adapters and the simulation alone; `cargo xtask check` sees to it that no
//! crate that people install does.
//!
//! A place in the code reads `mutant!(AckBeforeDurable)`.

/// Whether a mutant of the list acts now. See [`crate::mutant`].
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutant::active($crate::mutant::Mutant::$name)
    };
}

/// What a mutant is a mutant of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The server.
    Server,
    /// The client.
    Client,
    /// A rule that both compute.
    Both,
}

/// One row of the list.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Which.
    pub mutant: Mutant,
    /// Its name for people and command lines.
    pub name: &'static str,
    /// What it changes.
    pub side: Side,
    /// Requirements that it breaks.
    pub breaks: &'static [&'static str],
    /// What it does wrong, in a sentence.
    pub about: &'static str,
}

macro_rules! mutants {
    ($($side:ident $name:ident $text:literal $breaks:tt $about:literal;)*) => {
        /// Each deliberate error.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u16)]
        pub enum Mutant { $(#[doc = $about] $name,)* }

        /// All of them.
        #[cfg(feature = "mutants")]
        pub const ALL: &[Entry] = &[$(Entry {
            mutant: Mutant::$name,
            name: $text,
            side: Side::$side,
            breaks: &$breaks,
            about: $about,
        },)*];
    };
}

mutants! {
    Both NoOp "no-op" [] "Changes nothing, and must not be caught.";

    // ---- what both compute ----
    Both TombstoneLosesTie "tombstone-loses-tie" ["MODEL-018"] "At equal versions a put beats a tombstone.";
    Both SmallerHashWins "smaller-hash-wins" ["MODEL-018"] "At equal versions the smaller value hash wins.";
    Both FlagsOutOfDigest "flags-out-of-digest" ["MODEL-020"] "The digest does not cover the flags.";
    Both KeyOutOfDigest "key-out-of-digest" ["MODEL-020"] "The digest does not cover the key.";
    Both ReplicaOutOfDigest "replica-out-of-digest" ["MODEL-020"] "The digest does not cover who wrote.";
    Both BranchTagForgotten "branch-tag-forgotten" ["MERKLE-001"] "A branch is hashed without its tag.";

    // ---- the server's merge and its verdicts ----
    Server TieByArrival "tie-by-arrival" ["MODEL-018"] "At equal versions the record that came last wins.";
    Server LastArrivalWins "last-arrival-wins" ["PUSH-010", "MODEL-018"] "Whatever is pushed replaces what is held.";
    Server WinnerLeftOut "winner-left-out" ["PUSH-015"] "A superseded write is not told what won.";
    Server AckBeforeDurable "ack-before-durable" ["PUSH-018"] "Pushes are answered before their commit.";
    Server AckWithoutStoring "ack-without-storing" ["PUSH-010", "PUSH-018"] "The last record of a push is called applied, and not stored.";
    Server AtomicIgnored "atomic-ignored" ["PUSH-022"] "An atomic push with a refused record applies the others.";
    Server AtomicPartReported "atomic-part-reported" ["PUSH-023"] "What an aborted atomic push would have applied is called applied.";
    Server DuplicateKeysAccepted "duplicate-keys-accepted" ["PUSH-001"] "A push may hold two records under one key.";
    Server PushCountUnchecked "push-count-unchecked" ["PUSH-002"] "A push may have any number of records.";
    Server ValueSizeUnchecked "value-size-unchecked" ["LIMIT-004"] "A value may have any size.";
    Server VerdictOfHeldIsNow "verdict-of-held-is-now" ["PUSH-014"] "UNCHANGED and SUPERSEDED tell the head instead of the held record's sequence.";
    Server PositionBeforePush "position-before-push" ["PUSH-020", "PUSH-021"] "A push is answered with the position before it.";
    Server QuotaOnShrink "quota-on-shrink" ["PUSH-012"] "A full space refuses also what takes nothing.";
    Server FailureAcknowledged "failure-acknowledged" ["PUSH-019"] "Records whose storing failed are called applied.";
    Server SequenceGap "sequence-gap" ["HIST-001"] "Each commit skips a sequence.";
    Server SameTag "same-tag" ["HIST-004"] "All commits have one tag.";

    // ---- the server's clock ----
    Server SkewUnchecked "skew-unchecked" ["CLOCK-005"] "Any version is accepted, however far ahead.";
    Server SkewBeforeMerge "skew-before-merge" ["CLOCK-009"] "The clock is asked before the merge.";
    Server OldVersionsRefused "old-versions-refused" ["CLOCK-008"] "Versions older than the allowed skew are refused.";
    Server ClockFollowsRecords "clock-follows-records" ["CLOCK-007"] "The newest version counts as a clock reading.";
    Server ClockForgotten "clock-forgotten" ["CLOCK-006"] "A clock that was set back is believed.";
    Server PresentClockTold "present-clock-told" ["CLOCK-013"] "The present clock is told, not the one that versions are judged by.";
    Server HorizonTimeRefused "horizon-time-refused" ["CLOCK-010"] "A version at a horizon in the future is refused.";

    // ---- history, horizon, restores ----
    Server EpochIgnored "epoch-ignored" ["HIST-015"] "A cursor of a foreign epoch is taken for one of the present.";
    Server RestorePointIgnored "restore-point-ignored" ["HIST-015"] "A cursor beyond its restore point is mapped to itself.";
    Server TagIgnored "tag-ignored" ["HIST-015"] "A cursor's tag is not compared.";
    Server AheadAccepted "ahead-accepted" ["HIST-018"] "A cursor beyond the head is in order.";
    Server NewestCommitIgnored "newest-commit-ignored" ["HIST-016"] "The newest commit of a request is not judged.";
    Server RestoreKeepsEpoch "restore-keeps-epoch" ["HIST-011"] "A restored store goes on in its old epoch.";
    Server HorizonFromNow "horizon-from-now" ["HIST-024"] "Compaction puts the horizon where the clock is, not where the newest version is.";
    Server CompactionForgotten "compaction-forgotten" ["HIST-028"] "Compaction does not note what it removed.";
    Server YoungTombstonesCompacted "young-tombstones-compacted" ["HIST-026"] "Compaction ignores the retention.";
    Server BehindAccepted "behind-accepted" ["HIST-042"] "Old records of a replica behind the compaction are applied.";
    Server BehindRefusesAll "behind-refuses-all" ["HIST-043"] "All records of a replica behind the compaction are refused.";

    // ---- the server's tree ----
    Server TombstonesOutOfTree "tombstones-out-of-tree" ["MERKLE-001"] "Fingerprints leave every tombstone out.";
    Server OldTombstonesInTree "old-tombstones-in-tree" ["HIST-029", "MERKLE-003"] "Fingerprints count tombstones below the horizon.";
    Server TreeNotUpdated "tree-not-updated" ["MERKLE-005"] "The kept tree is not brought up to date.";
    Server AlwaysEqual "always-equal" ["HELLO-026"] "Hello calls every range equal.";
    Server OtherHorizonCompared "other-horizon-compared" ["HELLO-025"] "Hello compares fingerprints of another horizon.";

    // ---- damage ----
    Server DamageServed "damage-served" ["MODEL-022", "MODEL-024"] "Stored content is not checked against its digest.";
    Server DamageNotWanted "damage-not-wanted" ["MODEL-026"] "Damaged content is not asked back.";

    // ---- streams of the server ----
    Server WatchIgnoresHistory "watch-ignores-history" ["WATCH-001", "WATCH-033"] "A watch goes on whatever became of the history.";
    Server WatchWithoutTombstones "watch-without-tombstones" ["WATCH-005"] "A watch brings no tombstones.";
    Server WatchOmits "watch-omits" ["WATCH-003"] "A watch leaves out the last record of each message.";
    Server WatchJudgesOnce "watch-judges-once" ["WATCH-033"] "A watch judges its cursors at its beginning only.";
    Server ChangeUnnamed "change-unnamed" ["WATCH-034"] "A watch that cannot go on ends as if the server were away.";
    Server HeartbeatWithoutCursor "heartbeat-without-cursor" ["WATCH-030"] "Heartbeats have no cursor.";
    Server CursorBeforeRecords "cursor-before-records" ["WATCH-006"] "The cursor of a full message stands for what comes in the next.";
    Server WatchCursorInCommit "watch-cursor-in-commit" ["WATCH-007"] "A message that ends inside of a commit has a cursor.";
    Server WatchTooLarge "watch-too-large" ["WATCH-008"] "The wished size of messages is ignored.";
    Server CheckpointOfEmpty "checkpoint-of-empty" ["WATCH-020"] "A checkpoint's fingerprints are those of nothing.";
    Server WatchWakesLate "watch-wakes-late" ["WATCH-027"] "A watch hears of commits by its timers only.";
    Server SnapshotWithoutTombstones "snapshot-without-tombstones" ["SNAP-007"] "A snapshot holds no tombstones.";
    Server SnapshotWithOldTombstones "snapshot-with-old-tombstones" ["SNAP-008"] "A snapshot holds tombstones below the horizon.";
    Server SnapshotOmits "snapshot-omits" ["SNAP-007"] "A snapshot leaves out the first record of each chunk but the first.";
    Server SnapshotAfterInclusive "snapshot-after-inclusive" ["SNAP-014"] "A resumed snapshot repeats the last key.";
    Server SnapshotTotalOfAll "snapshot-total-of-all" ["SNAP-011"] "A resumed snapshot's totals count what was sent before.";

    // ---- the server's part of a descent ----
    Server LackingUntold "lacking-untold" ["RECON-020"] "Items that the server does not have are not marked.";
    Server RecordsHeldBack "records-held-back" ["RECON-019"] "The last record of a resolved part is not sent.";
    Server HorizonUnchecked "horizon-unchecked" ["RECON-013"] "A descent may be computed at another horizon.";
    Server FirstByteCompared "first-byte-compared" ["RECON-017"] "Two fingerprints that begin alike count as equal.";

    Server LongVarints "long-varints" ["RECON-001"] "Varints of splits have a byte too many.";
    Server BrokenOffInside "broken-off-inside" ["RECON-028"] "An answer breaks off inside a part that it splits.";
    Server LaggingInOneCall "lagging-in-one-call" ["HIST-017"] "A cursor beyond the head is LAGGING for Reconcile, and unknown elsewhere.";
    Server ReconcileNeedsOrder "reconcile-needs-order" ["RECON-014", "RECON-049"] "Reconcile is refused to those who have to reconcile.";

    // ---- the server's connections and callers ----
    Server SilenceBorneHere "silence-borne-here" ["TRANS-017"] "Connections that say nothing are kept.";
    Server SlowHeadersBorne "slow-headers-borne" ["TRANS-017"] "A request's header may take any time.";
    Server NoPings "no-pings" ["TRANS-018", "TRANS-017"] "Idle connections are not pinged.";
    Server PingsResented "pings-resented" ["TRANS-019"] "A third ping ends the connection.";
    Server DeadlineIgnored "deadline-ignored" ["TRANS-027"] "The deadline of a call is not looked at.";
    Server NoGzip "no-gzip" ["TRANS-014"] "Compressed requests are refused.";
    Server RetiredToldToAll "retired-told-to-all" ["SEC-006", "ERR-007"] "Who has no grant in a space is told that it was deleted.";
    Server OneRateForAll "one-rate-for-all" ["SEC-006"] "All callers share one rate.";
    Server GuessesUnlimited "guesses-unlimited" ["SEC-010"] "Tokens may be guessed at any rate.";
    Server UnknownFeatureRefused "unknown-feature-refused" ["EXT-004", "HELLO-009"] "Features of later versions are malformed.";

    // ---- the server: what a request may hold ----
    Server EmptyKeysTaken "empty-keys-taken" ["MODEL-004"] "Keys may be empty.";
    Both LongKeysTaken "long-keys-taken" ["MODEL-005", "SNAP-030", "LIMIT-010"] "Keys may be longer than 512 bytes.";
    Server LongBoundsTaken "long-bounds-taken" ["MODEL-009"] "Bounds of ranges may be longer than 513 bytes.";
    Server LongestBoundRefused "longest-bound-refused" ["MODEL-009"] "Bounds of 513 bytes are too long.";
    Server AnySpaceId "any-space-id" ["MODEL-001"] "A space may have any name.";
    Server InvertedRangesTaken "inverted-ranges-taken" ["MODEL-008"] "A range whose end is not above its start stands for all keys.";
    Both VersionOptional "version-optional" ["MODEL-013"] "A record may have no version.";
    Server TombstonesWithValue "tombstones-with-value" ["MODEL-015"] "A tombstone may bring a value, which is dropped.";
    Both UnknownFlagsTaken "unknown-flags-taken" ["MODEL-014"] "Flags that nobody knows are dropped.";
    Server EntriesWithoutRanges "entries-without-ranges" ["MODEL-010"] "An entry of held may have no ranges.";
    Server RangesInAnyOrder "ranges-in-any-order" ["MODEL-011"] "The ranges of an entry may come in any order.";
    Server OverlapsTaken "overlaps-taken" ["MODEL-012"] "Two entries of held may cover one key.";
    Server RangesUncounted "ranges-uncounted" ["LIMIT-004"] "There may be any number of ranges.";

    // ---- the server: Hello, and where a replica stands ----
    Server AnyVersionsOffered "any-versions-offered" ["HELLO-004"] "Version 1 is chosen whether or not it was offered.";
    Server FingerprintsUncounted "fingerprints-uncounted" ["HELLO-023"] "There may be more fingerprints than ranges.";
    Server EqualUnasked "equal-unasked" ["HELLO-024"] "Hello compares where nothing was sent.";
    Server TotalOfSpace "total-of-space" ["HELLO-022", "SEC-005"] "Hello counts all of the space.";
    Server FeaturesUnasked "features-unasked" ["HELLO-010"] "Hello answers features that were not named.";
    Server HelloWithoutTime "hello-without-time" ["HELLO-012"] "Hello tells no time.";
    Server LimitsUntold "limits-untold" ["HELLO-013"] "Hello tells no limits.";
    Server GrantsUntold "grants-untold" ["HELLO-014"] "Hello lists no grants.";
    Server RestorePointsUntold "restore-points-untold" ["HELLO-020", "HIST-013"] "Hello lists no restore points.";
    Server LineageInHelloOnly "lineage-in-hello-only" ["HIST-047"] "Only Hello lists restore points.";
    Server EndWithoutHistory "end-without-history" ["WATCH-043"] "A StreamEnd HISTORY_CHANGED does not tell the history.";
    Server HelloNeedsOrder "hello-needs-order" ["HELLO-019"] "Hello is refused to those who have to reconcile.";
    Server StatusesBackwards "statuses-backwards" ["HELLO-018", "PUSH-034", "SNAP-004"] "Statuses come in the reverse order.";
    Server RetiredServed "retired-served" ["MODEL-003"] "A space that was deleted for good is served.";
    Server AnyVersionSpoken "any-version-spoken" ["HELLO-007"] "The version in the metadata is not looked at.";
    Server VersionsUntold "versions-untold" ["HELLO-005"] "The refusal of a version lists none.";

    // ---- the server: who calls ----
    Server NoTokenNeeded "no-token-needed" ["SEC-001", "TRANS-011"] "Who shows no token may do everything.";
    Server AnyScheme "any-scheme" ["TRANS-011"] "A token counts in any scheme.";
    Server AnyToken "any-token" ["TRANS-011"] "A token that nobody has may do everything.";
    Server ExpiredTaken "expired-taken" ["HELLO-031"] "A token that has expired is valid.";
    Server GrantsIgnored "grants-ignored" ["HELLO-015", "PUSH-033", "SNAP-028"] "Every token may do everything.";
    Server RightsNeverEnd "rights-never-end" ["WATCH-035"] "A stream goes on after its token was revoked.";
    Server TokenAnywhere "token-anywhere" ["TRANS-009"] "A token counts in other metadata, too.";
    Server ReadersWrite "readers-write" ["PUSH-010"] "Who may read may write everything.";
    Server PrefixIgnored "prefix-ignored" ["HELLO-016", "SEC-004"] "Who may read something may read everything.";

    // ---- the server: more of Push ----
    Server EmptyPushRefused "empty-push-refused" ["PUSH-003"] "A push has to have records.";
    Server OneBadRefusesAll "one-bad-refuses-all" ["PUSH-007"] "One bad record refuses the whole push.";
    Server SequenceOfHead "sequence-of-head" ["PUSH-013"] "Applied records are told the sequence before them.";
    Server VerdictsBackwards "verdicts-backwards" ["PUSH-009"] "Verdicts come in the reverse order.";
    Server PushWithoutTime "push-without-time" ["PUSH-020"] "The answer to a push tells no time.";
    Server PushNeedsOrder "push-needs-order" ["PUSH-008"] "Push is refused to those who have to reconcile.";
    Server QuotaIgnored "quota-ignored" ["LIMIT-014"] "A space may grow beyond its quota.";
    Server ValuesTold "values-told" ["ERR-006"] "A verdict repeats the value that it refuses.";

    // ---- the server: more of streams ----
    Server RangesOptional "ranges-optional" ["WATCH-002", "SNAP-006"] "Calls about ranges may name none.";
    Server HeartbeatWithoutTime "heartbeat-without-time" ["WATCH-029"] "Heartbeats tell no time.";
    Server NoCheckpoint "no-checkpoint" ["WATCH-018"] "Who has caught up is not told.";
    Server CatchUpGoesOn "catch-up-goes-on" ["WATCH-022"] "A watch until caught up does not end.";
    Server WatchOfAll "watch-of-all" ["WATCH-003"] "A watch brings records of the whole space.";
    Server ChangesBackwards "changes-backwards" ["WATCH-004"] "The records of a message come in the reverse order.";
    Server HeartbeatsLate "heartbeats-late" ["WATCH-028"] "Heartbeats come at a twentieth of the rate.";
    Server OneCheckpoint "one-checkpoint" ["WATCH-019"] "No checkpoint comes after the first.";
    Server EndUnsaid "end-unsaid" ["WATCH-036"] "Streams end without saying so.";
    Server ShutdownUnsaid "shutdown-unsaid" ["TRANS-029"] "A server that stops does not tell its streams.";
    Server LifetimeIgnored "lifetime-ignored" ["LIMIT-014"] "Streams live for ever.";
    Server SnapshotNeedsOrder "snapshot-needs-order" ["SNAP-005"] "Snapshot is refused to those who have to reconcile.";
    Server SnapshotOfNothing "snapshot-of-nothing" ["SNAP-013"] "The fingerprints after a snapshot are those of nothing.";
    Server SnapshotNowhere "snapshot-nowhere" ["SNAP-003"] "A snapshot has no position.";
    Server OneChunk "one-chunk" ["SNAP-010"] "A snapshot comes in one message.";
    Server SnapshotBackwards "snapshot-backwards" ["SNAP-009"] "The records of a chunk come in the reverse order.";

    // ---- the server: more of Reconcile ----
    Server AnyDigestLength "any-digest-length" ["RECON-010"] "A length of digests that is none stands for the usual one.";
    Server BudgetIgnored "budget-ignored" ["RECON-024"] "The wished size of an answer is ignored.";
    Server EntriesUncounted "entries-uncounted" ["RECON-011"] "A request may ask about any number of parts and items.";
    Server AskedBeyondHeld "asked-beyond-held" ["RECON-009"] "A request may ask about what is not held.";
    Server NothingAsked "nothing-asked" ["RECON-009"] "A request may ask about nothing.";
    Server RecordsBackwards "records-backwards" ["RECON-021"] "The records of an answer come in the reverse order.";
    Server WantedUntold "wanted-untold" ["RECON-023"] "An answer does not say what is damaged.";
    Server ResumeUntold "resume-untold" ["RECON-026"] "An answer does not say where it broke off.";
    Server LeftoversTaken "leftovers-taken" ["RECON-008"] "Entries of columns may be left over.";
    Server EmptyRunsTaken "empty-runs-taken" ["RECON-008"] "A run may have no parts.";
    Server LongVarintsTaken "long-varints-taken" ["RECON-002"] "Varints may be longer than they need be.";
    Server AnswerFromNowhere "answer-from-nowhere" ["RECON-015"] "The answer of Reconcile has no position.";
    Server AnswerWithoutStatus "answer-without-status" ["RECON-016"] "The answer of Reconcile has no statuses.";

    // ---- the server: more of transport and refusals ----
    Server StreamsBuffered "streams-buffered" ["TRANS-022"] "Proxies may buffer streams.";
    Server AlwaysUnknown "always-unknown" ["ERR-002"] "Every refusal has the status UNKNOWN.";
    Server ReasonsUnnamed "reasons-unnamed" ["ERR-001"] "Refusals name no reason.";
    Server LimitsUnnamed "limits-unnamed" ["LIMIT-005"] "A refusal by a limit does not say which.";
    Server HistoryUntold "history-untold" ["ERR-003"] "Refusals for the history have no details.";
    Server OriginsRefused "origins-refused" ["TRANS-023"] "Pages of this machine are not answered.";
    Server PostForbidden "post-forbidden" ["TRANS-024"] "Pages may not post.";
    Server StatusHidden "status-hidden" ["TRANS-025"] "Pages do not see the status.";
    Server StreamsUntold "streams-untold" ["TRANS-016"] "The connection promises other streams than Hello.";

    // ---- the server: something legal is refused, or not done ----
    Server ChosenUntold "chosen-untold" ["HELLO-003"] "Hello does not say which version it chose.";
    Server HighestOffered "highest-offered" ["HELLO-003"] "The highest offered version is chosen, spoken or not.";
    Server NoVersionSpoken "no-version-spoken" ["HELLO-007"] "Calls after Hello are refused whatever version they name.";
    Server UnwrittenRefused "unwritten-refused" ["MODEL-002"] "Hello is refused for a space that was never written to.";
    Server OneSpace "one-space" ["MODEL-002"] "All spaces are one.";
    Server DotsInSpacesRefused "dots-in-spaces-refused" ["MODEL-001"] "A space's name may have no dot and no underscore.";
    Server LimitBelowFloor "limit-below-floor" ["LIMIT-001"] "Hello advertises a limit below its floor.";
    Server WatchdogTooShort "watchdog-too-short" ["WATCH-028"] "The watchdog is no longer than the heartbeat interval.";
    Server LoneFeatureUntold "lone-feature-untold" ["EXT-002", "EXT-003"] "A feature that is named alone is not answered.";
    Server FingerprintsRefused "fingerprints-refused" ["HELLO-023"] "A Hello with fingerprints is malformed.";
    Server ShortFingerprintsTaken "short-fingerprints-taken" ["HELLO-023"] "Fingerprints may be shorter than 32 bytes.";
    Server StatusUnasked "status-unasked" ["HELLO-018"] "Who holds nothing is told a status.";
    Server NewestCommitDoubted "newest-commit-doubted" ["HIST-016"] "Every newest commit is unknown.";
    Server TagsForgotten "tags-forgotten" ["HIST-005"] "Tags are not kept.";
    Server AllBehind "all-behind" ["HIST-015"] "Every cursor is behind the compaction.";
    Server TouchingRangesRefused "touching-ranges-refused" ["MODEL-011"] "Ranges that touch are malformed.";
    Server StartExcluded "start-excluded" ["MODEL-006", "MERKLE-002"] "A range does not hold the key that equals its start.";
    Server EndIncluded "end-included" ["MODEL-006", "MERKLE-002"] "A range holds the key that equals its end.";
    Server EndlessRangesEnd "endless-ranges-end" ["MODEL-006"] "A range without end ends at the byte ff.";
    Server EmptyIsNotZero "empty-is-not-zero" ["MERKLE-001", "SNAP-013"] "The fingerprint of no records is a hash.";

    // ---- the server: the most that limits allow ----
    Both LongestKeyRefused "longest-key-refused" ["LIMIT-010", "SNAP-014"] "Keys of 512 bytes are too long.";
    Both LargestValueRefused "largest-value-refused" ["LIMIT-002"] "A value of max_value_bytes is too large.";
    Server MostRecordsRefused "most-records-refused" ["LIMIT-002"] "A push of max_push_records is too large.";
    Server MostRangesRefused "most-ranges-refused" ["LIMIT-002"] "max_ranges ranges are too many.";
    Server MostEntriesRefused "most-entries-refused" ["LIMIT-002"] "max_reconcile_entries entries are too many.";
    Server FullAtQuota "full-at-quota" ["LIMIT-002"] "A space is full before its quota.";
    Server ReplacedStillCounts "replaced-still-counts" ["PUSH-012"] "What a write replaces still counts for the quota.";
    Server NoSkewAllowed "no-skew-allowed" ["CLOCK-005", "LIMIT-002"] "No version may be ahead of the clock.";
    Server MessagesHalf "messages-half" ["LIMIT-002"] "Half of max_message_bytes is too large.";
    Server MessagesUnbounded "messages-unbounded" ["LIMIT-003", "LIMIT-004"] "Messages may have any size.";
    Server RateIgnored "rate-ignored" ["LIMIT-014"] "A caller may call at any rate.";

    // ---- the server: records and verdicts ----
    Both KeysFolded "keys-folded" ["MODEL-007"] "Keys are sent in lower case.";
    Both ValuesAsText "values-as-text" ["MODEL-016"] "Values are sent as if they were UTF-8.";
    Both SmallerReplicaWins "smaller-replica-wins" ["MODEL-017"] "At equal times the smaller replica id wins.";
    Server SameVersionIsSame "same-version-is-same" ["MODEL-019"] "Records of one key and version are the same.";
    Server DeletedForGood "deleted-for-good" ["MODEL-018"] "A deleted key takes no newer record.";
    Server DamageStands "damage-stands" ["PUSH-011", "MODEL-023"] "Damaged content wins the merge.";
    Server AppliedCalledUnchanged "applied-called-unchanged" ["PUSH-010"] "Applied records are called unchanged.";
    Server VerdictsWithoutReason "verdicts-without-reason" ["PUSH-016"] "A rejection has no reason.";
    Server GapsInCommit "gaps-in-commit" ["HIST-001", "HIST-002"] "The sequences of a push are not consecutive.";
    Server OldTombstonesNotStored "old-tombstones-not-stored" ["MODEL-018"] "A tombstone below the horizon is called applied, and not stored.";
    Server UnknownRefusesAll "unknown-refuses-all" ["HIST-043"] "All records of a replica from an unknown history are refused.";
    Server ClockOfTheStart "clock-of-the-start" ["CLOCK-005"] "Versions are judged by the time when the server started.";
    Server DamageRemembered "damage-remembered" ["PUSH-011"] "What is under a damaged record's key is called unchanged.";
    Server BelowHorizonRefused "below-horizon-refused" ["HIST-042"] "Records below the horizon are refused whoever sends them.";

    // ---- the server: history ----
    Server OneEpoch "one-epoch" ["HIST-010"] "Every new store has the same epoch.";
    Server RestorePointsForgotten "restore-points-forgotten" ["HIST-012"] "The point at which an epoch was left is not remembered.";
    Server HorizonFromTheStart "horizon-from-the-start" ["HIST-021"] "A new space has a horizon.";
    Server HorizonNotStored "horizon-not-stored" ["HIST-022"] "Compaction does not store the horizon.";
    Server HorizonFalls "horizon-falls" ["HIST-023"] "A further compaction lowers the horizon.";
    Server HorizonWithoutEffect "horizon-without-effect" ["SNAP-008", "HIST-029"] "The horizon rises, and all tombstones stay.";
    Server HorizonUnnamed "horizon-unnamed" ["HIST-030"] "Fingerprints come with horizon 0.";
    Server NewestInvisible "newest-invisible" ["HIST-003"] "A watch that reads right after a commit gets its number, and not yet its record.";
    Server FingerprintsOfSpace "fingerprints-of-space" ["MERKLE-001"] "Fingerprints are those of one space alone.";
    Server PutsCompacted "puts-compacted" ["HIST-025"] "Compaction removes old records that are no tombstones.";

    // ---- the server: streams ----
    Server WatchUnserved "watch-unserved" ["WATCH-003", "WATCH-018"] "Watch is not served.";
    Server WatchRepeatsLast "watch-repeats-last" ["WATCH-003"] "A watch begins with the record at its cursor.";
    Server WatchHearsNothing "watch-hears-nothing" ["WATCH-027"] "A watch that has caught up brings nothing more.";
    Server WatchTellsOtherTags "watch-tells-other-tags" ["WATCH-006", "HIST-005"] "The tags in a watch are not those of the commits.";
    Server CheckpointTooEarly "checkpoint-too-early" ["WATCH-021"] "The checkpoint comes before the changes.";
    Server CancelEndsAll "cancel-ends-all" ["WATCH-041"] "A reader that leaves ends the other streams.";
    Server SlowReadersSkipped "slow-readers-skipped" ["WATCH-032"] "What a slow reader has no room for is dropped.";
    Server EndsInError "ends-in-error" ["WATCH-037"] "A stream does not end with the status OK.";
    Server SnapshotStartUnsaid "snapshot-start-unsaid" ["SNAP-002"] "A snapshot has no first message.";
    Server SnapshotCompleteUnsaid "snapshot-complete-unsaid" ["SNAP-012"] "A snapshot does not say that it is complete.";
    Server StatesReadLater "states-read-later" ["SNAP-001", "SNAP-013", "HIST-019"] "A snapshot's fingerprints are of a later state than its records.";
    Server RecordsReadLater "records-read-later" ["SNAP-001", "HIST-019"] "Each chunk of a snapshot is of the state of its time.";
    Server SnapshotBySignedBytes "snapshot-by-signed-bytes" ["MODEL-006", "SNAP-009"] "The records of a chunk come in the order of signed bytes.";
    Server WantedTwice "wanted-twice" ["SNAP-031"] "Each range in wanted comes twice.";
    Server TotalsUntold "totals-untold" ["SNAP-011"] "A snapshot does not tell its total.";
    Server SnapshotNeverResumed "snapshot-never-resumed" ["SNAP-014"] "A resumed snapshot begins at the start.";
    Server EmptyAfterKeyRefused "empty-after-key-refused" ["SNAP-014"] "An empty after_key is malformed.";
    Server FirstRangeOnly "first-range-only" ["SNAP-007"] "A snapshot brings the first range only.";

    // ---- the server: descents ----
    Server NothingIsEqual "nothing-is-equal" ["RECON-017"] "No fingerprint counts as equal.";
    Server AllIsEqual "all-is-equal" ["RECON-017"] "Every fingerprint counts as equal.";
    Server EmptyIsEqual "empty-is-equal" ["RECON-017", "RECON-020"] "Where the server has nothing, all counts as equal.";
    Server ItemsCalledEqual "items-called-equal" ["RECON-018"] "A part of which the items were told is called equal.";
    Server BoundsRepeated "bounds-repeated" ["RECON-022"] "The inner bounds of a split do not ascend.";
    Server NothingProcessed "nothing-processed" ["RECON-027"] "An answer breaks off before the first part.";
    Server UnknownKindsTaken "unknown-kinds-taken" ["RECON-008"] "Parts of an unknown kind are passed over.";
    Server MissingDigestsTaken "missing-digests-taken" ["RECON-008"] "Digests that are missing count as zeros.";
    Server LowBoundsTaken "low-bounds-taken" ["RECON-003"] "A bound may be at or below the lower one.";
    Server HorizonNeverRight "horizon-never-right" ["RECON-013"] "Every descent is computed at another horizon.";
    Server ReconcileUnserved "reconcile-unserved" ["RECON-049", "RECON-017"] "Reconcile is offered and not served.";

    // ---- the server: transport, callers and refusals ----
    Server ReasonsMadeUp "reasons-made-up" ["ERR-004"] "Refusals name a reason that there is not.";
    Server ExistingTold "existing-told" ["ERR-007"] "Who has no grant is told whether there is such a space.";
    Server NoTokenValid "no-token-valid" ["HELLO-014", "TRANS-011"] "No token is valid.";
    Server UnknownMethodsMissing "unknown-methods-missing" ["TRANS-001"] "A method that there is not is answered as a missing page.";
    Server UnknownMetadataRefused "unknown-metadata-refused" ["TRANS-010"] "Metadata that nobody knows is refused.";
    Server LongContentTypeRefused "long-content-type-refused" ["TRANS-003"] "Content types that name the encoding are refused.";
    Server PlainRefused "plain-refused" ["TRANS-012"] "Uncompressed requests are refused.";
    Server CompressedUnasked "compressed-unasked" ["TRANS-013"] "Answers are compressed for those who do not ask for it.";
    Server EncodingsUntold "encodings-untold" ["TRANS-015"] "The refusal of a compression does not say which are known.";
    Server DeadlineAtOnce "deadline-at-once" ["TRANS-027"] "A call with a deadline is given up at once.";
    Server NoWeb "no-web" ["TRANS-002"] "gRPC-web is not served.";
    Server VersionHeaderForbidden "version-header-forbidden" ["TRANS-024"] "Pages may not send their version.";

    Server NoHttp2 "no-http2" ["TRANS-001"] "HTTP/2 is not spoken.";
    Server GarbageWelcome "garbage-welcome" ["TRANS-001", "SEC-008"] "What is no message is answered with OK.";
    Server GarbageStops "garbage-stops" ["SEC-008"] "What is no message stops the server.";
    Server FewAtOnce "few-at-once" ["SEC-008"] "A ninth call at a time is refused.";
    Server CredentialsForAll "credentials-for-all" ["TRANS-026", "TRANS-023"] "Pages from anywhere may call, with credentials.";
    Server UnknownFieldsRefused "unknown-fields-refused" ["EXT-006", "TRANS-030"] "Fields that nobody knows are malformed.";
    Server UnknownFieldsKept "unknown-fields-kept" ["EXT-008", "EXT-009"] "Unknown fields of a record are kept in its value.";

    // ---- the client's clock and writes ----
    Client FloorForgotten "floor-forgotten" ["CLOCK-003", "CLIENT-001"] "The clock's floor is not kept.";
    Client ReplacedIgnored "replaced-ignored" ["CLOCK-002"] "A write may be dated before the record that it replaces.";
    Client SkewAccepted "skew-accepted" ["CLOCK-011"] "Records of any date are taken.";
    Client RestampReorders "restamp-reorders" ["CLIENT-018"] "Writes refused for their time are re-stamped from last to first.";
    Client RetryRestamped "retry-restamped" ["PUSH-031"] "A write that is sent again has a new version.";
    Client SentIsAccepted "sent-is-accepted" ["PUSH-032"] "A write is forgotten as soon as it is sent.";
    Client BatchTornApart "batch-torn-apart" ["PUSH-024"] "A batch is pushed without `atomic`.";
    Client TwoOfOneKey "two-of-one-key" ["PUSH-006"] "Two writes of one key go into one push.";
    Client VerdictNotAwaited "verdict-not-awaited" ["CLIENT-014"] "A write overtakes the open verdict on an earlier one.";
    Client RejectedForgotten "rejected-forgotten" ["CLIENT-010", "PUSH-027", "LIMIT-009", "ERR-009"] "A rejected write is dropped.";
    Client BeatenWritesStay "beaten-writes-stay" ["CLIENT-015", "PUSH-005", "PUSH-027"] "A write stays when a record arrives that beats it.";
    Client ValueLimitUnchecked "value-limit-unchecked" ["LIMIT-008"] "The application may write values of any size.";
    Client FloorNotAssumed "floor-not-assumed" ["LIMIT-007"] "A limit below the floor is believed.";

    // ---- the client's records and cursors ----
    Client ServerAlwaysWins "server-always-wins" ["MODEL-018", "SNAP-018"] "What the server sends replaces what is held, newer or not.";
    Client DamageKept "damage-kept" ["MODEL-023"] "A damaged record competes with the server's.";
    Client DamageOffered "damage-offered" ["MODEL-022", "MODEL-024"] "Damaged records are offered to the server.";
    Client CursorFirst "cursor-first" ["HIST-009", "WATCH-009"] "The cursor is stored before the records.";
    Client VerdictsTorn "verdicts-torn" ["PUSH-028"] "The verdicts of an answer are stored one by one.";
    Client ConclusionTorn "conclusion-torn" ["RECON-040", "SNAP-025"] "What a session decides is stored piece by piece.";
    Client CommitTorn "commit-torn" ["WATCH-010", "WATCH-009"] "Records of a commit are stored before its end has come.";
    Client CursorGoesBack "cursor-goes-back" ["WATCH-014", "WATCH-011"] "A cursor may go back within a stream.";
    Client ForeignEpochFollowed "foreign-epoch-followed" ["WATCH-013", "HIST-006"] "A cursor of another epoch is followed.";
    Client StrangersAccepted "strangers-accepted" ["WATCH-015", "SNAP-023"] "Records outside of the asked ranges are taken.";
    Client PushMovesCursor "push-moves-cursor" ["PUSH-029"] "The position of a push becomes the cursor.";
    Client CheckpointBelieved "checkpoint-believed" ["WATCH-023", "WATCH-026", "RECON-038"] "Fingerprints are not compared.";
    Client DifferenceIgnored "difference-ignored" ["WATCH-024"] "A checkpoint that differs leads to nothing.";
    Client SilenceBorne "silence-borne" ["WATCH-031"] "A silent stream is never given up.";

    // ---- the client and history ----
    Client LineageIgnored "lineage-ignored" ["HIST-020"] "A cursor is relied on whatever its lineage.";
    Client CompactionIgnored "compaction-ignored" ["HIST-020", "CLIENT-029"] "A cursor is relied on though tombstones may be gone.";
    Client PointsBelieved "points-believed" ["HIST-014"] "Points of an unknown history count as present.";
    Client MissingDropped "missing-dropped" ["HIST-035", "HIST-037"] "What the server lacks is always dropped.";
    Client MissingOffered "missing-offered" ["HIST-034", "HIST-036"] "What the server lacks is always offered again.";
    Client WantedIgnored "wanted-ignored" ["MODEL-028", "MODEL-027"] "Absence in a wanted range counts as deletion.";
    Client OfferRestamped "offer-restamped" ["HIST-037", "RECON-044", "CLIENT-025", "CLIENT-017"] "Lost records are offered with a new version.";
    Client QuarantineDropped "quarantine-dropped" ["HIST-038", "HIST-041"] "Lost records that may not be written are deleted.";
    Client QuarantineOverwritten "quarantine-overwritten" ["HIST-046"] "Of two quarantined records of a key the later one stays.";
    Client OldWritesKept "old-writes-kept" ["CLIENT-022", "CLIENT-023"] "Unsent writes below the horizon are not re-stamped.";
    Client DoubtUntold "doubt-untold" ["CLIENT-024", "CLIENT-044"] "A write in doubt is not marked as such.";
    Client OldTombstonesKept "old-tombstones-kept" ["HIST-031"] "Tombstones below the horizon are not deleted.";
    Client FutureHorizonFollowed "future-horizon-followed" ["SEC-013"] "A horizon in the future is followed.";
    Client MixedHistories "mixed-histories" ["RECON-034"] "A session goes on when the history changes.";
    Client LaggingBelieved "lagging-believed" ["RECON-035"] "An answer from before the cursor is used.";
    Client LastPositionAdopted "last-position-adopted" ["RECON-041"] "The cursor of a session is that of its last answer.";
    Client PointsNotConfirmed "points-not-confirmed" ["RECON-042", "HELLO-030", "SNAP-026"] "A session does not confirm the records that it found equal.";
    Client SnapshotLastPosition "snapshot-last-position" ["SNAP-017"] "A resumed snapshot's cursor is that of its last stream.";
    Client SnapshotUncompared "snapshot-uncompared" ["SNAP-021", "SNAP-022"] "A snapshot is taken for equal without a comparison.";

    // ---- documents ----
    Client ExistenceLast "existence-last" ["DOC-013"] "The existence record is written after the fields.";
    Client ExistenceHoldsValue "existence-holds-value" ["DOC-008"] "The existence record holds an empty JSON object.";
    Client TextUnquoted "text-unquoted" ["DOC-006"] "Text is written as it is, not as JSON.";
    Client JsonSpaced "json-spaced" ["DOC-007"] "JSON is written in lines for people.";
    Client PatchWritesExistence "patch-writes-existence" ["DOC-014"] "A change of fields writes the existence record as well.";
    Client PatchRevives "patch-revives" ["DOC-015"] "Fields of a document that is not there may be changed.";
    Client RemovedIsNull "removed-is-null" ["DOC-016"] "A removed field is set to JSON null.";
    Client DeleteHidesOnly "delete-hides-only" ["DOC-017"] "A deletion leaves the fields' records.";
    Client DeleteFieldsOnly "delete-fields-only" ["DOC-011", "DOC-017"] "A deletion leaves the existence record.";
    Client LateFieldRevives "late-field-revives" ["DOC-011"] "A document shows as soon as it has a field.";
    Client OldFieldsShown "old-fields-shown" ["DOC-012"] "Fields of a document's former life are shown.";
    Client UnreadableUntold "unreadable-untold" ["DOC-010"] "A field that is not JSON is passed over.";
    Client EmptyNamesTaken "empty-names-taken" ["DOC-003"] "Collections, ids and fields may have no name.";
    Client ZeroInNamesTaken "zero-in-names-taken" ["DOC-002"] "Names may contain U+0000.";
    Client LongNamesCut "long-names-cut" ["DOC-004"] "A field's key that is too long is cut.";
    Client FieldsLeftBehind "fields-left-behind" ["DOC-018"] "An existence record is re-stamped without its fields.";

    // ---- what the client tells ----
    Client HeldWithoutCursor "held-without-cursor" ["PUSH-004"] "Pushes name the held ranges without cursors.";
    Client NewestCommitUntold "newest-commit-untold" ["PUSH-030"] "The newest commit is never told.";
    Client NewestCommitAlwaysTold "newest-commit-always-told" ["PUSH-039"] "The newest commit is told also when every cursor is past it.";
    Client NewestCommitKept "newest-commit-kept" ["PUSH-036"] "The newest commit of a history that is no more is kept.";
    Client HorizonUntold "horizon-untold" ["HIST-030"] "Hello names horizon 0 with its fingerprints.";
    Client EmptyPrefixIsProgress "empty-prefix-is-progress" ["RECON-036", "SEC-012"] "An answer that ends before its first part does counts as progress.";
    Client PartsOverruleWhole "parts-overrule-whole" ["RECON-037"] "A range that differs is closed when all of its parts are equal.";
    Client MovedIsContradiction "moved-is-contradiction" ["RECON-052"] "A server that changed between two answers counts as one that contradicts itself.";
    Client ContradictionBorne "contradiction-borne" ["RECON-030"] "A server may contradict itself with digests of full length.";
    Client LongSessionFirst "long-session-first" ["CLIENT-030"] "Nothing is pushed before a long reconciliation.";
    Client VerifyLooksAtNothing "verify-looks-at-nothing" ["CLIENT-043"] "A verification does not hash what is stored.";
    Client SaltPerRequest "salt-per-request" ["RECON-005"] "Each request of a session has another salt.";

    // ---- what the client makes of answers ----
    Client PushStatusIgnored "push-status-ignored" ["PUSH-035", "PUSH-038"] "The statuses in the answer to a push lead to nothing.";
    Client UnknownOutcomeApplied "unknown-outcome-applied" ["EXT-004", "PUSH-038"] "An outcome of a later version counts as applied.";
    Client AllRestamped "all-restamped" ["CLIENT-020"] "With one write that is refused for its time, the others are re-stamped as well.";
    Client FaultNotSought "fault-not-sought" ["CLIENT-045", "PUSH-038"] "All writes of a refused call are rejected.";
    Client RefusedOfferKept "refused-offer-kept" ["CLIENT-048"] "A record that the server refuses to take back is not put aside.";
    Client ForeignTombstoneForgotten "foreign-tombstone-forgotten" ["HIST-032"] "Tombstones of another history are deleted like those of the present one.";
    Client CheckpointHorizonIgnored "checkpoint-horizon-ignored" ["WATCH-025"] "A checkpoint at another horizon is compared as it is.";
    Client DamageForgotten "damage-forgotten" ["CLIENT-047"] "Damage that is known leads to no reconciliation.";
    Client FewRounds "few-rounds" ["LIMIT-012"] "A session is given up after twenty rounds.";
    Client CallsCutShort "calls-cut-short" ["LIMIT-013"] "A call without an answer is given up after three seconds.";
    Client CallsNeverGivenUp "calls-never-given-up" ["LIMIT-013"] "A call without an answer is never given up.";
    Client SmallMessagesOnly "small-messages-only" ["LIMIT-011"] "Messages over 100,000 bytes are refused.";

    Client SplitRepeated "split-repeated" ["RECON-051"] "What was split into one part is asked again as it was.";
    Client DifferingPartsLeft "differing-parts-left" ["RECON-031"] "Parts of a split that differ are not asked again.";
    Client StraysNotReconciled "strays-not-reconciled" ["CLIENT-027"] "A write outside of the held ranges is dated anew without a reconciliation of its key.";
    Client TotalsBelieved "totals-believed" ["SNAP-027"] "A snapshot of more records than were announced is refused.";
    Client HorizonNotFollowed "horizon-not-followed" ["HELLO-027", "HELLO-032"] "Another horizon leads to no second Hello.";
    Client StatusesUncounted "statuses-uncounted" ["HELLO-021", "PUSH-038"] "An answer may have fewer statuses than ranges.";
    Client UnknownAccessWrites "unknown-access-writes" ["HELLO-017"] "An access of a later version counts as write access.";
    Client FeatureAssumed "feature-assumed" ["HELLO-011"] "Reconcile is called though it is not offered.";
    Client EndIsComplete "end-is-complete" ["WATCH-038"] "A stream that ends without its last message is taken for complete.";
    Client UnknownEndFatal "unknown-end-fatal" ["WATCH-039"] "An end for a reason of a later version is the end for good.";
    Client SkewSkipped "skew-skipped" ["CLOCK-012", "HIST-009"] "A record that is dated too far ahead is passed over, and the cursor with it.";

    // ---- the client: openings, answers and documents ----
    Client ReasonsIgnored "reasons-ignored" ["ERR-008"] "Whatever the reason of a refusal, it is tried again.";
    Client UnknownReasonsStop "unknown-reasons-stop" ["ERR-011"] "A refusal for a reason that is not known is the end for good.";
    Client MisbehaviourStops "misbehaviour-stops" ["ERR-013", "RECON-050", "WATCH-042", "SNAP-029"] "An answer that breaks a rule is the end for good.";
    Client TokenNotShown "token-not-shown" ["TRANS-008"] "The token is not sent.";
    Client EmptyStatesRefused "empty-states-refused" ["EXT-001"] "Checkpoints need fingerprints, also of a server that has none.";
    Client BatchSizeUnchecked "batch-size-unchecked" ["PUSH-025"] "A batch may have any number of records.";
    Client ExistenceValueRead "existence-value-read" ["DOC-009"] "A document whose existence record has a value does not show.";
    Client EmptyNamesRead "empty-names-read" ["DOC-005"] "Keys with an empty collection or id are read as documents.";

    // ---- the client's manners ----
    Client VarintsPadded "varints-padded" ["RECON-001"] "Varints are a byte longer than they have to be.";
    Client VersionsMadeUp "versions-made-up" ["HELLO-002"] "Hello names a version that is none, and no other.";
    Client VersionUntold "version-untold" ["HELLO-006"] "Calls do not carry the version.";
    Client OneReplicaId "one-replica-id" ["CLOCK-001"] "Every opening has the same replica id.";
    Client GoneForGood "gone-for-good" ["TRANS-020", "CLIENT-031", "WATCH-042", "SNAP-029"] "A lost connection is the end for good.";
    Client DeadlineOnStreams "deadline-on-streams" ["TRANS-028"] "Streams carry a deadline.";
    Client FirstPauseLong "first-pause-long" ["CLIENT-036"] "The first pause takes seconds.";
    Client SessionsWithoutEnd "sessions-without-end" ["RECON-045", "CLIENT-040"] "Sessions that end unequal are followed by further ones.";
    Client HealsWithoutRest "heals-without-rest" ["RECON-046"] "What cannot be healed is healed again at once.";
    Client NoBackoff "no-backoff" ["CLIENT-032"] "Tries again without a growing pause.";
    Client NoJitter "no-jitter" ["CLIENT-033"] "Waits the same time as every other replica.";
    Client RetryAfterIgnored "retry-after-ignored" ["CLIENT-034", "WATCH-040"] "Tries again before the server's delay is over.";
    Client TokensWithoutEnd "tokens-without-end" ["CLIENT-038", "CLIENT-039"] "Asks for another token as often as one is refused.";
    Client OneSalt "one-salt" ["RECON-004"] "Every session has the same salt.";
    Client ShortDigestsOnly "short-digests-only" ["RECON-039"] "A session after an unequal one uses short digests again.";
    Client VerdictsUncounted "verdicts-uncounted" ["PUSH-026"] "An answer may have fewer verdicts than records.";
    Client VersionUnchecked "version-unchecked" ["HELLO-008"] "Any version that a server chooses is spoken.";

    // ---- the client's store ----
    Client CommittedLater "committed-later" ["CLIENT-008"] "A write is reported before it is stored.";
    Client WritesNeedServer "writes-need-server" ["CLIENT-007"] "Nothing can be written without the server.";
    Client BatchInPieces "batch-in-pieces" ["CLIENT-009", "PUSH-024"] "Each record of a batch becomes a write of its own.";
    Client DiscardForgotten "discard-forgotten" ["CLIENT-011"] "A write that was given up stays.";
    Client AttemptUnrecorded "attempt-unrecorded" ["CLIENT-012"] "Nobody remembers that a write was sent.";
    Client RejectedBlocks "rejected-blocks" ["CLIENT-016"] "A rejected write holds those behind it back.";
    Client UnsentForgotten "unsent-forgotten" ["CLIENT-003"] "Unsent writes do not survive a change of the history.";
    Client SnapshotOverwrites "snapshot-overwrites" ["SNAP-019", "CLIENT-003"] "What a snapshot brings replaces unsent writes, newer or not.";
    Client DisplacedGoesOn "displaced-goes-on" ["CLIENT-005", "CLIENT-006"] "An opening that was displaced goes on.";
    Client UnsentCounted "unsent-counted" ["CLIENT-004", "MERKLE-003"] "Fingerprints count unsent writes.";
    Client QuarantineCounted "quarantine-counted" ["HIST-039", "MERKLE-003"] "Fingerprints count quarantined records.";
    Client OldTombstonesCounted "old-tombstones-counted" ["HIST-029", "MERKLE-003"] "Fingerprints count tombstones below the horizon.";
    Client QuarantineUntold "quarantine-untold" ["HIST-040", "CLIENT-044"] "The application is not told of quarantined records.";
    Client RangesStartAnew "ranges-start-anew" ["CLIENT-028"] "With another set of ranges, every cursor is forgotten.";
    Client NewRangeFollows "new-range-follows" ["HIST-007", "HIST-008"] "A range that is newly held has the cursor of another.";
    Client EverythingHeld "everything-held" ["WATCH-015", "CLIENT-026"] "Everything is held, whatever ranges are asked for.";
    Client FirstOpeningOnly "first-opening-only" ["CLIENT-005"] "No opening takes over from another.";
    Client DeletionKeepsVersion "deletion-keeps-version" ["CLOCK-002"] "A deletion has the version of what it deletes.";
    Client PendingUntold "pending-untold" ["CLIENT-010"] "The application is not told what is pending.";
    Client TagsAltered "tags-altered" ["HIST-007"] "Cursors are sent with another tag.";
    Client SinglesAreAtomic "singles-are-atomic" ["CLIENT-016"] "Single writes are pushed as one batch.";
    Client RangesNeverLeft "ranges-never-left" ["CLIENT-026"] "A range that is held no longer is compared and healed all the same.";
    Client StraysMoveCursors "strays-move-cursors" ["CLIENT-049"] "After a key outside of the held ranges, these have no cursors.";

    // ---- the client: what it sends ----
    Client LimitsForgotten "limits-forgotten" ["LIMIT-006"] "A push may have more records than Hello allows.";
    Client UnknownFlagsSet "unknown-flags-set" ["EXT-007"] "Records have a flag that version 1 does not define.";
    Client UserTold "user-told" ["SEC-015"] "Hello names the user.";
    Client IdOfTheUser "id-of-the-user" ["SEC-014", "CLOCK-001"] "The replica id is made of the user's name.";
    Client NamesInLatin1 "names-in-latin1" ["DOC-001"] "Names of documents are encoded in Latin-1.";
    Client HelloOnce "hello-once" ["CLIENT-031", "HELLO-001"] "After a failure, a session goes on without Hello.";
    Client UnhealedPushesNothing "unhealed-pushes-nothing" ["CLIENT-041"] "Nothing is pushed while both sides differ.";
    Client GapsAsked "gaps-asked" ["RECON-006"] "A session asks about what lies between two held ranges as well.";
    Client AfterKeyAhead "after-key-ahead" ["SNAP-015"] "A snapshot is resumed above the last key.";
    Client OtherTermsResumed "other-terms-resumed" ["SNAP-016"] "A snapshot is resumed in another history.";
    Client BatchReversed "batch-reversed" ["CLIENT-013"] "The records of a batch are pushed from last to first.";
    Client HalfIsListed "half-is-listed" ["RECON-007"] "Every second record of a part is told.";

    // ---- the client: what it makes of answers ----
    Client CommitInPieces "commit-in-pieces" ["WATCH-016"] "Each record of a commit is stored by itself.";
    Client SnapshotInAnyOrder "snapshot-in-any-order" ["SNAP-023", "SNAP-029"] "The keys of a snapshot may come in any order.";
    Client SecondStartTaken "second-start-taken" ["SNAP-029"] "A snapshot may begin twice.";
    Client StrayRecordsTaken "stray-records-taken" ["RECON-029", "SEC-011"] "An answer of a session may have records in any order, of any part.";
    Client EqualUncounted "equal-uncounted" ["HELLO-032"] "Hello may answer for another number of ranges.";
    Client CountsSuffice "counts-suffice" ["MERKLE-007"] "Sets of the same size are the same.";
    Client ShortDigestsVerify "short-digests-verify" ["MERKLE-008"] "After a session, a range counts as verified.";
    Client MissingIsApplied "missing-is-applied" ["PUSH-026"] "What has no verdict counts as applied.";
    Client AnswersNotMerged "answers-not-merged" ["RECON-032"] "Records of a session are dropped.";
    Client LacksIgnored "lacks-ignored" ["RECON-033"] "What the server lacks is passed over.";
    Client SessionCursorEarly "session-cursor-early" ["RECON-043"] "The position of an answer becomes the cursor at once.";
    Client SnapshotCursorEarly "snapshot-cursor-early" ["SNAP-020"] "The position of a snapshot becomes the cursor at once.";
    Client SnapshotLacksIgnored "snapshot-lacks-ignored" ["SNAP-024"] "What a snapshot lacks is passed over.";
    Client AheadKept "ahead-kept" ["SNAP-032"] "What is newer than a snapshot is not offered.";
    Client HeldAgainRefused "held-again-refused" ["WATCH-012"] "A record that is held already ends the stream.";
    Client HeldIsRefused "held-is-refused" ["PUSH-027"] "What the server calls applied or unchanged counts as refused.";
    Client FailedPushRejects "failed-push-rejects" ["ERR-009"] "The writes of a push that fails are given up.";
    Client StopDropsUnsent "stop-drops-unsent" ["ERR-009"] "Unsent writes are dropped when syncing ends for good.";
    Client StatusVoidsVerdicts "status-voids-verdicts" ["PUSH-035"] "Verdicts are dropped when the history is not the one of the session.";
    Client SkewRejects "skew-rejects" ["CLIENT-018"] "A write that is refused for its time is given up.";
    Client RestampedByOwnClock "restamped-by-own-clock" ["CLIENT-018"] "A write that is refused for its time is dated by the client's own clock.";
    Client SignInUntold "sign-in-untold" ["CLIENT-039"] "Nobody is told that a token is needed.";
    Client ResyncStops "resync-stops" ["RECON-034", "WATCH-025"] "A change of the history or the horizon is the end for good.";
    Client NeverVerified "never-verified" ["WATCH-023"] "Nothing is ever called verified.";
    Client FailedHelloIgnored "failed-hello-ignored" ["HELLO-001", "HELLO-032"] "After a failed Hello, a stream is opened all the same.";
    Client UnknownLineageIsSame "unknown-lineage-is-same" ["EXT-004", "HELLO-032"] "A lineage of a later version counts as the same history.";
    Client UnwrittenSpaceStops "unwritten-space-stops" ["MODEL-002"] "A space that was never written to is none.";
    Client TombstonesIgnored "tombstones-ignored" ["SNAP-018", "MODEL-018"] "Tombstones of the server are not merged.";
    Client LostPutAside "lost-put-aside" ["HIST-037", "RECON-033"] "What the server lost goes into quarantine, though it may be written.";
    Client ReadOnlyOffered "read-only-offered" ["HIST-038"] "What the server lost is offered also where nothing may be written.";
    Client AllDoubted "all-doubted" ["CLIENT-024"] "Every write that is dated anew is called in doubt.";
    Client SnapshotUnspoken "snapshot-unspoken" ["SNAP-018"] "Snapshot is not spoken.";
    Client ReconcileUnspoken "reconcile-unspoken" ["RECON-031", "RECON-033", "RECON-044", "RECON-052"] "Reconcile is asked for and not spoken.";
    Client NothingPushed "nothing-pushed" ["PUSH-027", "CLIENT-013"] "Nothing that is written here is pushed.";
    Client UnknownEventsRefused "unknown-events-refused" ["WATCH-042", "EXT-006"] "An event of a later version ends the stream.";
    Client UnknownDetailsStop "unknown-details-stop" ["ERR-010"] "A refusal with details that are not known is the end for good.";
    Client TextDecides "text-decides" ["ERR-012"] "A reason that stands in the text of a refusal counts.";
}

/// Those that no client and no server can see at the protocol, and why: they
/// are the simulation's.
#[cfg(feature = "mutants")]
pub const UNSEEN: &[(Mutant, &str)] = &[
    (
        Mutant::CursorFirst,
        "shows when a device dies between two transactions",
    ),
    (
        Mutant::VerdictsUncounted,
        "what has no verdict is sent again all the same",
    ),
];

/// Whether this mutant acts: in this process, or on this thread.
#[cfg(not(feature = "mutants"))]
pub const fn active(_: Mutant) -> bool {
    false
}

/// For a thread that works for the present one: call the result on it, so that
/// it is the same mutant.
#[cfg(not(feature = "mutants"))]
pub fn inherited() -> impl FnOnce() + Send + 'static {
    || ()
}

#[cfg(feature = "mutants")]
pub use switch::{active, find, inherited, set_process, set_thread};

#[cfg(feature = "mutants")]
mod switch {
    use super::{ALL, Entry, Mutant};
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU16, Ordering};

    /// None acts.
    const NONE: u16 = u16::MAX;

    static PROCESS: AtomicU16 = AtomicU16::new(NONE);
    thread_local! {
        static THREAD: Cell<u16> = const { Cell::new(NONE) };
    }

    /// Whether this mutant acts: in this process, or on this thread.
    pub fn active(mutant: Mutant) -> bool {
        let id = mutant as u16;
        PROCESS.load(Ordering::Relaxed) == id || THREAD.get() == id
    }

    /// Makes this process a mutant: all of its threads. For a program that is
    /// one implementation, from its start to its end.
    pub fn set_process(mutant: Option<Mutant>) {
        PROCESS.store(mutant.map_or(NONE, |m| m as u16), Ordering::Relaxed);
    }

    /// Makes this thread a mutant: for single-threaded runs, many in one
    /// process.
    pub fn set_thread(mutant: Option<Mutant>) {
        THREAD.set(mutant.map_or(NONE, |m| m as u16));
    }

    /// For a thread that works for the present one: call the result on it, so
    /// that it is the same mutant.
    pub fn inherited() -> impl FnOnce() + Send + 'static {
        let id = THREAD.get();
        move || THREAD.set(id)
    }

    /// The row of that name.
    pub fn find(name: &str) -> Option<&'static Entry> {
        ALL.iter().find(|e| e.name == name)
    }
}

#[cfg(all(test, feature = "mutants"))]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_each_is_found_by_its_own() {
        let names: BTreeSet<_> = ALL.iter().map(|e| e.name).collect();
        assert_eq!(names.len(), ALL.len());
        for entry in ALL {
            assert_eq!(find(entry.name).unwrap().mutant, entry.mutant);
        }
    }

    #[test]
    fn a_thread_that_inherits_is_the_same_mutant() {
        set_thread(Some(Mutant::TieByArrival));
        let inherit = inherited();
        std::thread::spawn(|| {
            inherit();
            assert!(mutant!(TieByArrival) && !mutant!(NoOp));
        })
        .join()
        .unwrap();
        set_thread(None);
    }

    #[test]
    fn a_thread_is_a_mutant_alone() {
        set_thread(Some(Mutant::TieByArrival));
        assert!(mutant!(TieByArrival) && !mutant!(NoOp));
        std::thread::spawn(|| assert!(!mutant!(TieByArrival)))
            .join()
            .unwrap();
        set_thread(None);
        assert!(!mutant!(TieByArrival));
    }
}
