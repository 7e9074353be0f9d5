"use strict";
// Everything that came from outside is set as text, never as markup.

const $ = (id) => document.getElementById(id);
const requests = new Map();
let manner = null;
let home = "";
let canSign = false;
let chosen = null; // the number of the request that is shown
let shown = null; // the whole of it
let formatted = true;

function make(name, className, text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function time(at) {
  return new Date(at * 1000).toLocaleTimeString([], { hour12: false });
}

function size(bytes) {
  return bytes < 1024 ? `${bytes} B` : `${(bytes / 1024).toFixed(1)} KiB`;
}

function took(seconds) {
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;
}

function kindOf(answer) {
  return /^2/.test(answer) ? "good" : "bad";
}

function row(one) {
  const button = make("button");
  button.type = "button";
  button.dataset.number = one.number;
  const what = one.batch ? `batch of ${one.events}` : one.types[0] || `${one.method} ${one.path}`;
  button.append(make("span", "type", what));
  const right = make("span", "right");
  if (one.seen > 1) right.append(make("span", "tag note", `${one.seen}×`), " ");
  const verdict = one.ok ? "verified" : one.codes[0] || "not verified";
  right.append(make("span", `tag ${one.ok ? "good" : "bad"}`, verdict));
  button.append(right);
  button.append(make("span", "meta mono", one.id || "no id"));
  button.append(make("span", "meta right", `${time(one.at)} · ${one.answer}`));
  button.addEventListener("click", () => choose(one.number));
  const item = make("li");
  item.append(button);
  return item;
}

function count() {
  const number = requests.size;
  $("count").textContent = number === 0 ? "no requests" : number === 1 ? "1 request" : `${number} requests`;
  $("nothing").hidden = number > 0;
}

function add(one) {
  requests.set(one.number, one);
  const item = row(one);
  one.item = item;
  $("requests").prepend(item);
  if (requests.size > 500) {
    const oldest = requests.keys().next().value;
    requests.get(oldest).item.remove();
    requests.delete(oldest);
  }
  count();
}

function forget() {
  requests.clear();
  $("requests").replaceChildren();
  count();
}

function leave() {
  chosen = null;
  shown = null;
  document.body.classList.remove("chosen");
  $("detail").hidden = true;
  mark();
}

function mark() {
  for (const button of document.querySelectorAll("#requests button")) {
    button.setAttribute("aria-current", String(Number(button.dataset.number) === chosen));
  }
}

async function choose(number) {
  chosen = number;
  mark();
  const answer = await fetch(`/_/requests/${number}`);
  const document_ = await answer.json();
  if (chosen !== number) return; // another one was chosen meanwhile
  if (!answer.ok) {
    leave();
    say(document_.error);
    return;
  }
  shown = document_;
  detail();
}

function finding(kind, head, more) {
  const box = make("div", kind);
  box.append(make("p", "", head));
  for (const text of more) box.append(make("p", "", text));
  return box;
}

function detail() {
  const found = shown.verification;
  document.body.classList.add("chosen");
  $("detail").hidden = false;
  $("detail").scrollTop = 0;
  $("title").textContent = `#${shown.number} ${shown.method} ${shown.path}`;
  const facts = [
    time(shown.at),
    size(shown.bytes),
    `answered ${shown.answer} after ${took(shown.seconds)}`,
    shown.seen > 1 ? `this id has come ${shown.seen} times` : "",
    shown.batch ? `a batch of ${shown.events} events` : "",
  ].filter(Boolean).join(" · ");
  const boxes = [];
  if (found.ok) {
    const age = found.age_seconds === null ? "" : `, signed ${Math.round(found.age_seconds)} s before it came`;
    boxes.push(finding("good", `Verified: ${found.id}${age}.`, [facts, ...found.notes]));
  } else {
    boxes.push(finding("bad", "Not verified.", [facts, ...found.notes]));
    for (const one of found.findings) {
      boxes.push(finding("note", `${one.code}: ${one.says}.`, [`${one.remedy}.`]));
    }
  }
  $("verdict").replaceChildren(...boxes);
  const rows = shown.headers.map(([name, value]) => {
    const line = make("tr", /^(webhook|svix|x-webhook)-/i.test(name) ? "ours" : "");
    line.append(make("td", "", name), make("td", "", value));
    return line;
  });
  $("headers").tBodies[0].replaceChildren(...rows);
  $("target").value = home.replace(/\/$/, "") + shown.path;
  $("came").textContent = "";
  $("resign").hidden = !canSign;
  body();
}

function body() {
  let text = shown.body;
  let isJson = false;
  if (text === undefined) {
    text = `${shown.body_base64}\n\n(not text: shown in base64)`;
  } else {
    try {
      const pretty = JSON.stringify(JSON.parse(text), null, 2);
      isJson = true;
      // Formatted it is for reading only: numbers may be rounded, and the signature is over the bytes.
      if (formatted) text = pretty;
    } catch {
      // it is shown as it came
    }
  }
  $("pretty").hidden = !isJson;
  $("pretty").textContent = formatted ? "Show as it came" : "Show formatted";
  $("form").textContent = isJson && formatted ? "formatted for reading" : "as it came";
  $("body").textContent = text === "" ? "(empty)" : text;
}

function say(text) {
  $("said").textContent = text;
}

function showManner() {
  $("preset").value = manner.drop ? "drop" : String(manner.status);
  if ($("preset").value === "") {
    const option = make("option", "", String(manner.status));
    option.value = String(manner.status);
    $("preset").append(option);
    $("preset").value = option.value;
  }
  for (const name of ["retry_after", "delay_seconds", "first", "fail_members"]) {
    if (document.activeElement !== $(name)) $(name).value = manner[name];
  }
  $("check").checked = manner.check === "refuse";
  const usual = manner.status >= 200 && manner.status < 300 && !manner.drop && !manner.delay_seconds
    && !manner.fail_members && manner.check === "refuse";
  $("manner").classList.toggle("other", !usual);
  if (manner.retry_after || manner.delay_seconds || manner.first || manner.fail_members || manner.check !== "refuse") {
    $("more").open = true; // nothing that is in force stays unseen
  }
}

async function change(path, method, content) {
  const answer = await fetch(path, {
    method,
    headers: { "content-type": "application/json" },
    body: JSON.stringify(content),
  });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

async function setManner() {
  const preset = $("preset").value;
  try {
    await change("/_/manner", "PUT", {
      status: preset === "drop" ? 200 : Number(preset),
      drop: preset === "drop",
      retry_after: $("retry_after").value.trim(),
      delay_seconds: Number($("delay_seconds").value) || 0,
      first: Number($("first").value) || 0,
      fail_members: Number($("fail_members").value) || 0,
      check: $("check").checked ? "refuse" : "accept",
    });
    say("");
  } catch (error) {
    say(error.message);
  }
}

async function again(sign) {
  $("came").textContent = "sending …";
  try {
    const came = await change(`/_/requests/${shown.number}/again`, "POST", { url: $("target").value, sign });
    const what = came.failure ? `no answer: ${came.failure}: ${came.detail}` : `${came.status} ${came.body}`;
    $("came").textContent = `${what.trim()} (after ${took(came.seconds)})`;
  } catch (error) {
    $("came").textContent = error.message;
  }
}

function live(className, text) {
  $("live").className = className;
  $("live").textContent = text;
}

function listen() {
  const events = new EventSource("/_/events");
  const on = (name, work) => events.addEventListener(name, (event) => work(JSON.parse(event.data)));
  events.addEventListener("open", () => live("on", "live"));
  events.addEventListener("error", () => live("off", "not connected; trying again"));
  on("hello", (all) => {
    home = all.url;
    canSign = all.can_sign;
    manner = all.manner;
    $("url").textContent = home;
    $("try").textContent = `dispatcherd send-test ${home}`;
    forget();
    for (const one of all.requests) add(one);
    if (chosen !== null && !requests.has(chosen)) leave();
    mark();
    showManner();
  });
  on("request", add);
  on("manner", (now) => { manner = now; showManner(); });
  on("cleared", () => { forget(); leave(); });
}

$("manner").addEventListener("change", setManner);
$("manner").addEventListener("submit", (event) => event.preventDefault());
$("clear").addEventListener("click", () => change("/_/clear", "POST", {}).catch((error) => say(error.message)));
$("back").addEventListener("click", leave);
$("resend").addEventListener("click", () => again(false));
$("resign").addEventListener("click", () => again(true));
$("pretty").addEventListener("click", () => { formatted = !formatted; body(); });
$("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(home);
  $("copy").textContent = "Copied";
  setTimeout(() => { $("copy").textContent = "Copy"; }, 1500);
});
listen();
