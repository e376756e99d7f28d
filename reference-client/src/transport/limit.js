// Breaks a gRPC-web answer off as soon as a frame is announced that is larger than the client takes: what decodes the
// answer collects a frame whole before anybody looks at its size (LIMIT-011). And passes a frame of trailers on in one
// piece: one that comes in several is no frame to what decodes it. Knows no message.

const TRAILERS = 0x80;

/** Passes bytes on, and fails at the header of a frame of more than `limit` bytes. */
export function limited(limit) {
  let header = []; // of the frame that begins: a byte of flags, four of length
  let left = 0; // bytes of the present frame that are still to come
  let trailers; // those of a frame of trailers that came so far
  return new TransformStream({
    transform(chunk, controller) {
      let at = 0;
      while (at < chunk.length) {
        if (left > 0) {
          const here = chunk.subarray(at, at + left);
          left -= here.length;
          at += here.length;
          if (trailers) trailers.push(...here);
          else controller.enqueue(here);
        } else {
          header.push(chunk[at]);
          at += 1;
          if (header.length < 5) continue;
          left = new DataView(Uint8Array.from(header).buffer).getUint32(1);
          if (left > limit) throw new RangeError(`a message of ${left} bytes; at most ${limit} are taken`);
          if (header[0] & TRAILERS) trailers = header;
          else controller.enqueue(Uint8Array.from(header));
          header = [];
        }
        if (trailers && left === 0) {
          controller.enqueue(Uint8Array.from(trailers));
          trailers = undefined;
        }
      }
    },
    flush(controller) {
      // what is cut off is passed on as it came
      const rest = trailers ?? header;
      if (rest.length > 0) controller.enqueue(Uint8Array.from(rest));
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
