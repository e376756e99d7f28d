// The wall clock of this process, as the client reads it: movable. Timers do not follow it.

const system = Date.now;
let offset = 0;

Date.now = () => system() + offset;

/** From now on the clock reads `unixMs` and goes on from there; 0: the system's clock again. */
export function setClock(unixMs) {
  offset = unixMs === 0 ? 0 : unixMs - system();
}
