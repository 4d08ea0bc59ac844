// The playground: four texts, their answers from this server, and an explanation drawn as a graph.
"use strict";

const PARTS = ["schema", "relationships", "checks", "assertions"];
const EXAMPLES = {
  "Models of a lab": {
    schema: `definition user {}

/** people who work together */
definition group {
    relation member: user | group#member
}

/** a condition on when the question is asked */
caveat office_hours(hour int) {
    hour >= 9 && hour < 18
}

definition organisation {
    relation admin: user
}

definition model {
    relation owner: organisation
    relation reader: user | group#member | user with office_hours
    relation banned: user

    permission read = reader + owner->admin
    permission use = read - banned
}`,
    relationships: `// who is in which group
group:research#member@user:ada
group:research#member@group:speech#member
group:speech#member@user:grace

// who may read which model
model:kiln#owner@organisation:foundry
organisation:foundry#admin@user:otto
model:kiln#reader@group:research#member
model:kiln#reader@user:temp[office_hours]
model:kiln#banned@user:mallory`,
    checks: `model:kiln#use@user:grace
model:kiln#use@user:otto
model:kiln#use@user:mallory
model:kiln#use@user:temp
model:kiln#use@user:temp with {"hour": 10}`,
    assertions: `assertTrue:
- model:kiln#use@user:ada
- model:kiln#read@user:otto
assertCaveated:
- model:kiln#use@user:temp
assertFalse:
- model:kiln#use@user:mallory
- 'model:kiln#use@user:temp with {"hour": 22}'`,
  },
  "Folders of documents": {
    schema: `definition user {}

definition folder {
    relation parent: folder
    relation viewer: user | user:*

    permission view = viewer + parent->view
}

definition document {
    relation folder: folder
    relation owner: user

    permission edit = owner
    permission view = edit + folder->view
}`,
    relationships: `folder:public#viewer@user:*
folder:reports#parent@folder:public
folder:plans#viewer@user:ada
document:q3#folder@folder:reports
document:next#folder@folder:plans
document:next#owner@user:otto`,
    checks: `document:q3#view@user:anyone
document:next#view@user:ada
document:next#edit@user:ada`,
    assertions: `assertTrue:
- document:q3#view@user:anyone
- document:next#edit@user:otto
assertFalse:
- document:next#view@user:grace`,
  },
  "OpenFGA's language": {
    schema: `model
  schema 1.1

type user

type team
  relations
    define member: [user, team#member]

type repository
  relations
    define owner: [user]
    define reader: [user, team#member] or owner
    define blocked: [user]
    define can_read: reader but not blocked`,
    relationships: `team:core#member@user:anne
team:core#member@team:interns#member
team:interns#member@user:ben
repository:cupola#reader@team:core#member
repository:cupola#blocked@user:ben`,
    checks: `repository:cupola#can_read@user:anne
repository:cupola#can_read@user:ben`,
    assertions: `assertTrue:
- repository:cupola#can_read@user:anne
assertFalse:
- repository:cupola#can_read@user:ben`,
  },
};
const WORDS = new RegExp(
  [
    /(?<comment>\/\/[^\n]*|\/\*[\s\S]*?\*\/|(?<=^|\s)#\s[^\n]*)/,
    /(?<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\n]|'')*')/,
    /(?<keyword>\bassert(?:True|False|Caveated)(?=:)|(?<![\w:@])(?:definition|relation|permission|caveat|with|use|partial|expiration|nil|self|model|schema|type|relations|define|condition|module|extend|or|and|but not|from)\b(?!:|[ \t]*[{=]))/,
    /(?<name>#[\w.|/-]+|->\s*\w+)/,
  ].map((one) => one.source).join("|"),
  "gm",
);

const $ = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...inside);
  return made;
}

