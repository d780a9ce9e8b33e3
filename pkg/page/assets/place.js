// Orders are placed through the API that everybody has, and followed to their ends: one by the request that waits for it, many by
// the list of the newest.

import { $, el, number, plural, say, text, times, took } from "./dom.js";

const kept = 8;      // lines of what was placed here
const parallel = 5;  // requests of a burst at a time: a browser opens six connections, and the stream has one
const wait = "8s";   // of one request for an order's end

export function prepare() {
  const form = $("place");
  form.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    one(wish(form));
  });
  $("burst").addEventListener("click", () => {
    if (form.reportValidity()) many(wish(form), Number(form.elements.count.value));
  });
}

function wish(form) {
  const select = form.elements.show;
  return { showId: Number(select.value), quantity: Number(form.elements.quantity.value), name: select.selectedOptions[0]?.textContent ?? "" };
}

// send places an order: its id, or why not. A key makes it one order, though it be sent again.
async function send({ showId, quantity }) {
  const body = JSON.stringify({ userId: "page", showId, quantity });
  const headers = { "Content-Type": "application/json", "Idempotency-Key": key() };
  for (let tries = 0; ; tries++) {
    let answer;
    try {
      answer = await fetch("/orders", { method: "POST", headers, body });
    } catch {
      if (tries < 3) { await rest(500); continue; }
      return { why: "order-api does not answer." };
    }
    const said = await answer.json().catch(() => ({}));
    if (answer.status === 202) return { id: said.orderId };
    if (answer.status === 409) return { why: said.available === 0 ? "sold out" : `only ${plural(said.available, "seat")} left`, full: true };
    if (answer.status === 503 && tries < 3) { await rest(1000 * Number(answer.headers.get("Retry-After") ?? 1)); continue; }
    return { why: said.message ?? said.error ?? `order-api answered ${answer.status}.` };
  }
}

// key is random, also where the page was not loaded over a connection that browsers call secure.
const key = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("-");
const rest = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// line is a line of what was placed here.
function line(what) {
  const state = el("span", { class: "state" });
  const more = el("span", { class: "more" });
  const title = el("span", null, what);
  const item = el("li", null, title, state, more);
  const list = $("own");
  list.prepend(item);
  while (list.children.length > kept) list.lastElementChild.remove();
  return {
    title: (s) => text(title, s),
    more: (s) => text(more, s),
    state: (s) => { text(state, s); state.className = `state ${s}`; },
  };
}

const following = new Map(); // orders that are not at their end, by id

// noticed has the newest orders end those that are followed: the stream is often faster than the request that waits.
export function noticed(orders) {
  for (const o of orders) if (o.status !== "PENDING") following.get(o.id)?.({ ...o, took: new Date(o.ended) - new Date(o.accepted) });
}

// ended resolves when an order is at its end, however long that takes: the broker may be away.
function ended(id) {
  return new Promise((resolve) => {
    let over = false;
    const done = (o) => { over = true; following.delete(id); resolve(o); };
    following.set(id, done);
    (async () => {
      while (!over) {
        try {
          const answer = await fetch(`/orders/${id}?wait=${wait}`);
          const o = answer.ok ? await answer.json() : null;
          if (o && o.status !== "PENDING") { if (!over) done({ ...o, payment: o.paymentStatus, took: new Date(o.endedAt) - new Date(o.createdAt) }); return; }
          if (!o) await rest(1000);
        } catch { await rest(1000); }
      }
    })();
  });
}

async function one(wanted) {
  const what = times(wanted.name, wanted.quantity);
  const l = line(what);
  l.more("being placed");
  const { id, why, full } = await send(wanted);
  if (!id) {
    const sentence = full ? `${wanted.name}: ${why}.` : why;
    l.more(sentence);
    l.state("REFUSED");
    say(`Not ordered. ${sentence}`);
    return;
  }
  l.title(`Order ${id}, ${what}`);
  l.state("PENDING");
  l.more("accepted, waits for its payment");
  const o = await ended(id);
  l.state(o.status);
  const sentence = o.status === "CONFIRMED" ? `paid and confirmed after ${took(o.took)}` : o.payment === "FAILED" ? `payment failed, seats released after ${took(o.took)}` : `its hold ran out after ${took(o.took)}`;
  l.more(sentence);
  say(`Order ${id}: ${sentence}.`);
}

async function many(wanted, count) {
  const button = $("burst");
  button.disabled = true;
  const l = line(`${number(count)} orders, ${times(wanted.name, wanted.quantity)}`);
  const open = new Set();
  const n = { placed: 0, refused: 0, CONFIRMED: 0, CANCELLED: 0 };
  let why = "";
  const show = () => {
    l.state(n.placed + n.refused < count ? "PLACING" : open.size ? "PENDING" : "ENDED");
    l.more(`${number(n.placed)} accepted: ${number(open.size)} pending, ${number(n.CONFIRMED)} confirmed, ${number(n.CANCELLED)} cancelled${n.refused ? `; ${number(n.refused)} refused: ${why}` : ""}`);
  };
  const end = (id, status) => {
    if (!open.delete(id)) return;
    following.delete(id);
    n[status]++;
    show();
  };
  let begun = 0;
  const began = performance.now();
  const worker = async () => {
    while (begun++ < count) {
      const answer = await send(wanted);
      if (answer.id) {
        n.placed++;
        open.add(answer.id);
        following.set(answer.id, (o) => end(o.id, o.status));
      } else {
        n.refused++;
        why = answer.why;
      }
      show();
    }
  };
  await Promise.all(Array.from({ length: parallel }, worker));
  button.disabled = false;
  const sent = performance.now() - began;
  while (open.size) {
    await rest(400);
    await reconcile(open, end);
  }
  show();
  say(`${number(count)} orders placed in ${took(sent)}: ${number(n.CONFIRMED)} confirmed, ${number(n.CANCELLED)} cancelled, ${number(n.refused)} refused.`);
}

// reconcile looks at the newest orders for those that are not known to have ended, and at older ones one by one, a few at a time.
async function reconcile(open, end) {
  try {
    const answer = await fetch("/orders?limit=500");
    if (!answer.ok) return;
    const seen = new Set();
    for (const o of (await answer.json()).orders) {
      seen.add(o.orderId);
      if (o.status !== "PENDING") end(o.orderId, o.status);
    }
    for (const id of [...open].filter((id) => !seen.has(id)).slice(0, 20)) {
      const one = await fetch(`/orders/${id}`);
      const o = one.ok ? await one.json() : null;
      if (o && o.status !== "PENDING") end(id, o.status);
    }
  } catch { /* order-api is away: the page says so, and this is tried again */ }
}
