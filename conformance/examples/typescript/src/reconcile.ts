// A reconcile session's questions and answers (chapter 7). Knows the columns and the replica's leaves, no store, no calls.
import { Msg, varint } from "./codec.js";
import { Column, End, fingerprint, inside, Leaf, Malformed, parse, putBound, Rec, separator, short } from "./rules.js";

const ITEMS_AT_ONCE = 64; // section 7.8

/** A part of the key space that is still open. */
export interface Part {
  low: Buffer;
  high: End;
  differs: boolean; // fingerprints of it were seen to differ
  full: boolean; // is asked with digests of 32 bytes (RECON-037)
  whole: boolean; // the server cannot split it: list it (RECON-051)
}
interface Piece {
  part: Part;
  leaves: Leaf[];
  items: boolean;
}
export interface Question {
  columns: Msg;
  pieces: Piece[];
  left: Part[];
  salt: bigint;
  length: number;
}
export interface Understood {
  again: Part[];
  lacking: Buffer[];
  records: Rec[];
  closed: number;
  contradicts: boolean;
}

const part = (low: Buffer, high: End, more: Partial<Part> = {}): Part => ({
  low,
  high,
  differs: false,
  full: false,
  whole: false,
  ...more,
});
export const wholePart = part;

function split(p: Part, leaves: Leaf[]): Piece[] {
  const count = Math.min(256, Math.max(2, Math.floor(leaves.length / (ITEMS_AT_ONCE / 2))));
  const cuts = Array.from({ length: count + 1 }, (_, i) => Math.floor((leaves.length * i) / count));
  const bound = (i: number): End =>
    i === 0 ? p.low : i === count ? p.high : separator(leaves[cuts[i] - 1].key, leaves[cuts[i]].key);
  return cuts
    .slice(1)
    .map((_, i) => ({
      part: part(bound(i)!, bound(i + 1), { full: p.full }),
      leaves: leaves.slice(cuts[i], cuts[i + 1]),
      items: false,
    }));
}

/** Asks about as many of these parts as there is room for. */
export function ask(
  parts: Part[],
  leavesOf: (p: Part) => Leaf[],
  salt: bigint,
  length: number,
  room: number,
): Question {
  const pieces: Piece[] = [],
    left: Part[] = [];
  for (const p of parts) {
    const leaves = leavesOf(p);
    const mine =
      leaves.length <= ITEMS_AT_ONCE || (p.whole && leaves.length < room)
        ? [{ part: p, leaves, items: true }]
        : split(p, leaves);
    const cost = mine.reduce((n, piece) => n + 1 + (piece.items ? piece.leaves.length : 0), 0);
    if (pieces.length && cost > room) left.push(p);
    else {
      room -= cost;
      pieces.push(...mine);
    }
  }
  const kinds: Buffer[] = [],
    bounds: Buffer[] = [],
    digests: Buffer[] = [];
  let at: End = Buffer.alloc(0);
  const upTo = (to: End) => {
    if (to) bounds.push(putBound(at!, to));
    at = to;
  };
  for (const { part: p, leaves, items } of pieces) {
    if (Buffer.compare(p.low, at!) > 0) {
      kinds.push(varint(4));
      upTo(p.low);
    }
    kinds.push(varint(items ? leaves.length * 4 + 2 : 5));
    for (const d of items ? leaves.map((l) => l.digest) : [fingerprint(leaves)]) digests.push(short(salt, d, length));
    upTo(p.high);
  }
  if (at) kinds.push(varint(4));
  const columns = {
    salt,
    digest_len: length,
    turns_left: 2,
    parts: Buffer.concat(kinds),
    bounds: Buffer.concat(bounds),
    digests: Buffer.concat(digests),
  };
  return { columns, pieces, left, salt, length };
}

const lower = (a: End, b: End): End => (a === null ? b : b === null ? a : Buffer.compare(a, b) < 0 ? a : b);

