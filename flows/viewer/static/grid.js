// The grid of tiles over the image, coloured by the ledger; squares of tiles where single ones are too small to see.

import { STATES } from "./api.js";

const SMALLEST_CELL_PX = 5;
const LINES_FROM_PX = 14;
const BADGE_PX = 16;
const BADGE_FROM_PX = 28;

const BY_RANK = [...STATES].sort((a, b) => a.rank - b.rank);
const FILL = { done: 0, skipped: 0.3, pending: 0.28, failed: 0.25, damaged: 0.3 };

export class Grid {
  /** `canvas` lies over `viewer`; `facts` are the run's. */
  constructor(canvas, viewer, facts) {
    Object.assign(this, { canvas, viewer, facts, isOn: false, selected: null, ranks: null, states: null });
    viewer.canvas.after(canvas); // below the overview and what else lies on the viewer
    for (const event of ["update-viewport", "resize", "open"]) viewer.addHandler(event, () => this.draw());
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /** One byte per tile, row by row: the number of its state. */
  show(states) {
    const { rows, cols } = this.facts.tiles;
    this.states = states;
    const rank = Uint8Array.from(states, (state) => STATES[state].rank);
    this.ranks = [{ rows, cols, cells: rank }];
    while (Math.max(this.ranks.at(-1).rows, this.ranks.at(-1).cols) > 1) this.ranks.push(halved(this.ranks.at(-1)));
    this.draw();
  }

  /** The tile at a place of the image: its row, column and state. */
  at(x, y) {
    const { rows, cols, core } = this.facts.tiles;
    const [row, col] = [Math.floor(y / core), Math.floor(x / core)];
    if (!this.states || row < 0 || col < 0 || row >= rows || col >= cols) return null;
    return { row, col, state: STATES[this.states[row * cols + col]] };
  }

  select(tile) {
    this.selected = tile;
    this.draw();
  }

  draw() {
    const context = this._cleared();
    if (!context || !this.ranks || !this.viewer.viewport || !this.viewer.world.getItemCount()) return;
    const { width } = this.facts.image;
    const bounds = this.viewer.viewport.getBounds(true);
    const scale = this.canvas.clientWidth / (bounds.width * width);
    const view = { scale, left: bounds.x * width, top: bounds.y * width };
    if (this.isOn) this._drawCells(context, view);
    if (this.selected) this._drawSelected(context, view);
  }

  _cleared() {
    const { canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (!width || !height) return null;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    return context;
  }

  _drawCells(context, view) {
    const { core } = this.facts.tiles;
    let level = 0;
    while (level < this.ranks.length - 1 && core * 2 ** level * view.scale < SMALLEST_CELL_PX) level += 1;
    const side = core * 2 ** level;
    const { rows, cols, cells } = this.ranks[level];
    const first = (start) => Math.max(0, Math.floor(start / side));
    const last = (start, px, count) => Math.min(count, Math.ceil((start + px / view.scale) / side));
    for (let row = first(view.top); row < last(view.top, this.canvas.clientHeight, rows); row += 1) {
      for (let col = first(view.left); col < last(view.left, this.canvas.clientWidth, cols); col += 1) {
        this._drawCell(context, this._box(view, row, col, side), BY_RANK[cells[row * cols + col]]);
      }
    }
  }

  /** A cell on the screen, cut off where the image ends. */
  _box(view, row, col, side) {
    const { width, height } = this.facts.image;
    const [x0, y0] = [(col * side - view.left) * view.scale, (row * side - view.top) * view.scale];
    const x1 = (Math.min((col + 1) * side, width) - view.left) * view.scale;
    const y1 = (Math.min((row + 1) * side, height) - view.top) * view.scale;
    return { x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
  }

  _drawCell(context, box, state) {
    if (FILL[state.key]) {
      context.globalAlpha = FILL[state.key];
      context.fillStyle = state.color;
      context.fillRect(box.x, box.y, box.width, box.height);
    }
    const isWrong = state.key === "failed" || state.key === "damaged";
    if (box.width >= LINES_FROM_PX) {
      context.globalAlpha = isWrong ? 1 : 0.55;
      context.strokeStyle = state.color;
      context.lineWidth = isWrong ? 2 : 1;
      const inset = context.lineWidth / 2;
      context.strokeRect(box.x + inset, box.y + inset, box.width - 2 * inset, box.height - 2 * inset);
    }
    context.globalAlpha = 1;
    if (isWrong && Math.min(box.width, box.height) >= BADGE_FROM_PX) cross(context, box, state.color);
  }

  _drawSelected(context, view) {
    const box = this._box(view, this.selected.row, this.selected.col, this.facts.tiles.core);
    for (const [color, width] of [["#000", 5], ["#fff", 2.5]]) {
      context.strokeStyle = color;
      context.lineWidth = width;
      context.strokeRect(box.x, box.y, box.width, box.height);
    }
  }
}

/** A cross in the corner: what went wrong shows by more than a colour. */
function cross(context, { x, y }, color) {
  const side = BADGE_PX;
  context.fillStyle = color;
  context.fillRect(x, y, side, side);
  context.strokeStyle = "#14171a";
  context.lineWidth = 2;
  context.lineCap = "round";
  context.beginPath();
  context.moveTo(x + side * 0.3, y + side * 0.3);
  context.lineTo(x + side * 0.7, y + side * 0.7);
  context.moveTo(x + side * 0.7, y + side * 0.3);
  context.lineTo(x + side * 0.3, y + side * 0.7);
  context.stroke();
}

/** Every 2 x 2 cells as one, which shows the worst of them. */
function halved({ rows, cols, cells }) {
  const [tall, wide] = [Math.ceil(rows / 2), Math.ceil(cols / 2)];
  const worst = new Uint8Array(tall * wide);
  for (let row = 0; row < rows; row += 1) {
    for (let col = 0; col < cols; col += 1) {
      const place = (row >> 1) * wide + (col >> 1);
      worst[place] = Math.max(worst[place], cells[row * cols + col]);
    }
  }
  return { rows: tall, cols: wide, cells: worst };
}
