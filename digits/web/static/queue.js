// Sends files to POST /read, a few at a time, and again if the service is busy or can't be reached.

import { LONGEST, askForKey, onKey, post, reason, settle } from "./api.js";

const AT_ONCE = 2;
const TRIES = 8; // after that the file has failed, until someone tries it again

const waiting = [];
let running = 0;
let held = false; // until an API key is entered

// job: {blob, cancelled, query(), onState(name, text), onAnswer(readings, id)}. query: resolves to parameters of the
// request. name: "waiting", "reading", "busy" or "failed". id: the request's
export function add(job) {
  job.onState("waiting", "Waiting");
  waiting.push(job);
  next();
}

function next() {
  while (!held && running < AT_ONCE && waiting.length) {
    const job = waiting.shift();
    if (job.cancelled) continue;
    running++;
    read(job).finally(() => {
      running--;
      next();
    });
  }
}

async function read(job) {
  for (let tried = 1; ; tried++) {
    job.onState("reading", "Reading…");
    const answer = await post(`read?alternatives=3&columns=1${await job.query()}`, job.blob);
    if (job.cancelled) return;
    if (answer.ok) return job.onAnswer(answer.body.readings ?? [answer.body], answer.id);
    if (answer.status === 401) {
      held = true;
      askForKey();
      job.onState("waiting", "Waiting for an API key");
      waiting.unshift(job);
      return;
    }
    if (answer.status === 0 && !(await readable(job.blob))) return job.onState("failed", "The file can't be read.");
    if (!answer.wait || tried === TRIES) return job.onState("failed", reason(answer));
    const wait = Math.max(answer.wait, Math.min(2 ** tried / 2, LONGEST));
    job.onState("busy", `${reason(answer)} Again in ${Math.ceil(wait)} s`);
    // a random part, so that files that were refused together don't come again together
    await new Promise((resolve) => setTimeout(resolve, wait * 1000 * (1 + Math.random() / 4)));
    if (job.cancelled) return;
  }
}

// a file may have been removed or changed since it was chosen, which fetch does not tell from a lost connection
async function readable(blob) {
  try {
    await blob.slice(0, 1).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

onKey(() => {
  held = false;
  settle();
  next();
});
