// The rollout browser. Steps are unpacked when they are looked at; the address holds what is chosen.
"use strict";

const PAGE_ROWS = 100;
const UNPACKED_STEPS = 12; // kept in memory
const COLUMNS = [
  ["problem", "problem"], ["reason", "reason"], ["verdict", "verdict"], ["reward", "reward"],
  ["score", "score"], ["advantage", "adv."], ["num_tokens", "tokens"],
];
const CODE_NAMES = { test: "Test", suite: "Tests", trace: "Output", verdict: "Choice" }; // of what was read in an answer
const PYTHON = new RegExp(
  [
    /(?<string>"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?)/,
    /(?<comment>#.*)/,
    /\b(?<number>\d[\w.]*)/,
    /\b(?<keyword>False|None|True|and|as|assert|async|await|break|class|continue|def|del|elif|else|except|finally|for|from|global|if|import|in|is|lambda|match|nonlocal|not|or|pass|raise|return|try|while|with|yield)\b/,
    /\b(?<builtin>abs|all|any|bool|dict|enumerate|filter|float|input|int|isinstance|iter|len|list|map|max|min|next|open|ord|pow|print|range|repr|reversed|round|self|set|sorted|str|sum|super|tuple|type|zip)\b/,
  ].map((part) => part.source).join("|"),
  "g",
);

const unpacked = new Map(); // "source step" -> promise of its rows
const questions = new Map(); // "source problem" -> text
let state = new URLSearchParams();
let drawing = 0; // a later drawing makes an unfinished earlier one void

// --- the rows of a step --------------------------------------------------------------------------

function load(source, step) {
  const key = `${source} ${step}`;
  if (!unpacked.has(key)) {
    if (unpacked.size >= UNPACKED_STEPS) unpacked.delete(unpacked.keys().next().value);
    unpacked.set(key, unpack(source, step));
  }
  return unpacked.get(key);
}

async function unpack(source, step) {
  const bytes = Uint8Array.from(atob(byId(`${source}-${step}`).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const columns = await new Response(stream).json();
  for (const problem of columns.problems) {
    if ("question" in problem) questions.set(`${source} ${problem.id}`, problem.question);
  }
  const rows = columns.text.map((text, n) => {
    const row = { text };
    for (const name of ["task", "sample_idx", "reason", "num_tokens", "finish", "verdict", "num_passed", "num_tests", "score", "reward", "advantage"]) {
      row[name] = columns[name][n];
    }
    const { id, about, home } = columns.problems[columns.problem[n]];
    const place = columns.code[n];
    row.place = Array.isArray(place) ? place : null;
    row.code = row.place ? text.slice(place[0], place[0] + place[1]) : place;
    return Object.assign(row, { problem: id, about, home, key: `${id}:${row.sample_idx}` });
  });
  placeMatrices(rows, columns.matrices);
  return rows;
}

async function questionOf(source, row) {
  const key = `${source} ${row.problem}`;
  if (!questions.has(key)) await unpack(source, row.home);
  return questions.get(key);
}

// --- what is chosen ------------------------------------------------------------------------------

function choose(changes) {
  for (const [name, value] of Object.entries(changes)) {
    value === "" || value === null ? state.delete(name) : state.set(name, value);
  }
  const follow = hashState().get("follow");
  if (follow) state.set("follow", follow);
  history.replaceState(null, "", `#${state}`);
  return draw();
}

const source = () => (state.get("source") in data.sources ? state.get("source") : Object.keys(data.sources)[0]);
const steps = () => data.sources[source()].steps;

/** The step of the index that `wanted` names; the newest where there is no such step. */
function stepAt(wanted) {
  const found = steps().findIndex((entry) => String(entry.step) === wanted);
  return steps().at(found);
}

function chosen(rows) {
  const needle = (state.get("q") ?? "").toLowerCase();
  const low = state.has("min") ? Number(state.get("min")) : -Infinity;
  const high = state.has("max") ? Number(state.get("max")) : Infinity;
  const found = rows.filter((row) =>
    (!state.has("task") || row.task === state.get("task")) &&
    (!state.has("reason") || row.reason === state.get("reason")) &&
    (!state.has("verdict") || (row.verdict ?? "none") === state.get("verdict")) &&
    (!state.has("problem") || row.about === state.get("problem")) &&
    row.reward >= low && row.reward <= high &&
    (!needle || row.text.toLowerCase().includes(needle) || [row.problem, row.about].some((id) => id.toLowerCase() === needle)));
  const sort = state.get("sort");
  if (!sort) return found;
  const name = sort.replace("-", "");
  const sign = sort.startsWith("-") ? -1 : 1;
  return found.sort((a, b) => sign * order(a[name], b[name]));
}

/** Order of two values of a column; what is missing comes first. */
function order(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return -1;
  if (b === null || b === undefined) return 1;
  return a < b ? -1 : 1;
}

// --- drawing -------------------------------------------------------------------------------------

/** An element with attributes and children; texts are never markup. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element[name] = value;
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function fillSelect(name, options, value) {
  const select = byId("filters").elements[name];
  select.replaceChildren(...options.map(([key, text]) => make("option", { value: key }, text)));
  select.value = value;
}

function drawFilters(rows) {
  const counted = (name) => {
    const counts = new Map();
    for (const row of rows) counts.set(row[name] ?? "none", (counts.get(row[name] ?? "none") ?? 0) + 1);
    const given = state.get(name);
    if (given !== null && !counts.has(given)) counts.set(given, 0);
    return [["", "any"], ...[...counts].sort((a, b) => b[1] - a[1]).map(([key, n]) => [key, `${key} (${n})`])];
  };
  const numbers = steps().map(({ step }) => [String(step), String(step)]);
  fillSelect("source", Object.entries(data.sources).map(([key, { label }]) => [key, label]), source());
  fillSelect("step", numbers, String(stepAt(state.get("step")).step));
  fillSelect("compare", [["", "none"], ...numbers], state.has("compare") ? String(stepAt(state.get("compare")).step) : "");
  for (const name of ["task", "reason", "verdict"]) fillSelect(name, counted(name), state.get(name) ?? "");
  byId("tasks").hidden = new Set(rows.map((row) => row.task)).size < 2 && !state.has("task");
  for (const name of ["q", "min", "max"]) {
    const input = byId("filters").elements[name];
    if (input !== document.activeElement) input.value = state.get(name) ?? "";
  }
  byId("only").hidden = !state.has("problem");
  byId("only").textContent = `problem ${state.get("problem")} ×`;
}

/** The pane of a step; `open` and `page` name what the address calls them here. */
async function makePane(entry, open, page, half) {
  const all = await load(source(), entry.step);
  const rows = chosen([...all]);
  const wanted = state.get(open) ?? "";
  const problem = wanted.slice(0, wanted.lastIndexOf(":"));
  const opened = all.find((row) => row.key === wanted) ?? all.find((row) => row.problem === problem) ?? null;
  const list = make("div", { class: "list" }, makeCount(entry, rows), makeRows(rows, opened, open, page), makePager(rows, page));
  const detail = opened ? await makeDetail(entry, opened, all, open) : makeHint(entry, rows, wanted);
  const pane = make("div", { class: half ? "pane half" : "pane" }, list, make("div", { class: "detail" }, ...detail));
  return { pane, rows, all };
}

function makeCount(entry, rows) {
  const shown = entry.shown < entry.rows ? `${entry.shown} shown of ${entry.rows} sampled` : `${entry.rows} completions`;
  const rewards = Object.entries(entry.rewards);
  const reward = rewards.map(([task, mean]) => `${rewards.length > 1 ? `${task} ` : ""}${numberText(mean)}`).join(", ");
  const passed = entry.passed === null ? "" : `, ${(100 * entry.passed).toFixed(0)} % passed`;
  return make("p", { class: "count" }, make("b", {}, `Step ${entry.step}`),
    ` ${rows.length === entry.shown ? "" : `${rows.length} of `}${shown}; mean reward ${reward}${passed}`);
}

const firstOf = (page) => PAGE_ROWS * Number(state.get(page) ?? 0);

function makeRows(rows, opened, open, page) {
  const heads = COLUMNS.map(([name, label]) => {
    const sort = state.get("sort") ?? "";
    const sign = sort === `-${name}` ? " ↓" : sort === name ? " ↑" : "";
    const next = sort === `-${name}` ? name : sort === name ? "" : `-${name}`;
    return make("th", {}, make("button", { type: "button", onclick: () => choose({ sort: next }) }, label + sign));
  });
  const body = rows.slice(firstOf(page), firstOf(page) + PAGE_ROWS).map((row) =>
    make("tr", { "data-key": row.key, "aria-selected": String(row === opened), onclick: () => openRow(row.key, open) },
      make("td", { title: row.problem }, ...rowName(row)),
      make("td", { class: row.reason === "ok" ? null : "warn" }, row.reason),
      make("td", { class: verdictClass(row) }, row.verdict ?? "–"),
      ...["reward", "score", "advantage"].map((name) => make("td", {}, numberText(row[name]))),
      make("td", {}, String(row.num_tokens))));
  return make("div", { class: "rows" }, make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...body)));
}

/** Problem, what else is asked about it, and which completion; where it is long, the problem is cut. */
function rowName({ problem, about, sample_idx }) {
  const [id, more] = problem.startsWith(about) ? [about, problem.slice(about.length)] : [problem, ""];
  return [make("span", {}, id), `${more} #${sample_idx}`];
}

const verdictClass = (row) => (row.verdict === null ? null : row.verdict === "PASSED" ? "good" : "bad");

function makePager(rows, page) {
  const number = Number(state.get(page) ?? 0);
  const last = Math.max(0, Math.ceil(rows.length / PAGE_ROWS) - 1);
  if (last === 0) return "";
  const turn = (to, text) => make("button", { type: "button", onclick: () => choose({ [page]: Math.min(last, Math.max(0, to)) || "" }) }, text);
  return make("div", { class: "pager" }, turn(number - 1, "‹ previous"), `page ${number + 1} of ${last + 1}`, turn(number + 1, "next ›"));
}

function makeHint(entry, rows, absent) {
  if (absent) return [make("p", { class: "about" }, `Step ${entry.step} shows no completion of that problem.`)];
  return [make("p", { class: "about" }, rows.length ? "Choose a completion to read it." : "No completion fits the filters.")];
}

async function makeDetail(entry, row, all, open) {
  const question = await questionOf(source(), row);
  const tests = row.num_tests === null ? "" : ` (${row.num_passed ?? "?"} of ${row.num_tests} tests)`;
  const facts = [
    ...(row.task === "code" ? [] : [["task", row.task]]),
    ["reason", row.reason], ["verdict", (row.verdict ?? "none recorded") + tests], ["reward", numberText(row.reward)],
    ["score", numberText(row.score)], ["advantage", numberText(row.advantage)], ["tokens", `${row.num_tokens} (${row.finish})`],
  ];
  const group = all.filter((other) => other.problem === row.problem).map((other) =>
    make("button", { type: "button", class: verdictClass(other), "aria-pressed": String(other === row), title: `completion ${other.sample_idx}: ${other.reason}`,
      onclick: () => openRow(other.key, open) }, numberText(other.reward)));
  const only = make("button", { type: "button", onclick: () => choose({ problem: row.about, page: "" }) }, "only this problem");
  return [
    make("h3", {}, `${row.problem}, completion ${row.sample_idx}, step ${entry.step} `),
    make("dl", {}, ...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)))),
    make("div", { class: "group" }, ...group, only),
    make("h4", {}, "Problem"), make("div", { class: "question" }, question),
    ...(row.matrix ? makeMatrix(row.matrix, row, open) : []),
    ...(row.code ? [make("h4", {}, CODE_NAMES[row.task] ?? "Code"), make("pre", { class: "code" }, ...highlight(row.code))] : []),
    make("h4", {}, "Raw completion"), make("pre", { class: "raw" }, ...rawParts(row)),
  ];
}

