// Requests to the service, with the API key that was entered, and the form that asks for it.

import { $ } from "./dom.js";

export const LONGEST = 30; // seconds; the longest wait before a request is sent again
const keyListeners = [];

function withKey(headers) {
  const key = sessionStorage.getItem("key");
  return key ? { ...headers, "X-API-Key": key } : headers;
}

export const hasKey = () => sessionStorage.getItem("key") !== null;

// returns {ok, status, body, wait, id}: status 0 if the service can't be reached; wait: seconds until the request may
// succeed, or null if it will not; id: the request's. Throws if `signal` aborts.
async function ask(path, options) {
  let response;
  let body = {};
  try {
    response = await fetch(path, options);
    // a proxy may answer in HTML
    if (/json/.test(response.headers.get("Content-Type"))) body = await response.json();
  } catch (error) {
    if (options.signal?.aborted) throw error;
    return { ok: false, status: 0, body: {}, wait: 2 };
  }
  const busy = [429, 502, 503, 504].includes(response.status);
  const wait = busy ? Math.min(Number(response.headers.get("Retry-After")) || 1, LONGEST) : null;
  return { ok: response.ok, status: response.status, body, wait, id: response.headers.get("X-Request-ID") };
}

export const get = (path) => ask(path, { headers: withKey({}) });

// the service recognizes a picture's format by its content
export function post(path, blob, signal) {
  const headers = withKey({ "Content-Type": /^image\/|^application\/pdf$/.test(blob.type) ? blob.type : "image/png" });
  return ask(path, { method: "POST", headers, body: blob, signal });
}

// said: what the only picture of an earlier request shows. replace: whatever was said of it before
export function correct(id, said, replace = false) {
  const headers = withKey({ "Content-Type": "application/json" });
  const body = JSON.stringify({ request_id: id, digits: [said], replace });
  return ask("corrections", { method: "POST", headers, body });
}

// why a request has no answer, for the user
export function reason({ status, body }) {
  if (status === 0) return "The server can't be reached.";
  if (status === 503 || status === 429) return "The service is busy.";
  if (status === 401) return hasKey() ? "This key is not accepted." : "Enter an API key to continue.";
  // the body of a request from the page is a file
  return body.detail?.replace(/^The body /, "The file ") ?? `The service answered ${status}.`;
}

export function complain(text) {
  $("problem").textContent = text;
  $("problem").hidden = false;
}

export function settle() {
  $("problem").hidden = $("key-form").hidden = true;
}

export function askForKey() {
  complain(reason({ status: 401 }));
  $("key-form").hidden = false;
}

// call `listener` when a key has been entered
export function onKey(listener) {
  keyListeners.push(listener);
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = $("key").value.trim();
  // fetch throws if a header contains other characters
  if (!/^[\x21-\x7e]+$/.test(key)) return complain("This is not an API key: it contains invalid characters.");
  sessionStorage.setItem("key", key);
  settle();
  keyListeners.forEach((listener) => listener());
});
