// Answers over fetch end at a message that is too large, before it has come.

import assert from "node:assert/strict";
import { test } from "node:test";
import { fetchWithin, limited } from "../../src/transport/limit.js";

/** A frame's header and as many bytes of it. */
function frame(length, bytes = length, flags = 0) {
  const out = new Uint8Array(5 + bytes);
  out[0] = flags;
  new DataView(out.buffer).setUint32(1, length);
  return out;
}

function joined(...parts) {
  return Uint8Array.from(parts.flatMap(part => [...part]));
}

function pieces(bytes, size) {
  const out = [];
  for (let at = 0; at < bytes.length; at += size) out.push(bytes.subarray(at, at + size));
  return out;
}

async function through(limit, chunks) {
  const out = [];
  for await (const chunk of ReadableStream.from(chunks).pipeThrough(limited(limit))) out.push(...chunk);
  return Uint8Array.from(out);
}

test("frames up to the limit come through unchanged, however they are cut", async () => {
  const bytes = joined(frame(10), frame(0), frame(7), frame(10, 10, 0x80));
  for (const size of [1, 2, 5, 6, 1000]) {
    assert.deepEqual(await through(10, pieces(bytes, size)), bytes);
  }
});

/** What decodes an answer takes the first piece of a frame of trailers for the end: calls had no status then. */
test("a frame of trailers comes through in one piece, however it is cut", async () => {
  const trailers = frame(20, 20, 0x80);
  for (const size of [1, 3, 6, 24]) {
    const chunks = [];
    const cut = pieces(joined(frame(7), trailers), size);
    for await (const chunk of ReadableStream.from(cut).pipeThrough(limited(100))) chunks.push(chunk);
    assert.deepEqual(chunks.at(-1), trailers);
  }
  const half = trailers.subarray(0, 9);
  assert.deepEqual(await through(100, pieces(half, 2)), half);
});

test("the header of a frame over the limit ends the answer, however it is cut", async () => {
  const bytes = joined(frame(10), frame(11, 0));
  for (const size of [1, 3, 15, 1000]) {
    await assert.rejects(through(10, pieces(bytes, size)), RangeError);
  }
  await assert.rejects(through(10, [frame(0xffff_ffff, 0)]), /4294967295 bytes/);
});

test("the source of an answer that is broken off is cancelled", async () => {
  let cancelled = false;
  const endless = new ReadableStream({
    start: controller => controller.enqueue(frame(11, 0)),
    pull: controller => controller.enqueue(new Uint8Array(1)),
    cancel() {
      cancelled = true;
    },
  });
  await assert.rejects(endless.pipeThrough(limited(10)).getReader().read().then(({ value }) => value), RangeError);
  await new Promise(resolve => setImmediate(resolve));
  assert.equal(cancelled, true);
});

test("only the fetch that is begun inside is limited", async t => {
  const genuine = globalThis.fetch;
  t.after(() => {
    globalThis.fetch = genuine;
  });
  const answer = () => new Response(frame(11), { status: 201, headers: { "x-kept": "yes" } });
  const plain = async () => answer();
  globalThis.fetch = plain;
  let inside;
  fetchWithin(10, () => {
    inside = fetch("http://127.0.0.1/");
  });
  assert.equal(globalThis.fetch, plain);
  const response = await inside;
  assert.deepEqual([response.status, response.headers.get("x-kept")], [201, "yes"]);
  await assert.rejects(response.arrayBuffer(), RangeError);
  assert.equal((await (await fetch("http://127.0.0.1/")).arrayBuffer()).byteLength, 16);
  assert.throws(() =>
    fetchWithin(10, () => {
      throw new TypeError("inside");
    }),
  );
  assert.equal(globalThis.fetch, plain);
});
