// The page of one run: slide and mask, the grid of tiles, and reruns.

import { STATES, about, duration, element, get, post, runName, verdict, whole } from "./api.js";
import { Grid } from "./grid.js";
import * as keys from "./keys.js";
import { MaskLayer, SlideLayer } from "./layers.js";
import { ObjectCard } from "./object.js";
import { drawRuler, placeText } from "./ruler.js";

const POLL_SECONDS = { job: 0.7, running: 3, idle: 6 };
const LABEL_DELAY_MS = 70;
const NOT_PREDICTED = 255;
const PAN_SHARE = 0.2;
const FAILED_TILES = 3; // how the command line ends where some of a run's tiles have failed

const part = (id) => document.getElementById(id);
const page = { facts: null, state: null, chosen: null, job: null, hidden: new Set(), timer: 0 };
let viewer;
let slide;
let mask;
let grid;
let objectCard;

function openViewer(facts) {
  viewer = OpenSeadragon({
    element: part("viewer"),
    drawer: "canvas",
    showNavigationControl: false,
    keyboardNavEnabled: false,
    showNavigator: true,
    navigatorPosition: "BOTTOM_RIGHT",
    navigatorSizeRatio: 0.16,
    navigatorAutoFade: false,
    animationTime: 0.4,
    visibilityRatio: 0.4,
    minZoomImageRatio: 0.6,
    maxZoomPixelRatio: 16,
    crossOriginPolicy: false,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
  });
  // The viewer's own element holds the focus; its inner one would be a second stop of the Tab key.
  viewer.canvas.tabIndex = -1;
  grid = new Grid(part("grid"), viewer, facts);
  objectCard = new ObjectCard(viewer, facts);
  mask = new MaskLayer(viewer, facts, () => (document.body.dataset.mask = mask.asked));
  if (facts.slide === null) slide = new SlideLayer(viewer, facts);
  viewer.addHandler("update-viewport", showRuler);
  viewer.addHandler("canvas-click", (event) => event.quick && choose(tileUnder(event.position)));
  viewer.addHandler("canvas-press", () => part("viewer").focus({ preventScroll: true }));
  part("viewer").addEventListener("pointermove", showPointer);
  part("viewer").addEventListener("pointerleave", hidePointer);
}

function placeUnder(position) {
  const { x, y } = viewer.viewport.pointFromPixel(position, true);
  return { x: x * page.facts.image.width, y: y * page.facts.image.width };
}

function tileUnder(position) {
  const { x, y } = placeUnder(position);
  return grid.at(x, y);
}

function showRuler() {
  const bounds = viewer.viewport.getBounds(true);
  const scale = part("viewer").clientWidth / (bounds.width * page.facts.image.width);
  drawRuler(scale, page.facts.image.pixel_size);
  // Enlarged pixels are shown as what they are; reduced ones are averaged.
  if (viewer.drawer) viewer.drawer.setImageSmoothingEnabled(scale <= 1);
}

let labelTimer = 0;
let labelAsked = 0;

function showPointer(event) {
  const { image } = page.facts;
  const corner = part("viewer").getBoundingClientRect();
  const { x, y } = placeUnder(new OpenSeadragon.Point(event.clientX - corner.left, event.clientY - corner.top));
  clearTimeout(labelTimer);
  if (x < 0 || y < 0 || x >= image.width || y >= image.height) {
    hidePointer();
    return;
  }
  const text = placeText(x, y, page.facts);
  const former = part("pointer").textContent.split("  ·  ").at(-1);
  part("pointer").textContent = `${text}  ·  ${labelAsked ? former : "…"}`;
  labelTimer = setTimeout(async () => {
    const asked = (labelAsked += 1);
    const place = { x: Math.floor(x), y: Math.floor(y) };
    const { label } = await get(about("/api/label", place));
    if (asked === labelAsked) part("pointer").textContent = `${text}  ·  ${labelName(label)}`;
    const found = label === NOT_PREDICTED ? { id: null } : await get(about("/api/object", place));
    if (asked === labelAsked) objectCard.show(found);
  }, LABEL_DELAY_MS);
}

