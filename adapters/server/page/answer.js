// An answer on the page: its words, how sure it is, what it cost, and its sources, each of which opens. Knows no server.

import { count, duration, el, number } from "./dom.js";
import { open } from "./document.js";

const UNSURE = 0.6; // where reader="auto" looks the text up
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

/** One passage that opens its document; `said` is looked for in it. */
export function passage(source, said = "") {
  const name = source.source || "Untitled";
  return el(
    "button",
    { type: "button", class: "source", onclick: () => open(source.document_id, { ...source, said }) },
    el("span", { class: "name" }, name),
    el("span", { class: "excerpt" }, source.text),
    el("span", { class: "quiet why" }, `characters ${number(source.start)} to ${number(source.end)} · ${source.why}`),
  );
}

/** All sources of an answer, the best first. */
export function sources(answer) {
  if (!answer.sources.length) return null;
  const items = answer.sources.map((source) => el("li", {}, passage(source, answer.abstained ? "" : answer.text)));
  return el(
    "section",
    { class: "sources", "aria-label": "Sources" },
    el("h2", {}, count(items.length, "source")),
    el("ol", {}, ...items),
  );
}
