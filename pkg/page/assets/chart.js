// Two lines over the same steps, on one scale.

import { number, svg } from "./dom.js";

const width = 300, height = 60, steps = 150;

export function chart(into, points, ...lines) {
  const values = lines.map((value) => points.map(value));
  const top = scale(Math.max(1, ...values.flat().filter((v) => v !== null)));
  const x = (i) => width - ((points.length - 1 - i) * width) / (steps - 1);
  const y = (v) => height - (v * (height - 2)) / top;
  const paths = values.map((list, n) => {
    let d = "", pen = "M";
    list.forEach((v, i) => {
      if (v === null) { pen = "M"; return; } // nothing was measured: the line has a gap
      d += `${pen}${x(i).toFixed(1)} ${y(v).toFixed(1)}`;
      if (pen === "M" && (list[i + 1] ?? null) === null) d += "h1"; // one step alone is seen too
      pen = "L";
    });
    return svg("path", { class: n === 0 ? "in" : "out", d });
  });
  into.replaceChildren(...paths);
  into.parentElement.dataset.top = number(top);
}

// scale is the next round number, so that the lines do not jump with each step.
function scale(v) {
  const power = 10 ** Math.floor(Math.log10(v));
  return power * [1, 2, 5, 10].find((f) => f * power >= v);
}
