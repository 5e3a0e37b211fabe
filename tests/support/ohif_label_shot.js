// Opens one study in the OHIF that MONAI Label serves, runs a bundle from its panel and takes a picture. Reads a job
// from standard input (see ohif_label.py), writes a PNG file and one JSON object to standard output.
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

// Waits until three pictures of the window, half a second apart, are the same.
async function settled(page) {
  let before = null;
  for (let same = 0, turn = 0; same < 2; turn += 1) {
    if (turn > 120) throw new Error('the page does not come to rest');
    const now = await page.screenshot();
    same = before !== null && now.equals(before) ? same + 1 : 0;
    before = now;
    await page.waitForTimeout(500);
  }
  return before;
}

// Inside the page: what the labelmap holds that the panel fills.
function labelmap() {
  let volume = null;
  try {
    volume = window.services.segmentationService.getLabelmapVolume('1');
  } catch {
    return null; // no segmentation has been made
  }
  if (!volume) return null;
  const values = Uint8Array.from(volume.voxelManager.getCompleteScalarDataArray());
  let text = '';
  for (let at = 0; at < values.length; at += 32768) {
    text += String.fromCharCode(...values.subarray(at, at + 32768));
  }
  return {
    dimensions: Array.from(volume.dimensions),
    values: btoa(text),
    origin: Array.from(volume.origin),
    spacing: Array.from(volume.spacing),
    direction: Array.from(volume.direction),
  };
}

async function segment(page, job) {
  await page.locator('#monailabelServerURL').fill(job.server + '/');
  await page.locator('.settingsTable button').click({ timeout: LONG });
  await page.locator('.modelSelector select').first().waitFor({ timeout: LONG });
  await page.waitForTimeout(3000); // the panel adds its segments a second after it has connected
  const tab = page.locator('.tab', { hasText: 'Auto-Segmentation' });
  await tab.locator('select').selectOption(job.bundle);
  const isAnswer = (one) => one.url().includes('/infer/');
  const answer = page.waitForResponse(isAnswer, { timeout: job.answer_within }).catch(() => null);
  await tab.locator('button', { hasText: 'Run' }).click({ timeout: LONG });
  const came = await answer;
  return came === null ? 0 : came.status();
}

async function main() {
  const job = JSON.parse(fs.readFileSync(0, 'utf8'));
  const args = job.is_root ? [...FLAGS, '--no-sandbox'] : FLAGS;
  const browser = await chromium.launch({ executablePath: job.chromium, args });
  try {
    const page = await browser.newPage({ viewport: { width: job.width, height: job.height } });
    const problems = [];
    const elsewhere = [];
    page.on('console', (line) => {
      if (line.type() === 'error') problems.push(`${line.text().slice(0, 300)} ${line.location().url}`);
    });
    page.on('pageerror', (error) => problems.push(String(error).slice(0, 300)));
    page.on('request', (one) => {
      if (!/^(http:\/\/127\.0\.0\.1|data:|blob:)/.test(one.url())) elsewhere.push(one.url());
    });
    await page.goto(`${job.server}/ohif/monai-label?StudyInstanceUIDs=${job.study}`, { timeout: LONG });
    await page.locator('#monailabelServerURL').waitFor({ timeout: LONG });
    const notice = page.locator('button', { hasText: 'Confirm and Hide' });
    await notice.click({ timeout: 20000 }).catch(() => {}); // lies over the lower part of the pictures
    await page.waitForTimeout(job.patience);
    await settled(page);
    let status = 0;
    let shown = null;
    if (job.bundle) {
      status = await segment(page, job);
      await page.waitForTimeout(9000); // messages lie over the pictures for some seconds
      await settled(page);
      shown = await page.evaluate(labelmap);
    }
    fs.writeFileSync(job.picture, await page.screenshot());
    process.stdout.write(JSON.stringify({ status, shown, problems, elsewhere }));
  } finally {
    await browser.close();
  }
}

main().catch((error) => {
  process.stderr.write(String(error.stack || error));
  process.exitCode = 1;
});
