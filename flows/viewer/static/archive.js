// The table of an archive's runs: filled some rows at a time, sorted and filtered here.

import { STATES, duration, element, get, moment, post, verdict, whole } from "./api.js";

const POLL_SECONDS = 15;
const part = (id) => document.getElementById(id);
const table = { rows: [], key: "name", ascending: true };

const VALUES = {
  name: (row) => row.name,
  state: (row) => (row.error ? -1 : verdict(row).order + (row.flags ? -0.5 : 0)),
  failed: (row) => (row.error ? -1 : row.counts.failed + row.counts.damaged),
  megapixels: (row) => row.megapixels ?? -1,
  pixel: (row) => row.pixel_size?.x ?? -1,
  seconds: (row) => row.seconds ?? -1,
  rate: (row) => row.megapixels_per_second ?? -1,
  last: (row) => row.last_time ?? -1,
};

const order = new Intl.Collator("en", { numeric: true });

function sorted(rows) {
  const value = VALUES[table.key];
  const sign = table.ascending ? 1 : -1;
  const compare = (a, b) => (typeof a === "string" ? order.compare(a, b) : a - b);
  return [...rows].sort((a, b) => sign * compare(value(a), value(b)) || order.compare(a.name, b.name));
}

function show() {
  const wanted = part("filter").value.trim().toLowerCase();
  const holds = (row) => [row.name, row.image, row.model].some((text) => text?.toLowerCase().includes(wanted));
  const shown = sorted(table.rows.filter(holds));
  const known = new Map([...part("runs").tBodies[0].rows].map((row) => [row.dataset.key, row]));
  part("runs").tBodies[0].replaceChildren(...shown.map((row) => known.get(keyOf(row)) ?? line(row)));
  part("empty").hidden = shown.length > 0 || !table.rows.length;
  showSummary();
}

/** What a line shows; one that is the same as before is kept, with its picture. */
const keyOf = (row) => JSON.stringify(row);

function showSummary() {
  const counts = new Map();
  for (const row of table.rows) {
    const kind = row.error ? wrong(row) : verdict(row).text.replace(/^[\d,]+ (.*)$/, "with $1 tiles");
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  const { length } = table.rows.filter((row) => !row.state);
  const parts = [...counts].sort((a, b) => b[1] - a[1]).map(([kind, count]) => `${whole(count)} ${kind}`);
  part("summary").textContent = [`${whole(length)} ${length === 1 ? "run" : "runs"}`, ...parts].join(" · ");
}

/** States of slides of which a night may still make something, or of which there is nothing to do. */
const WAITING = ["begun", "changing", "gone"];

/** Of a line without a run to look at: a slide that none came of yet, or a run that can't be read. */
const wrong = ({ state }) => (state ? `${state} without a run` : "unreadable");

function line(row) {
  const made = element("tr");
  made.dataset.key = keyOf(row);
  made.append(picture(row), name(row));
  if (row.error) {
    const cell = element("td", "reason", row.error);
    cell.colSpan = row.state ? 7 : 8;
    if (row.state) {
      const state = element("td", "state");
      state.append(element("span", WAITING.includes(row.state) ? "pending" : "failed-text", row.state));
      made.append(state);
    }
    cell.append(...leaving(row));
    made.append(cell);
    return made;
  }
  const { text, kind } = verdict(row);
  const state = element("td", "state");
  state.append(element("span", kind, text));
  if (row.flags) state.append(element("div", "flags", row.flags.join(", ")));
  state.append(...leaving(row));
  made.append(
    state,
    tiles(row),
    element("td", "n wide", `${row.megapixels.toFixed(1)} MPix`),
    element("td", "n wide", pixelSize(row.pixel_size)),
    element("td", "n", duration(row.seconds)),
    element("td", "n wide", row.seconds ? `${row.megapixels_per_second.toFixed(2)} MPix/s` : "–"),
    when(row),
    report(row),
  );
  return made;
}

/** The button that leaves a failed slide as it is, or that somebody has done so. */
function leaving({ failed_slide: slide, acknowledged }) {
  if (!slide) return [];
  if (acknowledged) return [element("div", "acknowledged", "acknowledged")];
  const button = element("button", "leave", "Acknowledge");
  button.type = "button";
  button.title = "Leave this failure as it is: nights count it and no longer name it, until its file changes";
  button.setAttribute("aria-label", `Acknowledge the failure of ${slide}`);
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await post("/api/acknowledge", { slide });
      for (const row of table.rows) if (row.failed_slide === slide) row.acknowledged = true;
      show();
    } catch (error) {
      button.disabled = false;
      button.after(element("div", "flags", error.message));
    }
  });
  return [button];
}

