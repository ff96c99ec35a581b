// The form that changes a document: text, source, scope, metadata. Sends only what was edited. Knows not where it is shown.

import * as api from "./api.js";
import { byId, changed, el, trouble } from "./dom.js";
import { lines, parsed } from "./metadata.js";

/** The form; `saved()` is called when the server has the changes, `left()` when they are given up. */
export function editor(doc, saved, left) {
  const fault = el("div", {});
  const save = el("button", { type: "submit", class: "main" }, "Save");
  const form = el(
    "form",
    { class: "edit", onsubmit: submitted },
    field("Text", el("textarea", { name: "text", rows: "14", required: true }, doc.text)),
    field("Source", el("input", { name: "source", value: doc.source ?? "", autocomplete: "off" })),
    field("Scope", scopeInput(doc.scope)),
    field("Metadata, a line each, such as year: 2020", el("textarea", { name: "metadata", rows: "3" }, lines(doc.metadata))),
    fault,
    el("div", { class: "row" }, el("button", { type: "button", onclick: left }, "Cancel"), save),
  );
  const before = new FormData(form); // as the browser gives it back: a text area has line ends of its own

  async function submitted(event) {
    event.preventDefault();
    save.disabled = true;
    try {
      const fields = differing(before, new FormData(form));
      if (Object.keys(fields).length) {
        await api.change(doc.id, fields);
        changed();
      }
      await saved();
    } catch (error) {
      save.disabled = false;
      fault.replaceChildren(trouble(error));
      fault.scrollIntoView({ block: "nearest" });
    }
  }

  return form;
}

const field = (name, input) => el("label", { class: "field" }, name, input);

/** One that takes what the scope of new documents takes. */
function scopeInput(scope) {
  const { pattern, title } = byId("add-scope");
  return el("input", { name: "scope", value: scope, list: "scopes", pattern, title, autocomplete: "off" });
}

/** What was edited: the same text again would be no new version. */
function differing(before, after) {
  const fields = {};
  for (const [name, value] of after) {
    if (value === before.get(name)) continue;
    fields[name] = name === "metadata" ? parsed(value) : name === "source" ? value || null : value;
  }
  return fields;
}
