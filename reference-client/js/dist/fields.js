/**
 * The fields of a document, as they go to the store: JSON, and the application's own.
 *
 * What JSON cannot hold is refused rather than made into what it can: `JSON.stringify` turns a Map into `{}`, NaN into
 * null, and a Date into text that nothing turns back.
 */
import { checkText, invalid, isWellFormed, kind } from "./check.js";
import { GoSyncError } from "./errors.js";
/** What a row tells of its document beside the fields. */
const TOLD = new Set(["$id", "$pending", "$rejected", "$unreadable"]);
/** The module's reader of JSON stops at 127 levels, of which the list of changes, a change and its fields are three. */
const LEVELS = 124;
/** For the sentence about what is refused. */
const HELD = "a field holds text, finite numbers, true, false, null, and lists and plain objects of these";
/** A name that needs no quotes in a path. */
const NAME = /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u;
/**
 * The fields to set, as the text of a JSON object, and the names of those that are undefined, without what a row tells
 * beside them. The text holds what was given exactly, apart from members that are undefined: they are left out, as
 * fields are. Throws where that cannot be, and says which value of which document it is.
 */
export function fieldsOf(document, value) {
    const which = `the document ${JSON.stringify(document)}`;
    const at = { steps: [], within: [] };
    try {
        if (!isPlain(value))
            throw invalid(`its fields are those of a plain object, not of ${nature(value)}`);
        const set = [];
        const unset = [];
        checkNoSymbols(value, at);
        for (const [name, given] of Object.entries(value)) {
            if (TOLD.has(name))
                continue;
            checkText(name, `the name ${JSON.stringify(name)} of a field`);
            if (given === undefined)
                unset.push(name);
            else
                set.push(memberText(name, given, at));
        }
        return { set: `{${set.join()}}`, unset };
    }
    catch (error) {
        if (error instanceof GoSyncError)
            throw invalid(`${which}: ${error.message}`);
        const why = error instanceof Error ? error.message : String(error);
        throw invalid(`${which}: ${pathOf(at.steps)} cannot be read: ${why}`, { cause: error });
    }
}
function textOf(value, at) {
    switch (typeof value) {
        case "string":
            if (!isWellFormed(value))
                throw refused(at, "is no well-formed text");
            return JSON.stringify(value);
        case "boolean":
            return String(value);
        case "number":
            if (!Number.isFinite(value))
                throw refused(at, `is ${value}: ${HELD}`);
            return Object.is(value, -0) ? "-0" : String(value);
        case "object":
            return value === null ? "null" : textWithin(value, at);
        default:
            throw refused(at, `is ${nature(value)}: ${HELD}`);
    }
}
function textWithin(value, at) {
    if (at.within.includes(value))
        throw refused(at, "is circular: it is in itself");
    if (at.within.length === LEVELS) {
        throw invalid(`${pathOf(at.steps.slice(0, 1))} is nested in more than ${LEVELS} levels`);
    }
    at.within.push(value);
    const text = Array.isArray(value) ? listText(value, at) : objectText(value, at);
    at.within.pop();
    return text;
}
function listText(list, at) {
    // the root of another frame's lists is a list as well
    if (!Array.isArray(Object.getPrototypeOf(list)))
        throw refused(at, `is ${nature(list)}: ${HELD}`);
    const items = [];
    for (let index = 0; index < list.length; index++) {
        at.steps.push(index);
        if (!Object.hasOwn(list, index)) {
            throw refused(at, "is missing: a list has no gaps, but null where there is nothing");
        }
        items.push(textOf(list[index], at));
        at.steps.pop();
    }
    checkNoSymbols(list, at);
    const [name] = Object.keys(list).slice(list.length); // indexes come first
    if (name !== undefined)
        throw refused({ ...at, steps: [...at.steps, name] }, "is no item of its list");
    return `[${items.join()}]`;
}
function objectText(value, at) {
    if (!isPlain(value))
        throw refused(at, `is ${nature(value)}: ${HELD}`);
    checkNoSymbols(value, at);
    const members = [];
    for (const [name, inner] of Object.entries(value)) {
        if (!isWellFormed(name))
            throw refused(at, `has the name ${JSON.stringify(name)}, which is no well-formed text`);
        if (inner !== undefined)
            members.push(memberText(name, inner, at));
    }
    return `{${members.join()}}`;
}
function memberText(name, value, at) {
    at.steps.push(name);
    const text = `${JSON.stringify(name)}:${textOf(value, at)}`;
    at.steps.pop();
    return text;
}
function checkNoSymbols(value, at) {
    for (const symbol of Object.getOwnPropertySymbols(value)) {
        if (Object.prototype.propertyIsEnumerable.call(value, symbol)) {
            throw refused({ ...at, steps: [...at.steps, symbol] }, "has a symbol for a name; JSON has texts");
        }
    }
}
function refused(at, why) {
    return invalid(`${pathOf(at.steps)} ${why}`);
}
/** As one would write it: `fields.tags[2]`. */
function pathOf(steps) {
    const written = steps.map(step => {
        if (typeof step !== "string")
            return `[${String(step)}]`;
        return NAME.test(step) ? `.${step}` : `[${JSON.stringify(step)}]`;
    });
    return `fields${written.join("")}`;
}
/** Whether it is an object of nothing but members: not a Map, a Date or the like, which keep theirs elsewhere. */
function isPlain(value) {
    if (Object.prototype.toString.call(value) !== "[object Object]")
        return false;
    const prototype = Object.getPrototypeOf(value);
    // the root of another frame's objects is not the root of these
    if (prototype === null)
        return true;
    return Object.getPrototypeOf(prototype) === null && Object.hasOwn(prototype, "isPrototypeOf");
}
/** What a value is, for people: by its class, where it has one. */
function nature(value) {
    if (typeof value === "function" || typeof value === "symbol" || typeof value === "bigint")
        return `a ${typeof value}`;
    if (typeof value !== "object" || value === null)
        return kind(value);
    const name = value.constructor?.name;
    const named = typeof name === "string" && name !== "" && name !== "Object" && name !== "Array";
    return named ? `${/^[AEIO]/i.test(name) ? "an" : "a"} ${name}` : kind(value);
}
