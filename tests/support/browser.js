// What the scripts that look at a page have in common: how the browser starts, and when a page has come to rest.
'use strict';

const fs = require('fs');
const { chromium } = require('playwright-core');

const LONG = 180000;
const FLAGS = [
  '--use-angle=swiftshader', // draws with the processor: there may be no graphics card
  '--enable-unsafe-swiftshader',
  '--ignore-gpu-blocklist',
  '--disable-dev-shm-usage',
  '--disable-background-networking',
  '--no-first-run',
];

// Waits until three pictures, half a second apart, are the same, and returns the last.
async function settled(page, options = {}) {
  let before = null;
  for (let same = 0, turn = 0; same < 2; turn += 1) {
    if (turn > 120) throw new Error('the page does not come to rest');
    const now = await page.screenshot(options);
    same = before !== null && now.equals(before) ? same + 1 : 0;
    before = now;
    await page.waitForTimeout(500);
  }
  return before;
}

// Reads a job from standard input, lets `visit(page, job)` do it, and writes what that returns as one JSON object, with
// the errors that the page has shown.
async function run(visit) {
  const job = JSON.parse(fs.readFileSync(0, 'utf8'));
  const args = job.is_root ? [...FLAGS, '--no-sandbox'] : FLAGS;
  const browser = await chromium.launch({ executablePath: job.chromium, args });
  try {
    const page = await browser.newPage({ viewport: { width: job.width, height: job.height } });
    const problems = [];
    page.on('console', (line) => {
      if (line.type() === 'error') problems.push(`${line.text().slice(0, 300)} ${line.location().url}`);
    });
    page.on('pageerror', (error) => problems.push(String(error).slice(0, 300)));
    const seen = await visit(page, job);
    process.stdout.write(JSON.stringify({ ...seen, problems }));
  } finally {
    await browser.close();
  }
}

function main(visit) {
  run(visit).catch((error) => {
    process.stderr.write(String(error.stack || error));
    process.exitCode = 1;
  });
}

module.exports = { LONG, main, settled };
