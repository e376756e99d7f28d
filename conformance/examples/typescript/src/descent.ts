/** A reconcile session without its calls (chapter 7): what is asked next, and what the answers come to. */
import { randomBytes } from 'node:crypto';
import { bound, decodeAnswer, varint, type Asked, type Columns } from './columns.js';
import { check, commonPrefix, fingerprint, inside, type Cursor, type Key, type Range, type Rec } from './rules.js';

const ITEMS = 250; // so many records of a part are listed; a larger part is asked in halves, by fingerprints
const ENTRIES = 1000; // of a request: the floor of max_reconcile_entries, and small enough for any max_message_bytes

/** Digests travel in full length, and as they are: dearer, and never equal by chance (sections 7.2 and 7.6). */
export const LENGTH = 32;

/** A part that differed in the answer at `at`. What it is asked in has to show the difference. */
interface Found extends Range { at: Cursor; shown: boolean }
interface Open extends Range { found?: Found }
interface Piece extends Asked, Open { mine: Rec[] }

export class Descent {
  readonly salt = randomBytes(8); // RECON-004
  /** Keys of the replica's records where the server has nothing (RECON-033). */
  readonly lacks = new Set<Key>();
  private open: Open[] = [{ start: '' }];
  private asked: Piece[] = [];
  private idle = 0;
  private rounds = 0;

  get done() { return this.open.length === 0; }
  /** Too many answers, or too many in a row that neither close a part nor bring a record (LIMIT-012, RECON-036). */
  get stuck() { return this.idle >= 64 || this.rounds >= 1000; }

  /** Asks about open parts. `mine` are the replica's records that fingerprints cover, in key order. */
  next(mine: Rec[]) {
    this.open.sort((a, b) => (a.start < b.start ? -1 : 1));
    this.asked = [];
    for (let entries = 0; this.open.length > 0 && entries + ITEMS < ENTRIES; ) {
      const pieces = cut(this.open.shift()!, mine);
      this.asked.push(...pieces);
      for (const { items } of pieces) entries += 1 + (items?.length ?? 0);
    }
    const parts: number[] = [], bounds: Buffer[] = [], digests: Buffer[] = [];
    let lower: Key | undefined = '';
    for (const { start, end, items, mine } of this.asked) {
      if (start !== lower) { // of the part before this one nothing is said: kind 0
        parts.push(4);
        bounds.push(bound(lower!, start));
      }
      parts.push(...(items ? varint(items.length * 4 + 2) : [5]));
      digests.push(...(items?.map((r) => r.digest) ?? [fingerprint(mine)]));
      if (end !== undefined) bounds.push(bound(start, end));
      lower = end;
    }
    if (lower !== undefined) parts.push(4);
    return { parts: Buffer.from(parts), bounds: Buffer.concat(bounds), digests: Buffer.concat(digests) };
  }

  /** Takes an answer and its records, from the server's state at `at`. */
  take(answer: Columns, records: Rec[], at: Cursor): void {
    const answers = decodeAnswer(this.asked, answer, records, LENGTH);
    let closed = 0;
    this.open.push(...this.asked.slice(answers.length));
    answers.forEach((a, i) => {
      const { end, mine, items, found } = this.asked[i];
      const differ = a.into.filter((p) => !fingerprint(mine.filter((r) => inside(r.key, p))).equals(p.short));
      check(a.kind !== 'split' || differ.length > 0, 'a part that differs, and all in it equal');
      for (const p of differ) this.open.push({ ...p, found: { ...p, at, shown: false } }); // RECON-031
      const lacks = mine.filter((r, j) => a.kind === 'resolved' && inside(r.key, a) && (!items || a.lacking[j]));
      for (const { key } of lacks) if (!a.records.some((r) => r.key === key)) this.lacks.add(key);
      if (found) found.shown ||= differ.length + lacks.length + a.records.length > 0;
      if (a.end !== end) this.open.push({ start: a.end!, end, found });
      else if (a.kind !== 'split') closed++;
    });
    for (const found of new Set(this.asked.map((part) => part.found))) {
      if (!found || found.shown || this.open.some((part) => part.found === found)) continue;
      check(found.at.sequence !== at.sequence || found.at.tag !== at.tag, 'a part differs, and nothing in it');
      this.open.push({ start: found.start, end: found.end }); // RECON-052
      closed = 0;
    }
    this.idle = closed > 0 || records.length > 0 ? 0 : this.idle + 1;
    this.rounds++;
  }
}

/** A part as it is asked: in halves, where it is too large to be listed. */
function cut({ start, end, found }: Open, all: Rec[]): Piece[] {
  const mine = all.filter((r) => inside(r.key, { start, end })), half = mine.length >> 1;
  if (mine.length <= ITEMS) return [{ start, end, found, mine, items: mine }];
  const { key } = mine[half], middle = key.slice(0, commonPrefix(mine[half - 1].key, key) + 1); // section 7.8
  return [
    { start, end: middle, found, mine: mine.slice(0, half) },
    { start: middle, end, found, mine: mine.slice(half) },
  ];
}
