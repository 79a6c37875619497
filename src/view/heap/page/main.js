// Names come from the program whose heap it is: they are only ever set as text, never as HTML.
function searchHeap() {
  picked.wanted = get("search").value.toLowerCase();
  order.most = 100;
  fillTypes();
  fillModules();
  fillCaches();
}

function toggleThemeOfHeap() {
  toggleTheme();
  drawMap();
  drawChart();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target;
  if (event.key === "Escape") {
    if (target === get("search") && get("search").value !== "") {
      get("search").value = "";
      searchHeap();
    } else if (get("help").open) get("help").close();
    else if (map.zoom >= 0) zoomMap(heap.rows.above[map.zoom]);
    else if (picked.type >= 0) chooseType(-1);
    if (target !== get("map")) target.blur?.();
    return;
  }
  if (["INPUT", "SELECT", "TEXTAREA"].includes(target.tagName)) return;
  let act = { "/": () => get("search").focus(), t: toggleThemeOfHeap, "?": () => get("help").showModal() }[event.key];
  if (event.key === "Enter" && target.dataset?.type) act = () => chooseType(Number(target.dataset.type));
  if (event.key === "Enter" && target.className === "line") act = () => unfold(target);
  if (target === get("map")) {
    if (event.key.startsWith("Arrow")) act = () => moveMap(event.key);
    if (event.key === "Enter" && map.mark >= 0) act = () => zoomMap(map.mark);
  }
  if (act) {
    event.preventDefault();
    act();
  }
}

function connect() {
  get("search").addEventListener("input", searchHeap);
  get("theme").addEventListener("click", toggleThemeOfHeap);
  get("keys").addEventListener("click", () => get("help").showModal());
  get("closeHelp").addEventListener("click", () => get("help").close());
  get("closeType").addEventListener("click", () => chooseType(-1));
  get("more").addEventListener("click", () => {
    order.most *= 4;
    fillTypes();
  });
  get("rows").addEventListener("click", (event) => {
    const line = event.target.closest("[data-type]");
    if (line) chooseType(Number(line.dataset.type));
  });
  get("map").addEventListener("mousemove", (event) => tellRow(rowUnder(event)));
  get("map").addEventListener("click", (event) => {
    const at = rowUnder(event);
    if (at >= 0) zoomMap(at);
  });
  get("crumbs").addEventListener("click", (event) => {
    if (event.target.dataset.row !== undefined) zoomMap(Number(event.target.dataset.row));
  });
  get("tree").addEventListener("click", (event) => {
    const line = event.target.closest(".line");
    if (line) unfold(line);
  });
  addEventListener("resize", () => {
    drawMap();
    drawChart();
  });
  document.addEventListener("keydown", onKey);
}

function fillTotals() {
  const least = heap.least ? "at least " : "";
  let text = `${least}${heap.objects} objects, ${bytesText(heap.bytes)}`;
  if (heap.old) text += `; before: ${heap.old[0]} objects, ${bytesText(heap.old[1])}; change ${signed(heap.objects - heap.old[0], String)}, ${signed(heap.bytes - heap.old[1], bytesText)}`;
  get("totals").textContent = text;
  get("moreTypes").textContent = heap.more_types ? `${heap.more_types} types with fewer bytes are not in this page` : "";
}

async function start() {
  try {
    const element = get("data");
    const [head, columns] = await unpack(element.textContent.trim());
    element.remove();
    heap = readHeap(head, columns);
    get("title").textContent = heap.title;
    document.title = heap.title.slice(0, 200) + " - biopsy";
    get("note").textContent = heap.note;
    fillTotals();
    makeTypesHead();
    fillTypes();
    fillParts();
    fillModules();
    fillCaches();
    if (heap.whole !== null) {
      get("holders").hidden = false;
      get("sizes").textContent = `${bytesText(heap.whole)} are kept alive from roots; ${heap.sizes}. A box holds what would go if its object went.`;
      get("tree").append(...treeItems(-1, 0));
    }
    connect();
    connectChart();
    drawMap();
    drawChart();
    document.documentElement.dataset.ready = "yes";
  } catch (error) {
    get("note").textContent = "This page cannot be shown: " + error.message;
    throw error;
  }
}
start();
