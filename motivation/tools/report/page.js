// Draws the charts of the report's page from the JSON in it. Texts out of runs are set as text and never as HTML.
"use strict";

const MOST_MARKED = 150; // updates of which each has a mark
const MOST_SHADED = 4; // updates in a column up to which motivated stretches are shaded over the whole height
const MOST_BOUNDARIES = 60;
const LEAST_SHOWN = 20; // updates
const FAR = 3; // see limits

const byId = (id) => document.getElementById(id);
window.addEventListener("error", (event) => {
  byId("fault").textContent = `The charts could not be drawn: ${event.message}`;
});
document.body.classList.remove("no-script");
const data = JSON.parse(byId("data").textContent);

// ---- elements and numbers

function make(parent, name, attributes = {}, text = "") {
  const isSvg = name === "svg" || parent.namespaceURI.endsWith("svg");
  const made = document.createElementNS(isSvg ? "http://www.w3.org/2000/svg" : parent.namespaceURI, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return parent.appendChild(made);
}

const isNumber = (value) => value !== null && Number.isFinite(value);
const scaled = (values, factor) => values.map((value) => (isNumber(value) ? value * factor : null));
const whole = (value) => Math.round(value).toLocaleString("en");
const plural = (count, word) => `${whole(count)} ${word}${count === 1 ? "" : "s"}`;
const percent = (value) => `${(100 * value).toPrecision(3)} %`;
const signed = (value) => (value < 0 ? "\u2212" : "+") + Math.abs(value).toPrecision(3);
const joined = (parts) => parts.filter(Boolean).join(" \u00b7 ");

function short(value) {
  const size = Math.abs(value);
  return size && (size >= 1e5 || size < 1e-3) ? value.toExponential(1) : String(Number(value.toPrecision(4)));
}

function ticks([low, high], count, { log, integer } = {}) {
  const inside = (values) => values.filter((tick) => tick >= low && tick <= high);
  if (log) {
    const powers = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) powers.push(10 ** power);
    const found = inside(powers.flatMap((power) => (high / low > 1000 ? [power] : [power, 2 * power, 5 * power])));
    if (found.length > 1) return found;
  }
  const least = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(least));
  let step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= 0.999 * least);
  if (integer) step = Math.max(1, step);
  const found = [];
  for (let i = Math.floor(low / step); i * step <= high + step; i++) found.push(Number((i * step).toPrecision(12)));
  return inside(found);
}

// Limits of a y axis that leaves out the few values that lie far from all others; axis_limits in plot/data.py.
function limits(values, log = false) {
  const scale = log ? Math.log10 : (value) => value;
  const shown = values.filter((value) => isNumber(value) && (!log || value > 0)).map(scale).sort((a, b) => a - b);
  if (!shown.length) return log ? [0.1, 1] : [0, 1];
  const at = (part) => shown[Math.round(part * (shown.length - 1))];
  const reach = FAR * (at(0.99) - at(0.01)) || Infinity;
  const kept = shown.filter((value) => value >= at(0.01) - reach && value <= at(0.99) + reach);
  const low = kept[0], high = kept[kept.length - 1];
  const margin = 0.05 * (high - low) || 0.05 * Math.abs(high) || 0.05;
  const ends = [!log && low >= 0 && low < high / 3 ? 0 : low - margin, high + margin];
  return log ? ends.map((end) => 10 ** end) : ends;
}

// ---- a chart: lines over a common x axis, a legend that switches them off, values where the pointer is

const SHAPES = {
  circle: "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0",
  diamond: "m0-4.5l4.5 4.5l-4.5 4.5l-4.5-4.5z",
  open: "m0-7l7 7l-7 7l-7-7z",
  cross: "m-4-4l8 8m0-8l-8 8",
};

