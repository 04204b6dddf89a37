/* Graphs of work: dagre says where the nodes go, and they are drawn here as SVG. The data is in a JSON
   block within each .ui-graph; the list beside it says the same to whoever runs no script. */
(() => {
  "use strict";

  const SVG = "http://www.w3.org/2000/svg";
  const WIDTH = 184, HEIGHT = 50, PAD = 12;
  // The same shapes as before the words of states elsewhere, see ui.css.
  const SHAPES = {
    running: "▶", live: "▶", succeeded: "✓", failed: "✕", lost: "✕", timeout: "✕", dead: "✕",
    cancelled: "–", skipped: "–", closed: "–", scheduled: "◷", waiting: "◷", blocked: "■", paused: "❚❚",
  };
  // By the shape of a graph: a new state moves no node.
  const layouts = new Map();
  // Where each graph was scrolled to when its part of the page was taken away.
  const places = new Map();
  const ruler = document.createElement("canvas").getContext("2d");

  function made(name, attributes = {}, text = null) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== null) element.textContent = text;
    return element;
  }

  function laidOut(drawn) {
    const shape = JSON.stringify([drawn.nodes.map((node) => node.key), drawn.edges]);
    let found = layouts.get(shape);
    if (!found) {
      const graph = new window.dagre.graphlib.Graph();
      graph.setGraph({ rankdir: "LR", nodesep: 18, ranksep: 44, marginx: PAD, marginy: PAD });
      graph.setDefaultEdgeLabel(() => ({}));
      for (const node of drawn.nodes) graph.setNode(node.key, { width: WIDTH, height: HEIGHT });
      for (const edge of drawn.edges) graph.setEdge(edge.from, edge.to);
      window.dagre.layout(graph);
      const { width, height } = graph.graph();
      found = {
        width, height,
        nodes: new Map(drawn.nodes.map((node) => [node.key, graph.node(node.key)])),
        edges: drawn.edges.map((edge) => {
          // From the side of one box to the side of the next, and not from corner to corner.
          const from = graph.node(edge.from), to = graph.node(edge.to);
          const between = graph.edge(edge.from, edge.to).points.slice(1, -1);
          return [{ x: from.x + WIDTH / 2, y: from.y }, ...between, { x: to.x - WIDTH / 2, y: to.y }];
        }),
      };
      if (layouts.size > 8) layouts.clear();
      layouts.set(shape, found);
    }
    return found;
  }

  function fitting(text, width, font) {
    ruler.font = font;
    if (ruler.measureText(text).width <= width) return text;
    const letters = [...text];
    while (letters.length && ruler.measureText(`${letters.join("")}…`).width > width) letters.pop();
    return `${letters.join("")}…`;
  }

  function line(points) {
    // Straight at both ends, rounded where it turns.
    const [first, ...rest] = points.map(({ x, y }) => ({ x: x.toFixed(1), y: y.toFixed(1) }));
    const last = rest.pop();
    let path = `M${first.x},${first.y}`;
    rest.forEach((point, index) => {
      const next = rest[index + 1] || last;
      const to = { x: (Number(point.x) + Number(next.x)) / 2, y: (Number(point.y) + Number(next.y)) / 2 };
      path += ` Q${point.x},${point.y} ${to.x.toFixed(1)},${to.y.toFixed(1)}`;
    });
    return `${path} L${last.x},${last.y}`;
  }

  function box(node, place, family) {
    const says = [node.label, node.state, node.note].filter(Boolean).join(", ");
    const isLink = Boolean(node.url && node.url.startsWith("/"));
    const group = made(isLink ? "a" : "g", { class: `ui-graph-node ui-graph-${node.state || "plain"}` });
    if (isLink) group.setAttribute("href", node.url);
    // A link is called what is written in it.
    if (!isLink) { group.setAttribute("aria-label", says); group.setAttribute("role", "img"); }
    const left = place.x - WIDTH / 2, top = place.y - HEIGHT / 2;
    group.append(
      made("title", {}, says),
      made("rect", { x: left, y: top, width: WIDTH, height: HEIGHT, rx: 8 }),
      made("text", { x: left + 12, y: top + 20, class: "ui-graph-label" },
        fitting(node.label, WIDTH - 24, `600 13px ${family}`)),
    );
    const word = node.state ? `${SHAPES[node.state] || "●"} ${node.state}` : "";
    const second = made("text", { x: left + 12, y: top + 38, class: "ui-graph-second" });
    if (word) second.append(made("tspan", { class: "ui-graph-state" }, word));
    if (node.note) {
      ruler.font = `12px ${family}`;
      const room = WIDTH - 24 - (word ? ruler.measureText(`${word}  `).width : 0);
      second.append(made("tspan", {}, `${word ? "  " : ""}${fitting(node.note, room, ruler.font)}`));
    }
    group.append(second);
    return group;
  }

  function draw(place) {
    const name = place.dataset.graph;
    const drawn = JSON.parse(document.getElementById(name).textContent);
    const found = laidOut(drawn);
    const family = getComputedStyle(place).fontFamily;
    const svg = made("svg", { width: found.width, height: found.height, viewBox: `0 0 ${found.width} ${found.height}` });
    const tip = made("marker", {
      id: `${name}-tip`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto",
    });
    tip.append(made("path", { d: "M0,0 L8,4 L0,8 z", class: "ui-graph-tip" }));
    const definitions = made("defs");
    definitions.append(tip);
    svg.append(definitions);
    drawn.edges.forEach((edge, index) => {
      const kind = edge.is_lenient ? "ui-graph-edge ui-graph-lenient" : "ui-graph-edge";
      svg.append(made("path", { d: line(found.edges[index]), class: kind, "marker-end": `url(#${name}-tip)` }));
    });
    for (const node of drawn.nodes) svg.append(box(node, found.nodes.get(node.key), family));
    place.querySelector("svg")?.remove();
    place.append(svg);
    place.hidden = false;
    const [left, top] = places.get(name) || [0, 0];
    place.scrollTo(left, top);
  }

  function drawAll() {
    for (const place of document.querySelectorAll(".ui-graph")) if (!place.querySelector("svg")) draw(place);
  }

  document.addEventListener("htmx:beforeSwap", () => {
    for (const place of document.querySelectorAll(".ui-graph")) places.set(place.dataset.graph, [place.scrollLeft, place.scrollTop]);
  });
  document.addEventListener("htmx:afterSwap", drawAll);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", drawAll);
  else drawAll();
})();
