"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const ROWS_AT_FIRST = 22, LINES_OF_A_ROW = 6, LEVELS_DRAWN = 18, CELLS_DRAWN = 1500;

/** An element with a class, text and attributes; text is never read as markup. */
function make(name, kind, text, attributes) {
  const element = document.createElement(name);
  if (kind) element.className = kind;
  if (text !== undefined) element.textContent = text;
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  return element;
}

const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

function probability(log) {
  const value = Math.exp(log);
  return value >= 0.001 ? value.toPrecision(2) : value.toExponential(1);
}

function share(part, whole) {
  const percent = 100 * part / whole;
  return percent >= 9.95 || percent === 0 ? `${Math.round(percent)} %`
    : percent >= 0.1 ? `${percent.toFixed(1)} %` : "< 0.1 %";
}

/* ---- The table of problems: sorted by its headings, filtered by name. ---- */

function sortTable(heading) {
  const table = heading.closest("table"), body = table.tBodies[0];
  const column = heading.cellIndex, kind = heading.dataset.sort;
  const was = heading.getAttribute("aria-sort");
  const up = was ? was === "descending" : kind !== "high";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = (row) => row.cells[column].dataset.value;
  const compare = kind === "text"
    ? (a, b) => value(a).localeCompare(value(b), "en", { numeric: true })
    : (a, b) => Number(value(a)) - Number(value(b));
  const rows = [...body.rows], known = rows.filter((row) => value(row) !== "");
  known.sort((a, b) => up ? compare(a, b) : compare(b, a));
  body.append(...known, ...rows.filter((row) => value(row) === ""));
}

function filterTable(text) {
  const rows = [...document.getElementById("problem-table").tBodies[0].rows];
  const wanted = text.trim().toLowerCase();
  for (const row of rows) row.hidden = !row.cells[0].dataset.value.toLowerCase().includes(wanted);
  const shown = rows.filter((row) => !row.hidden).length;
  document.getElementById("filtered").textContent = wanted ? `${shown} of ${rows.length} shown` : "";
}

/* ---- One problem's programs. ---- */

/** What is needed of a branch besides its own data: what comes before it, and who is above. */
function prepare(task) {
  const leaves = [];
  const visit = (node, before, level, parent) => {
    Object.assign(node, { before, level, parent, s: node.s || 0 });
    if (node.p) leaves.push(node);
    for (const child of node.c || []) visit(child, before + node.t, level + 1, node);
    if (node.more) {
      const [branches, n, s] = node.more;
      node.c.push({ more: node.more, t: "", n, s, branches, level: level + 1, parent: node, isMore: true });
    }
  };
  visit(task.tree, "", 0, null);
  return leaves;
}

/** The branches that are open at first: those with most samples, as long as rows fit. */
function openFirst(root) {
  const open = new Set(), waiting = [root];
  let rows = 1;
  while (waiting.length) {
    waiting.sort((a, b) => b.n + b.s - a.n - a.s);
    const node = waiting.shift();
    if (!node.c || (open.size && rows + node.c.length > ROWS_AT_FIRST)) continue;
    open.add(node);
    rows += node.c.length;
    waiting.push(...node.c);
  }
  return open;
}

