// Bytes in the notations that messages use: base64 in proto3 JSON, hex at the client. Knows no message.

/** The bytes of a base64 text. */
export function bytes(base64 = "") {
  return Uint8Array.from(atob(base64), c => c.charCodeAt(0));
}

/** Bytes in base64. */
export function base64(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

/** Bytes in hex. */
export function hex(bytes) {
  return Array.from(bytes, byte => byte.toString(16).padStart(2, "0")).join("");
}

/** The bytes of a hex text. */
export function unhex(text) {
  return Uint8Array.from(text.match(/../g) ?? [], pair => Number.parseInt(pair, 16));
}
