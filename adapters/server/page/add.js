// Adding: files dropped or chosen, one after another with their progress, and typed texts. Knows no list of documents.

import * as api from "./api.js";
import { open } from "./document.js";
import { announce, byId, bytes, changed, el } from "./dom.js";

const uploads = byId("uploads");
const zone = byId("drop");
const picker = byId("files");
const form = byId("text-form");
const scope = byId("add-scope");
let line = Promise.resolve(); // one file at a time: the model is one, too

/** A line that shows how one addition goes: `progress(words, share)`, then how it ended. */
function entry(name, size) {
  const state = el("span", { class: "state" }, "waiting");
  const bar = el("progress", { max: 1, value: 0, "aria-label": `Progress of ${name}` });
  const row = el("li", {}, el("span", { class: "name" }, name), el("span", { class: "quiet" }, size), bar, state);
  uploads.prepend(row);
  const end = (kind, ...words) => {
    row.className = kind;
    bar.remove();
    state.replaceChildren(...words);
    announce(`${name}: ${state.textContent}`);
  };
  return {
    progress(words, share) {
      bar.value = share;
      state.textContent = words;
    },
    done: (doc) =>
      end("good", "remembered ", el("button", { type: "button", class: "link", onclick: () => open(doc.id) }, "open")),
    refused: (message) => end("bad", `refused: ${message}`),
    lost: (message) => end("bad", `stored, then: ${message}`),
  };
}

function addFiles(files) {
  if (!scope.reportValidity()) return;
  const where = scope.value;
  for (const file of files) {
    const shown = entry(file.name, bytes(file.size));
    line = line.then(() => addFile(file, where, shown));
  }
}

async function addFile(file, where, shown) {
  try {
    const { documents, refused } = await api.upload(file, where, (share) =>
      shown.progress(`sending, ${Math.round(100 * share)} %`, share),
    );
    if (refused.length) shown.refused(refused[0].message);
    else compressed(documents[0], shown); // the next file need not wait for that
    changed();
  } catch (error) {
    shown.refused(error.message);
  }
}

/** Follow a stored document until it is compressed; its text is safe already. */
async function compressed(doc, shown) {
  try {
    for (let pause = 200; !doc.ready; pause = Math.min(2 * pause, 4000)) {
      shown.progress("stored, being compressed", 1);
      await new Promise((resolve) => setTimeout(resolve, pause));
      doc = await api.read(doc.id);
      const ready = doc.passages.filter((p) => p.ready).length;
      shown.progress(`stored, ${ready} of ${doc.passages.length} passages compressed`, ready / doc.passages.length);
    }
    shown.done(doc);
  } catch (error) {
    shown.lost(error.message);
  }
}

async function addText() {
  if (!scope.reportValidity()) return;
  const where = scope.value;
  const { text, source } = Object.fromEntries(new FormData(form));
  const shown = entry(source || "Typed text", bytes(new Blob([text]).size));
  const button = form.querySelector("button");
  button.disabled = true;
  shown.progress("sending", 0);
  try {
    const doc = await api.add({ text, wait: false, ...(source && { source }), ...(where && { scope: where }) });
    compressed(doc, shown);
    form.reset();
    changed();
  } catch (error) {
    shown.refused(error.message);
  }
  button.disabled = false;
  form.elements.text.focus();
}

function dropped(items) {
  for (const item of items) {
    if (item.kind !== "file") continue;
    const folder = item.webkitGetAsEntry()?.isDirectory;
    const file = item.getAsFile();
    if (folder) entry(file?.name ?? "A folder", "").refused("a folder. In a terminal, `cmt add FOLDER` takes it whole");
    else if (file) addFiles([file]);
  }
}

picker.addEventListener("change", () => {
  addFiles(picker.files);
  picker.value = ""; // the same file can be chosen again
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  addText();
});

// A file dropped anywhere is meant for the memory; by itself a browser would leave this page and open it.
const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragover", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  location.hash = "documents";
  zone.classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) zone.classList.remove("over");
});
addEventListener("drop", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  zone.classList.remove("over");
  dropped(event.dataTransfer.items);
});
