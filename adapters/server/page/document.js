// One document, opened next to the page: its text with the cited span marked, the way to its editor, and its end. Knows no list.

import * as api from "./api.js";
import { byId, bytes, changed, count, el, moment, number, sliced, title, trouble } from "./dom.js";
import { editor } from "./edit.js";

const dialog = byId("document");
let opening = null;

/** Open a document. `cited` is a source: its span is marked, and within it the words of the answer. */
export async function open(id, cited = null) {
  const mine = (opening = {});
  frame("Opening", [], el("p", { class: "quiet waiting" }, "Reading the document"));
  if (!dialog.open) dialog.showModal();
  try {
    const doc = await api.read(id);
    if (mine === opening) show(doc, { cited }); // not when another one was opened since
  } catch (error) {
    if (mine === opening) frame("Not to be opened", [], trouble(error, error.status === 404 ? null : () => open(id, cited)));
  }
}

/** What stays in sight, the name with its actions, and what can be scrolled. */
function frame(name, actions, ...body) {
  const close = el("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => dialog.close() }, "×");
  const head = el("header", {}, el("h2", { id: "document-title", tabindex: "-1" }, name), ...actions, close);
  dialog.replaceChildren(head, el("div", { class: "body" }, ...body));
}

/** `done` says what has just been done to it. */
function show(doc, { cited = null, done = "" } = {}) {
  const here = cited && doc.passages.some((p) => p.id === cited.passage_id && p.start === cited.start);
  const gone =
    cited &&
    !here &&
    el(
      "div",
      { class: "notice" },
      el("p", {}, "This document has changed since. The passage was:"),
      el("blockquote", {}, cited.text),
    );
  const actions = [
    el("button", { type: "button", onclick: () => edit(doc) }, "Edit"),
    el("button", { type: "button", class: "danger", onclick: () => confirmForgetting(doc) }, "Forget…"),
  ];
  const news = done && el("p", { class: "notice good", role: "alert" }, done);
  frame(title(doc), actions, news || null, gone || null, facts(doc), body(doc, here ? cited : null));
  byId("document-title").focus();
  dialog.querySelector("mark")?.scrollIntoView({ block: "start" });
}

function facts(doc) {
  const waiting = doc.passages.filter((p) => !p.ready).length;
  const entries = [
    ["Scope", doc.scope || "none"],
    ["Version", `${doc.version}, of ${moment(doc.updated_at ?? doc.created_at)}`],
    ["Size", `${count(doc.passages.length, "passage")}, ${number(doc.passages.reduce((sum, p) => sum + p.tokens, 0))} tokens`],
    waiting > 0 && ["Waiting", `${count(waiting, "passage")} to be compressed; found by words until then`],
    doc.expires_at && ["Expires", moment(doc.expires_at)],
    ...Object.entries(doc.metadata).map(([name, value]) => [name, String(value)]),
  ];
  return el(
    "dl",
    { class: "facts" },
    ...entries.filter(Boolean).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
  );
}

/** The whole text, the cited span marked in it. */
function body(doc, cited) {
  const slice = sliced(doc.text);
  const inside = cited ? [slice(0, cited.start), el("mark", {}, ...emphasised(slice, cited)), slice(cited.end)] : [doc.text];
  return el("div", { class: "text", tabindex: "0", role: "region", "aria-label": "Text" }, ...inside);
}

/** The cited span; the words of the answer stand out where it has them. */
function emphasised(slice, { start, end, answer_start: from, answer_end: to }) {
  if (from == null || to == null) return [slice(start, end)];
  return [slice(start, from), el("strong", {}, slice(from, to)), slice(to, end)];
}

function edit(doc) {
  const saved = async () => show(await api.read(doc.id), { done: "Saved" });
  const form = editor(doc, saved, () => show(doc));
  frame(`Edit ${title(doc)}`, [], form);
  form.elements.text.focus();
}

function confirmForgetting(doc) {
  const keep = el("button", { type: "button", onclick: () => show(doc) }, "Keep it");
  const forget = el("button", { type: "button", class: "danger", onclick: () => forgotten(doc, box) }, "Forget for good");
  const what = "It goes with all its versions, and is erased from every file of the memory. Nothing brings it back.";
  const box = el("div", { class: "notice bad", role: "alert" }, el("p", {}, what), el("div", { class: "row" }, keep, forget));
  frame(`Forget ${title(doc)}?`, [], box, facts(doc));
  keep.focus();
}

async function forgotten(doc, box) {
  box.querySelectorAll("button").forEach((button) => (button.disabled = true));
  box.append(el("p", { class: "quiet waiting" }, "Erasing and looking for traces"));
  try {
    receipt(doc, await api.forget(doc.id));
    changed();
  } catch (error) {
    box.replaceChildren(trouble(error, () => forgotten(doc, box)));
  }
}

function receipt(doc, { passages, bytes_freed, traces_found, complete, at }) {
  const clean = complete && traces_found === 0;
  const outcome = clean
    ? "Gone from every file"
    : "Not all erased yet: another process is reading. The rest goes when the memory is next opened.";
  const entries = [
    ["Document", doc.id],
    ["Passages", number(passages)],
    ["Freed", bytes(bytes_freed)],
    ["Traces found", number(traces_found)],
    ["At", moment(at)],
  ];
  const done = el("button", { type: "button", class: "main", onclick: () => dialog.close() }, "Done");
  frame(
    `Forgotten: ${title(doc)}`,
    [],
    el("p", { class: clean ? "notice good" : "notice", role: "alert" }, outcome),
    el("dl", { class: "facts receipt" }, ...entries.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    el("div", { class: "row" }, done),
  );
  done.focus();
}

dialog.addEventListener("close", () => {
  const lost = document.activeElement === document.body; // what opened it is gone
  if (lost) document.querySelector(".view:not([hidden]) h1").focus();
});

// A click outside the drawer closes it, and so does escape; not over what has been edited, which would be lost.
const editing = () => dialog.querySelector(".edit");
dialog.addEventListener("click", (event) => event.target === dialog && !editing() && dialog.close());
dialog.addEventListener("cancel", (event) => editing() && event.preventDefault());
