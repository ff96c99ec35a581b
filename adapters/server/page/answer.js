// An answer on the page: its words, how sure it is, what it cost, and its sources, each of which opens. Knows no server.

import { count, duration, el, number, sliced } from "./dom.js";
import { open } from "./document.js";

const UNSURE = 0.6; // where reader="auto" looks the text up
const BEFORE = 80; // characters that are shown before the words of the answer
const FINDING = ["encode", "search", "rerank"];

/** The milliseconds of an answer: finding passages, reading them, writing the answer. */
export function times({ milliseconds }) {
  const of = (stages) => stages.reduce((sum, stage) => sum + (milliseconds[stage] ?? 0), 0);
  return { finding: of(FINDING), reading: of(["load", "prefill"]), writing: of(["decode"]) };
}

/** How far the answer can be relied on, in words and as a number. */
export function verdict({ abstained, confidence, reader }) {
  if (abstained) {
    return el(
      "p",
      { class: "verdict none" },
      el("strong", {}, "The memory does not tell."),
      " Add a document that does, or ask in other words.",
    );
  }
  const unsure = confidence < UNSURE;
  const words =
    reader === "none" ? "not from your memory" : unsure ? "the model is unsure: look at the sources" : "the model is sure";
  const about = "How sure the model is, from 0 to 1. Compare it; it is no share of right answers.";
  return el(
    "p",
    { class: unsure ? "verdict low" : "verdict", title: about },
    "Confidence ",
    el("progress", { max: 1, value: confidence, "aria-hidden": "true" }),
    el("strong", {}, ` ${confidence.toFixed(2)}`),
    ` – ${words}`,
  );
}

/** What the answer cost, in one line. */
export function costs(answer) {
  const { finding, reading, writing } = times(answer);
  const memory = answer.memory_tokens ? `, ${number(answer.memory_tokens)} more from memory` : "";
  const read = `${count(answer.prompt_tokens, "token")} read${memory}; ${number(answer.answer_tokens)} written`;
  return el(
    "p",
    { class: "quiet costs" },
    `${read} · ${duration(finding + reading + writing)}: `,
    `finding ${duration(finding)}, reading ${duration(reading)}, writing ${duration(writing)}`,
  );
}

/** One passage that opens its document; the words of the answer are marked in it. `date` is shown behind its name. */
export function passage(source, date = "") {
  const name = source.source || "Untitled";
  return el(
    "button",
    { type: "button", class: "source", onclick: () => open(source.document_id, source) },
    el("span", { class: "name" }, name, date && el("span", { class: "quiet date" }, ` ${date}`)),
    el("span", { class: "excerpt" }, ...excerpt(source)),
    el("span", { class: "quiet why" }, `characters ${number(source.start)} to ${number(source.end)} · ${source.why}`),
  );
}

/** A passage's text, from shortly before the words of the answer on where it has them, with these marked. */
function excerpt({ text, start, answer_start: from, answer_end: to }) {
  if (from == null || to == null) return [text];
  const slice = sliced(text);
  const [first, last] = [from - start, to - start];
  const cut = first > BEFORE * 1.5 ? first - BEFORE : 0;
  return [cut ? "…" : "", slice(cut, first), el("mark", {}, slice(first, last)), slice(last)];
}

/** The day that each document names, else the day of its last change; nothing where all are of one day. */
function dates(all) {
  const days = all.map(({ date, updated_at }) => date ?? updated_at?.slice(0, 10) ?? "");
  return new Set(days).size > 1 ? days : days.map(() => "");
}

/** What to know of an answer that does not stand in the passage which fits the question best. */
function doubt({ abstained, sources: [first, ...others] }) {
  if (abstained) return null;
  if (!first.holds_answer) return "The words of the answer stand in none of these passages.";
  const best = others.find(({ rank }) => rank === 1);
  return best ? `Another passage fits the question best: ${best.source || "the untitled one"}.` : null;
}

/** All sources of an answer: first the one that it is from, then the others, the best first. */
export function sources(answer) {
  if (!answer.sources.length) return null;
  const days = dates(answer.sources);
  const items = answer.sources.map((source, n) => el("li", {}, passage(source, days[n])));
  const warning = doubt(answer);
  return el(
    "section",
    { class: "sources", "aria-label": "Sources" },
    el("h2", {}, count(items.length, "source")),
    warning && el("p", { class: "notice" }, warning),
    el("ol", {}, ...items),
  );
}