// A series has name (and a key, where the name holds numbers that change), x, y, colour and a kind: a line, "marks" alone,
// a "band" from low to high, or a "shade" (legend only).
function drawSeries(parent, series, X, Y) {
  const { x, y, colour, kind = "line" } = series;
  const point = (value, i) => `${X(x[i]).toFixed(1)} ${Y(value).toFixed(1)}`;
  const points = (values) => values.map((value, i) => isNumber(value) && point(value, i)).filter(Boolean);
  if (kind === "shade") make(parent, "rect", { x: 2, y: 1, width: 22, height: 10, fill: colour });
  if (kind === "band") {
    const outline = [...points(series.high), ...points(series.low).reverse()];
    if (outline.length) make(parent, "path", { d: `M${outline.join("L")}Z`, fill: colour, opacity: 0.3 });
  }
  if (kind === "line") {
    const parts = series.hasGaps ? y.map((value, i) => (isNumber(value) ? point(value, i) : null)) : points(y);
    const path = parts.map((part, i) => part && (i && parts[i - 1] ? "L" : "M") + part).filter(Boolean).join("");
    make(parent, "path", {
      d: path, fill: "none", stroke: colour, "stroke-width": series.width || 1.8,
      "stroke-dasharray": series.dash || "none", "stroke-linejoin": "round",
    });
  }
  if (series.mark) {
    const marked = (series.marked || x.map((_, i) => i)).filter((i) => isNumber(y[i]));
    const isOutline = series.mark === "open" || series.mark === "cross";
    make(parent, "path", {
      d: marked.map((i) => `M${point(y[i], i)}${SHAPES[series.mark]}`).join(""), fill: isOutline ? "none" : colour,
      stroke: isOutline ? colour : "var(--page)", "stroke-width": isOutline ? 1.5 : 0.7,
    });
  }
}

function chart(host, spec) {
  host.replaceChildren();
  if (spec.heading) make(host, "h4", {}, spec.heading);
  const hidden = (host.hiddenNames = host.hiddenNames || new Set());
  const legend = make(host, "div", { class: "legend" });
  const readout = make(host, "output", { class: "readout" }, spec.note);
  const width = Math.max(host.clientWidth, 260), height = spec.height || 250;
  const yTicks = ticks(spec.yLimits, 5, { log: spec.log });
  const left = 14 + 7 * Math.max(2, ...yTicks.map((tick) => short(tick).length)), right = width - 12;
  const top = 24, bottom = height - 40;
  const scale = (value) => (spec.log ? Math.log10(Math.max(value, 1e-12)) : value); // a run beside may have losses of 0
  const [x0, x1] = spec.xLimits, [y0, y1] = spec.yLimits.map(scale);
  const X = (value) => left + ((value - x0) / (x1 - x0)) * (right - left);
  const Y = (value) => bottom - ((scale(value) - y0) / (y1 - y0)) * (bottom - top);

  const svg = make(host, "svg", {
    viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0,
    "aria-label": `${spec.label}. The left and right arrow keys read values.`,
  });
  make(svg, "text", { y: 13, class: "title" }, spec.yTitle);
  make(svg, "text", { x: (left + right) / 2, y: height - 5, class: "title", "text-anchor": "middle" }, spec.xTitle);
  for (const tick of yTicks) {
    make(svg, "path", { class: "grid", d: `M${left} ${Y(tick)}H${right}` });
    make(svg, "text", { x: left - 6, y: Y(tick) + 4, "text-anchor": "end" }, short(tick));
  }
  for (const tick of ticks(spec.xLimits, Math.max(2, (right - left) / 90), { integer: true })) {
    const x = Math.min(X(tick), width - 3.6 * whole(tick).length);
    make(svg, "path", { class: "grid", d: `M${X(tick)} ${bottom}v5` });
    make(svg, "text", { x, y: bottom + 18, "text-anchor": "middle" }, whole(tick));
  }
  // marks at the edge are whole
  const area = { x: left - 4, y: top - 4, width: right - left + 8, height: bottom - top + 8 };
  const inside = make(svg, "svg", { ...area, viewBox: Object.values(area).join(" ") });
  if (spec.under) spec.under(inside, { X, top, bottom, hidden });
  for (const series of spec.series) {
    const key = series.key || series.name, isShown = !hidden.has(key);
    const entry = make(legend, "button", { type: "button", "aria-pressed": isShown });
    const sample = { ...series, x: [2, 13, 24], y: [6, 6, 6], low: [1, 1, 1], high: [11, 11, 11], marked: [1] };
    drawSeries(make(entry, "svg", { viewBox: "0 0 26 12", "aria-hidden": true }), sample, (x) => x, (y) => y);
    entry.append(series.name);
    entry.onclick = () => {
      hidden[isShown ? "add" : "delete"](key);
      chart(host, spec);
    };
    if (isShown) drawSeries(inside, series, X, Y);
  }
  const series = spec.series.filter((one) => !hidden.has(one.key || one.name));
  addReading(svg, readout, { ...spec, series }, { X, Y, top, bottom });
  if (spec.onSelect) addSelection(svg, spec.onSelect, { X, top, bottom });
}