function hidePointer() {
  clearTimeout(labelTimer);
  labelAsked += 1;
  part("pointer").textContent = "";
  objectCard.show({ id: null });
}

function labelName(label) {
  if (label === NOT_PREDICTED) return "not predicted";
  if (label !== null && label === page.facts.no_data) return "no data";
  return page.facts.classes[label]?.name ?? `label ${label}`;
}

function showFacts(facts) {
  document.title = `${facts.name} · overtile`;
  part("name").textContent = facts.name;
  part("about").textContent = `${facts.image.name} · ${whole(facts.image.width)} × ${whole(facts.image.height)} px · model ${facts.model}`;
  part("back").hidden = !facts.in_archive;
  part("report").href = about("/report");
  if (facts.slide !== null) {
    part("slide-on").checked = false;
    part("slide-on").disabled = true;
    part("slide-problem").textContent = facts.slide;
    part("slide-problem").hidden = false;
  }
  showClasses();
}

function showClasses() {
  const rows = page.facts.classes.slice(1).map(({ label, name, color, safe, outline }) => {
    const shown = part("safe").checked ? safe : part("outline").checked ? outline : color;
    return classRow(label, name, shown, label < 10 ? String(label) : "");
  });
  if (page.facts.no_data !== null) rows.push(classRow(page.facts.no_data, "no data", "#808080", ""));
  rows.push(classRow(NOT_PREDICTED, "not predicted", "#d55e00", ""));
  part("classes").replaceChildren(...rows);
}

function classRow(label, name, color, key) {
  const row = element("li");
  const check = element("label", "check");
  const box = element("input");
  Object.assign(box, { type: "checkbox", checked: !page.hidden.has(label) });
  box.dataset.label = label;
  box.addEventListener("change", () => toggleLabel(label));
  const swatch = element("span", "swatch");
  swatch.style.background = color;
  check.append(box, swatch, element("span", "name", name));
  row.append(check);
  if (key) row.append(element("kbd", "", key));
  return row;
}

function toggleLabel(label) {
  if (page.hidden.has(label)) page.hidden.delete(label);
  else page.hidden.add(label);
  const box = part("classes").querySelector(`[data-label="${label}"]`);
  if (box) box.checked = !page.hidden.has(label);
  showMask();
}

function showMask() {
  const all = [...page.facts.classes.slice(1).map(({ label }) => label), NOT_PREDICTED];
  if (page.facts.no_data !== null) all.push(page.facts.no_data);
  mask.show({
    revision: page.state.revision,
    labels: all.filter((label) => !page.hidden.has(label)),
    palette: part("safe").checked ? "safe" : "own",
    style: part("outline").checked ? "outline" : "fill",
  });
  mask.setOpacity(part("mask-on").checked ? part("opacity").value / 100 : 0);
  part("opacity-text").textContent = `${part("opacity").value} %`;
}

async function showState(state) {
  const isFirst = !page.state;
  const isNew = isFirst || page.state.revision !== state.revision;
  page.state = state;
  if (isFirst) showGrid(state.counts.done + state.counts.skipped < state.tiles);
  showJob(state.job);
  if (!isNew) return;
  const { text, kind } = verdict(state);
  const summary = element("span", kind, text[0].toUpperCase() + text.slice(1));
  const done = state.counts.done + state.counts.skipped;
  part("summary").replaceChildren(summary, ` · ${whole(done)} of ${whole(state.tiles)} tiles`);
  showStates(state);
  showFailed(state);
  grid.show(new Uint8Array(await (await fetch(about("/api/tiles"))).arrayBuffer()));
  if (page.chosen) choose(grid.at((page.chosen.col + 0.5) * core(), (page.chosen.row + 0.5) * core()), false);
  showMask();
}

/** The grid hides what is below it: it is there from the start only where a tile failed, or is still to be done. */
function showGrid(isOn) {
  part("grid-on").checked = isOn;
  grid.isOn = isOn;
}

const core = () => page.facts.tiles.core;

function showStates({ counts }) {
  const rows = STATES.filter(({ key }) => counts[key]).map(({ key, name, color }) => {
    const row = element("li");
    const swatch = element("span", "swatch");
    swatch.style.background = color;
    row.append(swatch, `${whole(counts[key])} ${name}`);
    return row;
  });
  part("states").replaceChildren(...rows);
}

