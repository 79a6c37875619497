// What the stacks of the chosen threads and time add up to. All times are in ticks (`data.tick_ns` nanoseconds).
let data;
// What is chosen: a view, some of its threads and tasks (null for all), a range of time in microseconds (null for all).
const chosen = { view: 0, threads: null, tasks: null, range: null, wanted: "", function: -1 };

const isPart = () => chosen.threads !== null || chosen.tasks !== null || chosen.range !== null;
const shownThreads = () => data.views[chosen.view].threads.filter((at) => chosen.threads === null || chosen.threads.has(at));
const seconds = (ticks) => (ticks * data.tick_ns) / 1e9;

// Own time of each node; of runs at the ends of the range the part that lies inside, as --from and --to count.
function ownTimes(threads, range) {
  const { node, wall, weight, begin } = data.runs;
  const own = new Float64Array(data.nodes.parent.length);
  for (const at of threads) {
    const { first, end } = data.threads[at];
    for (let run = first; run < end; run++) {
      if (!weight[run]) continue;
      if (range === null) {
        own[node[run]] += weight[run];
        continue;
      }
      const inside = Math.min(begin[run] + wall[run], range[1]) - Math.max(begin[run], range[0]);
      if (wall[run] > 0) {
        if (inside > 0) own[node[run]] += weight[run] === wall[run] ? inside : Math.round((weight[run] * inside) / wall[run]);
      } else if (begin[run] >= range[0] && begin[run] < range[1]) own[node[run]] += weight[run];
    }
  }
  if (chosen.tasks !== null) {
    const inside = insideTasks(chosen.tasks);
    for (let at = 0; at < own.length; at++) if (!inside[at]) own[at] = 0;
  }
  return own;
}

function totalsOf(parent, own) {
  const total = own.slice();
  for (let at = total.length - 1; at >= 0; at--) if (parent[at] >= 0) total[parent[at]] += total[at];
  return total;
}

// First child and next sibling of every node; -1 for none. Built once.
let links = null;
function childLinks() {
  if (links) return links;
  const { parent } = data.nodes;
  const first = new Int32Array(parent.length).fill(-1);
  const next = new Int32Array(parent.length).fill(-1);
  let root = -1;
  for (let at = parent.length - 1; at >= 0; at--) {
    if (parent[at] < 0) {
      next[at] = root;
      root = at;
    } else {
      next[at] = first[parent[at]];
      first[parent[at]] = at;
    }
  }
  return (links = { first, next, root });
}

// Walks all nodes from the outside in; needs no recursion, for stacks may be 100,000 deep.
function walk(enter, leave) {
  const { parent } = data.nodes;
  const { first, next, root } = childLinks();
  let at = root;
  while (at >= 0) {
    enter(at);
    if (first[at] >= 0) {
      at = first[at];
      continue;
    }
    for (;;) {
      leave(at);
      if (next[at] >= 0) {
        at = next[at];
        break;
      }
      at = parent[at];
      if (at < 0) return;
    }
  }
}

// Which nodes are the outermost on their stack with their function, and with their line of a file: time is
// counted once however often a function or line is on the stack. Built once.
let outer = null;
function outermost() {
  if (outer) return outer;
  const { function: functionOf, frame } = data.nodes;
  const open = new Int32Array(data.functions.length);
  // Lines have numbers of their own: two functions may share one, and both be on the stack.
  const known = new Map();
  const lineOf = Array.from(data.frames.line, (line, at) => {
    const key = data.functions[data.frames.function[at]][4] * 2 ** 32 + line;
    if (!known.has(key)) known.set(key, known.size);
    return known.get(key);
  });
  const openLines = new Int32Array(known.size);
  const ofFunction = new Uint8Array(frame.length);
  const ofLine = new Uint8Array(frame.length);
  walk(
    (at) => {
      ofFunction[at] = open[functionOf[at]]++ === 0 ? 1 : 0;
      ofLine[at] = openLines[lineOf[frame[at]]]++ === 0 ? 1 : 0;
    },
    (at) => {
      open[functionOf[at]]--;
      openLines[lineOf[frame[at]]]--;
    },
  );
  return (outer = { ofFunction, ofLine });
}

// The nodes with the lines of a function as one: a call is one box, whatever it did on which line. Built once.
let boxesOnce = null;
function boxes() {
  if (boxesOnce) return boxesOnce;
  const { parent, function: functionOf } = data.nodes;
  const known = new Map();
  const boxOf = new Int32Array(parent.length);
  const [parents, functions] = [[], []];
  for (let at = 0; at < parent.length; at++) {
    const above = parent[at] < 0 ? -1 : boxOf[parent[at]];
    const key = (above + 1) * data.functions.length + functionOf[at];
    let box = known.get(key);
    if (box === undefined) {
      box = parents.length;
      known.set(key, box);
      parents.push(above);
      functions.push(functionOf[at]);
    }
    boxOf[at] = box;
  }
  const children = parents.map(() => null);
  const roots = [];
  parents.forEach((above, box) => {
    if (above < 0) roots.push(box);
    else (children[above] ??= []).push(box);
  });
  return (boxesOnce = { boxOf, parents, functions, children, roots });
}

// Everything that follows from what is chosen.
let now = null;
function count() {
  const own = ownTimes(shownThreads(), chosen.range);
  const total = totalsOf(data.nodes.parent, own);
  const { boxOf, parents } = boxes();
  const boxOwn = new Float64Array(parents.length);
  own.forEach((ticks, at) => (boxOwn[boxOf[at]] += ticks));
  const boxTotal = totalsOf(parents, boxOwn);
  const all = own.reduce((sum, ticks) => sum + ticks, 0);
  now = { own, total, boxOwn, boxTotal, all };
  if (data.difference) countOther();
  now.rows = data.difference ? rowsOfDifference() : isPart() ? rowsOfPart() : data.views[chosen.view].rows.map(rowOf);
  now.rowOf = new Map(now.rows.map((row) => [row.function, row]));
  // Exact times are not those of the estimated stacks.
  now.seconds = now.rows.reduce((sum, row) => sum + row.own, 0);
}

