"""As much of JSON Schema as `vectors.schema.json` uses, so that the files are checked against it everywhere."""

import re

TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "null": type(None)}
KNOWN = {
    "$schema", "$defs", "$ref", "title", "type", "const", "enum", "required", "properties", "additionalProperties",
    "items", "minItems", "minLength", "minimum", "maximum", "pattern", "allOf", "anyOf", "not", "if", "then", "else",
}  # fmt: skip


def problems(value, schema, root=None, at="$"):
    """What breaks the schema, as `place: what`."""
    root = root or schema
    unknown = set(schema) - KNOWN
    if unknown:
        return ["the schema uses %s, which is not checked here" % ", ".join(sorted(unknown))]
    found = []

    def need(condition, what):
        if not condition:
            found.append("%s: %s" % (at, what))

    def also(*more):
        for item in more:
            found.extend(item)

    if "$ref" in schema:
        also(problems(value, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root, at))
    if "type" in schema:
        kind = TYPES[schema["type"]]
        need(isinstance(value, kind) and (kind is bool or not isinstance(value, bool)), "is no " + schema["type"])
    need("const" not in schema or value == schema["const"], "is not what it has to be")
    need("enum" not in schema or value in schema["enum"], "is none of the allowed values")
    if isinstance(value, str):
        need("pattern" not in schema or re.search(schema["pattern"], value), "does not match " + schema.get("pattern", ""))
        need(len(value) >= schema.get("minLength", 0), "is too short")
    if isinstance(value, int):
        need(value >= schema.get("minimum", value) and value <= schema.get("maximum", value), "is out of range")
    if isinstance(value, list):
        need(len(value) >= schema.get("minItems", 0), "has too few items")
        for i, item in enumerate(value if "items" in schema else []):
            also(problems(item, schema["items"], root, "%s[%d]" % (at, i)))
    if isinstance(value, dict):
        for name in schema.get("required", []):
            need(name in value, "has no " + name)
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        for name, item in value.items():
            if name in properties:
                also(problems(item, properties[name], root, "%s.%s" % (at, name)))
            elif isinstance(others, dict):
                also(problems(item, others, root, "%s.%s" % (at, name)))
            else:
                need(others, "has %s, which does not belong there" % name)
    also(*[problems(value, part, root, at) for part in schema.get("allOf", [])])
    if "anyOf" in schema:
        need(any(not problems(value, part, root, at) for part in schema["anyOf"]), "is none of the allowed forms")
    need("not" not in schema or problems(value, schema["not"], root, at), "has a form that is not allowed")
    if "if" in schema:
        branch = "else" if problems(value, schema["if"], root, at) else "then"
        also(problems(value, schema.get(branch, {}), root, at))
    return found
