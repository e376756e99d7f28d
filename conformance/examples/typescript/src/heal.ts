/** Healing: Reconcile (chapter 7) or Snapshot (chapter 8), and what follows from what they found (chapter 2). */
import { reconcile } from './reconcile.js';
import { check, compare, counts, fingerprint, fromKey, inside, LINEAGES, present, toKey } from './rules.js';
import type { Key, Point, Range, Rec, Standing } from './rules.js';
import { CHUNK, type Session } from './session.js';
import { Failure, type Message } from './wire.js';

/** What the server has, the keys where it has nothing, and where it wants everything again. */
export interface Findings { at: Standing; received: Map<Key, Rec>; lacks: Set<Key>; wanted: Range[] }
export const findings = (at: Standing): Findings => ({ at, received: new Map(), lacks: new Set(), wanted: [] });
export const ranges = (wanted: Message[]): Range[] =>
  wanted.map(({ start, end }) => ({ start: toKey(start), end: end && toKey(end) }));

export async function heal(s: Session): Promise<void> {
  const { replica, store } = s;
  const byReconcile = s.heals && !replica.partial && store.data.clean.size > 0 && replica.inVain < 2; // RECON-045
  settle(s, (byReconcile ? await reconcile(s) : undefined) ?? (await snapshot(s)));
  replica.inVain++; // until a comparison shows otherwise
}

/** A Snapshot that broke off is resumed by the next session. */
async function snapshot(s: Session): Promise<Findings> {
  const { replica, wire } = s, resumed = replica.partial !== undefined;
  let found = replica.partial, last = [...found?.received.keys() ?? []].at(-1) ?? '';
  let at: Standing | undefined, whole = false;
  const request = { ...s.place(), after_key: resumed ? fromKey(last) : null, max_response_bytes: CHUNK };
  try {
    for await (const m of wire.stream('Snapshot', request, replica.limit('watchdog_ms'))) {
      check(!whole && (m.event === 'start') === !at, 'messages out of order');
      if (m.event === 'start') {
        at = s.standing(m.start);
        found ??= findings(at);
        check(!s.differs(at, found.at), 'the history changed'); // SNAP-016
        found.wanted.push(...ranges(m.start.wanted));
      } else if (m.event === 'chunk') {
        const records: Rec[] = m.chunk.records.map((r: Message) => s.receive(r));
        for (const { key } of records) {
          check(key > last, 'records out of order'); // SNAP-023
          last = key;
        }
        gather(s, found!, records, at!.head);
        replica.partial = found;
      } else {
        check(m.complete.ranges.length === (s.heals ? 1 : 0), 'fingerprints of other ranges');
        const same = resumed || !s.heals
          || fingerprint([...found!.received.values()]).equals(m.complete.ranges[0].fingerprint);
        if (!same) replica.inVain++; // text behind RECON-046
        check(same, 'a Snapshot that is not what it says'); // SNAP-022
        whole = true;
      }
    }
  } catch (error) {
    if (!whole || !(error instanceof Failure)) throw error; // else all has come
  }
  check(whole, 'a Snapshot that ended too soon');
  for (const key of s.store.data.clean.keys()) if (!found!.received.has(key)) found!.lacks.add(key); // SNAP-024
  return found!;
}

/** Stores what came. The cursor comes later (RECON-043). */
export function gather(s: Session, found: Findings, records: Rec[], at: Point): void {
  s.store.tx(() => records.forEach((r) => s.store.merge(r, at)));
  for (const r of records) found.received.set(r.key, r);
}

/** The end of a reconciliation, in one transaction (RECON-040, SNAP-025). */
export function settle(s: Session, { at, received, lacks, wanted }: Findings): void {
  const { store } = s, { data } = store, { epoch, sequence } = at.head;
  store.tx(() => {
    for (const r of [...data.clean.values()]) {
      const theirs = received.get(r.key), old = at.behind && r.time < at.horizon && present(r.point, at);
      if (lacks.has(r.key) && old && !r.offer && !wanted.some((range) => inside(r.key, range))) {
        data.clean.delete(r.key); // HIST-034, MODEL-028
      } else if (lacks.has(r.key) || (theirs && compare(r, theirs) > 0)) {
        s.lost(r); // HIST-035, MODEL-027, RECON-033, SNAP-032
        if (theirs) store.merge(theirs, at.head);
      } else if (!r.offer || counts(r, at.horizon)) {
        Object.assign(r, { offer: false, point: { epoch, sequence } }); // RECON-042
      }
    }
    if (at.behind) restampAtHorizon(s, at.horizon); // CLIENT-023
    data.cursor = at.head;
    data.damaged = false;
    if (at.lineage !== LINEAGES[0]) data.newest = undefined; // PUSH-036
  });
  s.here = { ...at, lineage: LINEAGES[0], mapped: BigInt(sequence), behind: false };
  s.replica.partial = undefined;
}

/** The unsent writes below the horizon under whose keys nothing stands (section 9.5). */
function restampAtHorizon({ store, replica }: Session, horizon: bigint): void {
  const { clean, outbox } = store.data;
  for (const w of [...outbox.values()].filter((w) => w.time < horizon && !w.rejected && !clean.has(w.key))) {
    const replaced = store.unsent(w.key).some((later) => later.number > w.number && !later.rejected);
    if (w.tombstone || replaced) outbox.delete(w.number);
    else store.restamp({ ...w, inDoubt: w.inDoubt || w.attempted }, horizon, replica.id); // CLIENT-024
  }
}
