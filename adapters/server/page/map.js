// The map of the memory: dots by meaning, the passage in hand with its neighbours, and the same as a list for the keyboard.

import * as api from "./api.js";
import { open } from "./document.js";
import { byId, count, el, empty, number, trouble, whenChanged } from "./dom.js";
import { Plane } from "./plane.js";

const plane = new Plane(
  byId("plane"),
  (id) => pick(id, false),
  (id) => opened(id),
);
const legend = byId("map-legend");
const card = byId("map-card");
const list = byId("map-list");
let points = new Map();
let neighbours = {};
let documents = new Map(); // what was read for the card, by id
let stale = true;

whenChanged(() => (stale = true));

/** Load the map where the memory has changed since. */
export async function refresh() {
  if (!stale) return;
  stale = false;
  documents = new Map();
  try {
    const [loaded, { passages }] = await Promise.all([api.map(), api.stats()]);
    byId("map-some").hidden = loaded.points.length >= passages;
    byId("map-some").textContent = `Shown are ${number(loaded.points.length)} of ${number(passages)} passages.`;
    points = new Map(loaded.points.map((p) => [p.passage_id, p]));
    neighbours = loaded.neighbours;
    render(loaded.points);
  } catch (error) {
    stale = true;
    byId("map-body").hidden = true;
    byId("map-empty").replaceChildren(trouble(error, refresh));
  }
}

function render(all) {
  byId("map-body").hidden = byId("map-about").hidden = !all.length;
  byId("map-empty").replaceChildren(
    all.length
      ? ""
      : empty(
          "Nothing to map yet",
          el("a", { href: "#documents" }, "Add documents"),
          "; each of their passages becomes a dot here.",
        ),
  );
  byId("plane").setAttribute("aria-label", `Map of ${count(all.length, "passage")}`);
  card.replaceChildren(
    el(
      "p",
      { class: "quiet" },
      "Point at a dot, or walk through the list, to read its passage and see its neighbours. A click opens the document.",
    ),
  );
  plane.draw(all, neighbours);
  describe(all);
  only(null);
}

/** One button a group, with the passage nearest to its middle as an example. */
function describe(all) {
  const buttons = [...grouped(all)]
    .sort(([a], [b]) => a - b)
    .map(([cluster, members]) => {
      const middle = (axis) => members.reduce((sum, p) => sum + p[axis], 0) / members.length;
      const [x, y] = [middle("x"), middle("y")];
      const example = members.reduce((best, p) => (Math.hypot(p.x - x, p.y - y) < Math.hypot(best.x - x, best.y - y) ? p : best));
      const press = () =>
        only(legend.querySelector(`[data-cluster="${cluster}"]`).getAttribute("aria-pressed") === "true" ? null : cluster);
      return el(
        "button",
        { type: "button", "data-cluster": cluster, "aria-pressed": "false", title: `such as: ${example.label}`, onclick: press },
        chip(cluster),
        `Group ${cluster + 1}`,
        el("span", { class: "quiet" }, ` · ${members.length}`, el("span", { class: "unseen" }, " passages")),
      );
    });
  legend.replaceChildren(...buttons);
}

function grouped(all) {
  const groups = new Map();
  for (const p of all) (groups.get(p.cluster) ?? groups.set(p.cluster, []).get(p.cluster)).push(p);
  return groups;
}

const chip = (cluster) => el("span", { class: `chip c${cluster % 8}`, "aria-hidden": "true" });

/** Show one group only, on the map and in the list; null: all. */
function only(cluster) {
  plane.show(cluster);
  for (const button of legend.children) button.setAttribute("aria-pressed", String(Number(button.dataset.cluster) === cluster));
  const shown = [...points.values()]
    .filter((p) => cluster === null || p.cluster === cluster)
    .sort((a, b) => a.passage_id - b.passage_id);
  list.replaceChildren(...shown.map((p, place) => el("li", {}, inList(p, place))));
}

/** A click opens the document; to stand on it is enough to see the passage. */
function inList(p, place) {
  return pointButton(p, {
    tabindex: place === 0 ? 0 : -1,
    onclick: () => opened(p.passage_id),
    onfocus: () => pick(p.passage_id, true),
  });
}

/** A click walks on to the neighbour: it takes the card's place. */
function walk(id) {
  pick(id, true);
  card.focus();
}

function pointButton(p, acts) {
  return el(
    "button",
    { type: "button", class: "point", "data-id": p.passage_id, ...acts },
    chip(p.cluster),
    el("span", { class: "label" }, p.label),
    el("span", { class: "quiet name" }, p.source ?? "", el("span", { class: "unseen" }, ` group ${p.cluster + 1}`)),
  );
}

/** Take a passage in hand: ring its dot, link its neighbours, show its words. */
async function pick(id, bring) {
  plane.activate(id, bring);
  const p = points.get(id);
  const words = el("p", { class: "words", tabindex: "0" }, p.label);
  const near = (neighbours[id] ?? []).map((other) => points.get(other)).filter(Boolean);
  card.replaceChildren(
    el("p", { class: "name" }, chip(p.cluster), p.source ?? "Untitled"),
    words,
    near.length ? el("h3", {}, "Nearest") : "",
    el(
      "ul",
      { class: "points" },
      ...near.map((other) => el("li", {}, pointButton(other, { onclick: () => walk(other.passage_id) }))),
    ),
    el("button", { type: "button", onclick: () => opened(id) }, "Open the document"),
  );
  const found = await passage(p).catch(() => null); // then its first words stand there, and opening it says what is wrong
  if (found && plane.active === id) words.textContent = found.text;
}

async function passage(p) {
  if (!documents.has(p.document_id)) documents.set(p.document_id, api.read(p.document_id));
  return (await documents.get(p.document_id)).passages.find((one) => one.id === p.passage_id);
}

async function opened(id) {
  const p = points.get(id);
  const found = await passage(p).catch(() => null);
  open(p.document_id, found && { ...found, passage_id: id });
}

/** The list is one stop of the tab key; arrows walk in it. */
list.addEventListener("keydown", (event) => {
  const steps = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity };
  if (!(event.key in steps)) return;
  const buttons = [...list.querySelectorAll("button")];
  const from = buttons.indexOf(document.activeElement);
  const to = Math.min(buttons.length - 1, Math.max(0, from + steps[event.key]));
  event.preventDefault();
  buttons[from].tabIndex = -1;
  buttons[to].tabIndex = 0;
  buttons[to].focus();
});

byId("zoom-in").addEventListener("click", () => plane.zoom(1.4));
byId("zoom-out").addEventListener("click", () => plane.zoom(1 / 1.4));
byId("zoom-all").addEventListener("click", () => plane.all());
