"use strict";
// Drawing: curves over time as SVG whose x axis counts frames, stretched to whatever width the page has.

const SVG = "http://www.w3.org/2000/svg";

/** Append a new SVG element to `parent`. */
const draw = (parent, name, attributes) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
};

/** Empty chart of `frames` by 100 units. */
const addChart = (parent, className, frames) =>
  draw(parent, "svg", { class: className, viewBox: `0 0 ${frames} 100`, preserveAspectRatio: "none", "aria-hidden": "true" });

/** Points at the middles of buckets; what was not measured (null) is left out. */
const curve = (values, bucket, frames, height) =>
  values.flatMap((value, index) => {
    if (value === null) return [];
    const middle = (index * bucket + Math.min((index + 1) * bucket, frames)) / 2;
    return [`${middle} ${height(value).toFixed(2)}`];
  });

/** One lane of the timeline: for each series a line, or a band from its least to its greatest values; dots at `marked` frames. */
const drawLane = (holder, lane, bucket, frames, marked) => {
  const [bottom, top] = lane.scale;
  const still = lane.ideal === 1 ? 3 : 97; // at its ideal all the time
  const height = (value) => (top > bottom ? 97 - (94 * (value - bottom)) / (top - bottom) : still);
  const svg = addChart(holder, "lane-chart", frames);
  lane.series.forEach((series) => {
    const highs = curve(series.high || series.low, bucket, frames, height);
    const lows = series.high ? curve(series.low, bucket, frames, height).reverse() : [];
    if (lane.series.length === 1) {
      // Filled towards the ideal value: the more colour, the less stable.
      const ideal = lane.ideal === 1 ? 0 : 100;
      const edge = lane.ideal === 1 && lows.length ? lows.slice().reverse() : highs;
      const x = (point) => point.split(" ")[0];
      draw(svg, "path", { class: "area", d: `M${x(edge[0])} ${ideal}L${edge.join("L")}L${x(edge[edge.length - 1])} ${ideal}Z` });
    }
    draw(svg, "path", { class: `line ${lows.length ? "band " : ""}series-${series.name}`, d: `M${[...highs, ...lows].join("L")}${lows.length ? "Z" : ""}` });
  });
  // A line of no length with round ends is a dot, whatever the stretching of the chart.
  if (marked.length) draw(svg, "path", { class: "marks", d: marked.map((frame) => `M${frame + 0.5} 3h0`).join("") });
};

/** Marks at the buckets that hold a keyframe. */
const drawKeyframes = (holder, buckets, bucket, frames) => {
  const svg = addChart(holder, "keyframes", frames);
  const path = buckets.map((index) => `M${Math.min(index * bucket + bucket / 2, frames)} 0V100`).join("");
  const isDense = () => svg.classList.toggle("dense", svg.clientWidth / Math.max(1, buckets.length) < 4);
  draw(svg, "path", { class: "ticks", d: path });
  new ResizeObserver(isDense).observe(svg);
};

/** Class shares as areas on top of each other; the least of them share a gray one. */
const drawShares = (holder, shares, colours, frames) => {
  const svg = addChart(holder, "shares-chart", frames);
  const { values, bucket, drawn } = shares;
  const length = values[0].length;
  const areas = values.slice(0, drawn);
  if (values.length > drawn) {
    areas.push(values[0].map((_, at) => values.slice(drawn).reduce((sum, series) => sum + series[at], 0)));
  }
  const height = (share) => 100 - 100 * share;
  const outline = (level) => [
    `0 ${height(level[0]).toFixed(2)}`,
    ...curve(level, bucket, frames, height),
    `${frames} ${height(level[length - 1]).toFixed(2)}`,
  ];
  let floor = new Array(length).fill(0);
  areas.forEach((series, index) => {
    const top = series.map((share, at) => floor[at] + share);
    const d = `M${outline(top).join("L")}L${outline(floor).reverse().join("L")}Z`;
    draw(svg, "path", { class: "share", fill: index < drawn ? colours[index] : "gray", d });
    floor = top;
  });
};

/** Times at round numbers below the charts. */
const drawAxis = (holder, seconds, clock) => {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000];
  const fill = () => {
    const room = Math.max(2, Math.floor(holder.clientWidth / 90));
    const step = steps.find((size) => seconds / size <= room) || 36000;
    const labels = [];
    for (let at = 0; at <= seconds * 0.97; at += step) {
      const label = document.createElement("span");
      label.textContent = clock(at, step < 1 ? 1 : 0);
      label.style.left = `${(100 * at) / seconds}%`;
      labels.push(label);
    }
    holder.replaceChildren(...labels);
  };
  new ResizeObserver(fill).observe(holder);
};
