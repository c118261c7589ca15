"use strict";
// The stage, the timeline below it and everything that follows the current frame.

const startPlayer = (data) => {
  const last = data.frames - 1;
  const byId = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  // ------------------------------------------------------------------------------------------------ numbers as text

  const percent = (share, digits = 2) => {
    if (share === null || share === undefined) return "–";
    const least = 0.5 / 10 ** (digits + 2);
    return share > 0 && share < least ? `<${(200 * least).toFixed(digits)} %` : `${(100 * share).toFixed(digits)} %`;
  };
  const span = (low, high) =>
    high === null || high === undefined || high === low ? percent(low) : `${percent(low)} … ${percent(high)}`;
  const clock = (seconds, digits = 2) => {
    const units = Math.round(seconds * 10 ** digits);
    const perMinute = 60 * 10 ** digits;
    const rest = ((units % perMinute) / 10 ** digits).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
    return `${Math.floor(units / perMinute)}:${rest}`;
  };

  // ------------------------------------------------------------------------------------------------ what is shown

  const state = { frame: 0, view: null, playing: false, speed: 1, startedAt: 0, startedFrame: 0 };
  const layers = new Map(all("#stage [data-view]").map((layer) => [layer.dataset.view, layer]));
  const failed = new Set();
  let master = null; // the view whose video keeps the time; without one a timer does

  const videoOf = (view) => (view && view.kind === "video" && !failed.has(view.key) ? layers.get(view.key) : null);
  const timeOf = (view, frame) => view.start_s + (frame + 0.5) / data.rate;
  const frameAt = (view, time) => clamp(Math.floor((time - view.start_s) * data.rate + 0.01), 0, last);
  const say = (text) => { byId("message").textContent = text; };

  const reveal = (key) => {
    for (const [name, layer] of layers) {
      layer.classList.toggle("shown", name === key);
      if (name !== key && layer.pause && !(master && name === master.key)) layer.pause();
    }
    reshape();
  };

  /** Give the stage the shape of what it shows. */
  const reshape = () => {
    const layer = state.view && layers.get(state.view.key);
    const width = layer && (layer.videoWidth || layer.naturalWidth);
    const height = layer && (layer.videoHeight || layer.naturalHeight);
    if (width && height) byId("shape").setAttribute("viewBox", `0 0 ${width} ${height}`);
  };

  const showMask = () => {
    const view = state.view;
    if (!view || view.kind !== "images") return;
    const image = layers.get(view.key);
    const url = `${view.url}/${String(state.frame).padStart(8, "0")}.png`;
    if (image.dataset.loading || image.dataset.asked === url) return;
    image.dataset.asked = image.dataset.loading = url;
    const finish = (text) => {
      delete image.dataset.loading; // the next one is asked for only now: no queue while playing
      if (state.view === view) say(text);
      reshape();
      showMask();
    };
    image.onload = () => finish("");
    image.onerror = () => finish(`${decodeURIComponent(url)} cannot be read`);
    image.src = url;
  };

  const select = (view) => {
    state.view = view;
    for (const radio of all("input[name=view]")) radio.checked = radio.value === view.key;
    say(failed.has(view.key) ? `${view.title} cannot be played: the file was moved, or this browser lacks its format` : "");
    const video = videoOf(view);
    if (!video || master === view) {
      reveal(view.key);
      showMask();
      return;
    }
    master = view;
    video.preload = "auto";
    // Shown when it has the frame, so that switching does not flash.
    if (video.readyState === HTMLMediaElement.HAVE_NOTHING) reveal(view.key);
    else video.addEventListener("seeked", () => { if (state.view === view) reveal(view.key); }, { once: true });
    video.currentTime = timeOf(view, state.frame);
    if (state.playing) start();
  };

  const fail = (view) => {
    failed.add(view.key);
    if (master === view) master = null;
    if (state.view === view) select(view);
  };

  // ------------------------------------------------------------------------------------------------ time

  const restartTimer = () => {
    state.startedAt = performance.now();
    state.startedFrame = state.frame;
  };

  const seek = (frame) => {
    state.frame = clamp(Math.round(frame), 0, last);
    const video = videoOf(master);
    if (video) video.currentTime = timeOf(master, state.frame);
    restartTimer();
    render();
  };

  const start = () => {
    if (state.frame >= last) seek(0);
    if (!state.playing) requestAnimationFrame(tick);
    state.playing = true;
    restartTimer();
    const video = videoOf(master);
    if (video) {
      video.playbackRate = state.speed;
      video.play().catch((error) => { if (error.name !== "AbortError") pause(); }); // aborted: another view took over
    }
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
    if (!video) {
      state.frame = clamp(state.startedFrame + Math.floor(((now - state.startedAt) / 1000) * state.speed * data.rate), 0, last);
    } else if (!video.seeking) {
      state.frame = frameAt(master, video.currentTime);
    }
    const isOver = video ? video.ended || (state.frame === last && !video.seeking) : state.frame === last;
    if (isOver) pause();
    render();
    requestAnimationFrame(tick);
  };

  // ------------------------------------------------------------------------------------------------ following the time

  const laneNow = data.lanes.map((lane) => all(`[data-lane="${lane.key}"] .lane-now`));
  const valuesAt = (lane, frame) => {
    const bucket = Math.floor(frame / data.bucket);
    return lane.series.map((series) => span(series.low[bucket], series.high && series.high[bucket]));
  };
  const rows = all("[data-class]").map((row) => [row.querySelector(".bar rect"), row.querySelector(".now")]);
  const moments = all(".moment");
  const heads = () => all(".playhead");

  const render = () => {
    const { frame } = state;
    const time = clock(frame / data.rate);
    for (const head of heads()) head.style.left = `${(100 * (frame + 0.5)) / data.frames}%`;
    byId("time").textContent = time;
    byId("frame").textContent = String(frame);
    byId("play").setAttribute("aria-pressed", String(state.playing));
    byId("play").setAttribute("aria-label", state.playing ? "Pause" : "Play");
    byId("scrubber").setAttribute("aria-valuenow", String(frame));
    byId("scrubber").setAttribute("aria-valuetext", `frame ${frame} at ${time}`);
    data.lanes.forEach((lane, index) => valuesAt(lane, frame).forEach((text, series) => {
      laneNow[index][series].textContent = text;
    }));
    rows.forEach(([bar, text], index) => {
      const share = data.shares.values[index][Math.floor(frame / data.shares.bucket)];
      bar.setAttribute("width", String(100 * share));
      text.textContent = percent(share, 1);
    });
    for (const moment of moments) moment.classList.toggle("current", Number(moment.dataset.seek) === frame);
    showMask();
  };

  // ------------------------------------------------------------------------------------------------ pointer

  const frameUnder = (event) => {
    const box = byId("timeline").getBoundingClientRect();
    return Math.floor(clamp((event.clientX - box.left) / box.width, 0, 0.999999) * data.frames);
  };

  const makeSeekable = (holder) => {
    const [head, hover, tip] = ["playhead", "hover", "tip"].map((name) => {
      const made = document.createElement("div");
      made.className = name;
      made.setAttribute("aria-hidden", "true");
      holder.append(made);
      return made;
    });
    head.style.left = "0";
    const point = (event) => {
      const frame = frameUnder(event);
      const share = (frame + 0.5) / data.frames;
      hover.style.left = tip.style.left = `${100 * share}%`;
      tip.classList.toggle("right", share > 0.6);
      tip.textContent = [`${clock(frame / data.rate)} · frame ${frame}`, ...data.lanes.flatMap((lane) =>
        valuesAt(lane, frame).map((text, index) => `${lane.series[index].title || lane.title} ${text}`))].join("\n");
      if (holder.hasPointerCapture(event.pointerId)) seek(frame);
    };
    holder.addEventListener("pointermove", point);
    holder.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      holder.setPointerCapture(event.pointerId);
      point(event);
    });
  };

  const toggle = () => (state.playing ? pause() : start());
  const step = (frames) => { pause(); seek(state.frame + frames); };
  const goTo = (frame) => { pause(); seek(frame); };

  for (const button of all("[data-seek]")) {
    button.addEventListener("click", () => {
      goTo(Number(button.dataset.seek));
      byId("player").scrollIntoView({ block: "nearest" });
    });
  }
  for (const button of all("[data-step]")) button.addEventListener("click", () => step(Number(button.dataset.step)));
  for (const radio of all("input[name=view]")) {
    radio.addEventListener("change", () => select(data.views.find((view) => view.key === radio.value)));
  }
  byId("play").addEventListener("click", toggle);
  byId("stage").addEventListener("click", toggle);
  byId("speed").addEventListener("change", (event) => {
    state.speed = Number(event.target.value);
    const video = videoOf(master);
    if (video) video.playbackRate = state.speed;
    restartTimer();
  });

  // ------------------------------------------------------------------------------------------------ keyboard

  const seekable = moments.map((moment) => Number(moment.dataset.seek)).sort((a, b) => a - b);
  const jump = (found) => { if (found !== undefined) goTo(found); };
  const keys = {
    " ": toggle,
    ArrowLeft: (event) => step(event.shiftKey ? -data.rate : -1),
    ArrowRight: (event) => step(event.shiftKey ? data.rate : 1),
    Home: () => goTo(0),
    End: () => goTo(last),
    n: () => jump(seekable.find((frame) => frame > state.frame)),
    p: () => jump(seekable.filter((frame) => frame < state.frame).pop()),
    f: () => (document.fullscreenElement ? document.exitFullscreen() : byId("stage").requestFullscreen()),
  };
  const isTaken = (event) => {
    const tag = event.target.tagName; // what these keys mean to the element that has the focus
    if (tag === "SELECT") return true;
    if (tag === "INPUT") return event.key.startsWith("Arrow") || event.key === " ";
    return event.key === " " && (tag === "BUTTON" || tag === "SUMMARY");
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTaken(event)) return;
    const view = /^[1-9]$/.test(event.key) ? data.views[Number(event.key) - 1] : undefined;
    if (view) select(view);
    else if (Object.hasOwn(keys, event.key)) keys[event.key](event);
    else return;
    event.preventDefault();
  });

  // ------------------------------------------------------------------------------------------------ begin

  for (const view of data.views.filter((item) => item.kind === "video")) {
    const video = layers.get(view.key);
    video.addEventListener("error", () => fail(view));
    video.addEventListener("loadedmetadata", () => {
      if (!video.videoWidth) fail(view); // this browser finds sound only
      else if (master === view) video.currentTime = timeOf(view, state.frame);
      reshape();
    });
    if (video.error) fail(view); // before this script ran
  }
  drawKeyframes(byId("scrubber"), data.keyframes, data.bucket, data.frames);
  for (const lane of data.lanes) {
    const holder = document.querySelector(`[data-lane="${lane.key}"]`);
    drawLane(holder, lane, data.bucket, data.frames, lane.key === "label_change" ? seekable : []);
  }
  if (rows.length) drawShares(byId("shares"), data.shares, all("[data-class] .chip rect").map((rect) => rect.getAttribute("fill")), data.frames);
  drawAxis(byId("axis"), data.frames / data.rate, clock);
  makeSeekable(byId("timeline"));
  const first = data.views.find((view) => view.is_first) || data.views[0];
  if (first) select(first);
  render();
  document.documentElement.dataset.ready = "yes";
};

const content = JSON.parse(document.getElementById("data").textContent);
if (content && content.frames) startPlayer(content);