class Tree {
  constructor(task, read) {
    this.task = task;
    this.read = read;
    this.leaves = task.leaves ??= prepare(task);
    this.open = openFirst(task.tree);
    this.element = make("div", "tree", undefined, { role: "tree", "aria-label": `Programs of ${task.id}` });
    this.row = new Map();
    this.element.append(this.rowOf(task.tree), ...this.rowsBelow(task.tree));
    this.element.firstChild.tabIndex = 0;
    this.element.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) this.act(row);
    });
    this.element.addEventListener("keydown", (event) => this.key(event));
  }

  /** The rows of what is open below a branch. */
  rowsBelow(node) {
    if (!this.open.has(node)) return [];
    return node.c.flatMap((child) => [this.rowOf(child), ...this.rowsBelow(child)]);
  }

  rowOf(node) {
    const siblings = node.parent ? node.parent.c : [node];
    const row = make("div", "row", undefined, {
      role: "treeitem", tabindex: "-1", "aria-level": node.level + 1,
      "aria-setsize": siblings.length, "aria-posinset": siblings.indexOf(node) + 1,
    });
    row.style.setProperty("--level", Math.min(node.level, 24));
    row.style.setProperty("--accepted", `${100 * node.s / node.n}%`);
    row.node = node;
    this.row.set(node, row);
    row.classList.toggle("solved", node.s > 0);
    if (node.c) row.setAttribute("aria-expanded", this.open.has(node));
    row.classList.toggle("leaf", !node.c);
    const bar = make("span", "share", undefined, { "aria-hidden": "true" });
    bar.append(make("span"));
    bar.firstChild.style.width = `${100 * node.n / this.task.n}%`;
    const percent = make("span", "percent", share(node.n, this.task.n));
    percent.append(make("span", "unseen", `, ${count(node.n, "sample")}, `));
    const [shown, inWords] = this.verdict(node), right = make("span", "right");
    right.append(make("span", "", shown, { "aria-hidden": "true" }), make("span", "unseen", `${inWords}: `));
    row.append(make("span", "chevron", undefined, { "aria-hidden": "true" }), bar, percent, right, this.code(node));
    return row;
  }

  verdict(node) {
    if (!this.task.judged) return ["", "not judged"];
    if (node.p) {
      const names = Object.keys(node.p.v);
      const right = names.includes("AC");
      return [(right ? "\u2713 " : "") + (names.join(" ") || "not judged"), names.join(" and ") || "not judged"];
    }
    return node.s ? [`\u2713 ${node.s.toLocaleString("en")}`, `${node.s} accepted`] : ["\u2013", "none accepted"];
  }

  moreInWords(node) {
    return `${count(node.branches, "rarer branch").replace("branchs", "branches")} left out`;
  }

  code(node) {
    const code = make("code");
    if (node.isMore) {
      code.append(make("span", "rest", this.moreInWords(node)));
      return code;
    }
    const before = lineBefore(node);
    if (before) code.append(make("span", "before", before));
    const lines = (before ? node.t : node.t.replace(/^\n/, "")).replace(/\n[ \t]*$/, "").split("\n");
    const shown = lines.slice(0, LINES_OF_A_ROW).join("\n");
    if (shown) code.append(make("span", "own", shortenEnd(shown, 600)));
    const left = lines.length - LINES_OF_A_ROW;
    if (left > 0) code.append(make("span", "rest", `  and ${count(left, "line")} more`));
    if (!node.t.trim()) code.append(make("span", "rest", node.p ? "ends here" : "nothing in common"));
    return code;
  }

  act(row) {
    this.focus(row);
    if (row.node.p) this.read(row.node);
    else if (row.node.c) this.toggle(row);
  }

  toggle(row) {
    const node = row.node, opens = !this.open.has(node);
    row.setAttribute("aria-expanded", opens);
    if (opens) {
      this.open.add(node);
      row.after(...this.rowsBelow(node));
      return;
    }
    this.open.delete(node);
    while (row.nextElementSibling && row.nextElementSibling.node.level > node.level) row.nextElementSibling.remove();
  }

  /** Opens what is above a branch, and goes to it. */
  show(node) {
    const path = [];
    for (let above = node.parent; above; above = above.parent) path.unshift(above);
    for (const above of path) if (!this.open.has(above)) this.toggle(this.row.get(above));
    this.focus(this.row.get(node));
  }

  focus(row) {
    for (const other of this.element.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
    row.tabIndex = 0;
    row.focus();
  }

  key(event) {
    const row = event.target.closest(".row");
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    const isOpen = this.open.has(row.node);
    let to = null;
    switch (event.key) {
      case "ArrowDown": to = row.nextElementSibling; break;
      case "ArrowUp": to = row.previousElementSibling; break;
      case "Home": to = this.element.firstChild; break;
      case "End": to = this.element.lastChild; break;
      case "ArrowRight":
        if (row.node.c && !isOpen) this.toggle(row);
        else if (isOpen) to = row.nextElementSibling;
        break;
      case "ArrowLeft":
        if (isOpen) this.toggle(row);
        else if (row.node.parent) to = this.row.get(row.node.parent);
        break;
      case "Enter": case " ": this.act(row); break;
      default: return;
    }
    event.preventDefault();
    if (to) this.focus(to);
  }
}

