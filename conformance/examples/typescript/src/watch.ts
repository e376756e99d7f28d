/** Watch (chapter 6): follows the server, and compares with its checkpoints. */
import { check, sequence, type Cursor, type Point, type Rec } from './rules.js';
import type { Push } from './push.js';
import { CHUNK, historyChanged, type Session } from './session.js';
import type { Message } from './wire.js';

/** Pushes, beside following, what the application writes. Says whether the two sides differ. */
export async function watch(s: Session, push: Push, live: boolean): Promise<boolean> {
  let pushing = Promise.resolve(), failure: unknown;
  const failed = (error: unknown) => {
    failure = error;
    s.wire.close();
  };
  s.replica.onWrite = () => (pushing = pushing.then(() => push.all()).catch(failed));
  try {
    return await follow(s, live);
  } finally {
    s.replica.onWrite = () => {};
    await pushing;
    if (failure) throw failure;
  }
}

async function follow(s: Session, live: boolean): Promise<boolean> {
  const { replica, store } = s, request = { ...s.place(), max_response_bytes: CHUNK, until_caught_up: !live };
  let pending: Rec[] = [];
  const reach = (cursor: Cursor) => {
    const lower = sequence(cursor) < sequence(store.data.cursor!);
    if (lower || cursor.epoch !== s.here.head.epoch) throw historyChanged(); // WATCH-013, WATCH-014
    store.tx(() => {
      for (const r of pending) if (store.merge(r, cursor)) replica.inVain = 0;
      store.data.cursor = cursor;
    }); // WATCH-009
    if (replica.live && pending.length > 0) replica.options.changed?.(); // WATCH-016
    pending = [];
  };
  for await (const m of s.wire.stream('Watch', request, replica.limit('watchdog_ms'))) {
    if (m.event === 'changes') {
      pending.push(...m.changes.records.map((r: Message) => s.receive(r)));
      if (m.changes.cursor) reach(m.changes.cursor); // WATCH-010
    } else if (m.event === 'heartbeat') {
      s.tell(m.heartbeat);
      if (m.heartbeat.cursor && pending.length === 0) reach(m.heartbeat.cursor);
    } else {
      const { position, ranges } = m.checkpoint;
      check(position?.head && pending.length === 0, 'a checkpoint within a commit');
      check(ranges.length === (s.heals ? 1 : 0), 'fingerprints of other ranges');
      if (BigInt(position.horizon) !== s.here.horizon) throw historyChanged(); // WATCH-025
      s.tell(m.checkpoint);
      reach(position.head);
      if (s.heals && differs(s, position.head, ranges[0].fingerprint)) return true; // WATCH-024
      replica.live = true;
      replica.options.changed?.(); // WATCH-017
    }
  }
  check(replica.live, 'a Watch without a checkpoint');
  return false;
}

/** Compares with a checkpoint (WATCH-023), within the bounds of section 9.9. Says whether to heal. */
function differs({ store, replica }: Session, head: Point, theirs: Buffer): boolean {
  const newer = (p: Point) => p.epoch === head.epoch && sequence(p) > sequence(head);
  if ([...store.data.clean.values()].some((r) => newer(r.point))) return false;
  replica.proof = theirs;
  const { verified } = replica;
  if (verified) replica.inVain = 0;
  if (verified) return false;
  replica.report('the contents differ from the server\'s'); // CLIENT-042
  if (replica.inVain > 2) { // neither two sessions nor a Snapshot helped (RECON-046)
    replica.inVain = 0;
    replica.healAfter = performance.now() + 30_000;
  }
  check(performance.now() >= replica.healAfter, 'the contents cannot be healed at present');
  return true;
}
