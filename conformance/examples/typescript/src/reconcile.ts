/** A reconcile session without its calls (chapter 7): what is asked next, and what the answers come to. */
import { randomBytes } from 'node:crypto';
import { check, commonPrefix, fingerprint, fromKey, inside, toKey } from './rules.js';
import type { Cursor, Key, Range, Rec } from './rules.js';

const ITEMS = 250; // so many records of a part are listed; a larger part is asked in halves, by fingerprints
const ENTRIES = 1000; // of a request: the floor of max_reconcile_entries, and small enough for any max_message_bytes

/** Digests travel in full length, and as they are: dearer, and never equal by chance (sections 7.2 and 7.6). */
export const LENGTH = 32;

export const varint = (n: number): number[] => (n < 128 ? [n] : [(n % 128) + 128, ...varint(Math.floor(n / 128))]);

/** A bound, coded against the lower bound of the part that it ends (section 7.2). */
export function bound(lower: Key, upper: Key): Buffer {
  const common = commonPrefix(lower, upper), drop = lower.length - common, add = upper.length - common;
  const more = [drop, add].filter((n) => n >= 15).flatMap((n) => varint(n - 15));
  const head = [Math.min(drop, 15) * 16 + Math.min(add, 15), ...more];
  return Buffer.concat([Buffer.from(head), fromKey(upper.slice(common))]);
}

/** Reads a column, and refuses what is malformed (RECON-002, RECON-003). */
export class Reader {
  private at = 0;
  constructor(private readonly bytes: Buffer) {}
  get done() { return this.at === this.bytes.length; }

  take(n: number): Buffer {
    check(this.at + n <= this.bytes.length, 'a column ends early');
    return this.bytes.subarray(this.at, (this.at += n));
  }

  varint(): number {
    for (let n = 0, scale = 1; ; scale *= 128) {
      const [byte] = this.take(1);
      n += (byte % 128) * scale;
      check(n <= Number.MAX_SAFE_INTEGER && (byte > 0 || scale === 1), 'a varint too long, or not in shortest form');
      if (byte < 128) return n;
    }
  }

  bound(lower: Key): Key {
    const [head] = this.take(1);
    const drop = head >> 4 === 15 ? 15 + this.varint() : head >> 4;
    const add = head % 16 === 15 ? 15 + this.varint() : head % 16;
    check(drop <= lower.length && lower.length - drop + add <= 513, 'a bound drops or adds too much');
    const upper = lower.slice(0, lower.length - drop) + toKey(this.take(add));
    check(upper > lower, 'bounds do not ascend');
    return upper;
  }
}

/** A part that is asked: by its items, the replica's records there, or without them by its fingerprint. */
export interface Asked extends Range { items?: Rec[] }
export interface Columns { parts: Buffer; bounds: Buffer; digests: Buffer; lacking: Buffer; resume_at?: Buffer }
/** Of a split: the smaller parts. Of a resolved part: up to where only, and which items the server lacks. */
export interface Answered {
  kind: 'equal' | 'split' | 'resolved'; into: (Range & { short: Buffer })[]; below?: Key; lacks: boolean[];
}
const KINDS = ['equal', 'split', 'resolved'] as const;