/** What an answer means; Malformed where it is none (RECON-029). */
export function understand(q: Question, answer: Msg): Understood {
  const resume: End = answer.resume_at ?? null;
  if (resume && Buffer.compare(resume, q.pieces[0].part.low) <= 0)
    throw new Malformed("an answer that processed nothing");
  const answered = q.pieces.filter((p) => !resume || Buffer.compare(p.part.low, resume) < 0);
  const out: Understood = {
    again: q.pieces.slice(answered.length).map((p) => p.part),
    lacking: [],
    records: answer.records.map(parse),
    closed: 0,
    contradicts: false,
  };
  if (out.records.some((r, i) => i > 0 && Buffer.compare(out.records[i - 1].key, r.key) >= 0))
    throw new Malformed("records out of order");
  const [kinds, bounds, digests] = [answer.parts, answer.bounds, answer.digests].map((data) => new Column(data));
  const flags = lackingFlags(
    answer.lacking,
    answered.reduce((n, p) => n + (p.items ? p.leaves.length : 0), 0),
  );
  let run = 0,
    kind = 0,
    home = 0,
    item = 0;
  const nothingFound = (p: Part) => {
    // it differs as a whole and in no part
    if (q.length === 32) out.contradicts = true;
    out.again.push({ ...p, differs: true, full: true });
  };
  for (const { part: p, leaves, items } of answered) {
    if (run === 0) {
      const entry = kinds.varint();
      [run, kind] = [Math.floor(entry / 4), entry % 4];
      if (run === 0 || kind === 3) throw new Malformed("an answer to nothing");
    }
    const cut = resume !== null && (p.high === null || Buffer.compare(resume, p.high) < 0);
    if (kind < 2 && (items || cut)) throw new Malformed("an answer that does not go with its part");
    if (kind === 0) {
      run--;
      out.closed++;
    } else if (kind === 1) {
      const differing: Part[] = [];
      for (let low = p.low, i = 1; i <= run; i++) {
        const high = i < run ? bounds.bound(low) : p.high;
        if (i < run && p.high && Buffer.compare(high!, p.high) >= 0) throw new Malformed("a split outside its part");
        const mine = fingerprint(leaves.filter((l) => inside(l.key, low, high)));
        if (!digests.take(q.length).equals(short(q.salt, mine, q.length)))
          differing.push(part(low, high, { differs: true, full: q.length === 32, whole: run === 1 }));
        low = high!;
      }
      if (differing.length) out.again.push(...differing);
      else if (q.length === 32) throw new Malformed("a full fingerprint that its parts contradict");
      else nothingFound(p);
      run = 0;
    } else {
      run--;
      out.closed++;
      const high = lower(p.high, resume);
      const sent = out.records.filter((r) => inside(r.key, p.low, high));
      home += sent.length;
      const lacks = leaves.filter((l) => (items ? flags[item++] : true) && inside(l.key, p.low, high));
      out.lacking.push(...lacks.map((l) => l.key).filter((key) => !sent.some((r) => r.key.equals(key))));
      if (cut) out.again.push({ ...p, low: resume! });
      else if (p.differs && items && !lacks.length && !sent.length && !answer.wanted.length) nothingFound(p);
    }
  }
  if (run || home !== out.records.length || ![kinds, bounds, digests].every((c) => c.done))
    throw new Malformed("entries left over, or records outside");
  return out;
}

/** Item by item, whether the server lacks it (RECON-020). */
function lackingFlags(data: Buffer, items: number): boolean[] {
  const flags: boolean[] = [],
    column = new Column(data);
  for (let lacks = false; !column.done; lacks = !lacks) {
    const n = column.varint();
    if (flags.length + n > items) throw new Malformed("lacking counts more items than there are");
    for (let i = 0; i < n; i++) flags.push(lacks);
  }
  return flags.concat(Array(items - flags.length).fill(false));
}
