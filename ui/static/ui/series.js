/* Charts of what happened over time: uPlot draws what the server has worked out, in the page's colours. */
(() => {
  "use strict";

  const HEIGHT = 170;
  const KINDS = {
    throughput: { colours: ["--ui-line-1", "--ui-line-2", "--ui-bad"], scale: "count" },
    wait: { colours: ["--ui-line-1", "--ui-line-2", "--ui-line-3"], scale: "time" },
    run: { colours: ["--ui-line-1", "--ui-line-2", "--ui-line-3"], scale: "time" },
  };
  const drawn = new Map();
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function read() {
    const element = document.getElementById("series-data");
    return element ? JSON.parse(element.textContent) : null;
  }

  function duration(seconds) {
    if (seconds === null || seconds === undefined) return "";
    if (seconds < 1) return `${Number((seconds * 1000).toPrecision(2))} ms`;
    if (seconds < 120) return `${Number(seconds.toPrecision(2))} s`;
    return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
  }

  function count(value) {
    return value >= 10000 ? `${Number((value / 1000).toPrecision(3))}k` : String(Number(value.toPrecision(3)));
  }

  /* The hands of the clock where the reader is, as ui.js tells times. */
  function clocks(plot, splits) {
    const wide = plot.scales.x.max - plot.scales.x.min > 2 * 86400;
    return splits.map((at) => {
      const text = window.ui.full(new Date(at * 1000));
      return wide ? text.slice(5, 10) : text.slice(11, 16);
    });
  }

  function axes(kind) {
    const told = KINDS[kind].scale === "time" ? duration : count;
    const shared = { stroke: colour("--ui-subtle"), font: "11px system-ui, sans-serif", ticks: { show: false } };
    // Of a logarithmic scale the powers of ten.
    const isTold = (at) => KINDS[kind].scale === "count" || Number.isInteger(Number(Math.log10(at).toFixed(6)));
    const filter = (plot, splits) => splits.map((at) => (isTold(at) ? at : null));
    const grid = { stroke: colour("--ui-grid"), width: 1, filter };
    return [
      { ...shared, grid: { show: false }, values: clocks, size: 24 },
      { ...shared, grid, filter, values: (plot, splits) => splits.map((at) => (at === null ? "" : told(at))), size: 52 },
    ];
  }

  function scales(kind, data) {
    if (KINDS[kind].scale === "count") return { x: { time: true }, y: { range: (plot, low, high) => [0, Math.max(high, 1) * 1.1] } };
    const values = data[kind].flat().filter((value) => value !== null && value > 0);
    const low = Math.min(...values, 1), high = Math.max(...values, low * 10);
    const power = (value, round) => 10 ** round(Math.log10(value));
    return { x: { time: true }, y: { distr: 3, log: 10, range: () => [power(low, Math.floor), power(high, Math.ceil)] } };
  }

  function mark(plot) {
    const marks = plot.marks || [];
    const { ctx, bbox } = plot;
    ctx.save();
    for (const [at, sign] of marks) {
      const x = Math.round(plot.valToPos(at, "x", true));
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.strokeStyle = ctx.fillStyle = colour(sign === "version" ? "--ui-info" : "--ui-warn");
      ctx.setLineDash([4, 4]);
      ctx.beginPath(); ctx.moveTo(x, bbox.top); ctx.lineTo(x, bbox.top + bbox.height); ctx.stroke();
      const foot = bbox.top + bbox.height, size = 5 * devicePixelRatio;
      ctx.beginPath(); ctx.moveTo(x, foot - size * 1.6); ctx.lineTo(x - size, foot); ctx.lineTo(x + size, foot); ctx.fill();
    }
    ctx.restore();
  }

  /* A stretch of time that was dragged over: its jobs. */
  function chosen(plot) {
    if (plot.select.width < 4) return;
    const at = (x) => new Date(Math.round(plot.posToVal(x, "x")) * 1000).toISOString();
    const query = new URLSearchParams(plot.filter);
    query.set("created_after", at(plot.select.left));
    query.set("created_before", at(plot.select.left + plot.select.width));
    window.location.assign(`${plot.explorer}?${query}`);
  }

  function options(kind, data, width) {
    const lines = KINDS[kind].colours.map((name, index) => ({
      stroke: colour(name), width: 1.5, points: { show: data.times.length < 3, size: 4 }, spanGaps: true,
      fill: kind === "throughput" && index === 0 ? `color-mix(in srgb, ${colour(name)} 14%, transparent)` : undefined,
    }));
    return {
      width, height: HEIGHT, padding: [8, 8, 0, 0], legend: { show: false }, axes: axes(kind), scales: scales(kind, data),
      series: [{}, ...lines], cursor: { drag: { x: true, y: false, setScale: false }, sync: { key: "series" }, points: { size: 5 } },
      hooks: { draw: [mark], setSelect: [chosen] },
    };
  }

  function draw() {
    const data = read();
    if (!data || !window.uPlot) return;
    for (const place of document.querySelectorAll("[data-plot]")) {
      const kind = place.dataset.plot;
      drawn.get(kind)?.destroy();
      const plot = new window.uPlot(options(kind, data, place.clientWidth || 300), [data.times, ...data[kind]]);
      plot.marks = data.marks;
      plot.explorer = data.explorer;
      plot.filter = data.filter;
      plot.root.setAttribute("aria-hidden", "true");
      place.replaceChildren(plot.root);
      plot.redraw(false);
      drawn.set(kind, plot);
    }
  }

  const isDragging = () => [...drawn.values()].some((plot) => plot.select.width > 0 && plot.cursor.drag?._x);
  document.addEventListener("htmx:afterSettle", (event) => { if (event.detail.elt.id === "series" && !isDragging()) draw(); });
  document.addEventListener("ui:zone", draw);
  new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["class"] });
  let resized;
  window.addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(draw, 150); });
})();
