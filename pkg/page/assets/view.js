// Each part of the state has a function of its name that writes it into the document.

import { $, clock, el, number, plural, svg, text, times, took } from "./dom.js";
import { chart } from "./chart.js";

// Roles are said, for on a small screen a row is no row of a table to the browser any more. A label stands for the heading there.
const cell = (kind, label, ...inner) => el("td", { role: "cell", ...(kind && { class: kind }), ...(label && { "data-label": label }) }, ...inner);

const seats = (part, whole) => `${whole > 0 ? ((100 * part) / whole).toFixed(2) : 0}%`;

export function shows({ shows }) {
  const rows = shows.map((s) => el("tr", s.free === 0 ? { role: "row", class: "out" } : { role: "row" },
    el("th", { scope: "row", role: "rowheader" },
      el("span", { class: "name" }, s.name),
      el("span", { class: "venue" }, `${s.venue ? `${s.venue}, ` : ""}${number(s.capacity)} seats`),
      svg("svg", { class: "bar", "aria-hidden": "true" },
        svg("rect", { class: "sold", width: seats(s.sold, s.capacity), height: "100%" }),
        svg("rect", { class: "held", x: seats(s.sold, s.capacity), width: seats(s.held, s.capacity), height: "100%" }))),
    s.free === 0 ? cell("n free", "", "Sold out") : cell("n free", "free", number(s.free)),
    cell("n", "held", number(s.held)),
    cell("n", "sold", number(s.sold))));
  $("shows").replaceChildren(...(rows.length ? rows : [el("tr", { role: "row" }, el("td", { role: "cell", colspan: 4 }, "There is no show."))]));
  options(shows);
}

// options keeps what was chosen.
function options(shows) {
  const select = document.querySelector("select[name=show]");
  const wanted = shows.map((s) => `${s.id} ${s.name}`).join("\n");
  if (select.dataset.shows === wanted) return;
  const chosen = select.value;
  select.replaceChildren(...shows.map((s) => el("option", { value: s.id }, s.name)));
  if (shows.some((s) => String(s.id) === chosen)) select.value = chosen;
  select.dataset.shows = wanted;
}

const after = (from, to) => (to ? took(new Date(to) - new Date(from)) : "–");

// Rows are made once and written anew: at thousands of orders a second making them would be most of the work.
const rows = [];
const hops = [["sent", "sent"], ["taken", "taken"], ["paid", "paid"], ["result", "told"], ["back", "back"], ["end", "ended"]]; // as they are called and told
export function orders({ orders }) {
  const body = $("orders");
  if (orders.length === 0) {
    rows.length = 0;
    body.replaceChildren(el("tr", { role: "row" }, el("td", { role: "cell", colspan: 9 }, "No order was placed yet.")));
    return;
  }
  if (rows.length === 0) body.replaceChildren();
  while (rows.length < orders.length) {
    const r = {
      id: el("span"), time: el("time"), show: cell("what"), state: el("span"), failed: el("span", { class: "failed" }),
      hops: hops.map(() => document.createTextNode("")),
    };
    const cells = hops.map(([label], i) => cell("n", label, ...(label === "paid" ? [r.failed] : []), r.hops[i]));
    r.row = el("tr", { role: "row" }, el("th", { scope: "row", role: "rowheader" }, r.id, r.time), r.show, cell("", "", r.state), ...cells);
    body.append(r.row);
    rows.push(r);
  }
  while (rows.length > orders.length) rows.pop().row.remove();
  orders.forEach((o, i) => {
    const r = rows[i];
    text(r.id, o.id);
    text(r.time, clock(new Date(o.accepted)));
    r.time.dateTime = o.accepted;
    text(r.show, times(o.show, o.quantity));
    text(r.state, o.status);
    r.state.className = `state ${o.status}`;
    text(r.failed, o.payment === "FAILED" ? "failed " : "");
    hops.forEach(([, at], i) => {
      const took = after(o.accepted, o[at]);
      if (r.hops[i].data !== took) r.hops[i].data = took;
    });
  });
}

export function outbox({ outbox }) {
  text($("outbox"), number(outbox.events));
  text($("oldest"), outbox.events ? `oldest ${took(outbox.oldestSeconds * 1000)}` : "events");
}

export function broker({ broker, database }) {
  for (const { name, what, messages } of broker.queues) {
    let tile = document.querySelector(`[data-queue="${CSS.escape(name)}"]`);
    if (!tile) {
      tile = el("div", { "data-queue": name }, el("dt", null, what), el("dd"), el("dd", { class: "more" }, name));
      $("dead").before(tile);
    }
    text(tile.querySelector("dd"), number(messages));
  }
  text($("dead").querySelector("dd"), number(broker.dead));
  $("dead").classList.toggle("bad", broker.dead > 0);
  trouble(broker.trouble, database);
}

export const database = ({ broker, database }) => trouble(broker.trouble, database);

function trouble(...sentences) {
  const all = sentences.filter(Boolean);
  const box = $("trouble");
  if (box.dataset.said === all.join()) return;
  box.dataset.said = all.join();
  box.replaceChildren(...all.map((s) => el("p", { class: "trouble" }, s)));
}

export const pod = ({ pod }) => text($("pod"), pod);

export function history({ history }) {
  $("charts").hidden = false;
  $("nohistory").hidden = true;
  const last = history.at(-1);
  if (!last) return;
  chart($("throughput"), history, (p) => p.in, (p) => p.out);
  chart($("latency"), history, (p) => p.answerP99ms, (p) => p.endP99ms);
  const rate = `${number(last.in)} in, ${number(last.out)} out a second`;
  const known = (ms) => (ms === null ? "–" : took(ms));
  const p99 = last.answerP99ms === null && last.endP99ms === null ? "no order" : `${known(last.answerP99ms)} answer, ${known(last.endP99ms)} end`;
  text($("rate"), rate);
  text($("p99"), p99);
  $("throughput").setAttribute("aria-label", `Orders: ${rate}`);
  $("latency").setAttribute("aria-label", `Time of 99 orders in 100: ${p99}`);
}

// Events pass: those that came are shown, with how many came that were not.
const most = 30;
let recent = [];
let counts = []; // of the last second: [when, shown, all]
export function passing({ shown, missed }) {
  const list = shown ?? [];
  recent = [...list.toReversed(), ...recent].slice(0, most);
  const now = performance.now();
  counts = [...counts.filter(([at]) => now - at < 1000), [now, list.length, list.length + missed]];
}

export function events() {
  $("events").replaceChildren(...recent.map((e) => {
    const at = new Date(e.at);
    return el("li", null, el("time", { datetime: e.at }, `${clock(at)}.${String(at.getMilliseconds()).padStart(3, "0")}`), el("span", null, e.key), el("span", null, e.order));
  }));
  const [seen, all] = counts.reduce(([s, a], [, shown, n]) => [s + shown, a + n], [0, 0]);
  text($("sampled"), all > seen ? `A sample: ${number(seen)} of ${plural(all, "event")} in the last second. The figures count all.` : "Events of this pod, as they pass.");
}
