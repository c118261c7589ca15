"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  if (!data || !data.frames) return;
  const SVG = "http://www.w3.org/2000/svg";
  const last = data.frames - 1;
  const byId = (id) => document.getElementById(id);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  // ---------------------------------------------------------------- text

  const percent = (share, digits = 2) => `${(100 * share).toFixed(digits)} %`;
  const clock = (seconds) => {
    const hundredths = Math.round(seconds * 100);
    const minutes = Math.floor(hundredths / 6000);
    const rest = String(hundredths % 6000).padStart(4, "0");
    return `${minutes}:${rest.slice(0, 2)}.${rest.slice(2)}`;
  };
  const range = (low, high) =>
    low === null ? "–" : high === null || high === low ? percent(low) : `${percent(low)} to ${percent(high)}`;

  // ---------------------------------------------------------------- drawing

  const element = (name, attributes, parent) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    parent.append(made);
    return made;
  };
  const chart = (parent, className) =>
    element("svg", { class: className, viewBox: `0 0 ${data.frames} 100`, preserveAspectRatio: "none", "aria-hidden": "true" }, parent);

  /** Points at the middles of buckets; what was not measured is left out. */
  const points = (values, bucket, height) => {
    const found = [];
    values.forEach((value, index) => {
      if (value === null) return;
      const end = Math.min((index + 1) * bucket, data.frames);
      found.push(`${((index * bucket + end) / 2).toFixed(1)} ${height(value).toFixed(2)}`);
    });
    return found;
  };

  const drawLane = (lane) => {
    const holder = document.querySelector(`[data-lane="${lane.key}"]`);
    const measured = lane.series.flatMap((series) => [...series.low, ...(series.high || [])]).filter((v) => v !== null);
    const low = measured.reduce((a, b) => Math.min(a, b));
    const high = measured.reduce((a, b) => Math.max(a, b));
    const height = (value) => (high > low ? 96 - (92 * (value - low)) / (high - low) : 50);
    const svg = chart(holder, "lane-chart");
    lane.series.forEach((series, number) => {
      const up = points(series.high || series.low, data.bucket, height);
      const down = points(series.low, data.bucket, height).reverse();
      const floor = `L${data.frames} 100 0 100Z`;
      element("path", { class: `area series-${number}`, d: `M0 100 L${up.join(" ")} ${floor}` }, svg);
      element("path", { class: `line series-${number}`, d: `M${up.join(" L")} L${down.join(" L")}` }, svg);
    });
  };

  const drawKeyframes = () => {
    const svg = chart(byId("scrubber"), "keyframes");
    const ticks = data.keyframes.map((bucket) => `M${bucket * data.bucket + 0.5} 0V100`).join("");
    element("path", { class: "ticks", d: ticks }, svg);
  };

  const drawShares = () => {
    const { values, bucket, drawn } = data.shares;
    const holder = byId("shares");
    if (!holder || !values.length) return;
    const svg = chart(holder, "shares-chart");
    const colours = all("[data-class] .chip rect").map((rect) => rect.getAttribute("fill"));
    const length = values[0].length;
    const floor = new Array(length).fill(0);
    const areas = values.slice(0, drawn);
    if (values.length > drawn) {
      areas.push(floor.map((_, at) => values.slice(drawn).reduce((sum, series) => sum + series[at], 0)));
    }
    areas.forEach((series, index) => {
      const top = series.map((share, at) => floor[at] + share);
      const line = (level) => points(level, bucket, (share) => 100 - 100 * share);
      const edge = (level, at) => (100 - 100 * level[at]).toFixed(2);
      const up = [`0 ${edge(top, 0)}`, ...line(top), `${data.frames} ${edge(top, length - 1)}`];
      const down = [`0 ${edge(floor, 0)}`, ...line(floor), `${data.frames} ${edge(floor, length - 1)}`].reverse();
      element("path", { class: "share", fill: index < drawn ? colours[index] : "gray", d: `M${up.join(" L")} L${down.join(" L")}Z` }, svg);
      top.forEach((share, at) => { floor[at] = share; });
    });
  };

  // ---------------------------------------------------------------- what is shown

  const state = { frame: 0, view: null, playing: false, speed: 1, startedAt: 0, startedFrame: 0 };
  const views = data.views;
  const layers = new Map(all("#stage [data-view]").map((layer) => [layer.dataset.view, layer]));
  const failed = new Set();
  let master = null; // the view whose video keeps the time

  const videoOf = (view) => (view && view.kind === "video" && !failed.has(view.key) ? layers.get(view.key) : null);
  const timeOf = (view, frame) => view.start_s + (frame + 0.5) / data.rate;
  const frameAt = (view, time) => clamp(Math.floor((time - view.start_s) * data.rate + 0.01), 0, last);

  const say = (text) => { byId("message").textContent = text; };

  const showMask = () => {
    const view = state.view;
    if (!view || view.kind !== "images") return;
    const image = layers.get(view.key);
    const url = `${view.url}/${String(state.frame).padStart(8, "0")}.png`;
    if (image.dataset.busy || image.getAttribute("src") === url) return;
    image.dataset.busy = "1";
    const done = (text) => { delete image.dataset.busy; say(text); showMask(); };
    image.onload = () => done("");
    image.onerror = () => { image.dataset.missing = url; done(`${url} cannot be read`); };
    if (image.dataset.missing !== url) image.src = url; else delete image.dataset.busy;
  };

  const select = (key) => {
    const view = views.find((item) => item.key === key);
    if (!view) return;
    state.view = view;
    for (const radio of all("input[name=view]")) radio.checked = radio.value === key;
    for (const [name, layer] of layers) layer.classList.toggle("shown", name === key);
    say(failed.has(key) ? `${view.title} cannot be played here: moved, or in a format that this browser lacks` : "");
    const video = videoOf(view);
    if (video && master !== view) {
      const old = videoOf(master);
      if (old) old.pause();
      master = view;
      video.currentTime = timeOf(view, state.frame);
      if (state.playing) start();
    }
    showMask();
  };

  // ---------------------------------------------------------------- time

  const seek = (frame) => {
    state.frame = clamp(Math.round(frame), 0, last);
    const video = videoOf(master);
    if (video) video.currentTime = timeOf(master, state.frame);
    state.startedAt = performance.now();
    state.startedFrame = state.frame;
    render();
  };

  const start = () => {
    if (state.frame >= last) seek(0);
    state.playing = true;
    state.startedAt = performance.now();
    state.startedFrame = state.frame;
    const video = videoOf(master);
    if (video) {
      video.playbackRate = state.speed;
      video.play().catch(() => pause());
    }
    requestAnimationFrame(tick);
    render();
  };

  const pause = () => {
    state.playing = false;
    const video = videoOf(master);
    if (video) video.pause();
    render();
  };

  const tick = (now) => {
    if (!state.playing) return;
    const video = videoOf(master);
    if (video) {
      if (!video.seeking) state.frame = frameAt(master, video.currentTime);
      if (video.ended) { state.frame = last; pause(); }
    } else {
      state.frame = clamp(state.startedFrame + Math.floor(((now - state.startedAt) / 1000) * state.speed * data.rate), 0, last);
      if (state.frame === last) pause();
    }
    render();
    requestAnimationFrame(tick);
  };

  // ---------------------------------------------------------------- following the time

  const render = () => {
    const { frame } = state;
    const left = `${(100 * (frame + 0.5)) / data.frames}%`;
    for (const head of all(".playhead")) head.style.left = left;
    byId("time").textContent = clock(frame / data.rate);
    byId("frame").textContent = String(frame);
    const button = byId("play");
    button.setAttribute("aria-pressed", String(state.playing));
    button.setAttribute("aria-label", state.playing ? "Pause" : "Play");
    const scrubber = byId("scrubber");
    scrubber.setAttribute("aria-valuenow", String(frame));
    scrubber.setAttribute("aria-valuetext", `frame ${frame} at ${clock(frame / data.rate)}`);
    readLanes(frame);
    readShares(frame);
    showMask();
  };

  const readLanes = (frame) => {
    const bucket = Math.floor(frame / data.bucket);
    for (const lane of data.lanes) {
      const text = lane.series.map((series) => range(series.low[bucket], series.high && series.high[bucket])).join(" · ");
      document.querySelector(`[data-lane="${lane.key}"] .lane-now`).textContent = text;
    }
  };

  const rows = all("[data-class]").map((row) => ({ bar: row.querySelector(".bar rect"), text: row.querySelector(".now") }));
  const readShares = (frame) => {
    if (!data.shares) return;
    const bucket = Math.floor(frame / data.shares.bucket);
    rows.forEach((row, index) => {
      const share = data.shares.values[index][bucket];
      row.bar.setAttribute("width", String(100 * share));
      row.text.textContent = percent(share, 1);
    });
  };

  // ---------------------------------------------------------------- hands

  const frameUnder = (event, holder) => {
    const box = holder.getBoundingClientRect();
    return Math.floor(clamp((event.clientX - box.left) / box.width, 0, 0.999999) * data.frames);
  };

  for (const holder of all(".seekable")) {
    const head = document.createElement("div");
    head.className = "playhead";
    holder.append(head);
    holder.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      holder.setPointerCapture(event.pointerId);
      seek(frameUnder(event, holder));
    });
    holder.addEventListener("pointermove", (event) => {
      if (holder.hasPointerCapture(event.pointerId)) seek(frameUnder(event, holder));
    });
  }

  const moments = all(".moment").map((button) => Number(button.dataset.seek));
  const jump = (direction) => {
    const found = direction > 0 ? moments.find((at) => at > state.frame) : moments.filter((at) => at < state.frame).pop();
    if (found !== undefined) seek(found);
  };

  for (const button of all("[data-seek]")) {
    button.addEventListener("click", () => {
      pause();
      seek(Number(button.dataset.seek));
      byId("player").scrollIntoView({ block: "nearest", behavior: "smooth" });
    });
  }
  for (const button of all("[data-step]")) {
    button.addEventListener("click", () => { pause(); seek(state.frame + Number(button.dataset.step)); });
  }
  const toggle = () => (state.playing ? pause() : start());
  byId("play").addEventListener("click", toggle);
  byId("stage").addEventListener("click", toggle);
  byId("speed").addEventListener("change", (event) => {
    state.speed = Number(event.target.value);
    const video = videoOf(master);
    if (video) video.playbackRate = state.speed;
    state.startedAt = performance.now();
    state.startedFrame = state.frame;
  });
  for (const radio of all("input[name=view]")) radio.addEventListener("change", () => select(radio.value));

  const keys = {
    " ": toggle,
    ArrowLeft: (event) => { pause(); seek(state.frame - (event.shiftKey ? data.rate : 1)); },
    ArrowRight: (event) => { pause(); seek(state.frame + (event.shiftKey ? data.rate : 1)); },
    Home: () => seek(0),
    End: () => seek(last),
    n: () => jump(1),
    p: () => jump(-1),
    f: () => (document.fullscreenElement ? document.exitFullscreen() : byId("stage").requestFullscreen()),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const tag = event.target.tagName;
    if (tag === "INPUT" || tag === "SELECT" || (event.key === " " && (tag === "BUTTON" || tag === "SUMMARY" || tag === "A"))) {
      if (!/^[1-9]$/.test(event.key)) return;
    }
    const number = Number(event.key);
    if (number >= 1 && number <= views.length) select(views[number - 1].key);
    else if (keys[event.key]) keys[event.key](event);
    else return;
    event.preventDefault();
  });

  for (const view of views) {
    const layer = layers.get(view.key);
    if (view.kind !== "video") continue;
    layer.addEventListener("error", () => {
      failed.add(view.key);
      if (master === view) master = null;
      if (state.view === view) select(view.key);
    });
  }

  drawKeyframes();
  data.lanes.forEach(drawLane);
  if (data.shares) drawShares();
  const first = views.find((view) => view.key === "overlay") || views.find((view) => view.kind === "video") || views[0];
  if (first) select(first.key);
  render();
  document.documentElement.dataset.ready = "1";
})();