function showFailed({ failed, failed_in_all: inAll, counts }) {
  part("failed-part").hidden = !inAll;
  part("failed").replaceChildren(
    ...failed.map((tile) => {
      const row = element("li");
      const button = element("button");
      button.type = "button";
      button.dataset.tile = nameOf(tile);
      button.append(element("span", "place", nameOf(tile)), element("span", "why", briefly(tile.reason)));
      button.addEventListener("click", () => flyTo(tile));
      row.append(button);
      return row;
    }),
  );
  part("failed-more").hidden = inAll <= failed.length;
  part("failed-more").textContent = `and ${whole(inAll - failed.length)} more`;
  part("rerun-failed").textContent = counts.failed ? "Rerun all failed tiles" : "Rerun all damaged tiles";
}

const nameOf = ({ row, col }) => `${row},${col}`;

/** A reason without what the page shows anyway: which image, and where the tile lies in it. */
const briefly = (reason) => reason?.replace(`${page.facts.image.path}: `, "").replace(/level \d+, box \[[\d:, ]+\]: /, "");

function choose(tile, isAnnounced = true) {
  page.chosen = tile;
  grid.select(tile);
  part("selected").hidden = !tile;
  for (const button of part("failed").querySelectorAll("button")) {
    const isChosen = tile !== null && button.dataset.tile === nameOf(tile);
    button.toggleAttribute("aria-current", isChosen);
    if (isChosen) button.setAttribute("aria-current", "true");
  }
  if (!tile) return;
  const record = page.state.failed.find((each) => nameOf(each) === nameOf(tile));
  const isWrong = tile.state.key === "failed" || tile.state.key === "damaged";
  part("selected-name").textContent = `Tile ${nameOf(tile)}`;
  const tries = record?.attempts > 1 ? ` after ${record.attempts} attempts` : "";
  part("selected-state").textContent = `${tile.state.name}${tries}`;
  part("selected-state").className = isWrong ? "failed-text" : "soft";
  part("selected-reason").textContent = record?.reason ?? "";
  part("selected-reason").hidden = !record;
  part("selected-rerun").hidden = !isWrong;
  if (isAnnounced) part("selected").scrollIntoView({ block: "nearest" });
}

function flyTo(tile) {
  const { width } = page.facts.image;
  const [side, margin] = [core() / width, 0.75];
  const x = tile.col * side - side * margin;
  const y = tile.row * side - side * margin;
  viewer.viewport.fitBounds(new OpenSeadragon.Rect(x, y, side * (1 + 2 * margin), side * (1 + 2 * margin)));
  choose(grid.at((tile.col + 0.5) * core(), (tile.row + 0.5) * core()));
}

function nextFailed(step) {
  const { failed } = page.state;
  if (!failed.length) return;
  const here = page.chosen ? failed.findIndex((each) => nameOf(each) === nameOf(page.chosen)) : -1;
  const next = here < 0 ? (step > 0 ? 0 : failed.length - 1) : (here + step + failed.length) % failed.length;
  flyTo(failed[next]);
}

async function rerun(request) {
  try {
    showJob((await post(about("/api/rerun"), request)).job);
  } catch (error) {
    showJob({ what: "the rerun", tiles: [], is_running: false, code: 1, seconds: 0, message: error.message });
  }
  poll();
}

function showJob(job) {
  page.job = job;
  for (const id of ["selected-rerun", "rerun-failed"]) part(id).disabled = Boolean(job?.is_running);
  part("job").hidden = !job;
  if (!job) return;
  const what = job.what[0].toUpperCase() + job.what.slice(1);
  const again = stillFailed(job);
  const isWrong = !job.is_running && (![0, FAILED_TILES].includes(job.code) || again > 0);
  part("job").className = `job${job.is_running ? "" : isWrong ? " wrong" : " ended"}`;
  let text = `${what} is being computed again … ${duration(job.seconds)}`;
  if (!job.is_running) text = `${what}: computed again in ${duration(job.seconds)}`;
  if (isWrong) text = again && job.code === FAILED_TILES ? `${what}: ${whole(again)} failed again` : `${what}: ${job.message}`;
  if (part("job").textContent !== text) part("job").textContent = text;
}

