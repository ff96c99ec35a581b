// Asking: one question, its answer as it comes, its sources. Knows the server only through api.js.

import * as api from "./api.js";
import { costs, sources, verdict } from "./answer.js";
import { announce, byId, el, empty, trouble } from "./dom.js";

const form = byId("ask-form");
const result = byId("ask-result");
const stop = byId("ask-stop");
let running = null;

/** What stands below the form before anything is asked. */
export function greet(documents) {
  if (running || result.querySelector(".answer, .notice")) return;
  const add = el("a", { href: "#documents" }, "Add a document");
  result.replaceChildren(
    documents
      ? empty("Nothing asked yet", "Write a question above. The answer comes with the passages it was read from.")
      : empty("This memory is empty", add, " first, then ask about it."),
  );
}

function question() {
  const { question, scope, k, reader } = Object.fromEntries(new FormData(form));
  return { question, reader, ...(k && { k: Number(k) }), ...(scope && { scope }) };
}

async function ask() {
  running?.abort();
  const mine = (running = new AbortController());
  stop.hidden = false;
  const words = el("p", { class: "words" });
  const answered = el("div", { class: "answer" }, words);
  const asked = question();
  result.replaceChildren(
    el(
      "div",
      { class: "answered" },
      el("p", { class: "asked" }, asked.question),
      el("p", { class: "quiet waiting" }, "Looking through the memory"),
      answered,
    ),
  );
  try {
    for await (const { piece, answer } of api.stream(asked, mine.signal)) {
      result.querySelector(".waiting")?.remove();
      if (piece) words.append(piece);
      else finish(answered, words, answer);
    }
  } catch (error) {
    if (mine !== running) return; // a later question has taken the place
    result.querySelector(".waiting")?.remove();
    answered.append(error.name === "AbortError" ? el("p", { class: "quiet" }, "Stopped.") : trouble(error, ask));
  } finally {
    if (mine === running) {
      running = null;
      stop.hidden = true;
    }
  }
}

function finish(answered, words, answer) {
  words.textContent = answer.text;
  answered.append(verdict(answer), costs(answer));
  const from = sources(answer);
  if (from) result.append(from);
  announce(answer.abstained ? "The memory does not tell." : answer.text); // once, not piece by piece
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
form.addEventListener("invalid", () => (form.querySelector("details").open = true), true); // a fault has to be seen
stop.addEventListener("click", () => running?.abort());

/** Enter sends a form from its text field; with shift it is a new line. */
export function sendsOnEnter(field) {
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    field.form.requestSubmit();
  });
}
sendsOnEnter(byId("question"));