const lineBefore = (node) => node.before.slice(node.before.lastIndexOf("\n") + 1);
const shortenEnd = (text, most) => text.length > most ? `${text.slice(0, most)} ...` : text;
const shorten = (text, most) => shortenEnd(text.trim().replace(/\s+/g, " "), most);

/** The trie as cells from the left to the right, as wide as their share; a way into the outline. */
function icicle(tree) {
  const picture = make("div", "icicle", undefined, { "aria-hidden": "true" });
  let deepest = 0, waiting = [[tree.task.tree, 0]], drawn = 0;
  while (waiting.length && drawn < CELLS_DRAWN) {
    const below = [];
    for (const [node, left] of waiting) {
      const width = node.n / tree.task.n;
      if (node.level > LEVELS_DRAWN || width < 0.0005) continue;
      deepest = Math.max(deepest, node.level);
      drawn += 1;
      const kind = node.s === 0 ? "" : node.s === node.n ? " all" : " some";
      const cell = make("div", `cell${kind}${width < 0.03 ? " thin" : ""}`);
      cell.style.left = `${100 * left}%`;
      cell.style.width = `${100 * width}%`;
      cell.style.setProperty("--accepted", `${100 * node.s / node.n}%`);
      cell.style.top = `${1.45 * node.level}rem`;
      const text = shorten(node.t, 90);
      if (width >= 0.03) cell.textContent = (node.s === node.n ? "\u2713 " : "") + (text || (node.p ? "\u00b7" : ""));
      const right = node.s ? `, ${node.s} accepted` : "";
      cell.title = `${count(node.n, "sample")} (${share(node.n, tree.task.n)})${right}\n${shorten(lineBefore(node) + node.t, 200)}`;
      cell.addEventListener("click", () => tree.show(node));
      picture.append(cell);
      let at = left;
      for (const child of node.c || []) {
        if (!child.isMore) below.push([child, at]);
        at += child.n / tree.task.n;
      }
    }
    waiting = below;
  }
  picture.style.height = `${1.45 * (deepest + 1)}rem`;
  return picture;
}

/* ---- A program, in a dialog. ---- */