/** The side of the pixels that were segmented; without one, no figure of a run can be held against another's. */
function pixelSize(size) {
  if (!size) return "not known";
  const unit = size.unit === "um" ? "µm" : size.unit === "degree" ? "°" : size.unit;
  const [x, y] = [size.x, size.y].map((side) => String(Number(side.toPrecision(4))));
  return x === y ? `${x} ${unit}` : `${x} × ${y} ${unit}`;
}

function picture(row) {
  const cell = element("td", "picture");
  const frame = element("div", "frame");
  if (!row.error) {
    const image = element("img");
    const parameters = new URLSearchParams({ run: row.name, v: row.revision });
    Object.assign(image, { alt: "", loading: "lazy", src: `/api/thumbnail?${parameters}` });
    image.addEventListener("error", () => image.remove());
    frame.append(image);
  }
  cell.append(frame);
  return cell;
}

function name(row) {
  const cell = element("td", "run");
  const link = element(row.error ? "span" : "a", "", row.name);
  if (!row.error) link.href = `/run?${new URLSearchParams({ run: row.name })}`;
  cell.append(link);
  if (!row.error) cell.append(element("div", "soft", `${row.image} · ${row.model}`));
  return cell;
}

function tiles(row) {
  const cell = element("td", "wide");
  const bar = element("div", "stack");
  const worst = [...STATES].sort((a, b) => b.rank - a.rank).filter(({ key }) => row.counts[key]);
  for (const { key, color } of worst) {
    const piece = element("span");
    piece.style.background = color;
    piece.style.flexGrow = row.counts[key];
    bar.append(piece);
  }
  const counts = worst.map(({ key, name: state }) => `${whole(row.counts[key])} ${state}`);
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", counts.join(", "));
  const done = row.counts.done + row.counts.skipped;
  cell.append(bar, element("div", "stack-text", `${whole(done)} of ${whole(row.tiles)}`));
  cell.title = counts.join(", ");
  return cell;
}

function when(row) {
  const cell = element("td", "wide");
  if (row.last_time) {
    const date = new Date(row.last_time * 1000);
    const time = element("time", "", moment(date));
    time.dateTime = date.toISOString();
    cell.append(time);
  } else cell.append("–");
  return cell;
}

function report(row) {
  const cell = element("td", "wide");
  const link = element("a", "", "Report");
  Object.assign(link, { href: `/report?${new URLSearchParams({ run: row.name })}`, target: "_blank", rel: "noopener" });
  link.setAttribute("aria-label", `Report of ${row.name}`);
  cell.append(link);
  return cell;
}

async function read() {
  const rows = [];
  try {
    for (let all = 1; rows.length < all; ) {
      const found = await get(`/api/runs?start=${rows.length}`);
      part("place").textContent = found.place;
      all = found.runs;
      rows.push(...found.rows);
      if (!found.rows.length) break;
      if (table.rows.length < rows.length) {
        table.rows = [...rows];
        show();
      }
    }
    table.rows = rows;
    show();
  } catch (error) {
    part("summary").textContent = `The viewer doesn't answer: ${error.message}`;
  }
  setTimeout(read, POLL_SECONDS * 1000);
}

for (const button of document.querySelectorAll("[data-sort]")) {
  button.addEventListener("click", () => {
    table.ascending = table.key === button.dataset.sort ? !table.ascending : button.dataset.sort === "name" || button.dataset.sort === "state";
    table.key = button.dataset.sort;
    for (const head of document.querySelectorAll("th")) head.removeAttribute("aria-sort");
    button.closest("th").setAttribute("aria-sort", table.ascending ? "ascending" : "descending");
    show();
  });
}
part("filter").addEventListener("input", show);
read();
