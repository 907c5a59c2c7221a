"use strict";
(async () => {
  const $ = (id) => document.getElementById(id);
  if (!$("map")) return;

  // ------------------------------------------------------------------ the figures
  const unpack = async () => {
    const bytes = Uint8Array.from(atob($("figures").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  };
  let data;
  try {
    data = await unpack();
  } catch {
    $("failed").hidden = false;
    $("chart").hidden = true;
    return;
  }
  const summed = (differences) => {
    let sum = 0;
    return differences.map((difference) => (sum += difference));
  };
  const { rows, length, rank, score, kept, text, characters } = data;
  if (!rows) return;
  const index = summed(data.index);
  const start = summed(data.start);
  const total = Math.max(1, characters);
  // Neighbours overlap: a segment's place on the map ends where the next one's begins.
  const until = start.map((at, row) => Math.max(at + 1, row + 1 < rows ? start[row + 1] : at + length[row]));
  const keptRows = Object.keys(kept).map(Number).sort((a, b) => a - b);
  const known = score.filter((value) => value !== null);
  const low = known.reduce((a, b) => Math.min(a, b), Infinity);
  const high = known.reduce((a, b) => Math.max(a, b), -Infinity);
  const worth = (row) => (score[row] === null ? -Infinity : score[row]);
  const best = rank.reduce((found, value, row) => (value < rank[found] ? row : found), 0);

  // ------------------------------------------------------------------ what is shown
  let view = { from: 0, to: total };
  let held = keptRows.length ? keptRows.reduce((a, b) => (rank[b] < rank[a] ? b : a)) : best;
  let pointed = null;
  let drag = null;
  const whole = { from: 0, to: total };
  const number = (value) => value.toLocaleString("en-US");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const rowAt = (character) => {
    let a = 0;
    let b = rows - 1;
    while (a < b) {
      const middle = (a + b + 1) >> 1;
      if (start[middle] <= character) a = middle;
      else b = middle - 1;
    }
    return a;
  };

  // The best row of each column of pixels, kept ones before others; and how many rows there are in it.
  const binned = (range, width) => {
    const rowOf = new Int32Array(width).fill(-1);
    const count = new Int32Array(width);
    const perCharacter = width / (range.to - range.from);
    for (let row = rowAt(range.from); row < rows && start[row] < range.to; row++) {
      const first = Math.max(0, Math.floor((start[row] - range.from) * perCharacter));
      const last = Math.min(width, Math.max(first + 1, Math.floor((until[row] - range.from) * perCharacter)));
      for (let x = first; x < last; x++) {
        count[x]++;
        if (rowOf[x] < 0 || worth(row) > worth(rowOf[x])) rowOf[x] = row;
      }
    }
    return { rowOf, count, perCharacter };
  };

  const prepared = (canvas) => {
    const box = canvas.getBoundingClientRect();
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(box.width * scale);
    canvas.height = Math.round(box.height * scale);
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    return { pen, width: Math.max(1, Math.floor(box.width)), height: box.height };
  };

  const FOOT = 34; // below the bars: marks of kept segments, then characters
  const HEAD = 8;
  const share = (row) => (score[row] === null ? 0 : high > low ? (score[row] - low) / (high - low) : 0.5);
  let bins = null; // of the view; made with it, so that a pointer that comes before the drawing finds what it is over

  const drawBars = () => {
    const { pen, width, height } = prepared($("bars"));
    const floor = height - FOOT;
    const tall = (row) => Math.max(2, share(row) * (floor - HEAD));
    const at = (character) => (character - view.from) * bins.perCharacter;
    pen.fillStyle = colour("--line");
    pen.fillRect(0, floor, width, 1);
    pen.fillStyle = colour("--faint");
    for (const part of [0, 0.5]) pen.fillRect(0, Math.round(HEAD + part * (floor - HEAD)), width, 1);
    pen.fillStyle = colour("--bar");
    for (let x = 0; x < width; ) {
      const row = bins.rowOf[x];
      let end = x + 1;
      while (end < width && bins.rowOf[end] === row) end++;
      const gap = end - x > 40 ? 3 : end - x > 3 ? 1 : 0;
      if (row >= 0) pen.fillRect(x, floor - tall(row), end - x - gap, tall(row));
      x = end;
    }
    for (const row of keptRows) {
      if (until[row] < view.from || start[row] > view.to) continue;
      const x = Math.floor(at(start[row]));
      const wide = Math.max(2, Math.floor(at(until[row])) - x);
      const gap = wide > 40 ? 3 : wide > 3 ? 1 : 0;
      const middle = x + Math.max(1, (wide - gap) / 2);
      pen.fillStyle = pen.strokeStyle = colour("--accent");
      pen.beginPath();
      pen.moveTo(middle, floor + 4);
      pen.lineTo(middle - 4.5, floor + 12);
      pen.lineTo(middle + 4.5, floor + 12);
      pen.closePath();
      if (kept[row] === 1) {
        pen.fillRect(x, floor - tall(row), wide - gap, tall(row));
        pen.fill();
      } else {
        pen.strokeRect(x + 0.5, floor - tall(row) + 0.5, Math.max(1, wide - gap - 1), tall(row) - 1);
        pen.stroke();
      }
    }
    drawHeld(pen, at, width, floor);
    drawScales(pen, width, height, floor);
    if (drag && drag.moved) {
      pen.globalAlpha = 0.18;
      pen.fillStyle = colour("--accent");
      pen.fillRect(Math.min(drag.from, drag.to), 0, Math.abs(drag.to - drag.from), floor);
      pen.globalAlpha = 1;
    }
  };

  const drawHeld = (pen, at, width, floor) => {
    const row = pointed === null ? held : pointed;
    const from = Math.max(0, at(start[row]));
    const to = Math.min(width, Math.max(from + 2, at(until[row])));
    if (to <= 0 || from >= width) return;
    pen.fillStyle = colour("--ink");
    pen.fillRect(from, floor, to - from, 2);
    if (to - from > 8) return;
    pen.globalAlpha = pointed === null ? 0.3 : 0.7;
    pen.fillRect(Math.min(width - 1, Math.round((from + to) / 2)), 0, 1, floor);
    pen.globalAlpha = 1;
  };

  const drawScales = (pen, width, height, floor) => {
    pen.font = `12px ${colour("--sans")}`;
    pen.fillStyle = colour("--soft");
    pen.textBaseline = "alphabetic";
    const marks = Math.max(2, Math.min(5, Math.floor(width / 160)));
    for (let mark = 0; mark <= marks; mark++) {
      pen.textAlign = mark === 0 ? "left" : mark === marks ? "right" : "center";
      const character = Math.round(view.from + (mark / marks) * (view.to - view.from));
      pen.fillText(number(character), (mark / marks) * width, height - 4);
    }
    if (!known.length) return;
    pen.textAlign = "left";
    const values = high > low ? [[high, HEAD + 12], [(high + low) / 2, HEAD + (floor - HEAD) / 2 + 12]] : [[high, HEAD + 12]];
    for (const [value, y] of values) {
      const words = value.toFixed(2);
      pen.globalAlpha = 0.8;
      pen.fillStyle = colour("--paper");
      pen.fillRect(0, y - 11, pen.measureText(words).width + 6, 14);
      pen.globalAlpha = 1;
      pen.fillStyle = colour("--soft");
      pen.fillText(words, 2, y);
    }
  };

  const drawStrip = () => {
    const { pen, width, height } = prepared($("strip"));
    const { rowOf, perCharacter } = binned(whole, width);
    pen.fillStyle = colour("--faint");
    pen.fillRect(0, 0, width, height);
    pen.fillStyle = colour("--bar");
    for (let x = 0; x < width; x++) {
      if (rowOf[x] < 0) continue;
      pen.globalAlpha = Math.pow(share(rowOf[x]), 1.5);
      pen.fillRect(x, 0, 1, height);
    }
    pen.globalAlpha = 1;
    pen.fillStyle = colour("--accent");
    for (const row of keptRows) pen.fillRect(Math.floor(start[row] * perCharacter), 0, Math.max(2, (until[row] - start[row]) * perCharacter), height);
    const from = view.from * perCharacter;
    const to = Math.max(from + 4, view.to * perCharacter);
    pen.fillStyle = colour("--paper");
    pen.globalAlpha = 0.65;
    pen.fillRect(0, 0, from, height);
    pen.fillRect(to, 0, width - to, height);
    pen.globalAlpha = 1;
    if (view.to - view.from < total) {
      pen.strokeStyle = colour("--soft");
      pen.strokeRect(from + 0.5, 0.5, to - from - 1, height - 1);
    }
  };

  // ------------------------------------------------------------------ the segment in words
  const describe = () => {
    const row = pointed === null ? held : pointed;
    $("detail").hidden = false;
    $("which").textContent = `Segment ${number(index[row] + 1)} of ${number(data.segments)}`;
    $("badge").hidden = !kept[row];
    $("badge").textContent = kept[row] === 2 ? "kept, but did not fit" : "kept";
    const figures = [["Rank", number(rank[row])], ["Score", score[row] === null ? "none" : score[row].toFixed(3)]];
    const evidence = Object.entries(data.evidence).map(([name, column]) => [name, column[row]]);
    for (const [name, value] of [...evidence, ...Object.entries(data.again[row] || {})]) {
      const label = name.charAt(0).toUpperCase() + name.slice(1).replaceAll("_", " ");
      figures.push([label, value === null ? "none" : `${value.toFixed(3)} nats`]);
    }
    figures.push(["Characters", `${number(start[row])} to ${number(start[row] + length[row])}`]);
    const name = data.names[data.source[row]];
    if (name !== undefined) figures.push(["From", name]);
    $("figures-list").replaceChildren(
      ...figures.map(([label, value]) => {
        const pair = document.createElement("div");
        for (const [tag, words] of [["dt", label], ["dd", value]]) {
          pair.appendChild(document.createElement(tag)).textContent = words;
        }
        return pair;
      }),
    );
    const shown = text[row];
    const missing = length[row] - (shown === undefined ? 0 : Array.from(shown).length);
    $("excerpt").textContent = shown || "";
    $("excerpt").scrollTop = 0;
    if (missing > 0) {
      const rest = document.createElement("span");
      rest.className = "rest";
      rest.textContent = shown === undefined
        ? `This page does not hold the text of this segment (${number(missing)} characters), to stay small.`
        : `… ${number(missing)} more characters`;
      $("excerpt").append(rest);
    }
    const bars = $("bars");
    bars.setAttribute("aria-valuenow", String(index[held] + 1));
    bars.setAttribute(
      "aria-valuetext",
      `Segment ${number(index[held] + 1)}, rank ${number(rank[held])}, score ${score[held]}${kept[held] ? ", kept" : ""}`,
    );
    $("previous").disabled = !keptRows.some((other) => other < held);
    $("next").disabled = !keptRows.some((other) => other > held);
  };

  let waiting = false;
  const draw = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      drawBars();
      describe();
    });
  };
  const look = (from, to) => {
    const least = Math.min(total, Math.max(8, 4 * (until[held] - start[held])));
    const size = Math.min(total, Math.max(least, to - from));
    const first = Math.min(total - size, Math.max(0, (from + to - size) / 2));
    view = { from: first, to: first + size };
    bins = binned(view, Math.max(1, Math.floor($("bars").getBoundingClientRect().width)));
    $("all").disabled = $("out").disabled = size >= total;
    $("in").disabled = size <= least;
    drawStrip();
    draw();
  };
  const zoom = (factor, around = (start[held] + until[held]) / 2) => {
    const size = (view.to - view.from) * factor;
    const middle = around < view.from || around > view.to ? (view.from + view.to) / 2 : around;
    const left = (middle - view.from) / (view.to - view.from);
    look(middle - left * size, middle + (1 - left) * size);
  };
  const hold = (row) => {
    held = Math.max(0, Math.min(rows - 1, row));
    pointed = null;
    const size = view.to - view.from;
    const middle = (start[held] + until[held]) / 2;
    if (start[held] < view.from || until[held] > view.to) look(middle - size / 2, middle + size / 2);
    else draw();
  };
  const step = (direction) => {
    const found = keptRows.filter((row) => (direction > 0 ? row > held : row < held));
    if (found.length) hold(direction > 0 ? found[0] : found[found.length - 1]);
  };

  // ------------------------------------------------------------------ pointer and keys
  const bars = $("bars");
  const place = (event, canvas) => {
    const box = canvas.getBoundingClientRect();
    return Math.max(0, Math.min(box.width - 1, event.clientX - box.left));
  };
  const under = (x) => {
    const at = (row) => ((start[row] + until[row]) / 2 - view.from) * bins.perCharacter;
    let found = bins.rowOf[Math.min(bins.rowOf.length - 1, Math.floor(x))];
    let nearest = 4; // pixels around a kept segment that are its own, however narrow it is
    for (const row of keptRows) {
      const far = Math.abs(at(row) - x);
      if (far < nearest) [found, nearest] = [row, far];
    }
    return found < 0 ? null : found;
  };
  bars.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const x = place(event, bars);
    drag = { from: x, to: x, moved: false };
    bars.setPointerCapture(event.pointerId);
  });
  const dragged = (x) => {
    drag.to = x;
    drag.moved = drag.moved || Math.abs(drag.to - drag.from) > 4;
  };
  bars.addEventListener("pointermove", (event) => {
    const x = place(event, bars);
    if (drag) dragged(x);
    pointed = drag && drag.moved ? null : under(x);
    draw();
  });
  bars.addEventListener("pointerup", (event) => {
    if (!drag) return;
    dragged(place(event, bars)); // the last move may not have been told
    const { from, to, moved } = drag;
    drag = null;
    const character = (x) => view.from + x / bins.perCharacter;
    if (moved) look(character(Math.min(from, to)), character(Math.max(from, to)));
    else {
      const row = under(to);
      if (row !== null) hold(row);
    }
  });
  bars.addEventListener("pointercancel", () => { drag = null; draw(); });
  bars.addEventListener("pointerleave", () => { pointed = null; draw(); });
  bars.addEventListener("dblclick", () => look(0, total));
  bars.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls; a pinch zooms
    event.preventDefault();
    zoom(Math.exp(event.deltaY / 200), view.from + place(event, bars) / bins.perCharacter);
  }, { passive: false });

  const strip = $("strip");
  const pan = (event) => {
    const middle = (place(event, strip) / strip.getBoundingClientRect().width) * total;
    const size = view.to - view.from < total ? view.to - view.from : total / 20;
    look(middle - size / 2, middle + size / 2);
  };
  strip.addEventListener("pointerdown", (event) => { strip.setPointerCapture(event.pointerId); pan(event); });
  strip.addEventListener("pointermove", (event) => { if (event.buttons) pan(event); });

  const keys = {
    ArrowLeft: () => hold(held - 1), ArrowRight: () => hold(held + 1),
    ArrowDown: () => hold(held - 1), ArrowUp: () => hold(held + 1),
    PageDown: () => hold(rowAt(start[held] - (view.to - view.from) / 10)),
    PageUp: () => hold(rowAt(start[held] + (view.to - view.from) / 10)),
    Home: () => hold(0), End: () => hold(rows - 1),
    n: () => step(1), p: () => step(-1),
    "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), 0: () => look(0, total), Escape: () => look(0, total),
  };
  bars.addEventListener("keydown", (event) => {
    const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  $("in").addEventListener("click", () => zoom(0.5));
  $("out").addEventListener("click", () => zoom(2));
  $("all").addEventListener("click", () => look(0, total));
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  const rowOfIndex = new Map(keptRows.map((row) => [index[row], row]));
  for (const button of document.querySelectorAll(".show")) {
    button.addEventListener("click", () => {
      const row = rowOfIndex.get(Number(button.dataset.index));
      held = row;
      const size = Math.min(total, 60 * (until[row] - start[row]));
      look(start[row] - size / 2, until[row] + size / 2);
      bars.focus({ preventScroll: true });
      $("map").scrollIntoView({ behavior: "auto" });
    });
  }
  if (rows < data.segments) {
    $("thinned").hidden = false;
    $("thinned").textContent = `Of ${number(data.segments)} segments ${number(rows)} are drawn: ` +
      "of each few neighbours the best, and every kept one.";
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawStrip(); draw(); });
  new ResizeObserver(() => look(view.from, view.to)).observe($("chart"));
  look(0, total);
  document.documentElement.dataset.ready = "yes"; // for what tests the page
})();
