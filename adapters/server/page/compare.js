// Memory against text: one question to both readers, side by side, with what each had to read and how long it took.

import * as api from "./api.js";
import { sources, times, verdict } from "./answer.js";
import { sendsOnEnter } from "./ask.js";
import { announce, byId, duration, el, empty, number, trouble } from "./dom.js";

const form = byId("compare-form");
const result = byId("compare-result");
const button = form.querySelector("button");
const READERS = { memory: "From memory", text: "From text" };

result.append(empty("Nothing compared yet", "Write a question above. Both readers get the same passages."));

async function compare() {
  const question = new FormData(form).get("question");
  button.disabled = true;
  const cards = Object.entries(READERS).map(([reader, name]) => [
    reader,
    el("article", { class: "card", "aria-label": name }, el("h2", {}, name)),
  ]);
  const pair = el("div", { class: "pair" }, ...cards.map(([, card]) => card));
  result.replaceChildren(pair);
  try {
    const answers = {};
    // one by one, so that both times are those of an idle model
    for (const [reader, card] of cards) answers[reader] = await answered(question, reader, card);
    result.replaceChildren(pair, table(answers), sources(answers.memory) ?? "");
    announce(`From memory: ${answers.memory.text} From text: ${answers.text.text}`);
  } catch (error) {
    result.append(trouble(error, compare));
  } finally {
    button.disabled = false;
  }
}

async function answered(question, reader, card) {
  const waiting = el("p", { class: "quiet waiting" }, "Reading");
  card.append(waiting);
  try {
    const answer = await api.ask({ question, reader });
    card.append(el("p", { class: "words" }, answer.text), verdict(answer));
    return answer;
  } finally {
    waiting.remove();
  }
}

function table({ memory, text }) {
  const both = (measure) => [measure(memory), measure(text)];
  const rows = [
    row(
      "Tokens in the prompt",
      both((a) => a.prompt_tokens),
      number,
    ),
    row(
      "Tokens read from memory",
      both((a) => a.memory_tokens),
      number,
    ),
    row(
      "Tokens written",
      both((a) => a.answer_tokens),
      number,
    ),
    row(
      "Finding passages",
      both((a) => times(a).finding),
      duration,
    ),
    row(
      "Reading, until the first word",
      both((a) => times(a).reading),
      duration,
    ),
    row(
      "Writing",
      both((a) => times(a).writing),
      duration,
    ),
    row(
      "Altogether",
      both((a) => times(a).finding + times(a).reading + times(a).writing),
      duration,
    ),
  ];
  const head = el("tr", {}, el("td", {}), ...Object.values(READERS).map((name) => el("th", { scope: "col" }, name)));
  const cost = el("table", {}, el("caption", {}, "What it cost"), el("thead", {}, head), el("tbody", {}, ...rows));
  return el("div", { class: "card" }, cost);
}

function row(name, values, shown) {
  const most = Math.max(...values, 1e-9);
  const cells = values.map((value) =>
    el("td", {}, el("span", {}, shown(value)), el("progress", { max: most, value, "aria-hidden": "true" })),
  );
  return el("tr", {}, el("th", { scope: "row" }, name), ...cells);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  compare();
});
sendsOnEnter(byId("compare-question"));
