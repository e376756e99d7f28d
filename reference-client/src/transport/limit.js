// Breaks a gRPC-web answer off as soon as a frame is announced that is larger than the client takes: what decodes the
// answer collects a frame whole before anybody looks at its size (LIMIT-011). And passes a frame of trailers on in one
// piece: one that comes in several is no frame to what decodes it. Knows no message.

const TRAILERS = 0x80;

/** Passes bytes on, and fails at the header of a frame of more than `limit` bytes. */
export function limited(limit) {
  const header = []; // of the frame that begins: a byte of flags, four of length
  let left = 0; // bytes of the present frame that are still to come
  let trailers; // the pieces that came of the present frame, if it is one of trailers
  const whole = async () => new Uint8Array(await new Blob(trailers).arrayBuffer());
  return new TransformStream({
    async transform(chunk, controller) {
      let from = 0; // everything before was dealt with
      const pass = to => {
        const piece = chunk.subarray(from, to);
        from = to;
        if (trailers) trailers.push(piece);
        else if (piece.length > 0) controller.enqueue(piece);
      };
      let at = 0;
      while (at < chunk.length) {
        if (left > 0) {
          const here = Math.min(left, chunk.length - at);
          left -= here;
          at += here;
        } else {
          if (header.length === 0 && chunk[at] & TRAILERS) {
            pass(at);
            trailers = [];
          }
          header.push(chunk[at]);
          at += 1;
          if (header.length < 5) continue;
          left = new DataView(Uint8Array.from(header).buffer).getUint32(1);
          header.length = 0;
          if (left > limit) throw new RangeError(`a message of ${left} bytes; at most ${limit} are taken`);
        }
        if (trailers && left === 0) {
          pass(at);
          controller.enqueue(await whole());
          trailers = undefined;
        }
      }
      pass(chunk.length);
    },
    async flush(controller) {
      // what is cut off is passed on as it came
      if (trailers) controller.enqueue(await whole());
    },
  });
}

async function answered(call, limit) {
  const response = await call;
  if (response.body === null) return response;
  const { status, statusText, headers } = response;
  return new Response(response.body.pipeThrough(limited(limit)), { status, statusText, headers });
}

/**
 * Runs `begin`; the answer to a fetch that it calls comes through the limit. Nobody else sees the exchanged fetch:
 * `begin` calls it before it returns, and nothing else runs until then.
 */
export function fetchWithin(limit, begin) {
  const genuine = globalThis.fetch;
  globalThis.fetch = (...request) => answered(genuine.apply(globalThis, request), limit);
  try {
    begin();
  } finally {
    globalThis.fetch = genuine;
  }
}
