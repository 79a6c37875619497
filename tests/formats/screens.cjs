// Takes pictures of pages at three widths, in half size, and compares them with kept ones; prints for each the share of
// its squares that look different. Arguments: the folder of puppeteer-core, the browser, a page, the task as JSON:
// {golden: path without "-WIDTH.png", keep: true to write them, seen: where pictures that differ go, height}.
const fs = require("fs");
const [, , modules, executablePath, file, taskText] = process.argv;
const puppeteer = require(modules);
const task = JSON.parse(taskText);

// Squares of 8 x 8 pixels whose mean colour differs by more than this (of 255) are different; letters may be drawn a
// little differently by another version of the browser.
const DIFFERENT = 24;

const compare = (page, one, other) =>
  page.evaluate(
    async ([one, other, different]) => {
      const squares = async (data) => {
        const image = new Image();
        image.src = "data:image/png;base64," + data;
        await image.decode();
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [Math.ceil(image.width / 8), Math.ceil(image.height / 8)];
        const context = canvas.getContext("2d");
        context.imageSmoothingQuality = "high";
        context.drawImage(image, 0, 0, canvas.width, canvas.height);
        return context.getImageData(0, 0, canvas.width, canvas.height);
      };
      const [a, b] = [await squares(one), await squares(other)];
      if (a.width !== b.width || a.height !== b.height) return 1;
      let count = 0;
      for (let at = 0; at < a.data.length; at += 4) {
        const far = [0, 1, 2].some((part) => Math.abs(a.data[at + part] - b.data[at + part]) > different);
        count += far ? 1 : 0;
      }
      return count / (a.data.length / 4);
    },
    [one, other, DIFFERENT],
  );

(async () => {
  const browser = await puppeteer.launch({ executablePath, headless: true, args: ["--no-sandbox", "--disable-gpu", "--hide-scrollbars"] });
  const widths = [];
  try {
    const table = await browser.newPage();
    for (const width of [375, 800, 1600]) {
      const page = await browser.newPage();
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "light" }]);
      await page.setViewport({ width, height: task.height, deviceScaleFactor: 0.5 });
      await page.goto("file://" + file);
      await page.waitForFunction(() => document.documentElement.dataset.ready === "yes", { timeout: 60000 });
      const shot = async () => Buffer.from(await page.screenshot({ type: "png" })).toString("base64");
      const picture = await shot();
      const golden = `${task.golden}-${width}.png`;
      if (task.keep) fs.writeFileSync(golden, Buffer.from(picture, "base64"));
      const kept = fs.readFileSync(golden).toString("base64");
      const different = await compare(table, picture, kept);
      if (task.seen && different > 0) fs.writeFileSync(`${task.seen}-${width}.png`, Buffer.from(picture, "base64"));
      // What the comparison makes of a page that does look different.
      await page.evaluate(() => document.querySelector("main").prepend("x".repeat(80), document.createElement("hr")));
      const moved = await compare(table, await shot(), kept);
      await page.keyboard.press("t");
      const dark = await compare(table, await shot(), kept);
      widths.push({ width, different, moved, dark });
      await page.close();
    }
  } finally {
    await browser.close();
  }
  console.log(JSON.stringify(widths));
})();