// The value of the x axis under the pointer.
function pointed(svg, event, X) {
  const box = svg.getBoundingClientRect(), zero = X(0);
  const x = ((event.clientX - box.left) * svg.viewBox.baseVal.width) / box.width;
  return (x - zero) / (X(1) - zero);
}

function addReading(svg, readout, spec, { X, Y, top, bottom }) {
  const cursor = make(svg, "path", { class: "cursor" });
  const places = spec.places;
  let place = -1;
  const values = (y) => {
    const found = spec.series.map((one) => [one.name, one.y && one.y[one.x.indexOf(places[place])]]);
    const there = found.filter(([, value]) => isNumber(value));
    const far = ([, value]) => Math.abs(Y(value) - y);
    if (y !== null) there.sort((a, b) => far(a) - far(b)).splice(4); // of many lines those at the pointer
    return joined([`epoch ${places[place]}`, ...there.map(([name, value]) => `${name}: ${spec.format(value)}`)]);
  };
  const show = (index, y) => {
    place = Math.min(Math.max(index, 0), places.length - 1);
    cursor.setAttribute("d", `M${X(places[place])} ${top}V${bottom}`);
    readout.textContent = spec.read ? spec.read(place) : values(y);
  };
  svg.addEventListener("pointermove", (event) => {
    const value = pointed(svg, event, X), box = svg.getBoundingClientRect();
    let low = 0, high = places.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (places[middle] > value) high = middle;
      else low = middle;
    }
    show(value - places[low] > places[high] - value ? high : low, event.clientY - box.top);
  });
  svg.addEventListener("pointerleave", () => {
    cursor.removeAttribute("d");
    readout.textContent = spec.note;
  });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show(place < 0 && step < 0 ? places.length - 1 : place + step, null);
  });
}

function addSelection(svg, onSelect, { X, top, bottom }) {
  const selection = make(svg, "rect", { class: "select", y: top, height: bottom - top, width: 0 });
  let from = null;
  const ends = (event) => [from, pointed(svg, event, X)].sort((a, b) => a - b);
  const stop = () => {
    from = null;
    selection.setAttribute("width", 0);
  };
  svg.addEventListener("pointerdown", (event) => {
    from = pointed(svg, event, X);
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    if (from === null) return;
    const [start, end] = ends(event).map(X);
    selection.setAttribute("x", start);
    selection.setAttribute("width", end - start);
  });
  svg.addEventListener("pointerup", (event) => {
    const [start, end] = ends(event);
    stop();
    if (X(end) - X(start) > 8) onSelect(start, end);
  });
  svg.addEventListener("pointercancel", stop);
  svg.addEventListener("dblclick", () => onSelect(0, Infinity));
}

// ---- figures per epoch

function epochChart(id, series, spec) {
  const shown = series.filter((one) => one && one.y.some(isNumber));
  byId(id).parentNode.hidden = !shown.length;
  if (!shown.length) return;
  const xs = shown.flatMap((one) => one.x), ys = shown.flatMap((one) => one.y), lines = spec.lines || [];
  const xLimits = [Math.min(...xs), Math.max(...xs)];
  if (xLimits[0] === xLimits[1]) xLimits[1] += 1;
  const yLimits = spec.yLimits || limits([...ys, ...lines.map((line) => line.y)], spec.log);
  const out = ys.filter((value) => isNumber(value) && (value < yLimits[0] || value > yLimits[1])).length;
  const marked = (one) => ({ mark: one.x.length <= 60 ? "circle" : "", ...one });
  const level = (line) => ({ colour: "var(--text)", width: 1.2, ...line, x: xLimits, y: [line.y, line.y] });
  chart(byId(id), {
    xTitle: "epoch", format: short, places: [...new Set(xs)].sort((a, b) => a - b),
    note: out ? `${plural(out, "value")} outside of the axis` : "", ...spec, xLimits, yLimits,
    series: [...shown.map(marked), ...lines.map(level)],
  });
}

