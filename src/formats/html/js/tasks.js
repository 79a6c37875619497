// asyncio's tasks: the boxes choose those whose stacks are counted, and the stacks outside of all tasks.
const MOST_TASKS = 500;
const OUTSIDE = -1;

// Functions that stand for tasks, and for each node whether a task is on its stack. Built once.
let tasksOnce = null;
function tasks() {
  if (tasksOnce) return tasksOnce;
  const isTask = data.functions.map(([name, , , kind]) => kind === 1 && name.startsWith("<task"));
  return (tasksOnce = { isTask, all: isTask.flatMap((is, at) => (is ? [at] : [])) });
}

// For each node 1 where a task of `wanted` (positions of functions; OUTSIDE for no task at all) is on its stack.
function insideTasks(wanted) {
  const { parent, function: functionOf } = data.nodes;
  const { isTask } = tasks();
  const [inTask, inWanted] = [new Uint8Array(parent.length), new Uint8Array(parent.length)];
  for (let at = 0; at < parent.length; at++) {
    const above = parent[at];
    const is = isTask[functionOf[at]];
    inTask[at] = is || (above >= 0 && inTask[above]) ? 1 : 0;
    inWanted[at] = (is && wanted.has(functionOf[at])) || (above >= 0 && inWanted[above]) ? 1 : 0;
  }
  return wanted.has(OUTSIDE) ? inWanted.map((is, at) => (is || !inTask[at] ? 1 : 0)) : inWanted;
}

// The list follows threads and the range of time, with the time that each task has in them.
function fillTasks() {
  get("tasks").hidden = tasks().all.length === 0 || Boolean(data.difference);
  if (get("tasks").hidden) return;
  const kept = chosen.tasks;
  chosen.tasks = null;
  const own = ownTimes(shownThreads(), chosen.range);
  chosen.tasks = kept;
  const total = totalsOf(data.nodes.parent, own);
  const { ofFunction } = outermost();
  const times = new Map([[OUTSIDE, 0], ...tasks().all.map((at) => [at, 0])]);
  const outside = insideTasks(new Set([OUTSIDE]));
  own.forEach((ticks, at) => {
    if (outside[at]) times.set(OUTSIDE, times.get(OUTSIDE) + ticks);
    const of = data.nodes.function[at];
    if (ofFunction[at] && times.has(of)) times.set(of, times.get(of) + total[at]);
  });
  const listed = [...times].filter(([of, ticks]) => ticks > 0 || of === OUTSIDE);
  listed.sort((a, b) => b[1] - a[1]);
  const drawn = listed.slice(0, MOST_TASKS).map(([of, ticks]) => {
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = kept === null || kept.has(of);
    box.dataset.task = of;
    const name = document.createElement("span");
    name.textContent = of === OUTSIDE ? "outside of tasks" : nameOf(of);
    name.title = name.textContent.slice(0, 2000);
    const time = document.createElement("span");
    time.textContent = timeText(seconds(ticks));
    label.append(box, name, time);
    return label;
  });
  get("taskList").replaceChildren(...drawn);
  get("taskCount").textContent = String(tasks().all.length);
  get("moreTasks").textContent = listed.length > MOST_TASKS ? `${listed.length - MOST_TASKS} more tasks are counted and not listed` : "";
}

function chooseTasks(wanted) {
  chosen.tasks = wanted;
  tellRange();
  chooseAnew();
}

function connectTasks() {
  get("taskList").addEventListener("change", ({ target }) => {
    const set = new Set(chosen.tasks ?? [OUTSIDE, ...tasks().all]);
    const of = Number(target.dataset.task);
    if (target.checked) set.add(of);
    else set.delete(of);
    chooseTasks(set.size === tasks().all.length + 1 ? null : set);
  });
  get("allTasks").addEventListener("click", () => chooseTasks(null));
  get("noTasks").addEventListener("click", () => chooseTasks(new Set()));
}
