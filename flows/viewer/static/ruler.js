// Lengths and places: the bar that shows how long a pixel is, and coordinates under the pointer.

import { whole } from "./api.js";

const LONGEST_PX = 160;
const UNITS = {
  um: [[1e3, "mm"], [1, "µm"], [1e-3, "nm"]],
  m: [[1e3, "km"], [1, "m"], [1e-2, "cm"]],
  degree: [[1, "°"]],
  px: [[1, "px"]],
};

/** Draw the bar for a scale in screen pixels per image pixel. */
export function drawRuler(scale, pixelSize) {
  const { x: each, unit } = pixelSize ?? { x: 1, unit: "px" };
  const longest = (LONGEST_PX / scale) * each;
  const power = 10 ** Math.floor(Math.log10(longest));
  const length = [5, 2, 1].map((factor) => factor * power).find((value) => value <= longest);
  document.getElementById("ruler-text").textContent = lengthText(length, unit);
  document.getElementById("ruler-bar").style.width = `${((length / each) * scale).toFixed(1)}px`;
}

/** The pixel, and where it lies: on the map, or as lengths from the image's corner, also where a region is shown. */
export function placeText(x, y, facts) {
  const { pixel_size: size, corner } = facts.image;
  const [left, top] = [x + corner.x, y + corner.y];
  const parts = [`x ${whole(Math.floor(left))}  y ${whole(Math.floor(top))} px`];
  if (facts.affine) {
    const [a, b, c, d, e, f] = facts.affine;
    const places = Math.max(0, Math.min(8, 1 - Math.floor(Math.log10(Math.abs(a) || Math.abs(b) || 1))));
    parts.push(`${(a * x + b * y + c).toFixed(places)}, ${(d * x + e * y + f).toFixed(places)}`);
  } else if (size && size.unit !== "degree") {
    const [factor, unit] = UNITS[size.unit][0];
    parts.push(`${((left * size.x) / factor).toFixed(3)}, ${((top * size.y) / factor).toFixed(3)} ${unit}`);
  }
  return parts.join("  ·  ");
}

function lengthText(length, unit) {
  const [factor, name] = UNITS[unit].find(([each]) => length >= each) ?? UNITS[unit].at(-1);
  const value = length / factor;
  return `${Number(value.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 9 })} ${name}`;
}
