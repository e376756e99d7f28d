// The commands of the profile `documents`: their encoding, and the client's.

/** What the client's `write` takes. */
export function documentChange(op, { collection = "", id = "", fields = "{}", remove = [] }) {
  if (op === "delete") return { op, collection, id };
  return { op, collection, id, fields: JSON.parse(fields), remove };
}

/** The result of a DriverResponse for what the client found. */
export function documentResult(found) {
  const documents = found.map(({ id, fields, unreadable }) => ({ id, fields: JSON.stringify(fields), unreadable }));
  return { documents: { documents } };
}
