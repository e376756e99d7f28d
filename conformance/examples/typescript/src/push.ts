/** Push (chapter 5): what is sent next, and what the verdicts mean. */
import { check, compare, fromKey, intact, issue, latest, LINEAGES, type Key } from './rules.js';
import { historyChanged, type Session } from './session.js';
import type { Clean, Write } from './store.js';
import { Failure, reasonOf, type Message } from './wire.js';

const MENDED = ['CLOCK_SKEW', 'BEHIND_COMPACTION']; // reasons that do not reject a write for good
type Sent = Write | Clean; // a Clean one is an offer
const isWrite = (r: Sent): r is Write => 'number' in r;

export class Push {
  private most = Infinity; // records at once
  private later = new Set<number | Key>(); // writes and offers that this session does not send again
  private restamped = new Set<number>();

  constructor(private readonly s: Session) {}

  async all(): Promise<void> {
    for (let sent = this.next(); sent.length > 0; sent = this.next()) await this.send(sent);
  }

  /** Whether nothing waits, for this session or a later one. */
  get rests() { return this.next().length === 0 && this.later.size === 0; }

  /** What is sent next: one batch, or single writes and offers, one for each key (CLIENT-013, CLIENT-014). */
  private next(): Sent[] {
    const { outbox, clean } = this.s.store.data, taken = new Set<Key>(), singles: Sent[] = [];
    const waiting = [...outbox.values()].filter((w) => !w.rejected); // CLIENT-016
    for (const r of [...waiting, ...[...clean.values()].filter((r) => r.offer)]) {
      const batch = isWrite(r) && r.batch !== undefined ? waiting.filter((w) => w.batch === r.batch) : undefined;
      const unit = batch ?? [r];
      const free = !unit.some((u) => taken.has(u.key) || this.later.has(isWrite(u) ? u.number : u.key));
      if (free && batch && singles.length === 0) return batch;
      if (free && !batch) singles.push(r);
      for (const u of unit) taken.add(u.key); // what comes later under these keys waits for it
    }
    let count = Math.min(singles.length, this.most);
    while (count > 1 && !this.s.replica.fits(singles.slice(0, count))) count = Math.ceil(count / 2); // LIMIT-006
    return singles.slice(0, count);
  }

  private async send(sent: Sent[]): Promise<void> {
    const { s } = this, { store } = s, atomic = isWrite(sent[0]) && sent[0].batch !== undefined;
    check(sent.every(intact), 'damaged content'); // MODEL-024: the next session looks after it
    store.tx(() => sent.filter(isWrite).forEach((w) => (w.attempted = true))); // CLIENT-012
    const records = sent.map((r) => ({
      key: fromKey(r.key), flags: Number(r.tombstone), value: r.value,
      version: { time: String(r.time), replica: String(r.replica) },
    }));
    let answer: Message;
    try {
      if (!s.replica.fits(sent)) throw new Failure('retry', 'LIMIT_EXCEEDED', 'over a limit of Hello'); // LIMIT-009
      answer = await s.wire.unary('Push', { ...s.place(), records, atomic });
    } catch (error) {
      const reason = error instanceof Failure ? error.reason : '';
      if (!['MALFORMED', 'LIMIT_EXCEEDED'].includes(reason)) throw error;
      this.most = Math.ceil(sent.length / 2); // so that the record at fault comes to stand alone (section 9.11)
      if (sent.length === 1 || atomic) store.tx(() => sent.forEach((r) => this.reject(r, reason)));
      return;
    }
    this.most *= 2;
    this.settle(sent, atomic, answer);
  }

  private settle(sent: Sent[], atomic: boolean, { position, verdicts, held, ...rest }: Message): void {
    const { store } = this.s, head = position?.head;
    check(head && verdicts.length === sent.length && held.length === 1, 'too few or too many verdicts'); // PUSH-026
    const reasons: string[] = verdicts.map((v: Message) => reasonOf(v.reason));
    const real = reasons.filter((reason) => reason && reason !== 'BATCH_ABORTED');
    const cause = atomic && (real.find((reason) => MENDED.includes(reason)) ?? real[0]); // of the whole batch
    this.s.tell(rest);
    store.tx(() => {
      sent.forEach((r, i) => this.verdict(r, verdicts[i], head.epoch, cause || reasons[i] || 'UNKNOWN'));
      if (verdicts.some((v: Message) => /APPLIED|UNCHANGED/.test(v.outcome))) store.data.newest = head; // PUSH-030
    }); // PUSH-028
    const [{ lineage, behind_compaction }] = held, astray = lineage !== LINEAGES[0] || behind_compaction;
    if (astray || reasons.includes('BEHIND_COMPACTION')) throw historyChanged(); // PUSH-035
  }

  /** What a verdict means for a write (section 5.5) or an offer (CLIENT-048). */
  private verdict(r: Sent, v: Message, epoch: string, cause: string): void {
    const { s } = this, at = { epoch, sequence: v.sequence }, id = isWrite(r) ? r.number : r.key;
    if (v.outcome === 'OUTCOME_APPLIED' || v.outcome === 'OUTCOME_UNCHANGED') {
      s.store.merge(r, at); // and the write, or the offer, is settled
      if (isWrite(r)) s.replica.inVain = 0;
    } else if (v.outcome === 'OUTCOME_SUPERSEDED') {
      try {
        const winner = s.receive(v.winner ?? { key: '' });
        check(winner.key === r.key && compare(winner, r) > 0, 'a winner that does not win');
        s.store.merge(winner, at);
        s.replica.report('a write was superseded');
      } catch (error) {
        this.later.add(id);
        s.replica.report((error as Error).message); // CLOCK-011
      }
    } else if (!MENDED.includes(cause)) {
      this.reject(r, cause);
    } else if (reasonOf(v.reason) === 'CLOCK_SKEW') {
      if (isWrite(r) && !this.restamped.has(r.number)) this.restamp(r);
      else this.later.add(id); // CLIENT-025
    }
  }

  /** For good: the write is shown as rejected, the offer kept aside. */
  private reject(r: Sent, reason: string): void {
    const { outbox, clean } = this.s.store.data;
    if (!isWrite(r) && clean.get(r.key) === r) this.s.setAside(r, `${reason}, said the server`);
    if (isWrite(r) && outbox.has(r.number)) outbox.set(r.number, { ...r, rejected: reason });
  }

  /** A new version for a write that was refused with CLOCK_SKEW, by the server's time (CLIENT-018, CLIENT-019). */
  private restamp(w: Write): void {
    const { store, serverMs, replica } = this.s, { floor, clean, outbox } = store.data;
    const before = store.unsent(w.key).filter((other) => other.number < w.number).at(-1) ?? clean.get(w.key);
    const time = issue(serverMs, floor > latest(serverMs, 0) ? BigInt(serverMs) << 16n : floor, before?.time);
    if (!outbox.has(w.number)) return;
    this.restamped.add(w.number);
    if (time === undefined) return this.reject(w, 'CLOCK_SKEW');
    store.restamp(w, time, replica.id);
    store.data.floor = time;
  }
}