/** What an answer says of the parts that were asked; of the last ones maybe nothing. Refuses what RECON-029 names. */
export function decodeAnswer(asked: Asked[], answer: Columns, records: Rec[], length: number): Answered[] {
  const resume = answer.resume_at && toKey(answer.resume_at);
  check(resume === undefined || resume > asked[0].start, 'nothing was processed'); // RECON-027
  const due = asked.filter((part) => resume === undefined || part.start < resume);
  const [parts, bounds, digests, lacking] =
    [answer.parts, answer.bounds, answer.digests, answer.lacking].map((column) => new Reader(column));
  const answered: Answered[] = [];
  while (!parts.done) {
    const run = parts.varint(), n = Math.floor(run / 4), kind = KINDS[run % 4], times = kind === 'split' ? 1 : n;
    check(kind && n > 0 && answered.length + times <= due.length, 'answers that do not go with the parts');
    for (let i = 0; i < times; i++) {
      const { start, end, items } = due[answered.length];
      const below = resume !== undefined && (end === undefined || resume < end) ? resume : undefined;
      check(kind === 'resolved' || (!items && below === undefined), 'can only be resolved'); // RECON-018, RECON-028
      const into: Answered['into'] = [];
      for (let lower = start; kind === 'split' && into.length < n; ) {
        const upper = into.length < n - 1 ? bounds.bound(lower) : end;
        check(into.length === n - 1 || end === undefined || upper! < end, 'a bound outside of its part'); // RECON-022
        into.push({ start: lower, end: upper, short: digests.take(length) });
        lower = upper!;
      }
      answered.push({ kind, into, below, lacks: [] });
    }
  }
  check(answered.length === due.length && bounds.done && digests.done, 'a column is too short or too long');

  const resolved = answered.flatMap((a, i) => (a.kind === 'resolved' ? (due[i].items ?? []).map(() => a.lacks) : []));
  for (let turn = 0; !lacking.done; turn++) { // items that the server has and lacks, in turns (RECON-020)
    const n = lacking.varint(), lacks = turn % 2 === 1;
    check(n <= resolved.length && (n > 0 || turn === 0), 'not the items that were listed');
    for (const marks of resolved.splice(0, n)) marks.push(lacks);
  }
  records.forEach(({ key }, i) => {
    check(i === 0 || key > records[i - 1].key, 'records out of order');
    const a = answered[due.findIndex((part) => inside(key, part))];
    check(a?.kind === 'resolved' && (a.below === undefined || key < a.below), 'a record that was not asked for');
  });
  return answered;
}

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
  private rest: Open[] = []; // what the request had no room for
  private idle = 0;
  private rounds = 0;

  get done() { return this.open.length === 0; }
  /** Too many answers, or too many in a row that neither close a part nor bring a record (LIMIT-012, RECON-036). */
  get stuck() { return this.idle >= 64 || this.rounds >= 1000; }

  /** Asks about open parts. `mine` are the replica's records that fingerprints cover, in key order. */
  next(mine: Rec[]) {
    this.rest = this.open.sort((a, b) => (a.start < b.start ? -1 : 1)).slice();
    this.asked = [];
    for (let entries = 0; this.rest.length > 0 && entries + ITEMS < ENTRIES; ) {
      const pieces = this.cut(this.rest.shift()!, mine);
      this.asked.push(...pieces);
      for (const { items } of pieces) entries += 1 + (items?.length ?? 0);
    }
    const parts: number[] = [], bounds: Buffer[] = [], digests: Buffer[] = [];
    let lower: Key | undefined = '';
    for (const { start, end, items, mine } of this.asked) {
      if (start !== lower) parts.push(4), bounds.push(bound(lower!, start)); // kind 0: of this part nothing is said
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
    const answers = decodeAnswer(this.asked, answer, records, LENGTH), came = new Set(records.map((r) => r.key));
    const equal = (p: Range & { short: Buffer }, mine: Rec[]) =>
      fingerprint(mine.filter((r) => inside(r.key, p))).equals(p.short);
    let closed = 0;
    this.open = this.rest;
    this.asked.forEach(({ start, end, mine, items, found }, i) => {
      const a = answers[i], reached = { start, end: a?.below ?? end };
      if (!a) return void this.open.push({ start, end, found });
      if (a.kind === 'split') {
        const differ = a.into.filter((p) => !equal(p, mine));
        check(differ.length > 0, 'a part that differs, and all in it equal');
        for (const p of differ) this.open.push({ ...p, found: { ...p, at, shown: false } }); // RECON-031
        if (found) found.shown = true;
        return;
      }
      const lacks = a.kind === 'equal' ? [] : mine.filter((r, j) => inside(r.key, reached) && (!items || a.lacks[j]));
      for (const { key } of lacks) if (!came.has(key)) this.lacks.add(key);
      if (found && (lacks.length > 0 || records.some((r) => inside(r.key, reached)))) found.shown = true;
      if (a.below === undefined) closed++;
      else this.open.push({ start: a.below, end, found });
    });
    for (const found of new Set(this.asked.map((p) => p.found))) {
      if (!found || found.shown || this.open.some((p) => p.found === found)) continue;
      check(found.at.sequence !== at.sequence || found.at.tag !== at.tag, 'a part differs, and nothing in it');
      this.open.push({ start: found.start, end: found.end }); // RECON-052
      closed = 0;
    }
    this.idle = closed > 0 || records.length > 0 ? 0 : this.idle + 1;
    this.rounds++;
  }

  private cut({ start, end, found }: Open, all: Rec[]): Piece[] {
    const mine = all.filter((r) => inside(r.key, { start, end })), half = mine.length >> 1;
    if (mine.length <= ITEMS) return [{ start, end, found, mine, items: mine }];
    const { key } = mine[half], middle = key.slice(0, commonPrefix(mine[half - 1].key, key) + 1); // section 7.8
    return [
      { start, end: middle, found, mine: mine.slice(0, half) },
      { start: middle, end, found, mine: mine.slice(half) },
    ];
  }
}