function highlight(code) {
  const parts = [];
  let end = 0;
  for (const match of code.matchAll(PYTHON)) {
    const [kind] = Object.entries(match.groups).find(([, text]) => text !== undefined);
    parts.push(...marked(code.slice(end, match.index)), make("span", { class: kind }, ...marked(match[0])));
    end = match.index + match[0].length;
  }
  return [...parts, ...marked(code.slice(end))];
}

/** The completion, with the place that the code was taken from. */
function rawParts({ text, place }) {
  if (!place) return marked(text);
  const [start, length] = place;
  const code = make("span", {}, ...marked(text.slice(start, start + length)));
  return [...marked(text.slice(0, start)), code, ...marked(text.slice(start + length))];
}

/** A text with what was searched for marked in it. */
function marked(text) {
  const needle = (state.get("q") ?? "").toLowerCase();
  const parts = [];
  let end = 0;
  for (let at; needle && (at = text.toLowerCase().indexOf(needle, end)) >= 0; end = at + needle.length) {
    parts.push(text.slice(end, at), make("mark", {}, text.slice(at, at + needle.length)));
  }
  return [...parts, text.slice(end)];
}

async function draw() {
  const turn = ++drawing;
  const left = await makePane(stepAt(state.get("step")), "open", "page", state.has("compare"));
  const panes = [left];
  if (state.has("compare")) panes.push(await makePane(stepAt(state.get("compare")), "open2", "page2", true));
  if (turn !== drawing) return;
  drawFilters(left.all);
  const scrolls = [...document.querySelectorAll(".rows")].map((rows) => rows.scrollTop);
  byId("panes").replaceChildren(...panes.map(({ pane }) => pane));
  document.querySelectorAll(".rows").forEach((rows, n) => { rows.scrollTop = scrolls[n] ?? 0; });
  shown = left.rows;
}

