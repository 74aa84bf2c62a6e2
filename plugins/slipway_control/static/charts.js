// Charts with uPlot, in the page's own colours: quality and drift over time, and both slots of a running rollout.

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const palette = ["#4878d0", "#d1731b", "#3f9150", "#b8498f", "#7f62c7", "#8a6a3b", "#4e9aa8", "#6f7b88"];
const made = new Map();

const clock = (parts) => new Intl.DateTimeFormat(undefined, { hourCycle: "h23", ...parts });
const forms = [[86400, clock({ month: "short", day: "numeric" })], [60, clock({ hour: "2-digit", minute: "2-digit" })], [0, clock({ hour: "2-digit", minute: "2-digit", second: "2-digit" })]];
const whole = clock({ month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" });
const ticks = (_, splits, axis, space, step) => { const form = forms.find(([size]) => step >= size)[1]; return splits.map((at) => form.format(new Date(at * 1000))); };

const axes = () => {
  const common = { stroke: css("--muted"), grid: { stroke: css("--line-soft"), width: 1 }, ticks: { stroke: css("--line"), width: 1, size: 4 }, font: "12px system-ui, sans-serif" };
  return [{ ...common, space: 80, values: ticks }, { ...common, size: 52 }];
};
const draw = (element, options, data, key) => {
  const before = made.get(element.id);
  if (before && before.key === key && before.theme === document.documentElement.dataset.theme && element.contains(before.plot.root)) {
    before.plot.setData(data);
    return;
  }
  before?.plot.destroy();
  const height = element.classList.contains("small") ? 130 : 180;
  // The legend shows the newest values while no pointer chooses others.
  const newest = (plot) => { if (plot.cursor.idx === null || plot.cursor.idx === undefined) plot.setLegend({ idx: plot.data[0].length - 1 }, false); };
  options.series[0] = { value: (_, at) => (at ? whole.format(new Date(at * 1000)) : "–"), label: "time" };
  const plot = new uPlot({ width: element.clientWidth || 300, height, axes: axes(), cursor: { y: false }, hooks: { setCursor: [newest], setData: [newest], ready: [newest] }, ...options }, data, element);
  made.set(element.id, { plot, key, theme: document.documentElement.dataset.theme });
};
const read = (id) => { const found = document.getElementById(id); return found ? JSON.parse(found.textContent) : null; };
const digits = (value) => (value === null || value === undefined ? "–" : Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3));

// A model's line is drawn per champion: another champion is another line's beginning.
const quality = (element, found) => {
  const band = css("--spark");
  const points = { show: true, size: 5 };
  const value = (_, v) => digits(v);
  draw(element, {
    scales: { x: { time: true } },
    series: [{}, { label: found.metric, stroke: css("--accent"), width: 2, points, value }, { label: "surely no better than", stroke: band, width: 1, points: { show: false }, value }, { label: "at release", stroke: css("--muted"), dash: [5, 4], width: 1.5, points: { show: false }, value }],
    bands: [{ series: [1, 2], fill: `${band}22` }, { series: [2, 1], fill: `${band}22` }],
  }, [found.x, found.value, found.best, found.baseline], `quality-${found.x.length}`);
};

const drift = (element, found) => {
  const limit = found.x.map(() => 1);
  const lines = found.series.map((one, index) => ({ label: one.name, stroke: palette[index % palette.length], width: 1.6, dash: index >= palette.length ? [4, 3] : undefined, points: { show: found.x.length < 30, size: 4 }, value: (_, v) => (v === null || v === undefined ? "–" : `${Math.round(v * 100)} %`) }));
  draw(element, {
    scales: { x: { time: true }, y: { range: (_, low, high) => [0, Math.max(1.25, high * 1.08)] } },
    series: [{}, { label: "threshold", stroke: css("--bad"), dash: [6, 4], width: 1.5, points: { show: false }, value: () => "100 %" }, ...lines],
  }, [found.x, limit, ...found.series.map((one) => one.values)], `drift-${lines.length}`);
};

// The counters as they stand; what is drawn is their difference between two looks.
const looks = [];
const look = () => {
  const sides = [...document.querySelectorAll("[data-side]")];
  if (!sides.length) return;
  const now = { at: Date.now() / 1000 };
  for (const side of sides) now[side.dataset.side] = { requests: side.dataset.requests === "" ? null : Number(side.dataset.requests), p99: side.dataset.p99 === "" ? null : Number(side.dataset.p99) };
  looks.push(now);
  if (looks.length > 300) looks.shift();
};
const rate = (side, index) => {
  const [now, then] = [looks[index][side], looks[index - 1][side]];
  if (!now || !then || now.requests === null || then.requests === null || now.requests < then.requests) return null;
  return (now.requests - then.requests) / (looks[index].at - looks[index - 1].at);
};
const live = (element) => {
  const slots = Object.fromEntries([...document.querySelectorAll("[data-side]")].map((side) => [side.dataset.side, side.querySelector(".slot").textContent.trim()]));
  const names = ["new", "old"].filter((side) => side in slots);
  const kind = element.dataset.live;
  const from = kind === "requests" ? 1 : 0;
  const x = looks.slice(from).map((one) => one.at);
  const columns = names.map((side) => looks.map((one, index) => (index < from ? null : kind === "requests" ? rate(side, index) : one[side]?.p99 ?? null)).slice(from));
  const value = (_, v) => digits(v);
  draw(element, {
    scales: { x: { time: true, range: () => [Date.now() / 1000 - 90, Date.now() / 1000] }, y: { range: (_, low, high) => [0, Math.max(high * 1.15, 1)] } },
    series: [{}, ...names.map((side) => ({ label: `${slots[side]} (${side === "new" ? "challenger" : "champion"})`, stroke: css(`--slot-${slots[side]}`), width: 2, dash: side === "old" ? [6, 3] : undefined, value, points: { show: x.length < 3 } }))],
  }, [x, ...columns], `${kind}-${names.join()}`);
};

const update = () => {
  look();
  for (const element of document.querySelectorAll("[data-chart]")) {
    const found = read(`data-${element.dataset.chart}`);
    if (found) ({ quality, drift })[element.dataset.chart](element, found);
  }
  for (const element of document.querySelectorAll("[data-live]")) live(element);
};
const sizes = new ResizeObserver(() => { for (const [id, { plot }] of made) { const element = document.getElementById(id); if (element && element.clientWidth !== plot.width) plot.setSize({ width: element.clientWidth, height: plot.height }); } });

update();
sizes.observe(document.getElementById("page"));
addEventListener("slipway-updated", update);
addEventListener("slipway-theme", update);
