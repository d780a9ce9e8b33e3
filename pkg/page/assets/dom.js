// Small means to write into the document. Text goes in as text, never as markup.

export const $ = (id) => document.getElementById(id);

// el makes an element with attributes, and strings or elements in it.
export function el(name, attributes, ...inner) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) e.setAttribute(key, value);
  e.append(...inner);
  return e;
}

export function svg(name, attributes, ...inner) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes ?? {})) e.setAttribute(key, value);
  e.append(...inner);
  return e;
}

// text writes only where something has changed, so that a selection stays.
export function text(e, value) {
  const s = String(value);
  if (e.textContent !== s) e.textContent = s;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const number = (n) => whole.format(n);
export const plural = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

// times is so many of something; no line breaks before the number.
export const times = (what, n) => `${what}\u00a0×\u00a0${n}`;

// took says how long something took, in milliseconds.
export function took(ms) {
  if (ms < 10000) return `${number(Math.max(0, ms))} ms`;
  return ms < 120000 ? `${number(ms / 1000)} s` : `${number(ms / 60000)} min`;
}

export const clock = (date) => date.toTimeString().slice(0, 8);

// say has a screen reader speak, politely and not more often than one can listen: what comes meanwhile is said together.
let waiting = [];
let timer = 0;
export function say(sentence) {
  if (waiting.length < 4 && !waiting.includes(sentence)) waiting.push(sentence);
  timer ||= setTimeout(speak, 150);
}
function speak() {
  text($("said"), waiting.join(" "));
  waiting = [];
  timer = setTimeout(() => { timer = 0; if (waiting.length) speak(); }, 2500);
}