const inPercent = (value) => value.toFixed(2);

function drawCurves() {
  const isShown = data.runs.length > 1 && data.curves.length > 0;
  for (const one of [byId("curves"), document.querySelector("nav a[href='#curves']")]) one.hidden = !isShown;
  if (!isShown) return;
  const series = data.curves.map((curve) => ({
    ...curve, name: curve.name + (curve.runs > 1 ? `, n = ${curve.runs}` : ""), colour: `var(--c${curve.group % 8})`,
    dash: curve.role === "motivated" ? "6 3" : curve.group > 7 ? "2 2" : "", width: 1.6,
    mark: curve.x.length > 2 ? "" : "circle",
  }));
  epochChart("curves-chart", series, {
    height: 340, yTitle: "validation top-1 accuracy (%)", yLimits: data.limits, format: inPercent,
    label: "Accuracy of each configuration over the epochs",
  });
}

function drawEpochs(run, beside) {
  const own = run.epochs, base = run.motivated ? `${run.base}, base` : run.base;
  const both = (name) => {
    const alike = [run, beside].filter((one) => one && (name === "accuracy" || one.log === run.log));
    const all = alike.map((one) => one.limits[name]).filter(Boolean);
    return all.length ? [Math.min(...all.map((one) => one[0])), Math.max(...all.map((one) => one[1]))] : null;
  };
  const line = (name, column, colour, dash) => (
    own[column] && { name, x: own.x, y: own[column], colour: `var(--${colour})`, dash }
  );
  const other = (column, text) => beside && {
    name: `beside: ${beside.name}${text}`, x: beside.epochs.x, y: beside.epochs[column],
    colour: "var(--beside)", dash: "5 3",
  };
  epochChart("accuracy-chart", [
    line(base, "base", "base"), line(`${run.motivated}, motivated`, "motivated", "motivated"), other("base", ""),
  ], {
    yTitle: `validation ${run.metric} accuracy (%)`, yLimits: both("accuracy"), format: inPercent,
    label: `Accuracy of ${run.name} over the epochs`,
  });
  epochChart("losses-chart", [
    line("training", "train_loss", "cost", "2 2"), line(`validation, ${base}`, "base_loss", "base"),
    line(`validation, ${run.motivated}`, "motivated_loss", "motivated"), other("base_loss", ", validation"),
  ], {
    yTitle: `loss (nats)${run.log ? ", log scale" : ""}`, yLimits: both("loss"), log: run.log,
    label: `Losses of ${run.name} over the epochs`,
  });
  const share = { name: "share of the epoch", x: run.share.x, y: scaled(run.share.y, 100), colour: "var(--motivated)" };
  epochChart("share-chart", [run.motivated && share], {
    yTitle: "share of motivated updates (%)", label: `Share of motivated updates in each epoch of ${run.name}`,
    lines: isNumber(run.expected)
      ? [{ y: 100 * run.expected, dash: "5 3", name: `${percent(run.expected)} expected, if losses were independent` }]
      : [],
  });
  const largest = Math.max(1, ...[...own.cost, ...Object.values(run.flops)].filter(isNumber));
  const [unit, scale] = [["G", 1e9], ["M", 1e6], ["k", 1e3], ["", 1]].find(([, size]) => largest >= size);
  const cost = line("F_avg, average since the point before", "cost", "cost");
  epochChart("cost-chart", [run.motivated && { ...cost, y: scaled(cost.y, 1 / scale) }], {
    yTitle: `forward pass of one image (${unit} ${run.convention})`, label: `Average cost of each epoch of ${run.name}`,
    lines: Object.entries(run.flops).map(([role, flops]) => (
      { y: flops / scale, dash: role === "base" ? "2 2" : "7 3", name: `${run[role]} alone` }
    )),
  });
}

// ---- the loss of the updates

const state = { run: 0, beside: -1, from: 0, to: Infinity };

