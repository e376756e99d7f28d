/** The fields of a document, as they go to the store: JSON, and the application's own. */
import { checkText, invalid, kind } from "./check.js";
/** What a row tells of its document beside the fields. */
const TOLD = new Set(["$id", "$pending", "$rejected", "$unreadable"]);
/** The module's reader of JSON stops at 127 levels, of which the list of changes, a change and its fields are three. */
const LEVELS = 124;
/**
 * The fields to set, as JSON holds them, and the names of those that are undefined, without what a row tells beside
 * them. Throws where the value is no plain object, or a field is no JSON that the store can read, and names which.
 */
export function fieldsOf(document, value) {
    const which = `the document ${JSON.stringify(document)}`;
    if (!isPlain(value))
        throw invalid(`${which}: its fields are those of a plain object, not of ${nature(value)}`);
    const set = [];
    const unset = [];
    for (const [name, given] of Object.entries(value)) {
        if (TOLD.has(name))
            continue;
        checkText(name, `${which}: the name ${JSON.stringify(name)} of a field`);
        if (given === undefined)
            unset.push(name);
        else
            set.push([name, toJson(given, `${which}: the field ${JSON.stringify(name)}`)]);
    }
    return { set: Object.fromEntries(set), unset };
}
/** The value as JSON holds it, apart from the caller's, who may change that afterwards. */
function toJson(value, what) {
    let text;
    try {
        text = JSON.stringify(value);
    }
    catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        throw invalid(`${what} holds what is no JSON: ${why}`, { cause: error });
    }
    if (text === undefined)
        throw invalid(`${what} holds what is no JSON: ${nature(value)}`);
    const held = JSON.parse(text);
    checkHeld(held, what, LEVELS);
    return held;
}
/** Throws where text in the value is not well-formed, or it is deeper than so many levels. */
function checkHeld(value, what, levels) {
    if (typeof value === "string")
        checkText(value, `${what}: text in it`);
    if (typeof value !== "object" || value === null)
        return;
    if (levels === 0)
        throw invalid(`${what} is nested in more than ${LEVELS} levels`);
    for (const [name, inner] of Object.entries(value)) {
        checkText(name, `${what}: a name in it`);
        checkHeld(inner, what, levels - 1);
    }
}
/** Whether it is an object of nothing but fields: not a Map, a Date or the like, which keep theirs elsewhere. */
function isPlain(value) {
    if (typeof value !== "object" || value === null || Array.isArray(value))
        return false;
    const prototype = Object.getPrototypeOf(value);
    // the root of another frame's objects is not the root of these
    return prototype === null || Object.getPrototypeOf(prototype) === null;
}
function nature(value) {
    if (typeof value !== "object" || value === null || Array.isArray(value))
        return kind(value);
    const name = value.constructor?.name;
    return typeof name === "string" && name !== "Object" ? `a ${name}` : kind(value);
}
