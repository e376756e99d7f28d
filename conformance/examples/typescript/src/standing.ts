// Time, and where an answer says that the replica stands (chapter 2). Knows no store and no calls.
import { Msg } from "./codec.js";
import { Cursor, Malformed } from "./rules.js";

export const SAME = 1; // of Lineage
const REWOUND = 2;
const UNKNOWN = 3;

/** The wall clock, which a test may set. */
export class Clock {
  private offset = 0;
  set(unixMs: number): void {
    this.offset = unixMs ? unixMs - Date.now() : 0;
  }
  now(): number {
    return Date.now() + this.offset;
  }
}

/** Where an answer says that the replica stands (sections 2.2, 2.3). */
export class Standing {
  readonly head: Cursor;
  readonly horizon: bigint;
  readonly lineage: number;
  private readonly kept = new Map<bigint, bigint | null>();
  constructor(
    position: Msg | undefined,
    restorePoints: Msg[],
    private readonly status: Msg,
  ) {
    if (!position?.head) throw new Malformed("an answer without position");
    this.head = position.head as Cursor;
    this.horizon = position.horizon;
    this.lineage = [SAME, REWOUND].includes(status.lineage) ? status.lineage : UNKNOWN; // HIST-014
    let lowest: bigint | null = null;
    for (const point of [...restorePoints].reverse()) {
      lowest = lowest === null || point.sequence < lowest ? point.sequence : lowest;
      if (!this.kept.has(point.epoch)) this.kept.set(point.epoch, lowest);
    }
    this.kept.set(this.head.epoch, null);
  }
  get behind(): boolean {
    return this.status.behind_compaction;
  }
  get mapped(): bigint {
    return this.status.mapped_sequence;
  }
  get inOrder(): boolean {
    return this.lineage === SAME && !this.behind;
  }
  holds(epoch: bigint, sequence: bigint): boolean {
    const kept = this.kept.get(epoch);
    return this.lineage !== UNKNOWN && kept !== undefined && (kept === null || sequence <= kept);
  }
  changedSince(before: Standing): boolean {
    return (
      this.head.epoch !== before.head.epoch ||
      this.horizon !== before.horizon ||
      this.lineage > before.lineage ||
      (this.behind && !before.behind)
    );
  }
}