function draw(tag, attributes = {}, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// An editor is a see-through text area above its own painted text, with line numbers beside it.
class Editor {
  constructor(box) {
    this.part = box.dataset.part;
    this.box = box;
    this.numbers = make("pre", { class: "numbers", "aria-hidden": "true" });
    this.paint = make("pre", { class: "paint", "aria-hidden": "true" });
    this.area = make("textarea", { spellcheck: "false", autocapitalize: "off", "aria-label": this.part, wrap: "off" });
    this.list = make("ul", { class: "mistakes" });
    const layers = make("div", { class: "layers" }, this.paint, this.area);
    box.append(make("div", { class: "text" }, this.numbers, layers), this.list);
    this.mistakes = [];
    this.area.addEventListener("input", () => this.changed());
    this.area.addEventListener("scroll", () => this.follow());
    this.area.addEventListener("keydown", (event) => this.indent(event));
  }

  get text() { return this.area.value; }

  set text(text) {
    this.area.value = text;
    this.mistakes = [];
    this.show();
  }

  changed() {
    this.mistakes = [];
    this.show();
    later();
  }

  indent(event) {
    // Tab indents; Shift+Tab and Escape, then Tab, leave as everywhere.
    if (event.key !== "Tab" || event.shiftKey || event.ctrlKey || this.leaving) {
      this.leaving = event.key === "Escape";
      return;
    }
    event.preventDefault();
    this.area.setRangeText("    ", this.area.selectionStart, this.area.selectionEnd, "end");
    this.changed();
  }

  follow() {
    this.paint.scrollTop = this.numbers.scrollTop = this.area.scrollTop;
    this.paint.scrollLeft = this.area.scrollLeft;
  }

  mark(mistakes) {
    this.mistakes = mistakes;
    this.show();
  }

  show() {
    const lines = this.text.split("\n");
    const wrong = new Map(this.mistakes.filter((one) => one.line).map((one) => [one.line, one]));
    this.numbers.replaceChildren(
      ...lines.map((_, index) => make("span", wrong.has(index + 1) ? { class: "at" } : {}, `${index + 1}\n`)),
    );
    this.paint.replaceChildren(...painted(this.text, wrong), "\n");
    this.box.classList.toggle("broken", this.mistakes.length > 0);
    this.list.replaceChildren(...this.mistakes.map((one) => this.told(one)));
    this.follow();
  }

  told(one) {
    const place = !one.line ? "" : one.column > 1 ? `${one.line}:${one.column}` : `line ${one.line}`;
    const item = make("li", { tabindex: "0" }, make("b", {}, place), one.message);
    if (one.remedy) item.append(make("i", {}, one.remedy));
    item.addEventListener("click", () => this.go(one.line, one.column));
    return item;
  }

  go(line, column) {
    const before = this.text.split("\n").slice(0, line - 1);
    const at = before.join("\n").length + (before.length ? 1 : 0) + Math.max(0, column - 1);
    this.area.focus();
    this.area.setSelectionRange(at, at);
  }
}

// The text in coloured spans, line by line where a mistake has to be underlined.
function painted(text, wrong) {
  const spans = [];
  let at = 0;
  for (const found of text.matchAll(WORDS)) {
    const [kind] = Object.entries(found.groups).find(([, value]) => value !== undefined);
    spans.push([text.slice(at, found.index), ""], [found[0], kind]);
    at = found.index + found[0].length;
  }
  spans.push([text.slice(at), ""]);
  let line = 1, column = 1;
  const made = [];
  for (const [piece, kind] of spans) {
    for (const part of piece.split(/(\n)/)) {
      if (!part) continue;
      if (part === "\n") { made.push("\n"); line += 1; column = 1; continue; }
      const from = wrong.has(line) ? Math.max(0, Math.max(1, wrong.get(line).column) - column) : part.length;
      if (from > 0) made.push(span(part.slice(0, from), kind));
      if (from < part.length) made.push(span(part.slice(from), `${kind} wrong`));
      column += part.length;
    }
  }
  return made;
}

function span(text, kind) { return kind ? make("span", { class: kind.trim() }, text) : text; }

const editors = {};
let chosen = { list: "checks", line: 0 };
let told = null;
let shape = "decisive";
let folded = new WeakSet();
let asked = 0;
let timer = 0;

function later() {
  remember();
  clearTimeout(timer);
  timer = setTimeout(run, 350);
}

function remember() {
  try {
    localStorage.setItem("playground", JSON.stringify(Object.fromEntries(PARTS.map((part) => [part, editors[part].text]))));
  } catch { /* a browser that keeps nothing still runs the page */ }
}

function recall() {
  try { return JSON.parse(localStorage.getItem("playground")); } catch { return null; }
}

async function run() {
  clearTimeout(timer);
  const mine = ++asked;
  const began = performance.now();
  state("running …");
  let answer;
  try {
    const body = JSON.stringify(Object.fromEntries(PARTS.map((part) => [part, editors[part].text])));
    const sent = await fetch("/playground/run", { method: "POST", headers: { "content-type": "application/json" }, body });
    answer = await sent.json();
    if (!sent.ok) throw new Error(`${answer.error.message} ${answer.error.remedy}`);
  } catch (error) {
    if (mine === asked) state(String(error.message || error), "bad");
    return;
  }
  if (mine !== asked) return;
  told = answer;
  for (const part of PARTS) editors[part].mark(answer.mistakes.filter((one) => one.part === part));
  list("checks", answer.checks);
  list("assertions", answer.assertions);
  const failed = answer.assertions.filter((one) => !one.passed).length;
  const took = `${Math.round(performance.now() - began)} ms`;
  const many = answer.mistakes.length;
  if (many) state(`${many} mistake${many > 1 ? "s" : ""} · ${took}`, "bad");
  else if (failed) state(`${failed} of ${answer.assertions.length} assertions fail · ${took}`, "bad");
  else state(`${answer.assertions.length ? "all assertions hold" : "done"} · ${took}`, "good");
  explain();
}

function state(text, kind = "") {
  $("state").textContent = text;
  $("state").className = kind;
}

function list(name, answers) {
  $(name).replaceChildren(...answers.map((one) => {
    const asserted = name === "assertions";
    const kind = asserted ? (one.passed ? "passed" : "failed") : one.verdict;
    const words = { yes: "yes", no: "no", conditional: "maybe", passed: "holds", failed: "fails" };
    const button = make("button", { class: "answer", type: "button", "aria-pressed": "false" },
      make("span", { class: `mark ${kind}` }, words[kind]), make("code", {}, one.text));
    const lacks = one.missing.length ? `lacks ${one.missing.join(", ")}` : "";
    const note = asserted && !one.passed ? `expected ${words[one.expected]}, is ${words[one.verdict]}` : lacks;
    if (note) button.append(make("em", {}, note));
    button.addEventListener("click", () => { chosen = { list: name, line: one.line }; explain(); });
    button.dataset.line = one.line;
    return button;
  }));
  if (!answers.length) $(name).replaceChildren(make("div", { class: "empty" }, "No answers."));
}

// From here on: the graph.

const BOX = { height: 26, tall: 42, gap: 9, indent: 28, letter: 7.25, most: 64 };

function explain() {
  const all = told ? [...told.checks.map((one) => ["checks", one]), ...told.assertions.map((one) => ["assertions", one])] : [];
  const found = all.find(([name, one]) => name === chosen.list && one.line === chosen.line) || all[0];
  for (const button of document.querySelectorAll(".answer")) {
    const mine = found && button.parentElement.id === found[0] && Number(button.dataset.line) === found[1].line;
    button.setAttribute("aria-pressed", String(Boolean(mine)));
  }
  $("decisive").setAttribute("aria-pressed", String(shape === "decisive"));
  $("unfold").setAttribute("aria-pressed", String(shape === "all"));
  $("title").replaceChildren("Explanation ", make("small", {}, found ? found[1].text : "nothing was asked"));
  if (!found || !found[1].why) {
    $("canvas").replaceChildren(make("div", { class: "empty" }, "Ask something on the left: the steps of its answer are drawn here."));
    return;
  }
  picture(found[1].why);
}

// What decided: under a yes the parts that are yes, under anything else all parts.
function shown(step) {
  if (folded.has(step)) return [];
  if (shape !== "decisive" || step.verdict !== "yes") return step.parts;
  const yes = step.parts.filter((part) => part.verdict === "yes");
  return yes.length && !/^[-&]|exclusion|intersection|all of these|and not|\.all\(/.test(step.text) ? yes : step.parts;
}

// One box on each row, its parts below it and further in: deep explanations stay as narrow as a column.
function arranged(step, depth, cursor) {
  // A question and the fact that answers it read the same: one box is enough for both.
  const only = step.parts.length === 1 && step.parts[0].text === step.text ? step.parts[0] : null;
  const fact = (only || step).relationship;
  const by = fact === step.text ? "written" : fact ? `by ${fact}` : "";
  const lacks = step.missing && step.missing.length && !step.parts.length ? `lacks ${step.missing.join(", ")}` : "";
  const below = cut([by, lacks, (only || step).note].filter(Boolean).join(" · "));
  const text = cut(fact ? step.text.replace(/ by .*/, "") : step.text);
  const box = { step, text, below, height: below ? BOX.tall : BOX.height };
  box.width = Math.max(box.text.length * BOX.letter, below.length * 6.7) + 22;
  box.x = 14 + depth * BOX.indent;
  box.y = cursor.y;
  cursor.y += box.height + BOX.gap;
  cursor.width = Math.max(cursor.width, box.x + box.width);
  box.parts = shown(only || step).map((part) => arranged(part, depth + 1, cursor));
  box.hidden = (only || step).parts.length - box.parts.length;
  return box;
}

function cut(text) { return text.length > BOX.most ? `${text.slice(0, BOX.most - 1)}…` : text; }

function picture(why) {
  const cursor = { y: 14, width: 0 };
  const root = arranged(why, 0, cursor);
  const [width, height] = [cursor.width + 44, cursor.y + 8];
  const svg = draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "explanation" });
  const boxes = [];
  (function walk(box) {
    boxes.push(box);
    // Those that decided are drawn last, above the others.
    const order = [...box.parts].sort((a, b) => (a.step.verdict === "yes") - (b.step.verdict === "yes"));
    for (const part of order) {
      const [x, from, to] = [box.x + 15, box.y + box.height, part.y + Math.min(part.height, BOX.height) / 2];
      svg.append(draw("path", { class: part.step.verdict, d: `M${x} ${from} V${to - 8} Q${x} ${to} ${x + 8} ${to} H${part.x}` }));
    }
    box.parts.forEach(walk);
  })(root);
  for (const box of boxes) svg.append(node(box, why));
  $("canvas").replaceChildren(svg);
}