// The points of a run: lowest, mean and highest loss, and share, of ``width`` updates each.
function pointsOf(loss) {
  if (!loss.points) {
    const share = loss.share || new Array(loss.mean.length).fill(0);
    const stretches = loss.motivated || [];
    for (let i = 0; i < stretches.length; i += 2) share.fill(1, stretches[i], stretches[i + 1]);
    loss.points = { low: loss.low || loss.mean, mean: loss.mean, high: loss.high || loss.mean, share };
  }
  return loss.points;
}

// At most ``most`` columns of equally many points each, from one update to before another.
function columnsOf(loss, from, to, most) {
  const points = pointsOf(loss), count = points.mean.length, columns = [];
  const first = Math.floor(from / loss.width), last = Math.min(count, Math.ceil(to / loss.width));
  const group = Math.max(1, Math.ceil((last - first) / most));
  for (let i = Math.floor(first / group) * group; i < last; i += group) {
    const stop = Math.min(i + group, count), start = i * loss.width, end = Math.min(stop * loss.width, loss.count);
    const finite = (name) => points[name].slice(i, stop).filter(isNumber), means = finite("mean");
    const sum = (values) => values.reduce((a, b) => a + b, 0);
    columns.push({
      start, end, x: (start + end - 1) / 2, share: sum(points.share.slice(i, stop)) / (stop - i),
      low: means.length ? Math.min(...finite("low")) : null, mean: means.length ? sum(means) / means.length : null,
      high: means.length ? Math.max(...finite("high")) : null,
    });
  }
  return { per: group * loss.width, columns };
}

function runningMean(values, width) {
  return values.map((_, i) => {
    const near = values.slice(Math.max(0, i - (width >> 1)), i + ((width + 1) >> 1)).filter(isNumber);
    return near.length ? near.reduce((a, b) => a + b, 0) / near.length : null;
  });
}

// The width of a running mean that leaves about 60 independent points: default_smoothing in plot/data.py.
function smoothing(count) {
  const width = Math.max(count / 60, 1), power = 10 ** Math.floor(Math.log10(width));
  return Math.max(...[1, 2, 5].filter((step) => step * power <= width)) * power;
}

function drawLosses() {
  const run = data.runs[state.run];
  const panels = [run, data.runs[state.beside]].filter((one) => one && one.loss);
  for (const id of ["zoom", "loss-chart"]) byId(id).hidden = !run.loss;
  byId("loss-beside").hidden = !run.loss || panels.length < 2;
  byId("loss-note").textContent = run.fault;
  byId("falls").textContent = "";
  if (!run.loss) return;
  const longest = Math.max(...panels.map((one) => one.loss.count)), least = Math.min(LEAST_SHOWN, longest);
  const size = Math.round(Math.min(Math.max(state.to - state.from, least), longest));
  state.from = Math.min(Math.max(0, Math.round(state.from)), longest - size);
  state.to = state.from + size;
  byId("from").value = size < longest ? (1000 * state.from) / (longest - size) : 0;
  byId("span").value = longest > least ? (1000 * Math.log(size / least)) / Math.log(longest / least) : 1000;
  const log = panels.some((one) => one.loss.log), most = Math.max(100, byId("loss-chart").clientWidth - 60);
  const found = panels.map((one) => columnsOf(one.loss, state.from, state.to, most));
  const yLimits = limits(found.flatMap((one) => one.columns.flatMap(({ low, high }) => [low, high])), log);
  const hosts = [byId("loss-chart"), byId("loss-beside")];
  panels.forEach((one, i) => lossChart(hosts[i], one, found[i], { yLimits, log, isNamed: panels.length > 1 }));
  const rises = panels.filter((one) => one.loss.falls[run.k] && isNumber(one.loss.falls[run.k].rise)).map((one) => (
    `${signed(one.loss.falls[run.k].rise)} in ${one.name}${one.motivated ? "" : ", where nobody switches"}`
  ));
  if (run.k) {
    byId("falls").textContent = byId("falls").dataset.text + (rises.length
      ? ` Mean change of the loss at the update after ${run.k} falls in a row: ${rises.join("; ")}.` : "");
  }
}

