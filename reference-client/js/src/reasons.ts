/**
 * Why a server, or a rule of the protocol, refuses something: the closed list of the specification's chapter 12, and
 * `UNKNOWN` for a reason that only a newer version of this package knows.
 *
 * Those that a write is refused for, so that an application may want to react:
 *
 * - `NO_ACCESS`: the token grants no write access to this key.
 * - `QUOTA_EXCEEDED`: the space is full; retry when something was deleted, or the quota raised.
 * - `LIMIT_EXCEEDED`: a value, a key or a batch is larger than this server takes.
 * - `BATCH_ABORTED`: another write of the same batch was refused; that one has the reason.
 *
 * And those that end syncing until somebody acts, as {@link Status.reason}: `UNAUTHENTICATED` and `TOKEN_EXPIRED` (sign
 * in again), `NO_ACCESS` (the token opens no such space), `UNSUPPORTED_VERSION` (update the application),
 * `SPACE_RETIRED` (the space was deleted for good).
 */
export type Reason =
  | "UNSUPPORTED_VERSION"
  | "MALFORMED"
  | "LIMIT_EXCEEDED"
  | "UNAUTHENTICATED"
  | "TOKEN_EXPIRED"
  | "NO_ACCESS"
  | "CLOCK_SKEW"
  | "BEHIND_COMPACTION"
  | "HISTORY_CHANGED"
  | "HORIZON_CHANGED"
  | "LAGGING"
  | "BATCH_ABORTED"
  | "QUOTA_EXCEEDED"
  | "RATE_LIMITED"
  | "SPACE_RETIRED"
  | "UNAVAILABLE"
  | "STREAM_EXPIRED"
  | "SLOW_READER"
  | "STORAGE"
  | "INTERNAL"
  | "UNKNOWN";
