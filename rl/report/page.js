// What the plots call, and what a page of a running run does. Defines `report` and `byId`.
"use strict";

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);

const report = {
  /** Write beside each curve its value at step `x`, or the newest one where `x` is null. */
  readAt(x) {
    for (const output of document.querySelectorAll("output[data-metric]")) {
      output.textContent = numberText(valueAt(data.curves[output.dataset.metric] ?? [], x));
    }
  },
};

/** The last value of `[step, value]` points up to step `x`. */
function valueAt(points, x) {
  const step = x === null ? Infinity : Math.round(x);
  let low = 0;
  let high = points.length; // the first point after `step` lies in low..high
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] <= step) low = middle + 1;
    else high = middle;
  }
  return low ? points[low - 1][1] : null;
}

/** A number in at most four significant digits; a dash where there is none. */
function numberText(value) {
  if (value === null || value === undefined) return "–";
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)) return value.toExponential(1);
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(3);
}

/** The state in the address: `#step=10&q=text`; a plain `#curves` is a place in the page. */
const hashState = () => new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");

function ageText(seconds) {
  if (seconds < 60) return "just now";
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min ago` : `${Math.round(minutes / 60)} h ago`;
}

function watchRun() {
  const showAge = () => { byId("age").textContent = ageText(Date.now() / 1000 - data.written); };
  const follow = byId("follow");
  follow.checked = hashState().has("follow");
  follow.onchange = () => {
    const state = hashState();
    follow.checked ? state.set("follow", "1") : state.delete("follow");
    history.replaceState(null, "", `#${state}`);
  };
  byId("reload").onclick = () => location.reload();
  setInterval(showAge, 10_000);
  setInterval(() => follow.checked && location.reload(), 20_000);
  showAge();
}

report.readAt(null);
if (byId("live")) watchRun();
