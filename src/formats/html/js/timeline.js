// The timeline: a row a thread, time from left to right, coloured by what the thread did. Dragging chooses a range of
// time, which everything else follows; the boxes before the names choose threads.
const LANE = 16;
const MOST_LANES = 200;
const STATES = [
  ["running with the GIL", "#2f9e44"],
  ["running without the GIL", "#1c7ed6"],
  ["waiting for the GIL", "#e8590c"],
  ["collecting garbage", "#9c36b5"],
  ["idle", "#adb5bd"],
];
// Where nobody recorded who held the GIL, a thread that is on a CPU is just running.
const stateNames = () => (data.has_states ? STATES : [["running", "#2f9e44"], null, null, null, ["idle", "#adb5bd"]]);
function stateOf(bits) {
  if (bits & 16) return -1;
  if (data.has_states) {
    if (bits & 8) return 3;
    if (bits & 4) return 2;
    if (bits & 2) return 0;
    return bits & 1 ? 1 : 4;
  }
  return bits & 3 ? 0 : 4;
}

const timeline = { lanes: [], from: 0, to: 0, drag: null };

// Time by state of each pixel of a lane, as shares of the pixel.
function paint(thread, width) {
  const { begin, wall, state } = data.runs;
  const per = (timeline.to - timeline.from) / width;
  const sums = STATES.map(() => new Float32Array(width));
  for (let run = thread.first; run < thread.end; run++) {
    const kind = stateOf(state[run]);
    if (kind < 0 || wall[run] === 0) continue;
    const from = (begin[run] - timeline.from) / per;
    const to = from + wall[run] / per;
    for (let x = Math.max(0, Math.floor(from)); x < Math.min(width, to); x++) {
      sums[kind][x] += Math.min(to, x + 1) - Math.max(from, x);
    }
  }
  return sums;
}

function drawTimeline(anew = true) {
  if (get("time").hidden) return;
  const width = Math.max(50, get("lanes").clientWidth);
  if (anew || timeline.width !== width) {
    timeline.width = width;
    const threads = data.views[chosen.view].threads.map((at) => [at, data.threads[at]]);
    timeline.from = Math.min(...threads.map(([, thread]) => thread.started_us));
    timeline.to = Math.max(timeline.from + 1, data.duration_us, ...threads.map(([, thread]) => thread.until));
    timeline.lanes = threads.slice(0, MOST_LANES).map(([at, thread]) => ({ at, sums: paint(thread, width) }));
  }
  const canvas = get("lanes").firstElementChild;
  const ratio = window.devicePixelRatio || 1;
  const height = timeline.lanes.length * LANE;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.width = width + "px";
  canvas.style.height = height + "px";
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  timeline.lanes.forEach(({ at, sums }, lane) => {
    const isOff = chosen.threads !== null && !chosen.threads.has(at);
    context.globalAlpha = isOff ? 0.25 : 1;
    for (let x = 0; x < width; x++) {
      let y = (lane + 1) * LANE - 1;
      for (const kind of [4, 1, 3, 2, 0].reverse()) {
        const part = Math.min(1, sums[kind][x]) * (LANE - 2);
        if (part <= 0) continue;
        // What a thread waits for or does stands high; idling is a low line.
        const tall = kind === 4 ? part * 0.25 : part;
        context.fillStyle = STATES[kind][1];
        context.fillRect(x, y - tall, 1, tall);
        y -= tall;
      }
    }
  });
  context.globalAlpha = 1;
  const range = timeline.drag ?? chosen.range;
  if (range) {
    const place = (time) => ((time - timeline.from) / (timeline.to - timeline.from)) * width;
    const [left, right] = [place(Math.min(...range)), place(Math.max(...range))];
    context.fillStyle = "rgb(128 128 128 / 0.35)";
    context.fillRect(0, 0, left, height);
    context.fillRect(right, 0, width - right, height);
    context.fillStyle = "#c026d3";
    context.fillRect(left, 0, 1, height);
    context.fillRect(right - 1, 0, 1, height);
  }
}

// Time in each state of the threads and the range that are chosen.
function timeByState() {
  const { begin, wall, state } = data.runs;
  const [from, to] = chosen.range ?? [-Infinity, Infinity];
  const sums = STATES.map(() => 0);
  for (const at of shownThreads()) {
    const { first, end } = data.threads[at];
    for (let run = first; run < end; run++) {
      const kind = stateOf(state[run]);
      const part = Math.min(to, begin[run] + wall[run]) - Math.max(from, begin[run]);
      if (kind >= 0 && part > 0) sums[kind] += part;
    }
  }
  return sums;
}

