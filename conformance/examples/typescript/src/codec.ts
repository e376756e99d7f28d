// Messages to bytes and back, by the .proto files themselves. 64-bit numbers are bigint, bytes are Buffer.
import { fileURLToPath } from "node:url";
import path from "node:path";
import protobuf from "protobufjs";

export type Msg = Record<string, any>;

const here = path.dirname(fileURLToPath(import.meta.url));
const folders = ["../../../../proto", "../../../proto"].map((folder) => path.resolve(here, folder));
const root = new protobuf.Root();
root.resolvePath = (_, file) => (path.isAbsolute(file) ? file : path.resolve(folders[0], file));
root.loadSync(
  [
    ...["types", "sync"].map((name) => path.join(folders[0], `gosync/v1/${name}.proto`)),
    path.join(folders[1], "gosync/conformance/v1/driver.proto"),
  ],
  { keepCase: true },
);
protobuf.parse(
  `syntax = "proto3"; package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message RetryInfo { Duration retry_delay = 1; }`,
  root,
  { keepCase: true },
);
root.resolveAll();

export const enumValues = (name: string): Record<string, number> => root.lookupEnum(name).values;
export const enumName = (name: string, value: number): string => root.lookupEnum(name).valuesById[value] ?? "";

const LONG = ["uint64", "int64", "fixed64"];
const wireOf = (f: protobuf.Field): number =>
  f.type === "fixed64"
    ? 1
    : f.type === "string" || f.type === "bytes" || f.resolvedType instanceof protobuf.Type
      ? 2
      : 0;
const explicit = (f: protobuf.Field): boolean => f.partOf != null || (wireOf(f) === 2 && f.resolvedType != null);

export function varint(n: bigint | number): Buffer {
  const out: number[] = [];
  let rest = BigInt(n);
  for (; rest > 127n; rest >>= 7n) out.push(Number(rest & 127n) | 128);
  return Buffer.from([...out, Number(rest)]);
}

function one(f: protobuf.Field, value: any): Buffer {
  if (f.type === "fixed64") {
    const out = Buffer.alloc(8);
    out.writeBigUInt64LE(BigInt(value));
    return out;
  }
  if (wireOf(f) === 0) return varint(typeof value === "boolean" ? Number(value) : value);
  const body = f.resolvedType ? encode(f.resolvedType as protobuf.Type, value) : Buffer.from(value);
  return Buffer.concat([varint(body.length), body]);
}

export function encode(type: protobuf.Type | string, message: Msg): Buffer {
  const kind = typeof type === "string" ? root.lookupType(type) : type;
  const out: Buffer[] = [];
  for (const f of [...kind.fieldsArray].sort((a, b) => a.id - b.id)) {
    const value = message[f.name];
    if (value === undefined || value === null) continue;
    const tag = varint(f.id * 8 + wireOf(f));
    if (f.repeated && wireOf(f) !== 2) {
      const body = Buffer.concat(value.map((v: any) => one(f, v)));
      if (body.length) out.push(varint(f.id * 8 + 2), varint(body.length), body);
    } else if (f.repeated) {
      for (const v of value) out.push(tag, one(f, v));
    } else if (explicit(f) || (wireOf(f) === 2 ? value.length > 0 : BigInt(value) !== 0n)) {
      out.push(tag, one(f, value));
    }
  }
  return Buffer.concat(out);
}

class Input {
  at = 0;
  constructor(readonly data: Buffer) {}
  take(n: number): Buffer {
    if (this.at + n > this.data.length) throw new Error("a message that is cut off");
    this.at += n;
    return this.data.subarray(this.at - n, this.at);
  }
  varint(): bigint {
    let value = 0n;
    for (let i = 0n; i < 10n; i++) {
      const byte = this.take(1)[0];
      value |= BigInt(byte & 127) << (7n * i);
      if (byte < 128) return value & 0xffffffffffffffffn;
    }
    throw new Error("a varint that is too long");
  }
  field(wire: number): Buffer | bigint {
    if (wire === 0) return this.varint();
    if (wire === 1) return this.take(8);
    if (wire === 2) return this.take(Number(this.varint()));
    if (wire === 5) return this.take(4);
    throw new Error("a wire type that is not used");
  }
}

function scalar(f: protobuf.Field, raw: Buffer | bigint): any {
  if (f.type === "fixed64") return (raw as Buffer).readBigUInt64LE();
  if (typeof raw === "bigint") return f.type === "bool" ? raw !== 0n : LONG.includes(f.type) ? raw : Number(raw);
  if (f.type === "string") return new TextDecoder("utf-8", { fatal: true }).decode(raw);
  return f.resolvedType ? decode(f.resolvedType as protobuf.Type, raw) : Buffer.from(raw);
}

function zero(f: protobuf.Field): any {
  if (f.repeated) return [];
  if (explicit(f)) return undefined;
  if (LONG.includes(f.type)) return 0n;
  return f.type === "string" ? "" : f.type === "bytes" ? Buffer.alloc(0) : f.type === "bool" ? false : 0;
}

export function decode(type: protobuf.Type | string, data: Buffer): Msg {
  const kind = typeof type === "string" ? root.lookupType(type) : type;
  const out: Msg = {};
  for (const f of kind.fieldsArray) out[f.name] = zero(f);
  for (const input = new Input(data); input.at < data.length;) {
    const tag = Number(input.varint());
    const f = kind.fieldsById[tag >> 3];
    const raw = input.field(tag & 7);
    if (!f) continue;
    if (f.repeated && wireOf(f) !== 2 && (tag & 7) === 2) {
      for (const inner = new Input(raw as Buffer); inner.at < inner.data.length;) {
        out[f.name].push(scalar(f, inner.field(wireOf(f))));
      }
    } else if ((tag & 7) !== wireOf(f)) {
      throw new Error(`${f.name} has another wire type`);
    } else if (f.repeated) {
      out[f.name].push(scalar(f, raw));
    } else {
      for (const other of f.partOf?.fieldsArray ?? []) out[other.name] = undefined;
      out[f.name] = scalar(f, raw);
    }
  }
  return out;
}
