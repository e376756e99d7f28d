/** The columns of a reconcile session (sections 7.2 to 7.4): written, and read with distrust. */
import { check, commonPrefix, fromKey, inside, toKey, type Key, type Range, type Rec } from './rules.js';

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
    this.at += n;
    return this.bytes.subarray(this.at - n, this.at);
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
    const [head] = this.take(1), more = (n: number) => (n === 15 ? 15 + this.varint() : n);
    const drop = more(head >> 4), add = more(head % 16), kept = lower.length - drop;
    check(kept >= 0 && kept + add <= 513, 'a bound drops or adds too much');
    const upper = lower.slice(0, kept) + toKey(this.take(add));
    check(upper > lower, 'bounds do not ascend');
    return upper;
  }
}

/** A part that is asked: by its items, the replica's records there, or without them by its fingerprint. */
export interface Asked extends Range { items?: Rec[] }
export interface Columns { parts: Buffer; bounds: Buffer; digests: Buffer; lacking: Buffer; resume_at?: Buffer }
const KINDS = ['equal', 'split', 'resolved'] as const;
/** What is said of a part, as far as it was processed: it was split, or `records` came, and some items are lacking. */
export interface Answered extends Range {
  kind: typeof KINDS[number]; into: (Range & { short: Buffer })[]; lacking: boolean[]; records: Rec[];
}

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
      const part = due[answered.length], cut = resume !== undefined && inside(resume, part);
      check(kind === 'resolved' || (!part.items && !cut), 'can only be resolved'); // RECON-018, RECON-028
      const into = kind === 'split' ? split(part, n, bounds, digests, length) : [];
      answered.push({ kind, start: part.start, end: cut ? resume : part.end, into, lacking: [], records: [] });
    }
  }
  check(answered.length === due.length && bounds.done && digests.done, 'a column is too short or too long');

  const lists = answered.map((a, i) => (a.kind === 'resolved' ? due[i].items ?? [] : []).map(() => a.lacking)).flat();
  for (let turn = 0; !lacking.done; turn++) { // items that the server has and lacks, in turns (RECON-020)
    const n = lacking.varint();
    check(n <= lists.length && (n > 0 || turn === 0), 'not the items that were listed');
    for (const list of lists.splice(0, n)) list.push(turn % 2 === 1);
  }
  records.forEach((r, i) => {
    const a = answered.find((part) => part.kind === 'resolved' && inside(r.key, part));
    check(a && (i === 0 || r.key > records[i - 1].key), 'a record out of order, or not asked for');
    a.records.push(r);
  });
  return answered;
}

function split({ start, end }: Range, n: number, bounds: Reader, digests: Reader, length: number): Answered['into'] {
  const into: Answered['into'] = [];
  for (let lower = start; into.length < n; lower = into.at(-1)!.end!) {
    const upper = into.length < n - 1 ? bounds.bound(lower) : end;
    check(into.length === n - 1 || inside(upper!, { start, end }), 'a bound outside of its part'); // RECON-022
    into.push({ start: lower, end: upper, short: digests.take(length) });
  }
  return into;
}