function lossChart(host, run, { per, columns }, { yLimits, log, isNamed }) {
  const loss = run.loss;
  if (!columns.length) {
    host.replaceChildren();
    make(host, "p", { class: "soft" }, `${run.name} has ${plural(loss.count, "update")}, and none here.`);
    return;
  }
  const column = (name) => columns.map((one) => one[name]), line = { x: column("x"), y: column("mean"), hasGaps: true };
  const shown = columns[columns.length - 1].end - columns[0].start, series = [];
  const numbers = (chosen) => columns.map((one, i) => (chosen(one) ? i : -1)).filter((i) => i >= 0);
  if (per === 1 && columns.length <= MOST_MARKED) {
    const name = run.motivated ? "loss, the base trains" : "loss of each update";
    const k = data.runs[state.run].k || Object.keys(loss.falls)[0];
    const after = new Set(!run.motivated && loss.falls[k] ? loss.falls[k].after : []);
    const places = numbers((one) => after.has(one.start));
    const marked = numbers((one) => !one.share);
    series.push({ ...line, name, colour: "var(--base)", width: 1, mark: "circle", marked });
    if (run.motivated) {
      const motivated = { kind: "marks", mark: "diamond", marked: numbers((one) => one.share) };
      series.push({ ...line, ...motivated, name: "loss, the motivated model trains", colour: "var(--motivated)" });
    }
    if (places.length) {
      const text = `after ${k} falls in a row, where a motivated run would switch`;
      series.push({ ...line, kind: "marks", mark: "open", marked: places, name: text, colour: "var(--text)" });
    }
  } else {
    const steps = Math.max(1, Math.round(smoothing(shown) / per));
    const band = { kind: "band", low: column("low"), high: column("high") };
    const text = per > 1 ? `lowest to highest loss of ${whole(per)} updates` : "loss of each update";
    series.push({ ...line, name: text, colour: "var(--soft)", width: 0.7, ...(per > 1 ? band : {}) });
    const name = `running mean over ${plural(steps * per, "update")}`;
    series.push({ ...line, y: runningMean(line.y, steps), name, key: "running mean", colour: "var(--base)" });
  }
  const shares = column("share").filter((value) => value > 0).sort((a, b) => a - b);
  const darkest = shares[Math.floor(0.98 * (shares.length - 1))] || 1;
  if (run.motivated) {
    const count = columns.reduce((sum, one) => sum + one.share * (one.end - one.start), 0);
    const depth = per > 1 && shares.length ? `, darkest: ${percent(darkest)} or more of ${whole(per)} updates` : "";
    const name = `motivated: ${whole(count)} of ${plural(shown, "update")} (${percent(count / shown)})${depth}`;
    series.push({ kind: "shade", key: "motivated", colour: "var(--shade)", name });
  }
  const bad = loss.bad.map((i) => i * loss.width).filter((update) => update >= state.from && update < state.to);
  if (bad.length) {
    const name = `not finite, at ${plural(bad.length, "place")}`;
    const edge = { kind: "marks", mark: "cross", x: bad, y: bad.map(() => yLimits[1]) };
    series.push({ ...edge, name, colour: "var(--text)" });
  }
  const out = columns.filter((one) => isNumber(one.low) && (one.high > yLimits[1] || one.low < yLimits[0])).length;
  const starts = loss.epochs.filter(([, first]) => first >= state.from && first < state.to);
  const boundaries = starts.length <= MOST_BOUNDARIES ? starts : [];
  const depthOf = (one) => Math.ceil(10 * Math.min(1, one.share / darkest)) / 10;
  chart(host, {
    heading: isNamed ? run.name : "", label: `${loss.name} of the updates of ${run.name}`, height: 290,
    series, log, yLimits, xLimits: [state.from - 0.5, state.to - 0.5], places: line.x, onSelect: zoomTo,
    yTitle: loss.name + (log ? ", log scale" : ""),
    xTitle: `update${boundaries.length ? " (dotted: an epoch begins)" : ""}`,
    note: joined([
      loss.width > 1 && `A long run: the page has lowest, mean and highest loss of ${whole(loss.width)} updates each.`,
      out && `${plural(out, "point")} beyond the axis.`, "Drag over the chart to zoom, double-click for the whole run.",
    ]),
    read: (i) => {
      const { start, end, low, mean, high, share } = columns[i];
      const [epoch, first] = loss.epochs.filter((one) => one[1] <= start).pop();
      const value = isNumber(mean) ? short(mean) : "not finite";
      if (per === 1) {
        const who = run.motivated ? `, the ${share ? "motivated model" : "base"} trains` : "";
        return `epoch ${epoch}, update ${whole(start - first)} of it, ${whole(start)} of the run: loss ${value}${who}`;
      }
      const range = isNumber(mean) ? ` on average, from ${short(low)} to ${short(high)}` : "";
      const part = run.motivated ? `, share ${percent(share)}` : "";
      return `epoch ${epoch}, updates ${whole(start)} to ${whole(end - 1)}: loss ${value}${range}${part}`;
    },
    under: (parent, { X, top, bottom, hidden }) => {
      const isShaded = series.some((one) => one.kind === "shade" && !hidden.has(one.key));
      const height = per > MOST_SHADED ? 14 : bottom - top;
      for (let i = 0, stop; i < columns.length; i = stop) {
        const opacity = depthOf(columns[i]), x = X(columns[i].start - 0.5);
        for (stop = i + 1; stop < columns.length && depthOf(columns[stop]) === opacity; ) stop++;
        const width = X(columns[stop - 1].end - 0.5) - x;
        if (opacity && isShaded) make(parent, "rect", { class: "motivated", x, y: top, width, height, opacity });
      }
      for (const [, first] of boundaries) {
        make(parent, "path", { class: "epoch", d: `M${X(first - 0.5)} ${top}V${bottom}` });
      }
    },
  });
}

