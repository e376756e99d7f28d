// The driver's page: slots that dial in to the suite, each with a worker in which one client lives at a time. When the
// suite hangs up, the worker is ended at whatever it does, as a crash ends it; then the slot dials in again.
// Knows no command.
//
//   index.html?suite=ws://127.0.0.1:PORT&slots=4

const parameters = new URLSearchParams(location.search);
const suite = parameters.get("suite");
const slots = Number(parameters.get("slots") ?? 4);

/** How long a slot waits for a suite that does not answer, or has gone. */
const PAUSE_MS = 500;

const pause = () => new Promise(resolve => setTimeout(resolve, PAUSE_MS));

/** A worker that has loaded the client. */
function worker() {
  return new Promise((resolve, reject) => {
    const worker = new Worker("./worker.mjs", { type: "module" });
    worker.onmessage = () => resolve(worker);
    worker.onerror = event => reject(new Error(event.message ?? "the worker does not start"));
  });
}

/** One driver, from dialling in until the suite hangs up; resolves to whether there was a suite. */
async function life(slot, say) {
  const client = await worker();
  const socket = new WebSocket(`${suite}/${slot}`);
  let met = false;
  client.onmessage = ({ data }) => socket.send(data);
  client.onerror = event => say(`the worker: ${event.message}`);
  socket.onopen = () => {
    met = true;
    say("dialled in");
  };
  socket.onmessage = ({ data }) => client.postMessage(data);
  await new Promise(resolve => (socket.onclose = resolve));
  client.terminate();
  return met;
}

for (let slot = 1; slot <= slots; slot++) {
  const line = document.getElementById("slots").appendChild(document.createElement("li"));
  let lives = 0;
  const say = text => (line.textContent = `slot ${slot}, driver ${lives}: ${text}`);
  (async () => {
    for (;;) {
      lives += 1;
      say("starts");
      if (!(await life(slot, say))) {
        say("no suite there");
        await pause();
      }
    }
  })().catch(error => say(String(error)));
}
