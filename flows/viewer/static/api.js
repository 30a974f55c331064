// What the page asks the server for, and words for numbers.

const token = document.querySelector('meta[name="overtile-token"]')?.content ?? "";

export const runName = new URLSearchParams(location.search).get("run") ?? "";

/** An address about this page's run. */
export function about(path, parameters = {}) {
  return `${path}?${new URLSearchParams({ run: runName, ...parameters })}`;
}

async function answer(response) {
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error ?? `the viewer answered ${response.status}`);
  return body;
}

export async function get(address, options = {}) {
  return answer(await fetch(address, options));
}

export async function post(address, body) {
  const headers = { "content-type": "application/json", "x-overtile-token": token };
  return answer(await fetch(address, { method: "POST", headers, body: JSON.stringify(body) }));
}

/** An element with a class, and text that is never markup. */
export function element(tag, name = "", text = "") {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== "") made.textContent = text;
  return made;
}

export const whole = (value) => Math.round(value).toLocaleString("en");

/** 4:05 or 1:02:03. */
export function duration(seconds) {
  const all = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(all / 3600), Math.floor(all / 60) % 60, all % 60];
  const two = (value) => String(value).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** 2026-11-20 14:05, in the reader's own time. */
export function moment(date) {
  const two = (value) => String(value).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}`;
}

/** The states of tiles by their numbers in the ledger, with Okabe and Ito's colours; `rank`: the worse, the higher. */
export const STATES = [
  { key: "pending", name: "to do", color: "#0072b2", rank: 2 },
  { key: "done", name: "done", color: "#009e73", rank: 1 },
  { key: "failed", name: "failed", color: "#d55e00", rank: 4 },
  { key: "skipped", name: "skipped", color: "#9aa3ad", rank: 0 },
  { key: "damaged", name: "damaged", color: "#e69f00", rank: 3 },
];

/** Outcome of a run, in a word or two, and the class that colours it. */
export function verdict({ counts, is_running, is_complete }) {
  const wrong = counts.failed + counts.damaged;
  if (is_running) return { text: "running", kind: "pending", order: 1 };
  if (wrong) return { text: `${whole(wrong)} ${counts.failed ? "failed" : "damaged"}`, kind: "failed-text", order: 0 };
  if (!is_complete) return { text: "unfinished", kind: "pending", order: 2 };
  return { text: "complete", kind: "done", order: 3 };
}
