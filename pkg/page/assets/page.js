// The page's state, and the stream that keeps it right: its first frame is all of it, each other one what has changed.

import { $, say, text } from "./dom.js";
import * as view from "./view.js";
import { noticed, prepare } from "./place.js";

const state = { shows: [], orders: [], outbox: { events: 0, oldestSeconds: 0 }, broker: { queues: [], dead: 0 }, database: "", history: [] };
const steps = 150; // of the history
const changed = new Set();
let paused = false;
let due = 0;

function draw() {
  due = 0;
  if (paused) return;
  for (const part of changed) view[part]?.(state);
  changed.clear();
}

function change(part) {
  changed.add(part);
  due ||= requestAnimationFrame(draw);
}

function merge(frame) {
  for (const [part, value] of Object.entries(frame)) {
    switch (part) {
      case "point":
        if (state.history.at(-1)?.at === value.at) break; // it came with the state
        state.history = [...state.history, value].slice(-steps);
        change("history");
        break;
      case "events":
        view.passing(value);
        change("events");
        break;
      default:
        tell(part, value);
        state[part] = value;
        change(part);
    }
  }
  if (frame.orders) noticed(frame.orders);
}

// tell has spoken what one should hear of: a server that goes or comes back, a show that is sold out.
function tell(part, value) {
  if (part === "broker" && (value.trouble ?? "") !== (state.broker.trouble ?? "")) say(value.trouble || "The broker is back.");
  if (part === "database" && value !== state.database) say(value || "The database is back.");
  if (part === "shows") {
    for (const show of value) {
      const before = state.shows.find((s) => s.id === show.id);
      if (before && before.free > 0 && show.free === 0) say(`${show.name} is sold out.`);
    }
  }
}

function link(word, sentence) {
  const before = $("link").dataset.state;
  if (word === "lost" && before === "live") say("The connection is lost.");
  if (word === "live" && before === "lost") say("The connection is back.");
  $("link").dataset.state = word;
  text($("link"), sentence);
}

// What was not heard of for so long is dead: the server says at least every five seconds that it is there.
const silence = 12000;
let dog = 0;
function alive(source) {
  clearTimeout(dog);
  dog = setTimeout(() => again(source), silence);
}

let pause = 500;
function again(source) {
  source.close();
  clearTimeout(dog);
  link("lost", "Connection lost, trying again");
  setTimeout(connect, pause + Math.random() * pause);
  pause = Math.min(2 * pause, 8000);
}

function connect() {
  const source = new EventSource("/page/stream");
  alive(source);
  source.addEventListener("message", (message) => {
    alive(source);
    pause = 500;
    link("live", "Live");
    merge(JSON.parse(message.data));
  });
  source.addEventListener("beat", () => alive(source));
  source.addEventListener("error", () => again(source));
}

$("sampled").hidden = false;
const button = $("pause");
button.hidden = false;
button.addEventListener("click", () => {
  paused = !paused;
  button.setAttribute("aria-pressed", String(paused));
  if (!paused) for (const part of ["shows", "orders", "outbox", "broker", "database", "history", "events"]) change(part);
});

prepare();
connect();
