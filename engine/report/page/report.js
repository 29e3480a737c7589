// Makes the page livelier; it is complete without. Charts become canvases that can be pointed at, tables sort, the gallery
// filters. Texts of runs are only ever set as text, never as markup.
"use strict";
(() => {
  const body = document.body;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (n) => css(n < 0 ? "--sn" : `--s${n % 8}`);
  const dashes = [[], [7, 3], [2, 3], [9, 3, 2, 3], [4, 2], [12, 4]];
  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const translucent = (hex, alpha) => hex + Math.round(alpha * 255).toString(16).padStart(2, "0");

  // ---- Line charts ----------------------------------------------------------------------------------------------
  const plots = [];
  const hidden = new Map();  // stream -> labels switched off
  const streamOf = (id) => id.split("-")[0];
  const live = element("div", "unseen");
  live.setAttribute("aria-live", "polite");
  body.append(live);

  // Each colour has its shape of points, the one that chart_svg.cpp gives it: around (0, 0), of radius 1.
  const circle = (path, x, y, r) => { path.moveTo(x + r, y); path.arc(x, y, r, 0, 2 * Math.PI); };
  const polygon = (corners) => (path, x, y, r) => {
    corners.forEach(([dx, dy], i) => path[i ? "lineTo" : "moveTo"](x + dx * r, y + dy * r));
    path.closePath();
  };
  const shapes = [
    circle,
    polygon([[-1, -1], [1, -1], [1, 1], [-1, 1]]),
    polygon([[0, -1.25], [1.2, 0.85], [-1.2, 0.85]]),
    polygon([[0, -1.4], [1.4, 0], [0, 1.4], [-1.4, 0]]),
    polygon([[0, 1.25], [1.2, -0.85], [-1.2, -0.85]]),
    polygon([[-0.6, -1.5], [0.6, -1.5], [0.6, 1.5], [-0.6, 1.5]]),
  ];
  const pointsOf = (number) => (plot, k, first, last) => {
    const shape = shapes[number < 0 ? 0 : number % shapes.length];
    const path = new Path2D();
    for (let i = first; i <= last; i++) {
      const value = plot.data[k][i];
      if (value === null || value === undefined) continue;
      shape(path, plot.valToPos(plot.data[0][i], "x", true), plot.valToPos(value, "y", true), 3.6 * devicePixelRatio);
    }
    return { stroke: path, fill: path, clip: null, flags: 3 };
  };

  function seriesOf(chart) {
    const data = [chart.x.map((_, i) => i)];
    const series = [{}];
    const bands = [];
    for (const line of chart.lines) {
      const c = colour(line.colour);
      data.push(line.values);
      series.push({
        label: line.label, stroke: c, width: 2, spanGaps: false,
        dash: line.colour < 0 ? [3, 3] : dashes[Math.floor(line.colour / 8) % dashes.length],
        points: { show: chart.x.length <= 24, size: 8, fill: c, stroke: css("--bg"), width: 1, paths: pointsOf(line.colour) },
      });
    }
    chart.lines.forEach((line, k) => {
      if (!line.deviations) return;
      const shifted = (sign) => line.values.map((v, i) => (v === null || line.deviations[i] === null ? null : v + sign * line.deviations[i]));
      const at = data.length;
      data.push(shifted(1), shifted(-1));
      const side = { stroke: "transparent", width: 0, points: { show: false }, of: k + 1 };
      series.push({ ...side }, { ...side });
      bands.push({ series: [at, at + 1], fill: translucent(colour(line.colour), 0.14) });
    });
    return { data, series, bands };
  }

  function drawMarks(chart, plot) {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.strokeStyle = css("--soft");
    ctx.lineWidth = ratio;
    if (chart.mark !== null) {
      const x = Math.round(plot.valToPos(chart.mark, "x", true));
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    if (chart.level !== null) {
      const y = Math.round(plot.valToPos(chart.level, "y", true));
      ctx.setLineDash([2 * ratio, 3 * ratio]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
    }
    ctx.restore();
  }

  function rowsAt(chart, plot, place) {
    return chart.lines
      .map((line, k) => ({ line, value: line.values[place], shown: plot.series[k + 1].show }))
      .filter((row) => row.shown && row.value !== null)
      .sort((a, b) => b.value - a.value);
  }
  const valueText = (value) => (Math.abs(value) >= 10 ? value.toFixed(1) : String(Math.round(value * 1000) / 1000));

  function fillReadout(box, chart, plot, place) {
    box.replaceChildren(element("b", "", chart.x[place]));
    for (const { line, value } of rowsAt(chart, plot, place)) {
      const row = element("div", line.colour < 0 ? "cn" : `c${line.colour % 8}`);
      const off = line.deviations && line.deviations[place] !== null ? ` ± ${line.deviations[place].toFixed(1)}` : "";
      row.append(element("i"), element("span", "", line.label), element("span", "", valueText(value) + off));
      box.append(row);
    }
    const left = plot.valToPos(place, "x");
    const room = plot.over.clientWidth;
    box.style.top = "4px";
    box.style.left = left < room / 2 ? `${left + 12}px` : "auto";
    box.style.right = left < room / 2 ? "auto" : `${room - left + 12}px`;
  }

  function build(chart) {
    const figure = document.getElementById(chart.id);
    if (!figure) return;
    const holder = figure.querySelector(".plot");
    const svg = holder.querySelector("svg");
    const says = svg.getAttribute("aria-label");
    const size = () => ({ width: Math.max(220, Math.floor(holder.clientWidth)), height: figure.classList.contains("wide") ? 270 : 200 });
    const entry = { chart, plot: null, pointed: false };
    const box = element("div", "readout");
    box.hidden = true;
    const make = () => {
      if (entry.plot) entry.plot.destroy();
      const { data, series, bands } = seriesOf(chart);
      const axis = { stroke: css("--soft"), font: "11px system-ui, sans-serif", grid: { stroke: css("--rule"), width: 1 }, ticks: { show: false } };
      const many = chart.x.length > 24;
      const longest = Math.max(...chart.x.map((name) => name.length));
      const slanted = !many && longest * 6.2 * chart.x.length > size().width - 50;
      entry.plot = new uPlot({
        ...size(), series, bands, padding: [8, 8, 0, 0], legend: { show: false },
        scales: { x: { time: false, range: [-0.25, chart.x.length - 0.75] }, y: { range: [chart.low, chart.high] } },
        axes: [
          { ...axis, grid: { show: false }, size: slanted ? 44 : 26, gap: 4, rotate: slanted ? 40 : 0,
            splits: () => chart.x.map((_, i) => i).filter((i) => !many || i % Math.ceil(chart.x.length / 8) === 0),
            values: (_, splits) => splits.map((i) => (chart.x[i].length > 9 ? `${chart.x[i].slice(0, 8)}…` : chart.x[i])) },
          { ...axis, size: 36, gap: 4, space: 36 },
        ],
        cursor: { sync: { key: streamOf(chart.id), setSeries: false, scales: ["x", null] }, y: false, drag: { x: false, y: false },
          points: { size: 8, show: (u, i) => (u.series[i].of ? undefined : element("div")) } },
        hooks: {
          drawClear: [(plot) => drawMarks(chart, plot)],
          setCursor: [(plot) => {
            box.hidden = !entry.pointed || plot.cursor.idx === null || plot.cursor.idx === undefined;
            if (!box.hidden) fillReadout(box, chart, plot, plot.cursor.idx);
          }],
        },
      }, data, holder);
      entry.plot.over.append(box);
      entry.plot.over.addEventListener("mouseenter", () => { entry.pointed = true; });
      entry.plot.over.addEventListener("mouseleave", () => { entry.pointed = document.activeElement === holder; box.hidden = !entry.pointed; });
      showSeries(entry);
    };
    svg.remove();
    holder.tabIndex = 0;
    holder.setAttribute("role", "img");
    holder.setAttribute("aria-label", `${says}. Left and right arrow keys read the values.`);
    entry.make = make;
    make();
    plots.push(entry);
    let place = 0;
    holder.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") { entry.pointed = false; box.hidden = true; }
      if (!step) return;
      event.preventDefault();
      place = Math.min(Math.max((entry.plot.cursor.idx ?? place) + step, 0), chart.x.length - 1);
      entry.pointed = true;
      entry.plot.setCursor({ left: entry.plot.valToPos(place, "x"), top: 10 });
      fillReadout(box, chart, entry.plot, place);
      box.hidden = false;
      live.textContent = `${chart.x[place]}: ` + rowsAt(chart, entry.plot, place).map((r) => `${r.line.label} ${valueText(r.value)}`).join(", ");
    });
    holder.addEventListener("blur", () => { entry.pointed = false; box.hidden = true; });
    new ResizeObserver(() => { if (Math.abs(entry.plot.width - size().width) > 1) entry.plot.setSize(size()); }).observe(holder);
  }

  function showSeries({ chart, plot }) {
    const off = hidden.get(streamOf(chart.id)) ?? new Set();
    plot.batch(() => chart.lines.forEach((line, k) => {
      const show = !off.has(line.label);
      plot.series.forEach((series, i) => { if ((i === k + 1 || series.of === k + 1) && series.show !== show) plot.setSeries(i, { show }); });
    }));
  }

  function makeLegend(list) {
    const stream = list.dataset.stream;
    hidden.set(stream, new Set());
    for (const item of list.children) {
      const button = element("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      button.title = "show or hide";
      button.append(...item.childNodes);
      item.append(button);
      button.addEventListener("click", () => {
        const off = hidden.get(stream);
        const label = item.dataset.series;
        off.has(label) ? off.delete(label) : off.add(label);
        button.setAttribute("aria-pressed", String(!off.has(label)));
        plots.filter((entry) => streamOf(entry.chart.id) === stream).forEach(showSeries);
      });
    }
  }

  // ---- Tables ---------------------------------------------------------------------------------------------------
  function makeSortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const original = [...body.rows];
    const number = (row, c) => parseFloat(row.cells[c].textContent.replace(/[^\d.eE+-].*$/, "") || "NaN");
    heads.forEach((head, c) => {
      if (c === 0) return;
      const button = element("button", "sort", "↕");
      button.type = "button";
      button.setAttribute("aria-label", `sort by ${head.textContent.slice(0, 40)}`);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { none: "descending", descending: "ascending", ascending: "none" }[head.getAttribute("aria-sort") ?? "none"];
        heads.forEach((other) => { other.removeAttribute("aria-sort"); const b = other.querySelector("button.sort"); if (b) b.textContent = "↕"; });
        head.setAttribute("aria-sort", next);
        button.textContent = { none: "↕", descending: "↓", ascending: "↑" }[next];
        const sign = next === "ascending" ? 1 : -1;
        const rows = next === "none" ? original : [...original].sort((a, b) => {
          const x = number(a, c), y = number(b, c);
          if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
          return sign * (x - y);
        });
        body.append(...rows);
      });
    });
  }

  // ---- Gallery --------------------------------------------------------------------------------------------------
  function makeFilters(list) {
    const cards = [...list.children];
    const bar = element("div", "filters");
    const names = { task: "task", strategy: "strategy", fate: "how" };
    const words = { loss: "knowledge lost", drift: "format drift" };
    const chosen = {};
    const count = element("span", "soft");
    count.setAttribute("role", "status");
    const apply = () => {
      for (const card of cards) card.hidden = Object.entries(chosen).some(([key, value]) => value !== "" && card.dataset[key] !== value);
      const shown = cards.filter((card) => !card.hidden).length;
      count.textContent = `${shown} of ${cards.length}`;
    };
    for (const [key, title] of Object.entries(names)) {
      const values = [...new Set(cards.map((card) => card.dataset[key]))];
      if (values.length < 2) continue;
      const label = element("label", "", `${title} `);
      const select = element("select");
      select.append(new Option("all", ""), ...values.map((value) => new Option(key === "fate" ? words[value] : value, value)));
      select.addEventListener("change", () => { chosen[key] = select.value; apply(); });
      label.append(select);
      bar.append(label);
    }
    if (!bar.children.length) return;
    bar.append(count);
    apply();
    list.before(bar);
  }

  // ---- Where the reader is ----------------------------------------------------------------------------------------
  function followSections() {
    const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
    const watch = new IntersectionObserver((seen) => {
      for (const { target, isIntersecting } of seen) {
        if (!isIntersecting || !links.has(target.id)) continue;
        links.forEach((link) => link.removeAttribute("aria-current"));
        links.get(target.id).setAttribute("aria-current", "true");
      }
    }, { rootMargin: "-20% 0px -70% 0px" });
    document.querySelectorAll("section[id]").forEach((section) => watch.observe(section));
  }

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && document.activeElement?.classList.contains("def")) document.activeElement.blur();
  });
  const { charts } = JSON.parse(document.getElementById("data").textContent);
  document.querySelectorAll("ul.series").forEach(makeLegend);
  if (typeof uPlot === "function") charts.forEach(build);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach((entry) => entry.make()));
  document.querySelectorAll("table.sortable").forEach(makeSortable);
  document.querySelectorAll("ul.gallery").forEach(makeFilters);
  followSections();
})();
