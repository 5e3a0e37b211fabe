// Opens one study in OHIF, loads its only segmentation and takes pictures. Reads a job from standard input (see
// ohif.py), writes PNG files into the job's folder and one JSON object to standard output.
'use strict';

const fs = require('fs');
const path = require('path');
const { LONG, main, settled } = require('./browser.js');

// Hides the words and buttons that lie over the image.
const ONLY_IMAGE = `
  [data-cy="viewport-pane"] * { visibility: hidden }
  [data-cy="viewport-pane"] canvas { visibility: visible }`;

// All that follows runs inside the page; OHIF shows its services and libraries as globals of the window.

// The guided tour of a first visit covers what is to be clicked.
function skipTour() {
  localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']));
}

function hasImage() {
  const engines = window.services && window.cornerstone ? window.cornerstone.getRenderingEngines() : [];
  return engines.some((engine) => engine.getStackViewports().some((one) => one.getCurrentImageId()));
}

function isLoaded() {
  const viewport = window.services.viewportGridService.getActiveViewportId();
  const found = window.services.segmentationService.getSegmentationRepresentations(viewport);
  return found.length === 1 && Object.keys(found[0].segments).length > 0;
}

function setShown(isShown) {
  const { segmentationService, viewportGridService } = window.services;
  const viewport = viewportGridService.getActiveViewportId();
  const [found] = segmentationService.getSegmentationRepresentations(viewport);
  for (const index of Object.keys(found.segments)) {
    segmentationService.setSegmentVisibility(viewport, found.segmentationId, Number(index), isShown);
  }
}

async function goTo(instance) {
  const id = window.services.viewportGridService.getActiveViewportId();
  const viewport = window.services.cornerstoneViewportService.getCornerstoneViewport(id);
  const index = viewport.getImageIds().findIndex((name) => name.includes(`/instances/${instance}/`));
  if (index < 0) throw new Error('that image is not in the viewport');
  await viewport.setImageIdIndex(index);
}

function look() {
  const id = window.services.viewportGridService.getActiveViewportId();
  const viewport = window.services.cornerstoneViewportService.getCornerstoneViewport(id);
  const { dimensions, imageData } = viewport.getImageData();
  const [columns, rows] = dimensions;
  const middles = [[0, 0, 0], [columns - 1, 0, 0], [0, rows - 1, 0]];
  const area = viewport.canvas.getBoundingClientRect();
  return {
    clip: { x: area.x, y: area.y, width: area.width, height: area.height },
    corners: middles.map((index) => Array.from(viewport.worldToCanvas(imageData.indexToWorld(index)))),
    image: viewport.getCurrentImageId().split('/instances/')[1].split('/')[0],
  };
}

async function pictures(page, job, number) {
  if (job.images[number]) await page.evaluate(goTo, job.images[number]);
  await page.evaluate(setShown, true);
  await settled(page);
  const seen = await page.evaluate(look);
  fs.writeFileSync(path.join(job.folder, `screen${number}.png`), await page.screenshot());
  fs.writeFileSync(path.join(job.folder, `painted${number}.png`), await settled(page, { clip: seen.clip, style: ONLY_IMAGE }));
  await page.evaluate(setShown, false);
  fs.writeFileSync(path.join(job.folder, `plain${number}.png`), await settled(page, { clip: seen.clip, style: ONLY_IMAGE }));
  return seen;
}

async function visit(page, job) {
  await page.addInitScript(skipTour);
  await page.goto(job.address, { timeout: LONG, waitUntil: 'domcontentloaded' });
  await page.waitForFunction(hasImage, null, { timeout: LONG });
  await page.locator('[data-cy="study-browser-thumbnail-no-image"]').dblclick({ timeout: LONG });
  await page.locator('[data-cy="yes-hydrate-btn"]').click({ timeout: LONG });
  await page.waitForFunction(isLoaded, null, { timeout: LONG });
  await page.locator('[data-cy="panelSegmentation-btn"]').click({ timeout: LONG });
  await settled(page);
  const views = [];
  for (const number of job.images.keys()) views.push(await pictures(page, job, number));
  const rows = await page.locator('[data-cy="data-row"]').allInnerTexts();
  return { views, segments: rows.map((row) => row.replace(/\s+/g, ' ')) };
}

main(visit);
