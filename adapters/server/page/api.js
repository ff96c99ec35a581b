// Calls to the server: the token, its errors in words, uploads with their progress, answers as they come. Knows no element.

const KEY = "cmt-token";
const GONE = "The server does not answer. See that `cmt serve` is still running, start it again if not, then try again.";
const BROKEN = "The answer broke off. See that `cmt serve` is still running, then ask again.";

/** What the server refused or could not do; `message` is for people. */
export class Failure extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

let askForToken = () => Promise.reject(new Failure("The server wants a token.", 401));
let asking = null;

/** `ask(refused)` is called for a token when the server wants one; it resolves to it, or rejects. */
export function whenLocked(ask) {
  askForToken = ask;
}

const token = () => sessionStorage.getItem(KEY);
const bearer = (secret) => (secret ? { Authorization: `Bearer ${secret}` } : {});

/** A new token, asked for once however many calls wait for it. */
async function renew(used) {
  if (token() !== used) return;
  asking ??= askForToken(used !== null).finally(() => (asking = null));
  sessionStorage.setItem(KEY, await asking);
}

async function send(path, options = {}) {
  for (;;) {
    const used = token();
    let response;
    try {
      response = await fetch(path, { ...options, headers: { ...options.headers, ...bearer(used) } });
    } catch (error) {
      throw error.name === "AbortError" ? error : new Failure(GONE);
    }
    if (response.ok) return response;
    if (response.status !== 401) throw failure(response.status, await response.text(), response.headers.get("Retry-After"));
    await renew(used);
  }
}

function failure(status, body, wait) {
  let message = "";
  try {
    message = JSON.parse(body).error.message;
  } catch {
    message =
      status === 413
        ? "That is larger than the server takes. Split it, or use `cmt add`."
        : `The server answered ${status}. Its log may say why.`;
  }
  return new Failure(wait ? `${message} Try again in ${wait} s.` : message, status);
}

const json = (method, body, signal) => ({
  method,
  signal,
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});
const document_ = (id) => `api/documents/${encodeURIComponent(id)}`;

function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return new URLSearchParams(given).toString();
}

const get = async (path, parameters = {}, signal = undefined) => (await send(`${path}?${query(parameters)}`, { signal })).json();

export const stats = () => get("api/stats");
export const list = (parameters, signal) => get("api/documents", parameters, signal);
export const search = (parameters, signal) => get("api/search", parameters, signal);
export const map = () => get("api/map");
export const read = (id) => get(document_(id));
export const add = async (fields) => (await send("api/documents", json("POST", fields))).json();
export const change = async (id, fields) => (await send(document_(id), json("PATCH", fields))).json();
export const forget = async (id) => (await send(document_(id), { method: "DELETE" })).json();
export const ask = async (fields) => (await send("api/ask", json("POST", fields))).json();

/** An answer as it comes: yields {piece} of text, in the end {answer}. Throws Failure, or AbortError when `signal` stops it. */
export async function* stream(fields, signal) {
  const response = await send("api/ask", json("POST", { ...fields, stream: true }, signal));
  for await (const { event, data } of events(response.body)) {
    if (event === "error") throw new Failure(data.error.message);
    if (event === "piece") yield { piece: data.text };
    if (event === "answer") {
      yield { answer: data };
      return;
    }
  }
  throw new Failure(BROKEN);
}

/** Server-sent events of a body. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new Failure(BROKEN);
    });
    if (done) return;
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split(/\r?\n/);
      const of = (name) =>
        lines
          .filter((line) => line.startsWith(`${name}:`))
          .map((line) => line.slice(name.length + 1).trimStart())
          .join("\n");
      if (of("data")) yield { event: of("event"), data: JSON.parse(of("data")) };
    }
  }
}

/** Send one file; `onProgress` gets the share that is sent, 0 to 1: which fetch cannot tell, so this is the older call. */
export async function upload(file, scope, onProgress) {
  for (;;) {
    const used = token();
    const request = await sent(file, scope, used, onProgress);
    if (request.status === 401) await renew(used);
    else if (request.status === 200) return JSON.parse(request.responseText);
    else throw failure(request.status, request.responseText, request.getResponseHeader("Retry-After"));
  }
}

function sent(file, scope, secret, onProgress) {
  const form = new FormData();
  form.append("file", file);
  if (scope) form.append("scope", scope);
  const request = new XMLHttpRequest();
  return new Promise((resolve, reject) => {
    request.upload.onprogress = (event) => onProgress(event.total ? event.loaded / event.total : 0);
    request.onload = () => resolve(request);
    request.onerror = () => reject(new Failure(GONE));
    request.open("POST", "api/files");
    for (const [name, value] of Object.entries(bearer(secret))) request.setRequestHeader(name, value);
    request.send(form);
  });
}
