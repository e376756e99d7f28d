// Damages what the browser has stored, behind the client's back, as a failing disk would: the button of the demo
// needs it, and nothing else. So it reads the store's files as they lie: the object store "clean" holds pages, and a
// page is a run of records, each with a head of 79 bytes that ends with the lengths of its key (2 bytes) and its value
// (4 bytes), then the key and the value.

const HEAD = 79;

/** Flips the first byte of the value of up to `count` records; resolves with their keys, readable. */
export async function corrupt(name, count) {
  const db = await request(indexedDB.open(name));
  try {
    const tx = db.transaction("clean", "readwrite");
    const store = tx.objectStore("clean");
    const [keys, pages] = await Promise.all([request(store.getAllKeys()), request(store.getAll())]);
    const targets = shuffle(pages.flatMap(records)).slice(0, count);
    for (const { page, valueAt } of targets) page[valueAt] ^= 0xff;
    for (const page of new Set(targets.map(target => target.page))) store.put(page, keys[pages.indexOf(page)]);
    await new Promise((resolve, reject) => {
      tx.oncomplete = resolve;
      tx.onabort = () => reject(tx.error);
    });
    return targets.map(target => target.key);
  } finally {
    db.close();
  }
}

/** The records of a page that have a value. */
function records(page) {
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  const found = [];
  for (let at = 0; at + HEAD <= page.length; ) {
    const keyLength = view.getUint16(at + HEAD - 6);
    const valueLength = view.getUint32(at + HEAD - 4);
    const valueAt = at + HEAD + keyLength;
    const key = new TextDecoder().decode(page.subarray(at + HEAD, valueAt)).replaceAll("\0", "/");
    if (valueLength > 0) found.push({ page, valueAt, key });
    at = valueAt + valueLength;
  }
  return found;
}

function request(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function shuffle(list) {
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [list[i], list[j]] = [list[j], list[i]];
  }
  return list;
}
