"use strict";
(() => {
  const root = document.documentElement;
  const data = JSON.parse(document.getElementById("data").textContent);
  const table = document.getElementById("all");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows); // in the order of the network
  const form = document.getElementById("filters");
  const one = document.getElementById("one");
  const count = form.querySelector("output");
  const plots = Array.from(document.querySelectorAll(".plot"));
  let step = data.start;
  let chosen = 0;
  root.classList.add("on");

  // ------------------------------------------------------------------------- small helpers

  // Texts go in as text: nothing of a report is ever read as HTML.
  function element(kind, text, className) {
    const made = document.createElement(kind);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function factList(pairs) {
    const list = element("dl", undefined, "facts");
    for (const [term, value] of pairs) {
      const box = element("div");
      box.append(element("dt", term), element("dd", value));
      list.append(box);
    }
    return list;
  }

  // ------------------------------------------------------------------- one tensor, the cursor

  function choose(row) {
    chosen = row;
    showOne();
    moveCursor();
    for (const marked of body.querySelectorAll(".chosen")) marked.classList.remove("chosen");
    rows[row].classList.add("chosen");
  }

  function showOne() {
    const row = data.rows[chosen];
    const cell = row.cells[step];
    const title = element("h3");
    const name = element("bdi", row.name, "name");
    const kind = [row.operator, row.shape, cell.precision, row.stage].filter(Boolean).join(" · ");
    const link = element("a", "go to its row");
    link.href = `#t${chosen}`;
    title.append(name, element("span", kind));
    if (cell.blame) title.append(element("b", "to blame", "mark"));
    title.append(link);
    one.replaceChildren(title, factList(cell.facts), factList(row.made));
    if (data.steps.length > 1) {
      one.append(factList(row.cells.map((each, at) => [data.steps[at], each.brief])));
    }
  }

  function moveCursor() {
    const plot = plots[step];
    const marks = data.plots[step];
    const column = marks.rows.indexOf(chosen);
    for (const svg of plot.querySelectorAll("svg.depth")) {
      const cursor = svg.querySelector(".cursor");
      cursor.setAttribute("visibility", column < 0 ? "hidden" : "visible");
      if (column < 0) continue;
      const x = Number(svg.dataset.left) + (column + 0.5) * Number(svg.dataset.pitch);
      cursor.firstElementChild.setAttribute("d", `M${x} 18V336`);
      for (const kind of ["own", "inherited"]) {
        const y = marks[kind][column];
        const dot = cursor.querySelector(`.at-${kind}`);
        dot.setAttribute("visibility", y === null ? "hidden" : "inherit");
        dot.setAttribute("cx", x);
        dot.setAttribute("cy", y === null ? 0 : y);
      }
    }
    const row = data.rows[chosen];
    plot.setAttribute("aria-valuenow", Math.max(column, 0));
    plot.setAttribute("aria-valuetext", `${row.name}: ${row.cells[step].brief}`);
  }

  function columnAt(plot, event) {
    const svg = Array.from(plot.querySelectorAll("svg.depth")).find((each) => each.clientWidth);
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) * Number(svg.dataset.width)) / box.width;
    const last = data.plots[step].rows.length - 1;
    const column = Math.floor((x - Number(svg.dataset.left)) / Number(svg.dataset.pitch));
    return Math.min(Math.max(column, 0), last);
  }

  // Left and right go along the tensors, page up and down along the stages.
  function walk(key) {
    const order = data.plots[step].rows;
    const at = Math.max(order.indexOf(chosen), 0);
    const stage = (place) => data.rows[order[place]].stage;
    const bounds = order.map((_, place) => place).filter((p) => p === 0 || stage(p) !== stage(p - 1));
    const to = {
      ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1,
      Home: 0, End: order.length - 1,
      PageDown: bounds.find((p) => p > at), PageUp: bounds.filter((p) => p < at).pop(),
    };
    if (!(key in to)) return false;
    const place = to[key] === undefined ? at : Math.min(Math.max(to[key], 0), order.length - 1);
    if (order.length) choose(order[place]);
    return true;
  }

  plots.forEach((plot, at) => {
    const order = data.plots[at].rows;
    if (!order.length) return;
    plot.tabIndex = 0;
    plot.setAttribute("role", "slider");
    plot.setAttribute("aria-label", `Tensor along the depth, ${data.steps[at]}`);
    plot.setAttribute("aria-valuemin", 0);
    plot.setAttribute("aria-valuemax", order.length - 1);
    plot.addEventListener("pointermove", (event) => choose(order[columnAt(plot, event)]));
    plot.addEventListener("click", (event) => {
      event.preventDefault();
      choose(order[columnAt(plot, event)]);
      // A finger cannot hover: it only chooses, and the link below leads on.
      if (event.pointerType !== "touch") reveal(chosen);
    });
    plot.addEventListener("keydown", (event) => {
      if (event.key === "Enter") reveal(chosen);
      else if (!walk(event.key)) return;
      event.preventDefault();
    });
  });

  // ------------------------------------------------------------------------------- the table

  function reveal(row) {
    if (rows[row].hidden) form.reset(); // its event filters anew
    rows[row].hidden = false;
    choose(row);
    rows[row].scrollIntoView({ block: "center" });
    rows[row].querySelector("a").focus({ preventScroll: true });
    history.replaceState(null, "", `#t${row}`);
  }

  function toPlot(row) {
    const at = data.plots.findIndex((plot) => plot.rows.includes(row));
    if (at >= 0 && !data.plots[step].rows.includes(row)) setStep(at);
    choose(row);
    plots[step].scrollIntoView({ block: "center" });
    plots[step].focus({ preventScroll: true });
  }

  function wanted() {
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const is = (name) => (form.elements[name] ? form.elements[name].value : "");
    return (row) => {
      const cell = row.cells[step];
      return words.every((word) => row.name.toLowerCase().includes(word)) &&
        (!is("stage") || row.stage === is("stage")) &&
        (!is("operator") || row.operator === is("operator")) &&
        (!is("precision") || cell.precision === is("precision")) &&
        (!is("status") || cell.status === is("status")) &&
        (!form.elements.blame.checked || cell.blame);
    };
  }

  function filter() {
    const keep = wanted();
    let shown = 0;
    rows.forEach((line, at) => {
      line.hidden = !keep(data.rows[at]);
      shown += line.hidden ? 0 : 1;
    });
    count.textContent = `${shown} of ${rows.length} tensors`;
  }

  // Equal is more than any decibels, NaN less than any, and what is not known comes last.
  function valueOf(text) {
    if (text === "–" || text === "") return null;
    if (text === "equal" || text === "∞") return Infinity;
    if (text === "NaN" || text === "none") return -Infinity;
    const value = parseFloat(text.replaceAll("−", "-"));
    return Number.isNaN(value) ? text : value;
  }

  function sortBy(head, column) {
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const keys = new Map(rows.map((line) => [line, valueOf(line.cells[column].innerText.trim())]));
    const words = !head.classList.contains("num");
    const sorted = rows.slice().sort((a, b) => {
      const [x, y] = [keys.get(a), keys.get(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      const order = words
        ? String(x).localeCompare(String(y), "en", { numeric: true })
        : (x > y) - (x < y);
      return up ? order : -order;
    });
    body.append(...sorted);
  }

  Array.from(table.tHead.rows[1].cells).forEach((head, column) => {
    const button = element("button", head.textContent);
    button.type = "button";
    button.addEventListener("click", () => sortBy(head, column));
    head.replaceChildren(button);
  });

  function setStep(next) {
    step = next;
    for (const part of document.querySelectorAll("[data-of-step]")) {
      part.hidden = Number(part.dataset.ofStep) !== step;
    }
    const choice = document.querySelector(`.steps input[value="${step}"]`);
    if (choice) choice.checked = true;
    plots[step].after(one);
    setColumns();
    filter();
    showOne();
    moveCursor();
  }

  function setColumns() {
    const all = Boolean(form.elements.all && form.elements.all.checked);
    table.dataset.step = all ? "all" : step;
    for (const group of table.querySelectorAll(".group")) {
      group.dataset.full = group.dataset.full || group.colSpan;
      group.colSpan = all ? group.dataset.all : group.dataset.full;
    }
  }

  // -------------------------------------------------------------------------------- the rest

  form.addEventListener("input", () => { setColumns(); filter(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { setColumns(); filter(); }));
  for (const choice of document.querySelectorAll(".steps input")) {
    choice.addEventListener("change", () => setStep(Number(choice.value)));
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || link.closest(".plot")) return;
    if (link.dataset.stage !== undefined) {
      form.reset();
      setTimeout(() => { form.elements.stage.value = link.dataset.stage; filter(); });
    } else if (link.classList.contains("show")) {
      event.preventDefault();
      toPlot(rows.indexOf(link.closest("tr")));
    } else if (/^#t\d+$/.test(link.getAttribute("href"))) {
      event.preventDefault();
      reveal(Number(link.getAttribute("href").slice(2)));
    }
  });

  const theme = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  function showTheme() { theme.setAttribute("aria-pressed", isDark()); }
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; showTheme(); });
  dark.addEventListener("change", showTheme);
  showTheme();

  chosen = data.first[step];
  setStep(step);
  choose(chosen);
  const linked = /^#t(\d+)$/.exec(location.hash);
  if (linked && Number(linked[1]) < rows.length) reveal(Number(linked[1]));
})();
