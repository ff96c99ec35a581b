// Elements from values. Every text goes in as a text node, never as markup. Knows nothing of memories.

const SVG = "http://www.w3.org/2000/svg";

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** An element; properties named on… are listeners, all others attributes (true: present; false, null: absent). */
export const el = (tag, properties, ...children) => filled(document.createElement(tag), properties, children);

/** The same for a part of a drawing. */
export const svg = (tag, properties, ...children) => filled(document.createElementNS(SVG, tag), properties, children);

function filled(node, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Tell those who cannot see the page what has happened. */
export function announce(text) {
  byId("status").textContent = text;
}

/** What went wrong, with a way to try again where there is one. */
export function trouble(error, again) {
  const retry = again && el("button", { type: "button", onclick: again }, "Try again");
  return el("div", { class: "notice bad", role: "alert" }, el("p", {}, error.message), retry);
}

/** What to do where there is nothing yet. */
export const empty = (title, ...remedy) =>
  el("div", { class: "empty" }, el("p", {}, el("strong", {}, title)), el("p", {}, ...remedy));

/** "1 passage", "2 passages". */
export const count = (n, noun) => `${number(n)} ${noun}${n === 1 ? "" : "s"}`;

/** A whole number with its thousands set apart. */
export const number = (n) => Math.round(n).toLocaleString("en");

/** Bytes as people say them. */
export function bytes(n) {
  const units = ["B", "kB", "MB", "GB"];
  const step = n < 1000 ? 0 : Math.min(3, Math.floor(Math.log10(n) / 3));
  const value = n / 1000 ** step;
  return `${step && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[step]}`;
}

/** Milliseconds, or seconds from one on. */
export const duration = (ms) =>
  ms > 0 && ms < 10 ? `${ms.toFixed(1)} ms` : ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;

/** A moment in the reader's own time. */
export const moment = (iso) => new Date(iso).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

/** Offsets count characters as the server does; a string here counts some characters, such as emoji, twice. */
export function sliced(text) {
  if (!/[\ud800-\udfff]/.test(text)) return (from, to) => text.slice(from, to);
  const characters = Array.from(text);
  return (from, to) => characters.slice(from, to).join("");
}

/** What a document is called: its source, else its first words. */
export function title(doc) {
  const words = doc.text.trim().replace(/\s+/g, " ");
  return doc.source || `“${words.length > 48 ? `${words.slice(0, 48)}…` : words}”`;
}

/** `work`, called once when the calls have paused for a moment. */
export function settled(work, ms = 250) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, ms);
  };
}

/** Say that the memory holds something else now; `whenChanged` listens. */
export const changed = () => document.dispatchEvent(new Event("memory-changed"));
export const whenChanged = (work) => document.addEventListener("memory-changed", work);