function node(box, why) {
  const { step } = box;
  const group = draw("g", { class: `step ${step.verdict}`, tabindex: "0", transform: `translate(${box.x} ${box.y})` });
  group.append(draw("title", {}, [step.text, step.relationship, step.note].filter(Boolean).join("\n")));
  group.append(draw("rect", { width: box.width, height: box.height, rx: 7 }));
  group.append(draw("text", { x: 11, y: 17 }, box.text));
  if (box.below) group.append(draw("text", { class: "by", x: 11, y: 33 }, box.below));
  if (box.hidden) group.append(draw("text", { class: "fold", x: box.width + 7, y: 17 }, `+${box.hidden}`));
  const fold = () => {
    if (!step.parts.length) return;
    if (folded.has(step)) folded.delete(step); else folded.add(step);
    picture(why);
  };
  group.addEventListener("click", fold);
  group.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); fold(); } });
  return group;
}

// From here on: the page.

const THEMES = ["system", "light", "dark"];
const dark = matchMedia("(prefers-color-scheme: dark)");

function theme(name) {
  const kept = THEMES.includes(name) ? name : "system";
  document.documentElement.dataset.theme = kept === "system" ? (dark.matches ? "dark" : "light") : kept;
  $("theme").textContent = { system: "Auto", light: "Light", dark: "Dark" }[kept];
  $("theme").dataset.name = kept;
  try { localStorage.setItem("theme", kept); } catch { /* as above */ }
}

function keptTheme() { try { return localStorage.getItem("theme"); } catch { return null; } }

for (const box of document.querySelectorAll(".editor")) editors[box.dataset.part] = new Editor(box);
for (const name of Object.keys(EXAMPLES)) $("example").append(make("option", {}, name));

function load(texts) {
  for (const part of PARTS) editors[part].text = String(texts[part] || "");
  chosen = { list: "checks", line: 0 };
  folded = new WeakSet();
}

$("example").addEventListener("change", () => { load(EXAMPLES[$("example").value]); remember(); run(); });
$("run").addEventListener("click", run);
$("unfold").addEventListener("click", () => { shape = "all"; folded = new WeakSet(); explain(); });
$("decisive").addEventListener("click", () => { shape = "decisive"; folded = new WeakSet(); explain(); });
$("theme").addEventListener("click", () => theme(THEMES[(THEMES.indexOf($("theme").dataset.name) + 1) % THEMES.length]));
dark.addEventListener("change", () => theme($("theme").dataset.name));
document.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run(); });

theme(keptTheme());
load(recall() || Object.values(EXAMPLES)[0]);
run();