// The colours, each with its state's share of the threads' time.
function fillLegend() {
  if (!data.timeline) return;
  // Of tasks it is not known: threads have the states.
  const times = chosen.tasks ? STATES.map(() => 0) : timeByState();
  const all = times.reduce((a, b) => a + b, 0);
  const parts = stateNames().flatMap((state, kind) => {
    if (!state) return [];
    const part = document.createElement("span");
    const share = all > 0 ? ` ${((100 * times[kind]) / all).toFixed(1)} %` : "";
    part.textContent = state[0] + share;
    if (all > 0) part.title = `${(times[kind] / 1e6).toFixed(3)} s; a thread that is ready and waits for a CPU is taken to run`;
    part.style.setProperty("--color", state[1]);
    return [part];
  });
  get("legend").replaceChildren(...parts);
}

// What is chosen, in words.
function tellRange() {
  const range = timeline.drag ?? chosen.range;
  const parts = [];
  if (range) parts.push(`${(Math.min(...range) / 1e6).toFixed(3)} s to ${(Math.max(...range) / 1e6).toFixed(3)} s`);
  if (chosen.threads) parts.push(`${shownThreads().length} of ${data.views[chosen.view].threads.length} threads`);
  if (chosen.tasks) parts.push("some of the tasks");
  if (data.slice_us) parts.push(`in slices of ${data.slice_us / 1000} ms`);
  if (isPart()) parts.push("calls are known for the whole alone");
  get("range").textContent = parts.join("; ");
  get("allTime").hidden = !isPart();
}

function chooseRange(range) {
  timeline.drag = null;
  chosen.range = range;
  tellRange();
  chooseAnew();
  drawTimeline(false);
}

function fillLanes() {
  const threads = data.views[chosen.view].threads;
  const names = threads.slice(0, MOST_LANES).map((at) => {
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = chosen.threads === null || chosen.threads.has(at);
    box.addEventListener("change", () => {
      const set = new Set(shownThreads());
      if (box.checked) set.add(at);
      else set.delete(at);
      chosen.threads = set.size === threads.length ? null : set;
      chooseRange(chosen.range);
    });
    const name = document.createElement("span");
    const { label: text, process } = data.threads[at];
    name.textContent = data.processes.length > 1 && chosen.view === 0 ? `${text}, ${data.processes[process]}` : text;
    name.title = name.textContent.slice(0, 2000);
    label.append(box, name);
    return label;
  });
  get("laneNames").replaceChildren(...names);
  get("moreLanes").textContent = threads.length > MOST_LANES ? `${threads.length - MOST_LANES} more threads are counted and not drawn` : "";
  tellRange();
}

function connectTimeline() {
  get("allTime").addEventListener("click", () => {
    chosen.threads = null;
    chosen.tasks = null;
    chooseRange(null);
    fillLanes();
  });
  get("time").hidden = !data.timeline;
  if (!data.timeline) return;
  fillLanes();
  fillLegend();
  const lanes = get("lanes");
  const timeAt = (event) => {
    const { left, width } = lanes.getBoundingClientRect();
    const part = Math.min(1, Math.max(0, (event.clientX - left) / width));
    return Math.round(timeline.from + part * (timeline.to - timeline.from));
  };
  lanes.addEventListener("pointerdown", (event) => {
    const time = timeAt(event);
    timeline.drag = [time, time];
    lanes.setPointerCapture(event.pointerId);
  });
  lanes.addEventListener("pointermove", (event) => {
    if (!timeline.drag) return;
    timeline.drag[1] = timeAt(event);
    tellRange();
    drawTimeline(false);
  });
  lanes.addEventListener("pointerup", () => {
    if (!timeline.drag) return;
    const [a, b] = timeline.drag;
    // A click without a drag chooses all.
    const isRange = Math.abs(b - a) * timeline.width > 3 * (timeline.to - timeline.from);
    chooseRange(isRange ? [Math.min(a, b), Math.max(a, b)] : null);
  });
  lanes.addEventListener("keydown", (event) => {
    const step = (timeline.to - timeline.from) / 20;
    const moves = { ArrowLeft: [-step, -step], ArrowRight: [step, step], "+": [step / 2, -step / 2], "-": [-step / 2, step / 2] };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    event.stopPropagation();
    const range = chosen.range ?? [timeline.from, timeline.to];
    // At an end a range stops, as long as it was.
    const isMove = chosen.range !== null && move[0] === move[1];
    const by = Math.min(Math.max(move[0], timeline.from - range[0]), timeline.to - range[1]);
    const [left, right] = isMove ? [by, by] : move;
    const next = [Math.max(timeline.from, range[0] + left), Math.min(timeline.to, range[1] + right)].map(Math.round);
    const isAll = next[0] <= timeline.from && next[1] >= timeline.to;
    if (next[1] > next[0]) chooseRange(isAll ? null : next);
  });
}
