//! The deliberate errors of the server.

/// Hands them on, behind those before.
macro_rules! server {
    ($($before:tt)*) => {
        client! {
            $($before)*
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
            Server OlderHeals "older-heals" ["MODEL-029"] "Damaged content is forgotten as soon as an older record stands in its place.";

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
            Server LongBoundsTaken "long-bounds-taken" ["MODEL-009"] "Bounds of ranges may be longer than 513 bytes.";
            Server LongestBoundRefused "longest-bound-refused" ["MODEL-009"] "Bounds of 513 bytes are too long.";
            Server AnySpaceId "any-space-id" ["MODEL-001"] "A space may have any name.";
            Server InvertedRangesTaken "inverted-ranges-taken" ["MODEL-008"] "A range whose end is not above its start stands for all keys.";
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
            Server RightsNeverEnd "rights-never-end" ["WATCH-035", "WATCH-044"] "A stream goes on after its token was revoked.";
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
            Server LimitAboveCeiling "limit-above-ceiling" ["LIMIT-015"] "Hello advertises a limit above its ceiling.";
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
            Server SameVersionIsSame "same-version-is-same" ["MODEL-019"] "Records of one key and version are the same.";
            Server DeletedForGood "deleted-for-good" ["MODEL-018"] "A deleted key takes no newer record.";
            Server DamageStands "damage-stands" ["PUSH-011", "MODEL-023"] "Damaged content wins the merge.";
            Server AppliedCalledUnchanged "applied-called-unchanged" ["PUSH-010"] "Applied records are called unchanged.";
            Server VerdictsWithoutReason "verdicts-without-reason" ["PUSH-016"] "A rejection has no reason.";
            Server GapsInCommit "gaps-in-commit" ["HIST-001", "HIST-002"] "The sequences of a push are not consecutive.";
            Server OldTombstonesNotStored "old-tombstones-not-stored" ["MODEL-018"] "A tombstone below the horizon is called applied, and not stored.";
            Server UnknownRefusesAll "unknown-refuses-all" ["HIST-043"] "All records of a replica from an unknown history are refused.";
            Server ClockOfTheStart "clock-of-the-start" ["CLOCK-005"] "Versions are judged by the time of the first push.";
            Server DamageRemembered "damage-remembered" ["PUSH-011"] "What is under a damaged record's key is called unchanged.";
            Server BelowHorizonRefused "below-horizon-refused" ["HIST-042"] "Records below the horizon are refused whoever sends them.";

            // ---- the server: history ----
            Server OneEpoch "one-epoch" ["HIST-010"] "Every new store has the same epoch.";
            Server RestorePointsForgotten "restore-points-forgotten" ["HIST-012"] "The point at which an epoch was left is not remembered.";
            Server HorizonFromTheStart "horizon-from-the-start" ["HIST-021", "HIST-048"] "A new space has a horizon.";
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
            Server SnapshotCompleteUnsaid "snapshot-complete-unsaid" ["SNAP-012", "SNAP-033"] "A snapshot does not say that it is complete.";
            Server StatesReadLater "states-read-later" ["SNAP-001", "SNAP-013", "HIST-019"] "A snapshot's fingerprints are of a later state than its records.";
            Server RecordsReadLater "records-read-later" ["SNAP-001", "HIST-019"] "Each chunk of a snapshot is of the state of its time.";
            Server SnapshotBySignedBytes "snapshot-by-signed-bytes" ["MODEL-006", "SNAP-009"] "The records of a chunk come in the order of signed bytes.";
            Server WantedTwice "wanted-twice" ["SNAP-031", "RECON-053"] "Each range in wanted comes twice.";
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
            Server BoundCountWraps "bound-count-wraps" ["RECON-003"] "The count of a bound's bytes wraps at 64 bits.";
            Server LowBoundsTaken "low-bounds-taken" ["RECON-003"] "A bound may be at or below the lower one.";
            Server HorizonNeverRight "horizon-never-right" ["RECON-013"] "Every descent is computed at another horizon.";
            Server ReconcileUnserved "reconcile-unserved" ["RECON-049", "RECON-017"] "Reconcile is offered and not served.";

            // ---- the server: transport, callers and refusals ----
            Server ReasonsMadeUp "reasons-made-up" ["ERR-004"] "Refusals name a reason that there is not.";
            Server ExistingTold "existing-told" ["ERR-007"] "Who has no grant is told whether there is such a space.";
            Server NoTokenValid "no-token-valid" ["HELLO-014", "TRANS-011"] "No token is valid.";
            Server UnknownMethodsMissing "unknown-methods-missing" ["TRANS-038"] "A method that there is not is answered as a missing page.";
            Server UnknownMetadataRefused "unknown-metadata-refused" ["TRANS-010"] "Metadata that nobody knows is refused.";
            Server LongContentTypeRefused "long-content-type-refused" ["TRANS-003"] "Content types that name the encoding are refused.";
            Server PlainRefused "plain-refused" ["TRANS-012"] "Uncompressed requests are refused.";
            Server CompressedUnasked "compressed-unasked" ["TRANS-013"] "Answers are compressed for those who do not ask for it.";
            Server EncodingsUntold "encodings-untold" ["TRANS-015", "TRANS-034"] "The refusal of a compression does not say which are known.";
            Server DeadlineAtOnce "deadline-at-once" ["TRANS-027"] "A call with a deadline is given up at once.";
            Server NoWeb "no-web" ["TRANS-002", "TRANS-031"] "gRPC-web is not served.";
            Server VersionHeaderForbidden "version-header-forbidden" ["TRANS-024"] "Pages may not send their version.";
            Server NoHttp2 "no-http2" ["TRANS-001"] "HTTP/2 is not spoken.";
            Server UndecodableInternal "undecodable-internal" ["ERR-014"] "A message that cannot be decoded is answered with what the library says.";
            Server GarbageWelcome "garbage-welcome" ["TRANS-001", "SEC-008"] "What is no message is answered with OK.";
            Server GarbageStops "garbage-stops" ["SEC-008"] "What is no message stops the server.";
            Server FewAtOnce "few-at-once" ["SEC-008"] "A ninth call at a time is refused.";
            Server CredentialsForAll "credentials-for-all" ["TRANS-026"] "Pages from anywhere may call, with credentials.";
            Server UnknownFieldsRefused "unknown-fields-refused" ["EXT-006", "TRANS-030"] "Fields that nobody knows are malformed.";
        }
    };
}