// --- keys, forms, links --------------------------------------------------------------------------

let shown = []; // the rows of the first pane, in order

/** Open a completion; where steps are compared, the first pane takes the second along. */
const openRow = (key, open, changes = {}) => choose({ ...changes, [open]: key, ...(open === "open" && state.has("compare") && { open2: key }) });

/** Open the row `by` places on, and turn to its page. */
function move(by) {
  const at = shown.findIndex((row) => row.key === state.get("open"));
  const to = at < 0 ? firstOf("page") : Math.min(shown.length - 1, Math.max(0, at + by));
  if (!shown.length) return;
  const { key } = shown[to];
  openRow(key, "open", { page: Math.floor(to / PAGE_ROWS) || "" })
    .then(() => document.querySelector('.rows tr[aria-selected="true"]')?.scrollIntoView({ block: "nearest" }));
}

function moveStep(by) {
  const at = steps().indexOf(stepAt(state.get("step")));
  const entry = steps()[Math.min(steps().length - 1, Math.max(0, at + by))];
  choose({ step: entry.step, page: "" });
}

function turnPage(by) {
  const last = Math.max(0, Math.ceil(shown.length / PAGE_ROWS) - 1);
  choose({ page: Math.min(last, Math.max(0, Number(state.get("page") ?? 0) + by)) || "" });
}

