// Opens a page in Chromium in every width and colour scheme, and prints what it found as JSON:
// for each look the console's messages, elements that overflow, and axe-core's violations.
//
// node page_checks.mjs NODE_MODULES CHROMIUM PAGE [FOLDER_FOR_SCREENSHOTS]
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, executablePath, page, folder] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

// A sheet of A4 between margins of 10 mm, in pixels of 1/96 inch.
const PAPER = 718;
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const looks = [];
for (const colorScheme of ["light", "dark"]) {
  for (const width of [360, 768, 1200]) {
    // The page forbids scripts, and axe-core is one.
    const context = await browser.newContext({
      colorScheme, viewport: { width, height: 900 }, bypassCSP: true,
    });
    const tab = await context.newPage();
    const console_ = [];
    tab.on("console", (message) => console_.push(message.text()));
    tab.on("pageerror", (error) => console_.push(String(error)));
    await tab.goto(pathToFileURL(page).href);
    const overflow = await tab.evaluate(
      () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
    );
    if (folder) {
      await tab.screenshot({ path: `${folder}/${colorScheme}-${width}.png`, fullPage: true });
    }
    await tab.emulateMedia({ media: "print" });
    await tab.setViewportSize({ width: PAPER, height: 900 });
    const printed = await tab.evaluate(
      () => [document.documentElement.scrollWidth, getComputedStyle(document.body).color],
    );
    if (folder && width === 360) {
      await tab.screenshot({ path: `${folder}/print-${colorScheme}.png`, fullPage: true });
    }
    await tab.emulateMedia({ media: "screen" });
    await tab.setViewportSize({ width, height: 900 });
    await tab.evaluate(axe);
    const { violations, passes } = await tab.evaluate(() => globalThis.axe.run(document));
    looks.push({
      colorScheme, width, overflow, printed, console: console_, passes: passes.length,
      violations: violations.map((one) => ({
        id: one.id, help: one.help, nodes: one.nodes.map((node) => node.html.slice(0, 200)),
      })),
    });
    await context.close();
  }
}
await browser.close();
console.log(JSON.stringify(looks));
