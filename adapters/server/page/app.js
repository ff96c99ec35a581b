// The page as a whole: which view is open, the memory in numbers, the question for the token. Each view is a module of its own.

import "./add.js";
import "./compare.js";
import * as api from "./api.js";
import { greet } from "./ask.js";
import * as documents from "./documents.js";
import { bytes, byId, changed, count, whenChanged } from "./dom.js";
import * as map from "./map.js";

const VIEWS = { ask: () => {}, documents: documents.refresh, map: map.refresh, compare: () => {} };
let current = "";

function view() {
  const asked = location.hash.slice(1);
  const name = Object.hasOwn(VIEWS, asked) ? asked : current || "ask"; // "#main" skips to the content of the view that is open
  if (name === current) return;
  const first = current === "";
  current = name;
  for (const other of Object.keys(VIEWS)) byId(`view-${other}`).hidden = other !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const heading = byId(`${name}-title`);
  document.title = `${heading.textContent} – Memory`;
  if (!first) heading.focus();
  VIEWS[name]();
}

async function numbers(waited = 0) {
  try {
    const { documents: stored, passages, pending, file_bytes, model } = await api.stats();
    const waiting = pending ? ` (${pending} being compressed)` : "";
    byId("stats").textContent =
      `${count(stored, "document")} · ${count(passages, "passage")}${waiting} · ${bytes(file_bytes)} · ${model}`;
    greet(stored);
    if (pending) setTimeout(numbers, 3000, pending);
    else if (waited) changed(); // lists and map show what is compressed
  } catch (error) {
    byId("stats").textContent = error.message;
  }
}

/** Ask for the token; `refused` when one was given and the server did not take it. */
function unlocked(refused) {
  const dialog = byId("token");
  const input = byId("token-input");
  if (refused)
    byId("token-why").textContent = "The server did not take that token. Enter the one that cmt serve was started with.";
  dialog.showModal();
  return new Promise((resolve, reject) => {
    byId("token-form").onsubmit = (event) => {
      event.preventDefault();
      const given = input.value.trim();
      input.value = "";
      resolve(given);
      dialog.close();
    };
    byId("token-cancel").onclick = () => dialog.close();
    dialog.onclose = () => reject(new api.Failure("The server wants a token. Reload the page to enter it.", 401));
  });
}

api.whenLocked(unlocked);
whenChanged(() => {
  numbers();
  VIEWS[current]();
});
addEventListener("hashchange", view);
view();
numbers();