// Of a difference: what the other profile has at the same places, and in all.
function countOther() {
  const { boxOf, parents } = boxes();
  const own = ownTimes([1 - chosen.view], null);
  now.other = totalsOf(data.nodes.parent, own);
  now.boxOtherOwn = new Float64Array(parents.length);
  own.forEach((ticks, at) => (now.boxOtherOwn[boxOf[at]] += ticks));
  now.boxOther = totalsOf(parents, now.boxOtherOwn);
}

function rowsOfDifference() {
  return data.difference.map(([old, anew], at) => {
    const shown = (chosen.view === 0 ? anew : old) ?? [0, 0, 0, 0];
    const change = (part) => (anew?.[part] ?? 0) - (old?.[part] ?? 0);
    return { function: at, calls: null, primitive: null, own: shown[2], total: shown[3], bound: false, callers: null, old, anew, ownChange: change(2), totalChange: change(3) };
  });
}

// What of a difference is new minus old, whichever side is shown.
const changeOf = (shown, other) => (chosen.view === 0 ? shown - other : other - shown);
const signed = (value) => (value > 0 ? "+" : value < 0 ? "-" : "±") + timeText(Math.abs(value));

const rowOf = ([of, calls, primitive, own, total, bound, callers]) => ({ function: of, calls, primitive, own, total, bound: bound === 1, callers });

// Rows of a part of the threads or of the time: of its calls nothing is known.
function rowsOfPart() {
  const { own, total } = now;
  const { function: functionOf } = data.nodes;
  const { ofFunction } = outermost();
  const owns = new Float64Array(data.functions.length);
  const totals = new Float64Array(data.functions.length);
  for (let at = 0; at < own.length; at++) {
    owns[functionOf[at]] += own[at];
    if (ofFunction[at]) totals[functionOf[at]] += total[at];
  }
  const rows = [];
  for (let at = 0; at < totals.length; at++) {
    if (totals[at] > 0) rows.push({ function: at, calls: null, primitive: null, own: seconds(owns[at]), total: seconds(totals[at]), bound: false, callers: null });
  }
  return rows;
}

// Callers and callees of a function: function, calls, own and cumulative seconds of the callee along the edge.
function callersOf(of) {
  const row = now.rowOf.get(of);
  if (row?.callers) return row.callers.map(([caller, calls, , own, total]) => ({ function: caller, calls, own, total, bound: row.bound }));
  return edges((at, parent) => functionAt(at) === of && functionAt(parent), of);
}

function calleesOf(of) {
  if (!isPart() && !data.difference) {
    const found = [];
    for (const row of now.rows) {
      for (const [caller, calls, , own, total] of row.callers) {
        if (caller === of) found.push({ function: row.function, calls, own, total, bound: row.bound });
      }
    }
    return found;
  }
  return edges((at, parent) => functionAt(parent) === of && functionAt(at));
}

const functionAt = (node) => data.nodes.function[node];

// Sums along the edges for which `other` gives the function at the other end; an edge counts once on a stack.
function edges(other) {
  const { own, total } = now;
  const { parent } = data.nodes;
  const found = new Map();
  const end = (at) => (parent[at] < 0 ? false : other(at, parent[at]));
  walk(
    (at) => {
      const of = end(at);
      if (of === false) return;
      let edge = found.get(of);
      if (!edge) found.set(of, (edge = { function: of, calls: null, own: 0, total: 0, other: 0, bound: false, open: 0 }));
      edge.own += seconds(own[at]);
      if (edge.open++ > 0) return;
      edge.total += seconds(total[at]);
      if (now.other) edge.other += seconds(now.other[at]);
    },
    (at) => {
      const of = end(at);
      if (of !== false) found.get(of).open--;
    },
  );
  return [...found.values()].filter((edge) => edge.total > 0 || edge.other > 0);
}

// Names.
const nameOf = (of) => data.functions[of][0] || "(no name)";
const placeOf = (of) => {
  const [, file, line] = data.functions[of];
  return line ? file + ":" + line : file;
};
let lowerOnce = null;
function matching() {
  if (chosen.wanted === "") return null;
  lowerOnce ??= data.functions.map((f, at) => (f[0] + " " + placeOf(at)).toLowerCase());
  return lowerOnce.map((text) => text.includes(chosen.wanted));
}

// Time in which a matching function is on the stack, each moment once.
function matchedTime(matches) {
  const { boxTotal } = now;
  const { parents, functions } = boxes();
  const inside = new Uint8Array(parents.length);
  let sum = 0;
  for (let box = 0; box < parents.length; box++) {
    const above = parents[box] >= 0 && inside[parents[box]];
    if (!above && matches[functions[box]]) sum += boxTotal[box];
    inside[box] = above || matches[functions[box]] ? 1 : 0;
  }
  return sum;
}

// How numbers look.
const unit = () => (data.unit_unknown ? "" : " s");
function timeText(value) {
  if (data.unit_unknown) return Number((value * 1e9) / data.tick_ns).toLocaleString("en");
  if (value >= 0.001 || value === 0) return value.toFixed(3) + " s";
  return (value * 1e6).toFixed(1) + " µs";
}
const percent = (part, whole) => (whole > 0 ? ((100 * part) / whole).toFixed(1) + " %" : "");