function zoomTo(from, to) {
  Object.assign(state, { from, to });
  drawLosses();
}

// ---- which run, and where in it; #run=1&beside=0&updates=100-200 says so, too

function drawRun() {
  drawLosses();
  drawEpochs(data.runs[state.run], data.runs[state.beside]);
}

function choose(run, beside = data.runs[run].beside) {
  Object.assign(state, { run, beside: beside === null || beside === run ? -1 : beside, from: 0, to: Infinity });
  byId("run").value = run;
  byId("beside").value = state.beside;
  drawRun();
}

function followLink() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const number = (name) => (asked.has(name) ? Number(asked.get(name)) : undefined);
  if (!data.runs[number("run")]) return;
  choose(number("run"), number("beside"));
  const [from, to] = (asked.get("updates") || "").split("-").map(Number);
  if (to > from) zoomTo(from, to + 1);
  byId("one").scrollIntoView();
}

function connect() {
  make(byId("beside"), "option", { value: -1 }, "none");
  data.runs.forEach((run, i) => {
    for (const id of ["run", "beside"]) make(byId(id), "option", { value: i }, `${run.name}: ${run.title}`);
  });
  byId("beside").parentNode.hidden = data.runs.length < 2;
  byId("run").onchange = () => choose(Number(byId("run").value));
  byId("beside").onchange = () => choose(state.run, Number(byId("beside").value));
  const zoomBy = (factor) => {
    const middle = (state.from + state.to) / 2, half = (factor * (state.to - state.from)) / 2;
    zoomTo(middle - half, middle + half);
  };
  byId("all").onclick = () => zoomTo(0, Infinity);
  byId("in").onclick = () => zoomBy(0.5);
  byId("out").onclick = () => zoomBy(2);
  const longest = () => Math.max(...[state.run, state.beside].map((i) => data.runs[i]?.loss?.count || 0));
  byId("from").oninput = () => {
    const size = state.to - state.from, from = (byId("from").value / 1000) * (longest() - size);
    zoomTo(from, from + size);
  };
  byId("span").oninput = () => {
    zoomTo(state.from, state.from + LEAST_SHOWN * (longest() / LEAST_SHOWN) ** (byId("span").value / 1000));
  };
  window.addEventListener("hashchange", followLink);
  let lastWidth = document.body.clientWidth;
  window.addEventListener("resize", () => {
    if (document.body.clientWidth === lastWidth) return;
    lastWidth = document.body.clientWidth;
    drawCurves();
    drawRun();
  });
}

connect();
drawCurves();
choose(Math.max(0, data.runs.findIndex((run) => run.motivated)));
followLink();
document.documentElement.dataset.drawn = "yes";
