// The execution matrix of a problem: which of its programs pass which of its tests.
"use strict";

const CELLS = new Map([
  [true, ["good", "✓", "passes"]], [false, ["bad", "✗", "does not pass"]], [null, ["none", "–", "was not run on"]],
]);
const WORTH_CLASSES = { telling: "good", right: "good", wrong: "bad", invalid: "warn", "not known": null };
const MATRIX_KEY = "✓ passes, ✗ does not pass, – was not run. A program is right when it passes the problem's own tests. " +
  "A test is right when every right program passes it, and telling when some other program does not.";

/** Give rows their matrix; a matrix names its rows by their places. */
function placeMatrices(rows, matrices) {
  for (const { programs, tests, cells, programs_worth, tests_worth } of matrices) {
    const matrix = {
      cells,
      programs: programs.map((place, n) => ({ row: rows[place], worth: programs_worth[n], name: `program ${n}` })),
      tests: tests.map((place, n) => ({ row: rows[place], worth: tests_worth[n], name: `test ${n}` })),
    };
    for (const { row } of [...matrix.programs, ...matrix.tests]) row.matrix = matrix;
  }
}

/** The matrix with the text of each program, then the texts of the tests; `row` is the one that is open. */
function makeMatrix({ programs, tests, cells }, row, open) {
  const isOpen = (answer) => (answer.row === row ? "true" : null);
  const opener = (answer, label) => make("button", { type: "button", title: `open ${answer.name}: ${answer.row.key}`, onclick: () => openRow(answer.row.key, open) }, label);
  const worth = (answer, turned) => make("td", { class: WORTH_CLASSES[answer.worth], "aria-current": isOpen(answer) }, make("span", { class: turned ? "turned" : null }, answer.worth));
  const cell = (program, test, passes) => {
    const [kind, sign, word] = CELLS.get(passes);
    const says = passes === null ? `${test.name} ${word} ${program.name}` : `${program.name} ${word} ${test.name}`;
    return make("td", { class: `cell ${kind}`, title: says, "aria-label": says }, sign);
  };
  const line = (answer, ...between) => make("tr", { "aria-current": isOpen(answer) },
    make("th", { scope: "row" }, opener(answer, answer.name)), worth(answer), ...between, make("td", { class: "text" }, makeText(answer.row)));
  const head = make("thead", {},
    make("tr", {}, make("th", { scope: "row", colspan: 2 }, "test"),
      ...tests.map((test, m) => make("th", { scope: "col", "aria-current": isOpen(test) }, opener(test, String(m)))), make("td", {})),
    make("tr", {}, make("th", { scope: "row", colspan: 2 }, "is"), ...tests.map((test) => worth(test, true)), make("td", {})));
  const body = programs.map((program, n) => line(program, ...tests.map((test, m) => cell(program, test, cells[n][m]))));
  return [
    make("h4", {}, "Programs and tests of this problem"),
    make("div", { class: "matrix" }, make("table", {}, make("caption", {}, countText(programs, tests)), head, make("tbody", {}, ...body))),
    make("p", { class: "about" }, MATRIX_KEY),
    make("div", { class: "matrix" }, make("table", {}, make("tbody", {}, ...tests.map((test) => line(test))))),
  ];
}

const makeText = ({ code, reason }) => (code ? make("pre", {}, ...highlight(code)) : make("span", { class: "about" }, `nothing to run: ${reason}`));

function countText(programs, tests) {
  const count = (answers, word, ...worths) => {
    const found = answers.filter((answer) => worths.includes(answer.worth)).length;
    return answers.some((answer) => answer.worth === "not known") ? "" : `, ${found} ${word}`;
  };
  return `${programs.length} programs${count(programs, "right", "right")}; ${tests.length} tests` +
    `${count(tests, "right", "right", "telling")}${count(tests, "telling", "telling")}`;
}
