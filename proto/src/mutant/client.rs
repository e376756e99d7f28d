//! The deliberate errors of the client.

/// Hands them on, behind those before.
macro_rules! client {
    ($($before:tt)*) => {
        mutants! {
            $($before)*
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
            Client RejectedForgotten "rejected-forgotten" ["CLIENT-050", "PUSH-027", "LIMIT-009", "ERR-009"] "A rejected write is dropped.";
            Client BeatenWritesStay "beaten-writes-stay" ["CLIENT-015", "PUSH-005", "PUSH-027"] "A write stays when a record arrives that beats it.";
            Client ValueLimitUnchecked "value-limit-unchecked" ["LIMIT-008"] "The application may write values of any size.";
            Client FloorNotAssumed "floor-not-assumed" ["LIMIT-007"] "A limit below the floor is believed.";
            Client CeilingNotAssumed "ceiling-not-assumed" ["LIMIT-016"] "A limit above the ceiling is believed.";
            Client TimeWraps "time-wraps" ["CLOCK-004"] "After the last time comes the first.";

            // ---- the client's records and cursors ----
            Client ServerAlwaysWins "server-always-wins" ["MODEL-018", "SNAP-018"] "What the server sends replaces what is held, newer or not.";
            Client VersionIsIdentity "version-is-identity" ["MODEL-019"] "A record of the version that is held is taken for the same.";
            Client BytesSigned "bytes-signed" ["MODEL-006"] "The order of keys is that of signed bytes.";
            Client RangesUnbounded "ranges-unbounded" ["MERKLE-002"] "A fingerprint is of all that is held, whatever the range.";
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
            Client CheckpointBelieved "checkpoint-believed" ["WATCH-023", "WATCH-026", "RECON-038", "MERKLE-004"] "Fingerprints are not compared: what the server tells counts.";
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
            Client SplitPassedOver "split-passed-over" ["RECON-003"] "A part that is split at a bad bound counts as done.";
            Client MixedHistories "mixed-histories" ["RECON-034"] "A session goes on when the history changes.";
            Client LaggingBelieved "lagging-believed" ["RECON-035"] "An answer from before the cursor is used.";
            Client LastPositionAdopted "last-position-adopted" ["RECON-041"] "The cursor of a session is that of its last answer.";
            Client PointsNotConfirmed "points-not-confirmed" ["RECON-042", "HELLO-030", "SNAP-026"] "A session does not confirm the records that it found equal.";
            Client SnapshotLastPosition "snapshot-last-position" ["SNAP-017"] "A resumed snapshot's cursor is that of its last stream.";
            Client SnapshotUncompared "snapshot-uncompared" ["SNAP-021", "SNAP-022"] "A snapshot is taken for equal without a comparison.";
            Client SnapshotEndUnheard "snapshot-end-unheard" ["WATCH-040"] "What the end of a complete snapshot asks for is passed over.";
            Client SnapshotEndAwaited "snapshot-end-awaited" ["SNAP-029"] "A complete snapshot whose end got lost is taken again.";
            Client AfterTheEndTaken "after-the-end-taken" ["SNAP-029"] "A snapshot may go on after it is complete.";
            Client WithdrawnIsRefused "withdrawn-is-refused" ["WATCH-042"] "A grant that is withdrawn from a stream counts as no access at all.";
            Client KnownLossForgotten "known-loss-forgotten" ["HIST-034", "HIST-035"] "A lost record that waits to be offered is judged anew.";
            Client LaggingHammered "lagging-hammered" ["RECON-056"] "A server that lags is asked again at once.";

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
            Client NewestCommitUntold "newest-commit-untold" ["PUSH-030", "PUSH-040"] "The newest commit is never told.";
            Client NewestCommitAlwaysTold "newest-commit-always-told" ["PUSH-039"] "The newest commit is told also when every cursor is past it.";
            Client NewestCommitKept "newest-commit-kept" ["PUSH-036"] "The newest commit of a history that is no more is kept.";
            Client HorizonUntold "horizon-untold" ["HIST-030"] "Hello names horizon 0 with its fingerprints.";
            Client EmptyPrefixIsProgress "empty-prefix-is-progress" ["RECON-036", "SEC-012"] "An answer that ends before its first part does counts as progress.";
            Client PartsOverruleWhole "parts-overrule-whole" ["RECON-037"] "A range that differs is closed when all of its parts are equal.";
            Client MovedIsContradiction "moved-is-contradiction" ["RECON-052"] "A server that changed between two answers counts as one that contradicts itself.";
            Client ContradictionBorne "contradiction-borne" ["RECON-054"] "A server may contradict itself with digests of full length.";
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
            Client OddTrailersRefused "odd-trailers-refused" ["TRANS-005"] "An answer whose trailers have a field that nobody knows is no answer.";
            Client CallsCutShort "calls-cut-short" ["LIMIT-013"] "A call without an answer is given up after three seconds.";
            Client CallsNeverGivenUp "calls-never-given-up" ["LIMIT-013"] "A call without an answer is never given up.";
            Client SmallMessagesOnly "small-messages-only" ["LIMIT-011"] "Messages over 100,000 bytes are refused.";
            Client SplitRepeated "split-repeated" ["RECON-051"] "What was split into one part is asked again as it was.";
            Client DifferingPartsLeft "differing-parts-left" ["RECON-055"] "Parts of a split that differ are not asked again.";
            Client StraysNotReconciled "strays-not-reconciled" ["CLIENT-027"] "A write outside of the held ranges is dated anew without a reconciliation of its key.";
            Client TotalsBelieved "totals-believed" ["SNAP-035"] "A snapshot of more records than were announced is refused.";
            Client HorizonNotFollowed "horizon-not-followed" ["HELLO-027", "HELLO-032"] "Another horizon leads to no second Hello.";
            Client StatusesUncounted "statuses-uncounted" ["HELLO-021", "PUSH-038"] "An answer may have fewer statuses than ranges.";
            Client UnknownAccessWrites "unknown-access-writes" ["HELLO-017"] "An access of a later version counts as write access.";
            Client FeatureAssumed "feature-assumed" ["HELLO-011"] "Reconcile is called though it is not offered.";
            Client EndIsComplete "end-is-complete" ["WATCH-038"] "A stream that ends without its last message is taken for complete.";
            Client UnknownEndFatal "unknown-end-fatal" ["WATCH-039"] "An end for a reason of a later version is the end for good.";
            Client LiveUnread "live-unread" ["WATCH-042"] "What comes after the first checkpoint is passed over.";
            Client MessagesByThrees "messages-by-threes" ["WATCH-017"] "The messages of a stream are read by threes.";
            Client UnsentShields "unsent-shields" ["CLIENT-015", "MODEL-018"] "Under a key with an unsent write nothing newer is taken.";
            Client MisbehaviourDropsUnsent "misbehaviour-drops-unsent" ["ERR-009", "CLIENT-003"] "Unsent writes are dropped when an answer breaks a rule.";
            Client SkewSkipped "skew-skipped" ["CLOCK-012", "HIST-009"] "A record that is dated too far ahead is passed over, and the cursor with it.";

            // ---- the client: openings, answers and documents ----
            Client ReasonsIgnored "reasons-ignored" ["ERR-008"] "Whatever the reason of a refusal, it is tried again.";
            Client UnknownReasonsStop "unknown-reasons-stop" ["ERR-011"] "A refusal for a reason that is not known is the end for good.";
            Client MisbehaviourStops "misbehaviour-stops" ["ERR-013", "RECON-050", "WATCH-042", "SNAP-029"] "An answer that breaks a rule is the end for good.";
            Client TokenNotShown "token-not-shown" ["TRANS-008"] "The token is not sent.";
            Client TokenToldTwice "token-told-twice" ["TRANS-032"] "The token is sent in another header as well.";
            Client EmptyStatesRefused "empty-states-refused" ["EXT-001"] "Checkpoints need fingerprints, also of a server that has none.";
            Client BatchSizeUnchecked "batch-size-unchecked" ["PUSH-025"] "A batch may have any number of records.";
            Client ExistenceValueRead "existence-value-read" ["DOC-009"] "A document whose existence record has a value does not show.";
            Client EmptyNamesRead "empty-names-read" ["DOC-005"] "Keys with an empty collection or id are read as documents.";

            // ---- the client's manners ----
            Client VarintsPadded "varints-padded" ["RECON-001"] "Varints are a byte longer than they have to be.";
            Client VersionsMadeUp "versions-made-up" ["HELLO-002"] "Hello names a version that is none, and no other.";
            Client VersionUntold "version-untold" ["HELLO-006"] "Calls do not carry the version.";
            Client OneReplicaId "one-replica-id" ["CLOCK-001"] "Every opening has the same replica id.";
            Client GoneForGood "gone-for-good" ["TRANS-020", "TRANS-036", "CLIENT-031", "WATCH-042", "SNAP-029"] "A lost connection is the end for good.";
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
            Client WritesKeptToOneself "writes-kept-to-oneself" ["CLIENT-008"] "An opening keeps what it wrote to itself until the server has it.";
            Client WritesNeedServer "writes-need-server" ["CLIENT-007"] "Nothing can be written without the server.";
            Client BatchInPieces "batch-in-pieces" ["CLIENT-009", "PUSH-024"] "Each record of a batch becomes a write of its own.";
            Client DiscardForgotten "discard-forgotten" ["CLIENT-011"] "A write that was given up stays.";
            Client RetryForgotten "retry-forgotten" ["CLIENT-051"] "A rejected write that is to be sent again stays rejected.";
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
            Client StreamKept "stream-kept" ["TRANS-021"] "An opening that was displaced keeps its stream.";
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
            Client UnhealedPushesNothing "unhealed-pushes-nothing" ["CLIENT-041", "CLIENT-052"] "Nothing is pushed while both sides differ.";
            Client GapsAsked "gaps-asked" ["RECON-006"] "A session asks about what lies between two held ranges as well.";
            Client AfterKeyAhead "after-key-ahead" ["SNAP-015"] "A snapshot is resumed above the last key.";
            Client OtherTermsResumed "other-terms-resumed" ["SNAP-016"] "A snapshot is resumed in another history.";
            Client JoinedRefusedTogether "joined-refused-together" ["PUSH-041"] "Batches that shared an aborted Push count as refused, all of them.";
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
            Client SessionCursorEarly "session-cursor-early" ["RECON-043", "RECON-030"] "The position of an answer becomes the cursor at once.";
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
            Client FailedHelloIgnored "failed-hello-ignored" ["HELLO-001", "HELLO-032", "TRANS-005"] "After a failed Hello, or one without its trailers, a stream is opened all the same.";
            Client UnknownLineageIsSame "unknown-lineage-is-same" ["EXT-004", "HELLO-032"] "A lineage of a later version counts as the same history.";
            Client UnwrittenSpaceStops "unwritten-space-stops" ["MODEL-002"] "A space that was never written to is none.";
            Client TombstonesIgnored "tombstones-ignored" ["SNAP-018", "MODEL-018"] "Tombstones of the server are not merged.";
            Client LostPutAside "lost-put-aside" ["HIST-037", "RECON-033"] "What the server lost goes into quarantine, though it may be written.";
            Client ReadOnlyOffered "read-only-offered" ["HIST-038", "SNAP-034"] "What the server lost is offered also where nothing may be written.";
            Client AllDoubted "all-doubted" ["CLIENT-024"] "Every write that is dated anew is called in doubt.";
            Client SnapshotUnspoken "snapshot-unspoken" ["SNAP-018"] "Snapshot is not spoken.";
            Client ReconcileUnspoken "reconcile-unspoken" ["RECON-031", "RECON-033", "RECON-044", "RECON-052"] "Reconcile is asked for and not spoken.";
            Client NothingPushed "nothing-pushed" ["PUSH-027", "CLIENT-013"] "Nothing that is written here is pushed.";
            Client UnknownEventsRefused "unknown-events-refused" ["WATCH-042", "EXT-006"] "An event of a later version ends the stream.";
            Client UnknownDetailsStop "unknown-details-stop" ["ERR-010"] "A refusal with details that are not known is the end for good.";
            Client TextDecides "text-decides" ["ERR-012"] "A reason that stands in the text of a refusal counts.";
        }
    };
}
