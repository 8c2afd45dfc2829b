"use strict";
(() => {
  const element = (id) => document.getElementById(id);
  let parts = JSON.parse(element("parts").textContent);
  const drawn = new Map(); // figure -> Vega's view
  const wanted = new Set(); // figures that have been near the screen

  // Rows: the page holds columns, with texts that repeat only once.
  const column = (values) =>
    Array.isArray(values) ? values : values.at.map((place) => (place === null ? null : values.texts[place]));
  function rowsOf(packed) {
    const names = Object.keys(packed.columns);
    const columns = names.map((name) => column(packed.columns[name]));
    return Array.from({ length: packed.rows }, (_, i) => Object.fromEntries(names.map((name, k) => [name, columns[k][i]])));
  }

  // CSV as RFC 4180 has it; unknown values are empty.
  const field = (value) => {
    if (value === null || value === undefined) return "";
    const text = String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const csv = (names, rows) => [names, ...rows].map((row) => row.map(field).join(",")).join("\r\n") + "\r\n";
  function download(content, type, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.download = name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
  async function copy(text, button) {
    let done = false;
    try {
      await navigator.clipboard.writeText(text);
      done = true;
    } catch {
      const area = document.createElement("textarea"); // a file is no secure context for some browsers
      area.value = text;
      area.setAttribute("readonly", "");
      document.body.append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
    }
    const label = button.textContent;
    button.textContent = done ? "Copied" : "The browser refused";
    setTimeout(() => (button.textContent = label), 1500);
  }

  // Theme: the system's, or the reader's choice.
  const system = matchMedia("(prefers-color-scheme: dark)");
  const chosen = element("theme");
  let printing = false;
  const theme = () => printing ? "light" : (chosen.value === "auto" ? (system.matches ? "dark" : "light") : chosen.value);
  function applyTheme() {
    document.documentElement.dataset.theme = theme();
    for (const name of wanted) draw(name);
  }

  // Figures are drawn when they come near the screen.
  const last = new Map(); // figure -> its drawing that was asked for last: one after the other, or choices are lost
  function draw(name) {
    const next = (last.get(name) ?? Promise.resolve()).then(() => drawNow(name));
    last.set(name, next);
    return next;
  }
  async function drawNow(name) {
    const figure = parts.figures[name];
    const place = element(`plot-${name}`);
    if (!figure || !place) return;
    const before = drawn.get(name);
    const spec = { ...figure.spec, datasets: { ...figure.spec.datasets, rows: rowsOf(figure.rows) } };
    spec.description = figure.text;
    const composed = ["vconcat", "hconcat", "concat", "facet", "repeat"].some((key) => key in spec);
    if (!composed && spec.width === undefined) spec.width = "container";
    if ("vconcat" in spec) spec.vconcat = spec.vconcat.map((panel) => ({ ...panel, width: 0.8 * place.clientWidth }));
    if (!composed && spec.height === undefined) spec.height = place.clientWidth < 500 ? 280 : 380;
    spec.autosize ??= { type: composed ? "pad" : "fit-x", contains: "padding" };
    try {
      const kept = before ? signals(before.view) : {};
      const focused = place.contains(document.activeElement) ? document.activeElement.name : undefined;
      const result = await vegaEmbed(place, spec, {
        ast: true, actions: false, renderer: figure.canvas ? "canvas" : "svg", config: parts.themes[theme()],
        tooltip: { theme: "custom" }, loader: { load: () => Promise.reject(new Error("nothing is loaded")) },
      });
      before?.finalize();
      drawn.set(name, result);
      const picture = place.querySelector("svg.marks, canvas.marks");
      picture.setAttribute("role", "img");
      picture.setAttribute("aria-label", figure.text);
      if ("vconcat" in spec) await fitPanels(result.view, place);
      const inputs = [...place.querySelectorAll(CHOICES)];
      for (const [signal, value] of Object.entries(kept)) {
        const input = inputs.find((one) => one.name === signal);
        const offered = input && (!input.options || [...input.options].some((option) => option.value === String(value)));
        if (offered) result.view.signal(signal, value); // a choice that newer rows do not offer is gone
      }
      if (Object.keys(kept).length) await result.view.runAsync();
      if (focused) inputs.find((one) => one.name === focused)?.focus({ preventScroll: true });
      place.classList.add("small");
    } catch (error) {
      place.textContent = `This figure could not be drawn: ${error.message}`;
      console.error(error);
    }
  }
  // Vega-Lite fits single views only: panels are measured with their labels, and then take what is left.
  async function fitPanels(view, place) {
    for (let tries = 0; tries < 3; tries++) {
      const over = place.querySelector("svg.marks, canvas.marks").getBoundingClientRect().width - place.clientWidth;
      if (Math.abs(over) < 1) return;
      await view.width(Math.max(80, view.width() - over)).runAsync();
    }
  }
  const CHOICES = "select, input";
  function signals(view) {
    const names = [...view.container().querySelectorAll(CHOICES)].map((input) => input.name).filter(Boolean);
    const found = {};
    for (const name of names) {
      try { found[name] = view.signal(name); } catch { /* no signal of that name */ }
    }
    return found;
  }
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const name = target.dataset.figure;
      if (isIntersecting && !wanted.has(name) && parts.figures[name]) {
        wanted.add(name);
        draw(name);
      }
    }
  }, { rootMargin: "600px" });
  function showFigures() {
    for (const section of document.querySelectorAll("section[data-figure]")) {
      const figure = parts.figures[section.dataset.figure];
      section.hidden = !figure;
      document.querySelector(`[data-nav="${section.dataset.figure}"]`).hidden = !figure;
      if (!figure) continue;
      section.querySelector("h2 a").textContent = figure.title;
      document.querySelector(`[data-nav="${section.dataset.figure}"]`).textContent = figure.title;
      section.querySelector('[data-part="text"]').textContent = figure.text;
      section.querySelector('[data-part="notes"]').replaceChildren(
        ...figure.notes.map((note) => Object.assign(document.createElement("li"), { textContent: note })));
      near.unobserve(section);
      near.observe(section);
    }
  }
  // Paper is white, and nothing on it can be opened or scrolled: all figures are drawn, and what is cut is counted.
  let closed = [];
  addEventListener("beforeprint", () => {
    printing = true;
    closed = [...document.querySelectorAll("#problems details:not([open]), figcaption details:not([open])")];
    for (const details of closed) details.open = true;
    Object.keys(parts.figures).forEach((name) => wanted.add(name));
    applyTheme();
  });
  addEventListener("afterprint", () => {
    printing = false;
    for (const details of closed) details.open = false;
    applyTheme();
  });

  // Tables: sorted, searched, and 100 rows at a time.
  const AT_ONCE = 100;
  class Table {
    constructor(section) {
      this.section = section;
      this.name = section.dataset.table;
      this.part = (name) => section.querySelector(`[data-part="${name}"]`);
      this.sorted = null;
      this.all = false;
      this.part("search").addEventListener("input", () => this.show());
      this.part("more").addEventListener("click", () => { this.all = true; this.show(); });
      this.part("copy").addEventListener("click", (event) => copy(this.csv(), event.currentTarget));
      this.part("download").addEventListener("click", () => download(this.csv(), "text/csv", `${parts.name}-${this.name}.csv`));
      this.take();
    }
    take() {
      const { packed, long } = parts.tables[this.name];
      const before = this.names;
      this.names = Object.keys(packed.columns);
      const columns = this.names.map((name) => column(packed.columns[name]));
      this.rows = Array.from({ length: packed.rows }, (_, i) => columns.map((values) => values[i]));
      this.numeric = columns.map((values) => values.some((v) => typeof v === "number") && values.every((v) => v === null || typeof v === "number"));
      this.long = new Set(long);
      this.texts = this.rows.map((row) => row.map((value) => value ?? "").join("\u0000").toLowerCase());
      if (JSON.stringify(before) !== JSON.stringify(this.names)) this.head(); // or the focus of one would be lost
      this.show();
    }
    head() {
      const heads = this.names.map((name, i) => {
        const head = Object.assign(document.createElement("th"), { scope: "col" });
        const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
        button.addEventListener("click", () => this.sort(i));
        head.append(button);
        return head;
      });
      const row = document.createElement("tr");
      row.append(...heads);
      this.section.querySelector("thead").replaceChildren(row);
    }
    sort(i) {
      const descending = this.sorted?.name === this.names[i] && !this.sorted.descending;
      this.sorted = { name: this.names[i], descending };
      this.show();
    }
    found() {
      const words = this.part("search").value.toLowerCase().split(/\s+/).filter(Boolean);
      const found = this.rows.map((_, i) => i).filter((i) => words.every((word) => this.texts[i].includes(word)));
      const at = this.sorted ? this.names.indexOf(this.sorted.name) : -1;
      if (at < 0) return found;
      const sign = this.sorted.descending ? -1 : 1;
      const order = new Intl.Collator(undefined, { numeric: true });
      return found.sort((a, b) => {
        const [x, y] = [this.rows[a][at], this.rows[b][at]];
        const none = (v) => v === null || v === "";
        if (none(x) || none(y)) return none(x) - none(y) || a - b; // unknown values last, in both directions
        const by = typeof x === "number" && typeof y === "number" ? x - y : order.compare(x, y);
        return sign * by || a - b;
      });
    }
    csv() {
      return csv(this.names, this.found().map((i) => this.rows[i]));
    }
    show() {
      const found = this.found();
      const shown = this.all ? found : found.slice(0, AT_ONCE);
      const status = this.names.indexOf("status");
      const body = shown.map((i) => {
        const row = document.createElement("tr");
        if (status >= 0 && this.rows[i][status] === "failed") row.className = "failed";
        this.rows[i].forEach((value, k) => {
          const cell = row.insertCell();
          cell.textContent = value === null ? "" : typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(5))) : String(value);
          if (this.numeric[k]) cell.className = "number";
          else if (this.long.has(this.names[k])) cell.className = "long";
        });
        return row;
      });
      this.section.querySelector("tbody").replaceChildren(...body);
      [...this.section.querySelectorAll("thead th")].forEach((head, i) => {
        if (this.sorted?.name !== this.names[i]) head.removeAttribute("aria-sort");
        else head.setAttribute("aria-sort", this.sorted.descending ? "descending" : "ascending");
      });
      this.part("count").textContent = `${found.length} of ${this.rows.length} rows`
        + (shown.length < found.length ? `, the first ${shown.length} shown` : "");
      this.part("more").hidden = shown.length === found.length;
      this.part("more").textContent = `Show all ${found.length} rows`;
    }
  }

  document.addEventListener("click", async (event) => {
    const { csv: ofCsv, svg: ofSvg } = event.target.dataset ?? {};
    if (ofCsv) {
      const figure = parts.figures[ofCsv];
      const names = Object.keys(figure.rows.columns);
      const rows = rowsOf(figure.rows).map((row) => names.map((name) => row[name]));
      download(csv(names, rows), "text/csv", `${parts.name}-${ofCsv}.csv`);
    }
    if (ofSvg) {
      wanted.add(ofSvg);
      if (!drawn.has(ofSvg)) await draw(ofSvg);
      download(await drawn.get(ofSvg).view.toSVG(), "image/svg+xml", `${parts.name}-${ofSvg}.svg`);
    }
  });

  // A served page asks for newer parts; what has not changed stays as it is, and so does what the reader has chosen.
  function take(newer) {
    const before = parts;
    parts = newer;
    for (const [id, html] of Object.entries(newer.sections)) {
      if (before.sections[id] !== html) keepOpen(element(`section-${id}`), html);
    }
    showFigures();
    for (const name of wanted) {
      if (JSON.stringify(before.digests[name]) !== JSON.stringify(newer.digests[name])) draw(name);
    }
    for (const table of tables) table.take();
  }
  function keepOpen(place, html) {
    const open = [...place.querySelectorAll("details")].map((details) => details.open);
    const focused = [...place.querySelectorAll("summary")].indexOf(document.activeElement);
    place.innerHTML = html; // escaped by the server; the page's policy runs no script in it
    place.querySelectorAll("details").forEach((details, i) => (details.open = open[i] ?? details.open));
    place.querySelectorAll("summary")[focused]?.focus({ preventScroll: true });
  }
  function follow() {
    const fresh = element("fresh");
    let tag = null;
    const again = async () => {
      try {
        const answer = await fetch(parts.live.url, { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store",
          signal: AbortSignal.timeout(30000) });
        if (answer.status === 200) {
          tag = answer.headers.get("ETag");
          take(await answer.json());
        } else if (answer.status !== 304) throw new Error(`the server answers ${answer.status}`);
        fresh.textContent = parts.problem ? `not up to date: ${parts.problem}` : "live";
      } catch (error) {
        fresh.textContent = `not up to date: ${error.message}`;
      }
      setTimeout(again, 1000 * parts.live.every_s);
    };
    setTimeout(again, 1000 * parts.live.every_s);
  }

  chosen.addEventListener("change", applyTheme);
  system.addEventListener("change", applyTheme);
  document.documentElement.dataset.theme = theme();
  showFigures();
  const tables = [...document.querySelectorAll("section[data-table]")].map((section) => new Table(section));
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone's bars come and go with the height
    width = innerWidth;
    clearTimeout(follow.resize);
    follow.resize = setTimeout(() => wanted.forEach(draw), 200);
  });
  if (parts.live) follow();
})();