/** How many of the tiles that were wanted are failed all the same. */
function stillFailed({ code, tiles }) {
  if (code !== FAILED_TILES) return 0;
  if (!tiles.length) return page.state.counts.failed;
  const wanted = new Set(tiles.map(([row, col]) => nameOf({ row, col })));
  return page.state.failed.filter((tile) => wanted.has(nameOf(tile))).length;
}

async function poll() {
  clearTimeout(page.timer);
  try {
    if (!document.hidden) await showState(await get(about("/api/state")));
    document.body.dataset.link = "up";
  } catch (error) {
    document.body.dataset.link = "down";
    part("summary").textContent = `The viewer doesn't answer: ${error.message}`;
    page.state = page.state && { ...page.state, revision: -1 };
  }
  clearTimeout(page.timer);
  const pace = page.job?.is_running ? "job" : page.state?.is_running ? "running" : "idle";
  page.timer = setTimeout(poll, POLL_SECONDS[pace] * 1000);
}

function toggle(id) {
  if (part(id).disabled) return;
  part(id).checked = !part(id).checked;
  part(id).dispatchEvent(new Event("change"));
}

function zoomBy(factor) {
  viewer.viewport.zoomBy(factor);
  viewer.viewport.applyConstraints();
}

function move({ key }) {
  const { width, height } = viewer.viewport.getBounds();
  const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
  viewer.viewport.panBy(new OpenSeadragon.Point(x * width * PAN_SHARE, y * height * PAN_SHARE));
  viewer.viewport.applyConstraints();
}

function rerunChosen() {
  if (part("selected").hidden || part("selected-rerun").hidden || part("selected-rerun").disabled) return;
  rerun({ tiles: [[page.chosen.row, page.chosen.col]] });
}

function listen() {
  part("slide-on").addEventListener("change", () => slide?.show(part("slide-on").checked));
  part("grid-on").addEventListener("change", () => {
    grid.isOn = part("grid-on").checked;
    grid.draw();
  });
  part("mask-on").addEventListener("change", showMask);
  part("opacity").addEventListener("input", showMask);
  for (const id of ["outline", "safe"]) {
    part(id).addEventListener("change", () => {
      showClasses();
      showMask();
    });
  }
  part("zoom-in").addEventListener("click", () => zoomBy(1.5));
  part("zoom-out").addEventListener("click", () => zoomBy(1 / 1.5));
  part("zoom-fit").addEventListener("click", () => viewer.viewport.goHome());
  part("selected-close").addEventListener("click", () => choose(null));
  part("selected-rerun").addEventListener("click", rerunChosen);
  part("rerun-failed").addEventListener("click", () =>
    rerun(page.state.counts.failed ? { failed: true } : { damaged: true }),
  );
  part("help-open").addEventListener("click", () => part("help").showModal());
  const rows = keys.table({
    move,
    zoom: zoomBy,
    fit: () => viewer.viewport.goHome(),
    mask: () => toggle("mask-on"),
    slide: () => toggle("slide-on"),
    grid: () => toggle("grid-on"),
    label: ({ key }) => page.facts.classes[Number(key)] && toggleLabel(Number(key)),
    opacity: (step) => {
      part("opacity").value = Number(part("opacity").value) + step;
      showMask();
    },
    outline: () => toggle("outline"),
    safe: () => toggle("safe"),
    failed: nextFailed,
    rerun: rerunChosen,
    none: () => choose(null),
    help: () => part("help").showModal(),
  });
  keys.describe(part("keys").tBodies[0], rows);
  keys.listen(rows, () => part("keys-on").checked);
  document.addEventListener("visibilitychange", () => document.hidden || poll());
}

async function begin() {
  try {
    page.facts = await get(about("/api/run"));
  } catch (error) {
    part("name").textContent = runName || "Run";
    part("summary").textContent = error.message;
    return;
  }
  showFacts(page.facts);
  openViewer(page.facts);
  listen();
  await poll();
}

begin();
