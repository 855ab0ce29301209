"use strict";
// Charts of a benchmark: plain SVG, drawn from the JSON in #data. Loads nothing; text only as text.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const NS = "http://www.w3.org/2000/svg";
  const column = Object.fromEntries(data.columns.map((name, place) => [name, place]));
  const points = data.points.map((row) => {
    const point = Object.fromEntries(data.columns.map((name, place) => [name, row[place]]));
    [point.method, point.build, point.search] = data.configurations[row[column.configuration]];
    const peaks = [point.peak_bytes, point.build_peak_bytes].filter((bytes) => bytes !== null);
    point.memory = peaks.length ? Math.max(...peaks) : null;
    return point;
  });
  const hidden = new Set();
  const tip = document.getElementById("tip");
  const control = (name) => document.getElementById("pick-" + name);

  // figures as words
  const short = (v) => (v >= 100 ? Math.round(v).toLocaleString("en") : String(+v.toPrecision(3)));
  const seconds = (s) =>
    s < 1e-3 ? short(s * 1e6) + " µs" : s < 1 ? short(s * 1e3) + " ms"
    : s < 120 ? short(s) + " s" : s < 7200 ? short(s / 60) + " min" : short(s / 3600) + " h";
  const bytes = (b) => (b >= 2 ** 30 ? short(b / 2 ** 30) + " GiB" : short(b / 2 ** 20) + " MiB");
  const mebibytes = (v) => short(v) + " MiB";
  const rate = (v) => (v >= 1e6 ? short(v / 1e6) + "M" : v >= 1e4 ? short(v / 1e3) + "k" : short(v));
  const said = (name, value, words) => (value === null ? "" : `\n${name} ${words(value)}`);

  const CHARTS = {
    speed: { y: (p) => p.qps, words: rate, up: true, fits: (p, batch) => p.batch === batch },
    total: { y: (p) => p.total_s, words: seconds, fits: (p) => p.batch === 0 },
    build: { y: (p) => p.build_s, words: seconds, fits: (p, batch) => p.batch === batch },
    memory: { y: (p) => p.memory && p.memory / 2 ** 20, words: mebibytes, fits: (p, batch) => p.batch === batch },
  };
  const COSTS = { total: seconds, build: seconds, memory: mebibytes, query: seconds };

  const SHAPES = [
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z", "M-4-4h8v8h-8z", "M0-5.5L5 4H-5z", "M0-6L5 0L0 6L-5 0z",
    "M0 5.5L5-4H-5z", "M-1.7-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
    "M0-6L1.8-1.9L6-1.9L2.7.9L3.8 5.2L0 2.7L-3.8 5.2L-2.7.9L-6-1.9L-1.8-1.9z",
  ];
  // 6 colours and 7 shapes: 42 methods before a pair repeats
  const colour = (method) => "m" + (data.methods.indexOf(method) % 6);
  const shape = (method) => SHAPES[data.methods.indexOf(method) % SHAPES.length];

  function add(parent, name, attributes, text) {
    const element = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return parent.appendChild(element);
  }

  // axes
  const CLOSE = { share: (r) => -Math.log10(1 - r + 1e-4), ticks: [0, 0.5, 0.9, 0.95, 0.99, 0.999, 1] };
  const PLAIN = { share: (r) => r, ticks: [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.995, 1] };
  function between(low, high, from, to) {
    const span = high - low || 1;
    return (value) => from + ((value - low) / span) * (to - from);
  }
  function logTicks(low, high) {
    const ticks = [];
    const steps = high - low > 3 ? [1] : high - low > 1.2 ? [1, 3]
      : high - low > 0.6 ? [1, 2, 3, 5, 7] : [1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9];
    for (let power = Math.floor(low); power <= Math.ceil(high); power++)
      for (const step of steps) ticks.push(step * 10 ** power);
    return ticks.filter((v) => Math.log10(v) >= low && Math.log10(v) <= high);
  }
  const TIMES = [-7, -6, -5, -4, -3, -2, -1, 0].flatMap((power) => [1, 2, 5].map((step) => step * 10 ** power))
    .concat(10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18e3, 36e3, 72e3, 18e4, 36e4, 72e4);
  function timeTicks(low, high) {
    const ticks = TIMES.filter((v) => Math.log10(v) >= low && Math.log10(v) <= high);
    return ticks.filter((_, place) => place % Math.ceil(ticks.length / 9) === 0);
  }
  const orFiner = (low, high) => (timeTicks(low, high).length > 1 ? timeTicks : logTicks)(low, high);
  const ticksFor = (words) => (words === seconds ? orFiner : logTicks);
  function frame(figure) {
    const svg = figure.querySelector("svg");
    svg.replaceChildren();
    const width = Math.max(280, figure.clientWidth);
    const box = { svg, width, height: width < 500 ? 280 : 330, left: 62, right: 14, top: 10, bottom: 42 };
    svg.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
    return box;
  }
  function axes(box, x, y, xName) {
    const { svg } = box, right = box.width - box.right, floor = box.height - box.bottom;
    for (const [place, label] of y) {
      add(svg, "line", { class: "grid", x1: box.left, x2: right, y1: place, y2: place });
      add(svg, "text", { x: box.left - 6, y: place + 4, "text-anchor": "end" }, label);
    }
    let last = Infinity;
    for (const [place, label] of [...x].reverse()) {
      add(svg, "line", { class: "grid", x1: place, x2: place, y1: box.top, y2: floor });
      if (last - place < label.length * 7 + 8) continue;
      add(svg, "text", { x: place, y: floor + 16, "text-anchor": "middle" }, label);
      last = place;
    }
    add(svg, "text", { x: (box.left + right) / 2, y: box.height - 6, "text-anchor": "middle" }, xName);
  }
  function nothing(box, text) {
    add(box.svg, "text", { class: "nothing", x: box.width / 2, y: box.height / 2, "text-anchor": "middle" }, text);
  }

  // per method: what no other point of it beats, from the cheapest on
  function frontier(mine, chart) {
    let best = -1;
    const sign = chart.up ? -1 : 1;
    const order = [...mine].sort((a, b) => sign * (chart.y(a) - chart.y(b)) || b.recall - a.recall);
    return order.filter((p) => p.recall > best && ((best = p.recall), true));
  }

  function drawRecall(figure) {
    const chart = CHARTS[figure.dataset.chart], box = frame(figure);
    const [n, k, batch] = ["n", "k", "batch"].map((name) => Number(control(name).value));
    const shown = points.filter(
      (p) => p.n === n && p.k === k && chart.fits(p, batch) && !hidden.has(p.method) && chart.y(p) > 0 && p.recall !== null);
    figure.spots = [];
    if (!shown.length) return nothing(box, "No figures for this choice");
    const scale = control("axis").value === "close" ? CLOSE : PLAIN;
    const least = Math.max(0, Math.min(...shown.map((p) => p.recall)) - 0.01);
    const floor = box.height - box.bottom, right = box.width - box.right;
    const x = between(scale.share(least), scale.share(1), box.left + 8, right - 10);
    const logs = shown.map((p) => Math.log10(chart.y(p)));
    const low = Math.min(...logs) - 0.12, high = Math.max(...logs) + 0.12;
    const y = between(low, high, floor, box.top);
    axes(
      box,
      scale.ticks.filter((r) => r >= least).map((r) => [x(scale.share(r)), String(r)]),
      ticksFor(chart.words)(low, high).map((v) => [y(Math.log10(v)), chart.words(v)]), "recall");
    for (const method of data.methods) {
      const mine = shown.filter((p) => p.method === method);
      if (!mine.length) continue;
      const at = (p) => [x(scale.share(p.recall)), y(Math.log10(chart.y(p)))];
      const edge = frontier(mine, chart), group = add(box.svg, "g", { class: colour(method) });
      if (edge.length > 1)
        add(group, "polyline", { class: "curve", points: edge.map((p) => at(p).join()).join(" ") });
      for (const p of mine) {
        const [px, py] = at(p);
        const mark = add(group, "path", {
          class: edge.includes(p) ? "mark" : "mark beaten", d: shape(method), transform: `translate(${px} ${py})` });
        figure.spots.push({ px, py, mark, text: about(p) });
      }
    }
  }

  function about(p) {
    const way = `${p.build},${p.search}`.split(",").filter(Boolean).join(", ") || "no parameters";
    const range = p.recall_low === p.recall_high ? "" : ` (95% ${p.recall_low} to ${p.recall_high})`;
    return `${p.method}\n${way}\nrecall ${p.recall}${range}` + said("distance ratio", p.distance_ratio, String)
      + said(p.batch ? "queries/s" : "rows/s", p.qps, rate)
      + said("p50", p.p50_ms, (v) => seconds(v / 1000)) + said("p99", p.p99_ms, (v) => seconds(v / 1000))
      + said("build", p.build_s, seconds) + said("total for all", p.total_s, seconds)
      + said("load", p.load_s, seconds) + said("peak memory", p.memory, bytes)
      + said("index on disk", p.index_bytes, bytes);
  }

  function drawGrowth(figure) {
    const cost = control("cost").value, words = COSTS[cost], k = Number(control("k").value), box = frame(figure);
    const shown = data.curves.filter((c) => c.k === k && c.cost === cost && !hidden.has(c.method));
    figure.spots = [];
    if (!shown.length) return nothing(box, "No figures for this choice");
    const every = shown.flatMap((c) => [...c.points, ...c.line.map((step) => step.slice(0, 2))]);
    const sizes = [...every.map((p) => Math.log10(p[0])), Math.log10(data.full)];
    const logs = every.map((p) => Math.log10(p[1]));
    const low = Math.min(...logs) - 0.25, high = Math.max(...logs) + 0.35;
    const floor = box.height - box.bottom;
    const x = between(Math.min(...sizes) - 0.05, Math.max(...sizes) + 0.05, box.left, box.width - box.right);
    const y = between(low, high, floor, box.top);
    const at = (n, v) => [x(Math.log10(n)), Math.min(floor, Math.max(box.top, y(Math.log10(v))))];
    axes(
      box, logTicks(Math.min(...sizes) - 0.05, Math.max(...sizes) + 0.05).map((n) => [x(Math.log10(n)), rate(n)]),
      ticksFor(words)(low, high).map((v) => [y(Math.log10(v)), words(v)]), "rows");
    const wall = x(Math.log10(data.full));
    add(box.svg, "line", { class: "full", x1: wall, x2: wall, y1: box.top, y2: floor });
    for (const c of shown) {
      const group = add(box.svg, "g", { class: colour(c.method) });
      const known = c.line.filter((step) => step[2] !== null && step[3] !== null && step[2] > 0);
      if (known.length) {
        const edge = [...known.map((s) => at(s[0], s[3])), ...[...known].reverse().map((s) => at(s[0], s[2]))];
        add(group, "polygon", { class: "band", points: edge.map((p) => p.join()).join(" ") });
      }
      if (c.line.length)
        add(group, "polyline", { class: "foretold", points: c.line.map((s) => at(s[0], s[1]).join()).join(" ") });
      for (const [n, value] of c.points) {
        const [px, py] = at(n, value);
        const mark = add(group, "path", { class: "mark", d: shape(c.method), transform: `translate(${px} ${py})` });
        figure.spots.push({ px, py, mark, text: `${c.method}\n${n.toLocaleString("en")} rows: ${words(value)}` });
      }
    }
  }

  // the nearest point tells about itself
  function forget() {
    document.querySelectorAll(".near").forEach((mark) => mark.classList.remove("near"));
    tip.hidden = true;
  }
  function point(figure, event) {
    const svg = figure.querySelector("svg"), place = svg.getBoundingClientRect();
    const grow = svg.viewBox.baseVal.width / place.width;
    const ex = (event.clientX - place.left) * grow, ey = (event.clientY - place.top) * grow;
    let near = null, least = 30 ** 2;
    for (const spot of figure.spots ?? []) {
      const away = (spot.px - ex) ** 2 + (spot.py - ey) ** 2;
      if (away < least) [near, least] = [spot, away];
    }
    forget();
    if (!near) return;
    near.mark.classList.add("near");
    tip.textContent = near.text;
    tip.hidden = false;
    const room = tip.getBoundingClientRect();
    const left = Math.min(event.clientX + 14, innerWidth - room.width - 8);
    const above = event.clientY + 14 + room.height > innerHeight;
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = Math.max(8, above ? event.clientY - room.height - 14 : event.clientY + 14) + "px";
  }

  function draw() {
    forget();
    document.querySelectorAll("figure[data-chart]").forEach((figure) =>
      figure.dataset.chart === "growth" ? drawGrowth(figure) : drawRecall(figure));
    document.querySelectorAll("section[data-k]").forEach((section) => {
      section.hidden = Object.entries(section.dataset).some(([name, value]) => control(name).value !== value);
    });
  }

  function legend() {
    const list = document.querySelector(".legend");
    for (const method of data.methods) {
      const button = list.appendChild(document.createElement("button"));
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      const svg = add(button, "svg", { width: 14, height: 14, viewBox: "-7 -7 14 14", class: colour(method), "aria-hidden": "true" });
      add(svg, "path", { class: "mark", d: shape(method) });
      button.append(method);
      button.addEventListener("click", () => {
        const off = !hidden.delete(method) && hidden.add(method);
        button.setAttribute("aria-pressed", String(!off));
        draw();
      });
    }
  }

  legend();
  document.querySelectorAll("select").forEach((select) => select.addEventListener("change", draw));
  document.querySelectorAll("figure[data-chart]").forEach((figure) => {
    figure.addEventListener("pointermove", (event) => point(figure, event));
    figure.addEventListener("pointerdown", (event) => point(figure, event));
    // a finger that is lifted leaves, too: what it tapped stays until the next tap
    figure.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && forget());
  });
  addEventListener("pointerdown", (event) => event.target.closest("figure[data-chart]") || forget());
  addEventListener("scroll", forget, { passive: true });
  addEventListener("resize", draw);
  draw();
  document.documentElement.dataset.drawn = String(document.querySelectorAll("figure .mark").length);
})();