const KEYS = {
  j: () => move(1), k: () => move(-1), "[": () => moveStep(-1), "]": () => moveStep(1),
  n: () => turnPage(1), p: () => turnPage(-1), Escape: () => choose({ open: "", open2: "" }),
  "/": () => byId("filters").elements.q.focus(),
};

function onKey(event) {
  const typing = event.target.matches("input, select");
  if (typing && event.key === "Escape") event.target.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
}

function onFilter({ target: { name, value } }) {
  if (!name) return;
  const elsewhere = name === "source" ? { step: "", compare: "", open: "", open2: "", problem: "", task: "", reason: "", verdict: "" } : {};
  choose({ page: "", page2: "", ...elsewhere, [name]: value, ...(name === "compare" && { open2: value && state.get("open") }) });
}

/** A plot was clicked: show the training rollouts nearest to that step. */
report.openStep = (x) => {
  const near = data.sources[source()].steps.reduce((a, b) => (Math.abs(b.step - x) < Math.abs(a.step - x) ? b : a));
  choose({ step: near.step, page: "" }).then(() => byId("rollouts").scrollIntoView({ behavior: "smooth" }));
};

async function start() {
  if (!Object.keys(data.sources).length) {
    byId("filters").hidden = true;
    byId("panes").textContent = "This run has kept no rollouts (checkpoint.rollouts_every=0).";
    report.openStep = () => {};
    return;
  }
  byId("filters").oninput = onFilter;
  byId("filters").onsubmit = (event) => event.preventDefault();
  byId("clear").onclick = () => choose(Object.fromEntries(["q", "task", "reason", "verdict", "min", "max", "problem", "sort", "page", "page2"].map((name) => [name, ""])));
  byId("only").onclick = () => choose({ problem: "" });
  byId("earlier").onclick = () => moveStep(-1);
  byId("later").onclick = () => moveStep(1);
  document.addEventListener("keydown", onKey);
  window.addEventListener("hashchange", () => { if (location.hash.includes("=")) { state = hashState(); draw(); } });
  state = hashState();
  await draw();
  const reloaded = performance.getEntriesByType("navigation")[0]?.type === "reload";
  if (state.has("step") && !reloaded) byId("rollouts").scrollIntoView();
}

start().then(() => { document.documentElement.dataset.ready = "yes"; });
