// Names come from the profiled program: they are only ever set as text, never as HTML.

// After another view, range or set of threads was chosen.
function chooseAnew() {
  count();
  fillTasks();
  keepZoom();
  fillTable();
  showFunction();
  fillFiles();
  showFile();
  drawGraph();
  fillLegend();
}

function chooseFunction(of) {
  chosen.function = of;
  for (const line of get("rows").children) line.className = Number(line.dataset.function) === of ? "chosen" : "";
  showFunction();
  if (of >= 0 && data.functions[of][3] === 0) openFile(data.functions[of][4], of);
}

function search() {
  chosen.wanted = get("search").value.toLowerCase();
  table.shown = 200;
  fillTable();
  drawGraph();
}

function chooseShape(shape) {
  graph.shape = shape;
  graph.home = true;
  graph.zoom = null;
  graph.mark = null;
  for (const button of get("shapes").children) button.ariaPressed = String(button.dataset.shape === shape);
  drawGraph();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target;
  if (event.key === "Escape") {
    if (target === get("search") && get("search").value !== "") {
      get("search").value = "";
      search();
    } else if (get("help").open) get("help").close();
    else if (graph.zoom) zoomTo(null);
    else if (isPart()) get("allTime").click();
    else if (chosen.function >= 0) chooseFunction(-1);
    target.blur?.();
    return;
  }
  // Boxes that are ticked take no letters.
  const types = ["INPUT", "SELECT", "TEXTAREA"].includes(target.tagName) && target.type !== "checkbox";
  if (types) return;
  if (target.tagName === "TR" && event.key === "Enter") return chooseFunction(Number(target.dataset.function));
  const keys = {
    "/": () => get("search").focus(),
    f: () => chooseShape("flame"),
    i: () => chooseShape("icicle"),
    v: () => chooseShape("inverted"),
    t: toggleTheme,
    "?": () => get("help").showModal(),
  };
  let act = keys[event.key];
  if (target === get("scroll")) {
    if (event.key.startsWith("Arrow")) act = () => moveMark(event.key);
    if (event.key === "Enter" && graph.mark) {
      act = () => {
        chooseFunction(graph.mark.function);
        zoomTo(graph.mark);
      };
    }
  }
  if (act) {
    event.preventDefault();
    act();
  }
}

function connect() {
  data.views.forEach((view, at) => get("view").add(new Option(view.label || "everything", at)));
  get("view").hidden = data.views.length < 2;
  get("view").addEventListener("change", (event) => {
    chosen.view = Number(event.target.value);
    chosen.threads = null;
    chosen.tasks = null;
    fillLanes();
    chooseAnew();
    drawTimeline();
  });
  get("search").addEventListener("input", search);
  get("more").addEventListener("click", () => {
    table.shown *= 4;
    fillTable();
  });
  get("reset").addEventListener("click", () => zoomTo(null));
  get("theme").addEventListener("click", toggleTheme);
  get("keys").addEventListener("click", () => get("help").showModal());
  get("closeHelp").addEventListener("click", () => get("help").close());
  for (const button of get("shapes").children) button.addEventListener("click", () => chooseShape(button.dataset.shape));
  get("flame").addEventListener("mousemove", (event) => tellBox(boxUnder(event)));
  get("flame").addEventListener("click", (event) => {
    const box = boxUnder(event);
    if (!box) return;
    chooseFunction(box.function);
    zoomTo(graph.zoom && graph.zoom.id === box.id ? null : box);
  });
  get("scroll").addEventListener("scroll", () => drawGraph(false));
  const pick = (event) => {
    const at = event.target.closest("[data-function]");
    if (at) chooseFunction(Number(at.dataset.function));
  };
  for (const id of ["rows", "callers", "callees"]) get(id).addEventListener("click", pick);
  get("files").addEventListener("click", (event) => {
    const at = event.target.closest("[data-file]");
    if (at) openFile(Number(at.dataset.file), null);
  });
  get("lines").addEventListener("click", (event) => {
    const at = event.target.closest("[data-function]");
    if (at) chooseFunction(Number(at.dataset.function));
  });
  get("closeFunction").addEventListener("click", () => chooseFunction(-1));
  window.addEventListener("resize", () => {
    drawGraph();
    drawTimeline();
  });
  document.addEventListener("keydown", onKey);
}

async function start() {
  try {
    const element = get("data");
    const [head, columns] = await unpack(element.textContent.trim());
    element.remove();
    data = decode(head, columns);
    get("title").textContent = data.title;
    document.title = data.title.slice(0, 200) + " - biopsy";
    get("note").textContent = data.note;
    get("approximate").hidden = !data.approximate;
    get("estimated").hidden = !data.estimated;
    if (!data.exact) get("estimated").textContent = "The stacks are estimated from who called whom.";
    makeHead();
    connect();
    connectTimeline();
    connectTasks();
    chooseAnew();
    drawTimeline();
    document.documentElement.dataset.ready = "yes";
  } catch (error) {
    get("note").textContent = "This page cannot be shown: " + error.message;
    throw error;
  }
}
start();
