// The list of documents: pages, filters by source and scope, passages by text. Knows the server only through api.js.

import * as api from "./api.js";
import { passage } from "./answer.js";
import { open } from "./document.js";
import { byId, count, el, empty, moment, settled, title, trouble } from "./dom.js";

const PAGE = 20;
const form = byId("filter-form");
const listing = byId("listing");
const paging = byId("paging");
let cursors = [null]; // where each page up to this one begins
let following = null;
let running = null;

/** Load what the filters say, at the page that is open. */
export async function refresh() {
  if (!form.checkValidity()) return; // a scope that is still being typed
  running?.abort();
  const mine = (running = new AbortController());
  const { text, source, scope } = Object.fromEntries(new FormData(form));
  listing.setAttribute("aria-busy", "true");
  try {
    if (text.trim()) found(await api.search({ q: text, scope, k: PAGE }, mine.signal), source);
    else listed(await api.list({ q: source, scope, limit: PAGE, cursor: cursors.at(-1) }, mine.signal), source || scope);
  } catch (error) {
    if (error.name === "AbortError") return;
    listing.replaceChildren(trouble(error, refresh));
    paging.hidden = true;
  }
  listing.removeAttribute("aria-busy");
}

function listed({ documents, next_cursor }, narrowed) {
  if (!documents.length && cursors.length > 1) return turn(() => cursors.pop()); // the last one of this page was forgotten
  following = next_cursor;
  const nothing = narrowed
    ? empty("No document fits", "Widen the filters, or clear them.")
    : empty("No documents yet", "Drop files into the box, choose them, or type a text.");
  const held = listing.contains(document.activeElement) && document.activeElement.dataset.id;
  listing.replaceChildren(documents.length ? el("ul", { class: "documents" }, ...documents.map(item)) : nothing);
  if (held) listing.querySelector(`[data-id="${CSS.escape(held)}"]`)?.focus(); // a new list, but the place in it stays
  paging.hidden = cursors.length === 1 && !following;
  byId("previous").disabled = cursors.length === 1;
  byId("next").disabled = !following;
  byId("page-number").textContent = `Page ${cursors.length}`;
  offerScopes(documents);
}

function item(doc) {
  return el(
    "li",
    {},
    el(
      "button",
      { type: "button", class: "source", "data-id": doc.id, onclick: () => open(doc.id) },
      el(
        "span",
        { class: "name" },
        title(doc),
        doc.scope && el("span", { class: "tag" }, doc.scope),
        !doc.ready && el("span", { class: "tag wait" }, "being compressed"),
      ),
      el("span", { class: "excerpt short" }, doc.text),
      el(
        "span",
        { class: "quiet why" },
        `${moment(doc.updated_at ?? doc.created_at)}${doc.version > 1 ? ` · version ${doc.version}` : ""}`,
      ),
    ),
  );
}

/** Passages that fit the words; the search has no filter by source, so that is done here. */
function found({ matches }, source) {
  const fits = pattern(source);
  const items = matches.filter((match) => fits(match.source ?? "")).map((match) => el("li", {}, passage(match)));
  paging.hidden = true;
  listing.replaceChildren(
    items.length
      ? el(
          "div",
          { class: "found" },
          el("p", { class: "quiet" }, `The ${count(items.length, "passage")} that fit best`),
          el("ol", { class: "documents" }, ...items),
        )
      : empty("No passage fits", "Try other words, or widen the filters."),
  );
}

/** A test for a part of a source, * its wildcard. */
function pattern(source) {
  const parts = source.split("*").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const whole = new RegExp(parts.join(".*"), "s");
  return (name) => whole.test(name);
}

function offerScopes(documents) {
  const known = byId("scopes");
  const offered = new Set([...known.children].map((option) => option.value));
  const fresh = new Set(documents.map((doc) => doc.scope).filter((scope) => scope && !offered.has(scope)));
  known.append(...[...fresh].map((scope) => el("option", { value: scope })));
}

function turn(step) {
  step();
  return refresh();
}

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener(
  "input",
  settled(() => turn(() => (cursors = [null]))),
);
byId("previous").addEventListener("click", () => turn(() => cursors.pop()));
byId("next").addEventListener("click", () => turn(() => cursors.push(following)));
