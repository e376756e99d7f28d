// The package as an application's compiler sees it: what must compile, and what must not. Nothing here is run.

import { GoSyncError, init, open, type Database, type Reason, type Row, type Write } from "@gosync/client";

interface Todo {
  title: string;
  done: boolean;
  note?: string;
}

declare function token(): Promise<string>;
declare function render(rows: Row<Todo>[]): void;
declare function tell(what: string): void;
declare function show(pending: number, verified: boolean, done: number | undefined, at: Date | null): void;

await init();
const db: Database = await open({
  name: "todos",
  url: "https://sync.example.com",
  space: "team-1",
  auth: async refused => (refused ? undefined : token()),
  ranges: [{ collection: "todos" }, { collection: "notes", idPrefix: "2026" }, { keyPrefix: Uint8Array.of(1) }],
});

const todos = db.collection<Todo>("todos");
const write: Write = todos.put("t1", { title: "Milk", done: false });
await write;
const { status, reason } = await write.server;
if (status === "rejected") tell(why(reason));

await todos.patch("t1", { done: true, note: undefined });
const [first] = await todos.list({ prefix: "t" });
if (first?.$pending) tell(`${first.$id}: ${first.title}`);
if (first) await todos.put(first.$id, { ...first, done: true });
todos.subscribe(render);
todos.subscribe({ prefix: "" }, render)();

await db.batch(b => {
  b.collection<Todo>("todos").delete("t1");
  b.collection<Todo>("archive").put("t1", { title: "Milk", done: true });
}).local;
db.records.batch(b => {
  b.put(Uint8Array.of(1), Uint8Array.of());
  b.delete(Uint8Array.of(2));
});
db.records.subscribe(records => tell(String(records[0]?.time)));

const { rejected, inDoubt, quarantined } = db.status.current;
if (inDoubt > 0) tell(`${rejected} refused, ${inDoubt} in doubt, ${quarantined} in quarantine`);
db.status.subscribe(({ pending, verified, progress, lastSyncedAt }) => {
  show(pending, verified, progress?.done, lastSyncedAt);
});
for (const { id, state, collection, reason } of await db.pending()) {
  if (state === "rejected" && reason === "QUOTA_EXCEEDED") await db.retry(id);
  else if (collection === "drafts") await db.discard(id);
}
for (const { key, reason } of await db.quarantined()) {
  if (reason === "NO_ACCESS") await db.offerAgain(key).server;
  else await db.dropQuarantined(key);
}

try {
  await db.sync();
  const { equal, healedRanges, rounds } = await db.verify();
  if (!equal) tell(`${healedRanges.join()} in ${rounds} round trips`);
} catch (error) {
  if (!(error instanceof GoSyncError) || error.code !== "needs-auth") throw error;
  if (error.reason === "TOKEN_EXPIRED") tell("sign in again");
}
await db.close({ discardPending: false });

function why(reason: Reason | undefined): string {
  switch (reason) {
    case "NO_ACCESS":
      return "you may not write this";
    case "QUOTA_EXCEEDED":
      return "there is no room";
    default:
      return reason ?? "no reason given";
  }
}

// @ts-expect-error a field of another type
todos.put("t1", { title: 1, done: false });
// @ts-expect-error a field that is missing
todos.put("t1", { title: "Milk" });
// @ts-expect-error no reason of the closed list
why("NO_REASON");
// @ts-expect-error what is known of a document is not the application's to write
if (first) first.$id = "t2";
// @ts-expect-error a range is a collection, or a prefix of keys
await open({ name: "todos", space: "team-1", ranges: ["todos"] });
// @ts-expect-error databases come from open()
new Database();
