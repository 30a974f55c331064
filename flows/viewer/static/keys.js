// The keyboard: one table for what keys do and for what the help says.

import { element } from "./api.js";

/** `keys`: as `KeyboardEvent.key` names them; `shown`: as they are printed. */
export function table(actions) {
  return [
    { keys: ["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"], shown: ["← ↑ → ↓"], does: "move", run: actions.move },
    { keys: ["+", "="], shown: ["+"], does: "zoom in", run: () => actions.zoom(1.5) },
    { keys: ["-", "_"], shown: ["−"], does: "zoom out", run: () => actions.zoom(1 / 1.5) },
    { keys: ["0", "Home"], shown: ["0", "Home"], does: "show everything", run: actions.fit },
    { keys: ["m"], shown: ["m"], does: "mask on and off", run: actions.mask },
    { keys: ["s"], shown: ["s"], does: "slide on and off", run: actions.slide },
    { keys: ["g"], shown: ["g"], does: "grid of tiles on and off", run: actions.grid },
    { keys: [..."123456789"], shown: ["1", "…", "9"], does: "a class on and off", run: actions.label },
    { keys: ["["], shown: ["["], does: "less opacity", run: () => actions.opacity(-10) },
    { keys: ["]"], shown: ["]"], does: "more opacity", run: () => actions.opacity(10) },
    { keys: ["o"], shown: ["o"], does: "outlines or whole areas", run: actions.outline },
    { keys: ["c"], shown: ["c"], does: "colour-blind-safe colours", run: actions.safe },
    { keys: ["n"], shown: ["n"], does: "next failed tile", run: () => actions.failed(1) },
    { keys: ["p"], shown: ["p"], does: "previous failed tile", run: () => actions.failed(-1) },
    { keys: ["r"], shown: ["r"], does: "rerun the chosen tile, if it failed", run: actions.rerun },
    { keys: ["Escape"], shown: ["Esc"], does: "choose no tile", run: actions.none },
    { keys: ["?"], shown: ["?"], does: "this list", run: actions.help },
  ];
}

/** Fill the help's table. */
export function describe(body, rows) {
  for (const { shown, does } of rows) {
    const row = element("tr");
    const keys = element("td");
    for (const key of shown) keys.append(key === "…" ? " … " : element("kbd", "", key));
    row.append(keys, element("td", "", does));
    body.append(row);
  }
}

/** Let keys act; `isWanted` tells whether single keys act outside the image too. */
export function listen(rows, isWanted) {
  const known = new Map(rows.flatMap((row) => row.keys.map((key) => [key, row.run])));
  document.addEventListener("keydown", (event) => {
    const inImage = document.activeElement?.id === "viewer";
    const isTaken = event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]");
    if (isTaken || (!inImage && !isWanted()) || isTyping(event)) return;
    const run = known.get(event.key.length === 1 ? event.key.toLowerCase() : event.key);
    if (!run) return;
    event.preventDefault();
    run(event);
  });
}

/** Text and sliders need keys themselves. */
function isTyping({ target, key }) {
  if (!(target instanceof HTMLInputElement)) return false;
  if (target.type === "range") return key.startsWith("Arrow") || key === "Home" || key === "End";
  return target.type !== "checkbox";
}
