"use strict";
// The stage, the timeline below it and everything that follows the current frame.

const DRIFT_S = 0.1; // how far the two videos of a wipe may be apart while playing

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

  const state = { frame: 0, view: null, playing: false, muted: false, speed: 1, startedAt: 0, startedFrame: 0 };
  const views = new Map(data.views.map((view) => [view.key, view]));
  const layers = new Map(all("#stage [data-view]").map((layer) => [layer.dataset.view, layer]));
  const failed = new Set();
  let master = null; // the view whose video keeps the time; without one a timer does

  const videoOf = (view) => (view && view.kind === "video" && !failed.has(view.key) ? layers.get(view.key) : null);
  const timeOf = (view, frame) => view.start_s + (frame + 0.5) / data.rate;
  const frameAt = (view, time) => clamp(Math.floor((time - view.start_s) * data.rate + 0.01), 0, last);
  const say = (text) => { byId("message").textContent = text; };

  const whyNot = ({ key, title, url }) => {
    const advice = key === "source" && !url.startsWith("source.") ? "; tfcseg run --copy-source puts a copy beside this page" : "";
    return `${title} cannot be played: ${decodeURIComponent(url)} is missing, or this browser lacks its format${advice}`;
  };

  /** Views whose layers `view` shows, the one that keeps the time last. */
  const partsOf = (view) => (view.kind === "wipe" ? view.of.map((key) => views.get(key)) : [view]);
  /** The left view of a wipe, which goes along with the master. */
  const follower = () => (state.view && state.view.kind === "wipe" ? views.get(state.view.of[0]) : null);
  /** Every video that is to move: the master's and the follower's. */
  const moving = () => [master, follower()].filter(videoOf);

  /** Only the master is heard: the two videos of a wipe have the same sound. */
  const muteOthers = () => {
    for (const [key, layer] of layers) layer.muted = state.muted || !master || key !== master.key;
  };

  const reveal = () => {
    const shown = partsOf(state.view).map((view) => view.key);
    for (const [key, layer] of layers) {
      layer.classList.toggle("shown", shown.includes(key));
      layer.classList.toggle("cut", shown.length > 1 && key === shown[1]);
      if (layer.pause && !moving().some((view) => view.key === key)) layer.pause();
    }
    muteOthers();
    if (byId("divider")) byId("divider").hidden = state.view.kind !== "wipe";
    reshape();
  };

  /** Give the stage the shape of what it shows. */
  const reshape = () => {
    const layer = state.view && layers.get(partsOf(state.view).pop().key);
    const width = layer && (layer.videoWidth || layer.naturalWidth);
    const height = layer && (layer.videoHeight || layer.naturalHeight);
    if (width && height) byId("shape").setAttribute("viewBox", `0 0 ${width} ${height}`);
  };

  /** Load the images of the current frame that are shown. */
  const showImages = () => {
    for (const view of state.view ? partsOf(state.view) : []) if (view.kind === "images") showImage(view);
  };

  const showImage = (view) => {
    const image = layers.get(view.key);
    const name = view.names[state.frame] || `${String(state.frame).padStart(8, "0")}.png`;
    const url = `${view.url}/${name}`;
    if (image.dataset.loading || image.dataset.asked === url) return;
    image.dataset.asked = image.dataset.loading = url;
    const finish = (problem) => {
      delete image.dataset.loading; // the next one is asked for only now: no queue while playing
      image.dataset.problem = problem;
      const shown = partsOf(state.view);
      if (shown.includes(view)) say(shown.map((part) => layers.get(part.key).dataset.problem).filter(Boolean).join("; "));
      reshape();
      showImages();
    };
    image.onload = () => finish("");
    image.onerror = () => finish(`${decodeURIComponent(url)} cannot be read`);
    image.src = url;
  };

  const select = (view) => {
    state.view = view;
    for (const radio of all("input[name=view]")) radio.checked = radio.value === view.key;
    const missing = partsOf(view).find((part) => failed.has(part.key));
    say(missing ? whyNot(missing) : "");
    const keeper = partsOf(view).pop();
    const video = videoOf(keeper);
    const isNew = video && master !== keeper;
    if (isNew) master = keeper;
    // Shown when it has the frame, so that switching does not flash.
    if (isNew && video.readyState > HTMLMediaElement.HAVE_NOTHING) {
      video.addEventListener("seeked", () => { if (state.view === view) reveal(); }, { once: true });
    } else reveal();
    for (const part of moving()) {
      videoOf(part).preload = "auto";
      videoOf(part).currentTime = timeOf(part, state.frame);
    }
    if (state.playing) start();
    showImages();
  };

  const fail = (view) => {
    failed.add(view.key);
    if (master === view) master = null;
    if (state.view && partsOf(state.view).includes(view)) select(state.view); // not yet chosen: it failed before this script ran
  };

  // ------------------------------------------------------------------------------------------------ time

  const restartTimer = () => {
    state.startedAt = performance.now();
    state.startedFrame = state.frame;
  };

  const seek = (frame) => {
    state.frame = clamp(Math.round(frame), 0, last);
    for (const view of moving()) videoOf(view).currentTime = timeOf(view, state.frame);
    restartTimer();
    render();
  };

  const start = () => {
    if (state.frame >= last) seek(0);
    if (!state.playing) requestAnimationFrame(tick);
    state.playing = true;
    restartTimer();
    for (const view of moving()) {
      const video = videoOf(view);
      video.playbackRate = state.speed;
      video.play().catch((error) => { if (error.name !== "AbortError") pause(); }); // aborted: another view took over
    }
    render();
  };

  const pause = () => {
    state.playing = false;
    for (const view of moving()) videoOf(view).pause();
    render();
  };

  const keepTogether = () => {
    const [first, second] = moving();
    if (!second) return;
    const [leader, other] = [videoOf(first), videoOf(second)];
    const wanted = leader.currentTime - first.start_s + second.start_s;
    if (!other.seeking && Math.abs(other.currentTime - wanted) > DRIFT_S) other.currentTime = wanted;
  };

  const tick = (now) => {
    if (!state.playing) return;
    const video = videoOf(master);
    if (!video) {
      state.frame = clamp(state.startedFrame + Math.floor(((now - state.startedAt) / 1000) * state.speed * data.rate), 0, last);
    } else if (!video.seeking) {
      state.frame = frameAt(master, video.currentTime);
    }
    keepTogether();
    if (state.frame === last && !(video && video.seeking)) pause();
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
    showImages();
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
      holder.classList.toggle("hovered", event.pointerType === "mouse"); // a finger would hide what it points at
      const frame = frameUnder(event);
      const share = (frame + 0.5) / data.frames;
      hover.style.left = tip.style.left = `${100 * share}%`;
      tip.classList.toggle("right", share > 0.6);
      tip.textContent = [`${clock(frame / data.rate)} · frame ${frame}`, ...data.lanes.flatMap((lane) =>
        valuesAt(lane, frame).map((text, index) => [lane.title, lane.series[index].name, text].filter(Boolean).join(" ")))].join("\n");
      if (holder.hasPointerCapture(event.pointerId)) seek(frame);
    };
    holder.addEventListener("pointermove", point);
    holder.addEventListener("pointerleave", () => holder.classList.remove("hovered"));
    holder.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      holder.setPointerCapture(event.pointerId);
      point(event);
    });
  };

  const toggle = () => (state.playing ? pause() : start());
  const mute = () => {
    state.muted = !state.muted;
    byId("mute").setAttribute("aria-pressed", String(state.muted));
    muteOthers();
  };
  const step = (frames) => { pause(); seek(state.frame + frames); };
  const goTo = (frame) => { pause(); seek(frame); };

  for (const button of all("[data-seek]")) {
    button.addEventListener("click", () => {
      goTo(Number(button.dataset.seek));
      byId("stage").scrollIntoView({ block: "nearest" });
    });
  }
  for (const button of all("[data-step]")) button.addEventListener("click", () => step(Number(button.dataset.step)));
  for (const radio of all("input[name=view]")) {
    radio.addEventListener("change", () => select(views.get(radio.value)));
  }
  byId("play").addEventListener("click", toggle);
  byId("stage").addEventListener("click", toggle);
  if (byId("mute")) byId("mute").addEventListener("click", mute);
  byId("speed").addEventListener("change", (event) => {
    state.speed = Number(event.target.value);
    for (const view of moving()) videoOf(view).playbackRate = state.speed;
    restartTimer();
  });

  const divide = (percentage) => {
    const at = clamp(percentage, 0, 100);
    byId("stage").style.setProperty("--cut", `${at}%`);
    byId("divider").setAttribute("aria-valuenow", String(Math.round(at)));
  };
  if (byId("divider")) {
    byId("stage").addEventListener("pointermove", (event) => {
      const box = byId("stage").getBoundingClientRect();
      if (state.view.kind === "wipe") divide((100 * (event.clientX - box.left)) / box.width);
    });
    byId("divider").addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -5, ArrowRight: 5 }[event.key];
      if (!step) return;
      divide(Number(byId("divider").getAttribute("aria-valuenow")) + step);
      event.stopPropagation();
      event.preventDefault();
    });
  }

  // ------------------------------------------------------------------------------------------------ keyboard

  const seekable = moments.map((moment) => Number(moment.dataset.seek)).sort((a, b) => a - b);
  const markedOn = (lane) => moments.filter((item) => item.dataset.laneOf === lane).map((item) => Number(item.dataset.seek));
  const jump = (found) => { if (found !== undefined) goTo(found); };
  const keys = {
    " ": toggle,
    ArrowLeft: (event) => step(event.shiftKey ? -data.rate : -1),
    ArrowRight: (event) => step(event.shiftKey ? data.rate : 1),
    Home: () => goTo(0),
    End: () => goTo(last),
    n: () => jump(seekable.find((frame) => frame > state.frame)),
    p: () => jump(seekable.filter((frame) => frame < state.frame).pop()),
    f: () => (document.fullscreenElement ? document.exitFullscreen() : byId("stage").requestFullscreen().catch(() => {})),
    m: () => { if (byId("mute")) mute(); },
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
    drawLane(holder, lane, data.bucket, data.frames, markedOn(lane.key));
  }
  if (rows.length) drawShares(byId("shares"), data.shares, all("[data-class] .chip rect").map((rect) => rect.getAttribute("fill")), data.frames);
  drawAxis(byId("axis"), data.frames / data.rate, clock);
  makeSeekable(byId("timeline"));
  const first = data.views.find((view) => view.is_first) || data.views[0];
  if (first) select(first);
  render();
  document.documentElement.dataset.ready = "yes";
};

startPlayer(JSON.parse(document.getElementById("data").textContent));
