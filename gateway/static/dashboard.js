// Gets the page again every few seconds and puts its moving parts ([data-live]) in place of the old ones, and draws the
// chart from the table below it. Without this script the page is whole, and as of when it was loaded.
"use strict";

const PATIENCE = 20000; // milliseconds that a reading may take
const SERIES = ["created", "paid", "cancelled"];
const DASHES = [[], [6, 3], [2, 3]]; // told apart without colours, too

const main = document.querySelector("main");
const pause = document.getElementById("pause");
let timer;

// The newest reading

async function renew() {
  clearTimeout(timer);
  try {
    const answer = await fetch(location.href, { signal: AbortSignal.timeout(PATIENCE) });
    if (answer.status === 401 || answer.status === 403) return location.reload(); // the token has expired
    take(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch (error) {
    lost(error);
  }
  wait();
}

function wait() {
  clearTimeout(timer);
  if (!document.hidden && pause.ariaPressed !== "true") timer = setTimeout(renew, Number(main.dataset.every));
}

function take(page) {
  const state = page.querySelector("main")?.dataset.state;
  if (!state) return lost("this is not the dashboard");
  if (state === "nothing" && main.dataset.state !== "nothing") return lost("nothing was read"); // what is here is more
  if (main.dataset.state === "nothing" && state !== "nothing") return location.reload();
  for (const part of document.querySelectorAll("[data-live]")) {
    const fresh = page.querySelector(`[data-live="${part.dataset.live}"]`);
    // What somebody points at, or stands on with the keyboard, is not taken away.
    const held = part.querySelector("a:hover, :focus");
    if (fresh && fresh.innerHTML !== part.dataset.seen && !held) {
      part.innerHTML = fresh.innerHTML;
      part.dataset.seen = fresh.innerHTML;
    }
  }
  show(state);
}

function lost(error) {
  console.info("no reading:", String(error));
  if (main.dataset.state === "nothing") return;
  const away = document.querySelector("[data-live=away]");
  if (!away.textContent.trim()) away.textContent = "There is no answer at the moment: this is what was read last. It is tried again every few seconds.";
  show("stale");
}

function show(state) {
  main.dataset.state = state;
  document.body.dataset.pulse = pause.ariaPressed === "true" ? "paused" : state;
  for (const time of document.querySelectorAll("time[datetime]:not([data-local])")) {
    const at = new Date(time.dateTime);
    time.textContent = clock(at, time.hasAttribute("data-minute") ? undefined : "2-digit");
    time.dataset.local = "";
  }
  draw();
}

const clock = (at, second) => at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second, hourCycle: "h23" });

// The chart

const chart = newChart(document.querySelector(".chart canvas"));

function newChart(canvas) {
  if (!canvas) return null;
  return new Chart(canvas, {
    type: "line",
    data: {
      labels: [],
      datasets: SERIES.map((name, index) => ({
        label: name,
        data: [],
        borderDash: DASHES[index],
        borderWidth: 2,
        pointRadius: 0,
        pointHitRadius: 12,
        tension: 0.25,
        cubicInterpolationMode: "monotone",
        fill: index === 0,
      })),
    },
    options: {
      animation: false,
      maintainAspectRatio: false,
      interaction: { mode: "index", intersect: false },
      plugins: { legend: { display: false } },
      scales: {
        x: { grid: { display: false }, ticks: { maxRotation: 0, autoSkipPadding: 24 } },
        y: { beginAtZero: true, suggestedMax: 4, border: { display: false }, ticks: { precision: 0, maxTicksLimit: 6 } },
      },
    },
  });
}

function draw() {
  if (!chart) return;
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const rows = [...document.querySelectorAll("[data-live=minutes] tr")];
  chart.data.labels = rows.map((row) => row.cells[0].textContent);
  chart.data.datasets.forEach((set, index) => {
    set.data = rows.map((row) => Number(row.cells[index + 1].textContent));
    set.borderColor = colour(SERIES[index]);
    set.backgroundColor = `${colour(SERIES[index])}22`;
    // The present minute is not over: its end is faint, so that it doesn't look like a fall.
    set.segment = { borderColor: (part) => (part.p1DataIndex === rows.length - 1 ? `${set.borderColor}44` : undefined) };
  });
  const { x, y } = chart.options.scales;
  x.ticks.color = y.ticks.color = colour("muted");
  y.grid = { color: colour("grid") };
  Object.assign(chart.options.plugins.tooltip, {
    backgroundColor: colour("text"), titleColor: colour("card"), bodyColor: colour("card"), usePointStyle: false,
  });
  chart.options.font = { family: style.getPropertyValue("font-family") };
  chart.update("none");
}

// Beginning

pause.hidden = false;
pause.addEventListener("click", () => {
  const paused = pause.ariaPressed !== "true";
  pause.ariaPressed = String(paused);
  pause.textContent = paused ? "Resume" : "Pause";
  show(main.dataset.state);
  paused ? wait() : renew();
});
document.addEventListener("visibilitychange", () => (document.hidden || pause.ariaPressed === "true" ? wait() : renew()));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
show(main.dataset.state);
wait();
