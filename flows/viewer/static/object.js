// The object under the pointer: its outline over the image, and what was measured of it.

import { element, whole } from "./api.js";

export class ObjectCard {
  constructor(viewer, facts) {
    const [canvas, card] = [document.getElementById("outlined"), document.getElementById("object")];
    Object.assign(this, { viewer, facts, canvas, card, found: null });
    for (const event of ["update-viewport", "resize"]) viewer.addHandler(event, () => this._draw());
  }

  /** What the server says of the place under the pointer; an `id` of null is no object. */
  show(found) {
    this.found = found.id === null ? null : found;
    this.card.hidden = !this.found;
    if (this.found) {
      document.getElementById("object-name").textContent = `${found.class} ${whole(found.id)}`;
      const rows = found.values.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]);
      document.getElementById("object-values").replaceChildren(...rows);
    }
    this._draw();
  }

  _draw() {
    const { canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!this.found || !this.viewer.viewport || !this.viewer.world.getItemCount()) return;
    const bounds = this.viewer.viewport.getBounds(true);
    const scale = width / (bounds.width * this.facts.image.width);
    const [left, top] = [bounds.x * this.facts.image.width, bounds.y * this.facts.image.width];
    context.beginPath();
    for (const ring of this.found.outline) {
      ring.forEach(([x, y], at) => context[at ? "lineTo" : "moveTo"]((x - left) * scale, (y - top) * scale));
      context.closePath();
    }
    context.lineJoin = "round";
    for (const [color, wide] of [["#000", 4], ["#fff", 2]]) {
      context.strokeStyle = color;
      context.lineWidth = wide * ratio;
      context.stroke();
    }
  }
}
