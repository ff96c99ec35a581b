// A plane of dots that can be moved and zoomed, one of them active with lines to its neighbours. Knows no passage, no server.

import { svg } from "./dom.js";

const MARGIN = 0.9;
const DRAG = 4; // pixels that a click may wander
const LARGEST = 40;

export class Plane {
  /** `root` is an <svg>; `hovered(id)` and `chosen(id)` are called for dots. */
  constructor(root, hovered, chosen) {
    this.root = root;
    this.links = svg("g", { class: "links" });
    this.dots = svg("g", {});
    root.append(this.links, this.dots);
    this.byId = new Map();
    this.neighbours = {};
    this.all();
    this.held = new Map(); // pointers that are down
    this.active = null;
    this.listen(hovered, chosen);
    new ResizeObserver(() => this.place()).observe(root);
  }

  /** Show points {passage_id, x, y, cluster} with x and y from -1 to 1; `neighbours` maps an id to ids. */
  draw(points, neighbours) {
    this.neighbours = neighbours;
    this.active = null;
    this.byId = new Map(
      points.map((p) => [
        p.passage_id,
        { ...p, dot: svg("circle", { class: `dot c${p.cluster % 8}`, "data-id": p.passage_id, r: points.length > 400 ? 4 : 6 }) },
      ]),
    );
    this.dots.replaceChildren(...this.points.map((p) => p.dot));
    this.show(null);
    this.all();
  }

  /** Only dots of this cluster stand out; null: all. */
  show(cluster) {
    for (const p of this.points) p.dot.classList.toggle("faint", cluster !== null && p.cluster !== cluster);
  }

  /** Make a dot the active one and bring it into sight. */
  activate(id, bring = false) {
    for (const p of [...this.near(), this.byId.get(this.active)]) p?.dot.classList.remove("near", "active");
    this.active = id;
    for (const p of this.near()) p.dot.classList.add("near");
    const p = this.byId.get(id);
    p.dot.classList.add("active");
    if (p.dot !== this.dots.lastChild) this.dots.append(p.dot); // above the others
    this.measure();
    const { x, y } = this.at(p);
    if (bring && (x < 0 || y < 0 || x > this.width || y > this.height)) Object.assign(this.view, { x: p.x, y: p.y });
    this.place();
  }

  /** Zoom by a factor around a place in pixels (the middle). */
  zoom(factor, px = this.width / 2, py = this.height / 2) {
    const scale = Math.min(LARGEST, Math.max(0.5, this.view.scale * factor));
    const before = this.from(px, py);
    this.view.scale = scale;
    const after = this.from(px, py);
    this.move(before.x - after.x, before.y - after.y);
  }

  /** Move the view, in units of the points, no further than there are any. */
  move(dx, dy) {
    const within = (v, { middle, half }) => Math.min(middle + half, Math.max(middle - half, v));
    this.view.x = within(this.view.x + dx, this.span.x);
    this.view.y = within(this.view.y + dy, this.span.y);
    this.place();
  }

  /** Show everything. */
  all() {
    this.span = { x: span(this.points, "x"), y: span(this.points, "y") };
    this.view = { x: this.span.x.middle, y: this.span.y.middle, scale: 1 };
    this.place();
  }

  get points() {
    return [...this.byId.values()];
  }

  get unit() {
    const of = (size, { half }) => ((size / 2) * MARGIN * this.view.scale) / half;
    return { x: of(this.width, this.span.x), y: of(this.height, this.span.y) };
  }

  at(p) {
    return { x: this.width / 2 + (p.x - this.view.x) * this.unit.x, y: this.height / 2 - (p.y - this.view.y) * this.unit.y };
  }

  from(px, py) {
    return { x: this.view.x + (px - this.width / 2) / this.unit.x, y: this.view.y - (py - this.height / 2) / this.unit.y };
  }

  /** Put everything where it belongs, before the next picture is shown, however often it is asked for until then. */
  place() {
    this.due ??= requestAnimationFrame(() => {
      this.due = null;
      this.measure();
      if (this.width) this.put();
    });
  }

  measure() {
    ({ width: this.width, height: this.height } = this.root.getBoundingClientRect());
  }

  put() {
    for (const p of this.points) {
      const { x, y } = this.at(p);
      p.dot.setAttribute("cx", x.toFixed(1));
      p.dot.setAttribute("cy", y.toFixed(1));
    }
    const from = this.byId.get(this.active);
    const lines = this.near().map((other) => {
      const [a, b] = [this.at(from), this.at(other)];
      return svg("line", { x1: a.x, y1: a.y, x2: b.x, y2: b.y });
    });
    this.links.replaceChildren(...lines);
  }

  /** The neighbours of the active dot. */
  near() {
    return (this.neighbours[this.active] ?? []).map((id) => this.byId.get(id)).filter(Boolean);
  }

  listen(hovered, chosen) {
    const id = (event) => (event.target.dataset.id === undefined ? null : Number(event.target.dataset.id));
    let wandered = 0;
    this.root.addEventListener(
      "pointerover",
      (event) => id(event) !== null && id(event) !== this.active && !wandered && hovered(id(event)),
    );
    this.root.addEventListener("click", (event) => id(event) !== null && wandered < DRAG && chosen(id(event)));
    this.root.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.root.addEventListener("keydown", (event) => this.key(event));
    this.root.addEventListener("pointerdown", (event) => {
      if (!this.held.size) wandered = 0;
      this.held.set(event.pointerId, event);
    });
    addEventListener("pointermove", (event) => {
      if (this.held.has(event.pointerId)) wandered += this.dragged(event);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      addEventListener(name, (event) => {
        this.held.delete(event.pointerId);
        if (!this.held.size) setTimeout(() => (wandered = 0)); // the click comes first
      });
    }
  }

  /** One pointer moves the plane, two zoom it; the pixels that it went. */
  dragged(event) {
    const before = this.held.get(event.pointerId);
    const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
    const other = [...this.held.values()].find((pointer) => pointer.pointerId !== event.pointerId);
    this.held.set(event.pointerId, event);
    if (other) {
      const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
      const box = this.root.getBoundingClientRect();
      this.zoom(
        apart(event) / apart(before),
        (event.clientX + other.clientX) / 2 - box.left,
        (event.clientY + other.clientY) / 2 - box.top,
      );
    } else {
      this.move(-dx / this.unit.x, dy / this.unit.y);
    }
    return Math.hypot(dx, dy);
  }

  wheel(event) {
    event.preventDefault();
    const box = this.root.getBoundingClientRect();
    this.zoom(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
  }

  key(event) {
    const [dx, dy] = [60 / this.unit.x, 60 / this.unit.y]; // as far at every zoom
    const moves = { ArrowLeft: [-dx, 0], ArrowRight: [dx, 0], ArrowUp: [0, dy], ArrowDown: [0, -dy] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (moves[event.key]) this.move(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") this.zoom(1.4);
    else if (event.key === "-") this.zoom(1 / 1.4);
    else if (event.key === "0") this.all();
    else return;
    event.preventDefault();
  }
}

/** The middle of what the points cover along one axis, and half its length. */
function span(points, axis) {
  const values = points.map((p) => p[axis]);
  const [least, most] = values.length ? [Math.min(...values), Math.max(...values)] : [-1, 1];
  return { middle: (least + most) / 2, half: Math.max((most - least) / 2, 0.05) };
}
