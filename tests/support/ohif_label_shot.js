// Opens one study in the OHIF that MONAI Label serves, runs a bundle from its panel and takes a picture. Reads a job
// from standard input (see ohif_label.py), writes a PNG file and one JSON object to standard output.
'use strict';

const fs = require('fs');
const { LONG, main, settled } = require('./browser.js');

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
  const bundles = await tab.locator('select option').evaluateAll((all) => all.map((one) => one.value));
  await tab.locator('select').selectOption(job.bundle);
  const isAnswer = (one) => one.url().includes('/infer/');
  const answer = page.waitForResponse(isAnswer, { timeout: job.answer_within }).catch(() => null);
  await tab.locator('button', { hasText: 'Run' }).click({ timeout: LONG });
  const came = await answer;
  return { bundles, status: came === null ? 0 : came.status() };
}

async function visit(page, job) {
  const elsewhere = [];
  page.on('request', (one) => {
    if (!/^(http:\/\/127\.0\.0\.1|data:|blob:)/.test(one.url())) elsewhere.push(one.url());
  });
  await page.goto(`${job.server}/ohif/monai-label?StudyInstanceUIDs=${job.study}`, { timeout: LONG });
  await page.locator('#monailabelServerURL').waitFor({ timeout: LONG });
  const notice = page.locator('button', { hasText: 'Confirm and Hide' });
  await notice.click({ timeout: 20000 }).catch(() => {}); // lies over the lower part of the pictures
  await page.waitForTimeout(job.patience);
  await settled(page);
  let ran = { bundles: [], status: 0 };
  let shown = null;
  if (job.bundle) {
    ran = await segment(page, job);
    await page.waitForTimeout(9000); // messages lie over the pictures for some seconds
    await settled(page);
    shown = await page.evaluate(labelmap);
  }
  fs.writeFileSync(job.picture, await page.screenshot());
  return { ...ran, shown, elsewhere };
}

main(visit);