const PYTHON = /("""[\s\S]*?(?:"""|$)|'''[\s\S]*?(?:'''|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?)|(#[^\n]*)|\b(False|None|True|and|as|assert|async|await|break|class|continue|def|del|elif|else|except|finally|for|from|global|if|import|in|is|lambda|nonlocal|not|or|pass|raise|return|try|while|with|yield)\b/g;

/** Source in lines, with strings, remarks and keywords of Python marked. */
function source(text, isPython) {
  const code = make("code"), pieces = [];
  let end = 0;
  if (isPython) for (const found of text.matchAll(PYTHON)) {
    pieces.push(["", text.slice(end, found.index)]);
    pieces.push([found[1] ? "string" : found[2] ? "remark" : "word", found[0]]);
    end = found.index + found[0].length;
  }
  pieces.push(["", text.slice(end)]);
  let line = make("span", "line");
  code.append(line);
  for (const [kind, piece] of pieces) piece.split("\n").forEach((part, i) => {
    if (i) code.append(line = make("span", "line"));
    if (part) line.append(kind ? make("span", kind, part) : part);
  });
  const pre = make("pre", "", undefined, { tabindex: "0", role: "region", "aria-label": "Program" });
  pre.append(code);
  return pre;
}

/** A word as a shell takes it. */
const quoted = (word) => /^[\w.\/:@%+=-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;

function factsOf(node, task) {
  const p = node.p, facts = [];
  const more = node.n > p.i.length ? ` and ${count(node.n - p.i.length, "other")}` : "";
  facts.push(["Drawn", `${count(node.n, "time")} of ${task.n.toLocaleString("en")} (${share(node.n, task.n)})`]);
  facts.push([node.n > 1 ? "Samples" : "Sample", p.i.join(", ") + more]);
  if (p.f !== undefined) facts.push(["Failed", `test ${p.f + 1}`]);
  if (p.s !== undefined) facts.push(["Slowest test", `${p.s.toFixed(3)} s of processor time`]);
  if (p.k !== undefined) facts.push(["Length", count(p.k, "token") + (p.e ? `, ended by ${p.e}` : "")]);
  if (p.lp !== undefined) facts.push(["Probability", `${probability(p.lp)} by the model (log ${p.lp})`]);
  if (p.l) facts.push(["Language", p.l]);
  if (p.cut) facts.push(["Cut", `${count(p.cut, "character")} left out`]);
  const list = make("dl", "facts");
  for (const [name, value] of facts) {
    const pair = make("div");
    pair.append(make("dt", "", name), make("dd", "", value));
    list.append(pair);
  }
  return list;
}

function readProgram(tree, dialog, node) {
  const task = tree.task, p = node.p, verdicts = Object.keys(p.v);
  const title = make("h3", "", undefined, { id: "program-title", tabindex: "-1" });
  const isRight = verdicts.includes("AC");
  title.append(`${task.id}, sample ${p.i[0]} `,
    make("span", isRight ? "badge ok" : "badge", (isRight ? "\u2713 " : "") + (verdicts.join(", ") || "not judged")));
  const parts = [title];
  if (p.m) parts.push(make("p", "said", p.m));
  parts.push(source((node.before + node.t).replace(/\n+$/, ""), !p.l));
  if (p.r) {
    parts.push(make("h4", "", "Error output"), make("pre", "", p.r));
  }
  parts.push(factsOf(node, task));
  const hint = make("p", "hint", "All of it, with the failing test: ");
  hint.append(make("code", "", `hydragen show ${quoted(DATA.run)} ${quoted(task.id)} ${p.i[0]}`));
  parts.push(hint);
  const at = tree.leaves.indexOf(node), buttons = make("div", "buttons");
  for (const [name, to] of [["Previous", at - 1], ["Next", at + 1]]) {
    const button = make("button", "plain", name, { type: "button" });
    button.disabled = !tree.leaves[to];
    button.addEventListener("click", () => {
      readProgram(tree, dialog, tree.leaves[to]);
      const again = [...dialog.querySelectorAll("button")].find((b) => b.textContent === name);
      (again.disabled ? dialog.querySelector("h3") : again).focus();
    });
    buttons.append(button);
  }
  const close = make("button", "plain", "Close", { type: "button" });
  close.addEventListener("click", () => dialog.close());
  buttons.append(close);
  dialog.replaceChildren(...parts, buttons);
  dialog.current = node;
  if (!dialog.open) {
    dialog.showModal();
    title.focus();
  }
}

/* ---- The part of the page about one problem. ---- */

const pairOf = (name, value) => {
  const pair = make("div");
  pair.append(make("dt", "", name), make("dd", "", value));
  return pair;
};

function aboutTask(task) {
  const list = make("dl", "facts two");
  const judged = task.judged ? `, ${task.ac.toLocaleString("en")} accepted of ${task.judged.toLocaleString("en")} judged` : ", not judged";
  list.append(pairOf("Samples", `${task.n.toLocaleString("en")}${judged}`));
  const verdicts = Object.entries(task.v);
  if (verdicts.length) list.append(pairOf("Verdicts", verdicts.map(([name, n]) => `${n.toLocaleString("en")} ${name}`).join(", ")));
  if (task.first !== null) list.append(pairOf("First solved", `by sample ${task.first}`));
  list.append(pairOf("Programs", `${task.distinct.toLocaleString("en")} different`));
  const ends = Object.entries(task.ends);
  if (task.tokens) list.append(pairOf("Tokens", `${(task.tokens / task.n).toFixed(1)} a sample` +
    (ends.length ? `; ended ${ends.map(([name, n]) => `${n.toLocaleString("en")} by ${name}`).join(", ")}` : "")));
  for (const [k, value, low, high] of task.pass || [])
    list.append(pairOf(`pass@${k.toLocaleString("en")}`, `${value.toFixed(3)} (95 % interval ${low.toFixed(3)} to ${high.toFixed(3)})`));
  if (task.unkept) list.append(pairOf("Not in the tree", `${count(task.unkept[0], "sample")}, ${task.unkept[1]} accepted, of programs that came when there was no more room`));
  return list;
}

class Reader {
  constructor(place) {
    this.place = place;
    this.select = make("select", "", undefined, { id: "task", "aria-label": "Problem" });
    DATA.tasks.forEach((task, i) => this.select.append(make("option", "", (task.ac ? "\u2713 " : "") + task.id, { value: i })));
    this.select.addEventListener("change", () => this.go(Number(this.select.value)));
    this.buttons = [["Previous problem", -1], ["Next problem", 1]].map(([name, by]) => {
      const button = make("button", "plain", name, { type: "button" });
      button.addEventListener("click", () => this.go(this.at + by));
      return button;
    });
    const choose = make("div", "choose");
    choose.append(this.select, ...this.buttons);
    this.content = make("div");
    this.dialog = make("dialog", "", undefined, { "aria-labelledby": "program-title" });
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog) this.dialog.close(); });
    this.dialog.addEventListener("close", () => this.tree.show(this.dialog.current));
    place.replaceChildren(choose, this.content, this.dialog);
  }

  go(at) {
    history.replaceState(null, "", `#task=${encodeURIComponent(DATA.tasks[at].id)}`);
    this.show(at);
  }

  show(at) {
    if (at === this.at) return;
    this.at = at;
    const task = DATA.tasks[at];
    this.select.value = at;
    this.buttons[0].disabled = at === 0;
    this.buttons[1].disabled = at === DATA.tasks.length - 1;
    for (const line of document.querySelectorAll(".curve .one")) line.classList.toggle("chosen", line.dataset.task === task.id);
    for (const row of document.getElementById("problem-table").tBodies[0].rows)
      row.classList.toggle("chosen", row.cells[0].dataset.value === task.id);
    this.tree = new Tree(task, (node) => readProgram(this.tree, this.dialog, node));
    const hint = make("p", "hint", "The trie of this problem's programs: a branch is what programs go on with where they part, " +
      "with its share of the samples and how many are accepted (\u2713). Arrow keys move, open and close; Enter reads a program.");
    this.heading = make("h3", "", task.id, { tabindex: "-1" });
    this.content.replaceChildren(this.heading, aboutTask(task), hint, icicle(this.tree), this.tree.element);
  }
}

/** The id of the problem that the address names. */
function named() {
  if (!location.hash.startsWith("#task=")) return null;
  try {
    return decodeURIComponent(location.hash.slice(6));
  } catch {
    return null;  // an address that was cut off, or changed by whatever passed it on
  }
}

function start() {
  const table = document.getElementById("problem-table");
  for (const heading of table.tHead.rows[0].cells)
    heading.querySelector("button").addEventListener("click", () => sortTable(heading));
  document.getElementById("filter").addEventListener("input", (event) => filterTable(event.target.value));
  if (!DATA.tasks.length) return;
  const reader = new Reader(document.getElementById("reader"));
  const partly = DATA.tasks.findIndex((task) => task.ac && task.ac < task.judged);
  const follow = () => {
    const id = named(), at = DATA.tasks.findIndex((task) => task.id === id);
    if (at >= 0) {
      reader.show(at);
      document.getElementById("programs").scrollIntoView();
      reader.heading.focus({ preventScroll: true });
    } else if (reader.at === undefined) reader.show(Math.max(partly, 0));
  };
  window.addEventListener("hashchange", follow);
  follow();
}

start();
