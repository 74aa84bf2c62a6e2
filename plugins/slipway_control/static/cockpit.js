// Updates the page in place, shows times as people read them, asks before it acts, and leads out of Airflow's frame.
import { morph } from "./morph.js";
import { showTimes } from "./times.js";

const root = document.documentElement;
const page = () => document.getElementById("page");
const pulse = document.getElementById("pulse");
const notice = document.getElementById("notice");
const say = (text) => {
  const said = document.getElementById("said");
  said.textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { said.textContent = ""; }, 6000);
};

// --- staying up to date: one request at a time, none while nobody looks ------------------------------------
let tag = null, timer = null, failures = 0, asking = false, again = false;

const mark = (state, text) => {
  pulse.className = `pulse ${state}`;
  document.getElementById("pulse-text").textContent = text;
};

const schedule = () => {
  clearTimeout(timer);
  const wait = Number(page().dataset.poll);
  if (!wait) return;
  if (document.hidden) { mark("paused", "paused"); return; }
  timer = setTimeout(refresh, Math.min(wait * 2 ** failures, 60000));
};

const refresh = async () => {
  // What is on its way was asked for before an action, so it may not show it.
  if (asking) { again = true; return; }
  asking = true;
  try {
    const headers = { "x-slipway-part": "1", accept: "text/html" };
    if (tag) headers["if-none-match"] = tag;
    const answer = await fetch(location.href, { headers, redirect: "manual", cache: "no-store" });
    if (answer.type === "opaqueredirect" || answer.status === 401) {
      notice.innerHTML = "";
      const link = document.createElement("a");
      link.href = location.href;
      link.textContent = "Log in again";
      notice.append("You are signed out. ", link);
      notice.hidden = false;
      page().dataset.poll = "0";
      mark("lost", "signed out");
      return;
    }
    if (answer.status !== 304) {
      if (!answer.ok) throw new Error(String(answer.status));
      const made = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("page");
      if (!made) throw new Error("no page");
      morph(page(), made);
      tag = answer.headers.get("etag");
      afterUpdate();
    }
    failures = 0;
    notice.hidden = true;
    mark("", "live");
  } catch (error) {
    failures = Math.min(failures + 1, 4);
    mark("lost", "no connection");
    notice.textContent = "The cockpit does not answer; what you see may be old. Trying again.";
    notice.hidden = false;
  } finally {
    asking = false;
    if (again) { again = false; tag = null; refresh(); } else schedule();
  }
};

const afterUpdate = () => {
  showTimes();
  applyChips();
  find();
  dispatchEvent(new CustomEvent("slipway-updated"));
};

document.addEventListener("visibilitychange", () => { if (document.hidden) schedule(); else if (Number(page().dataset.poll)) refresh(); });

// --- acting: say what will happen, then do it ------------------------------------------------------------------
const dialog = document.getElementById("ask");
let wanted = null;

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-act]");
  if (!button) return;
  wanted = { act: button.dataset.act, model: button.dataset.model, version: button.dataset.version, traffic: Boolean(button.dataset.traffic) };
  document.getElementById("ask-title").textContent = button.dataset.title;
  document.getElementById("ask-text").textContent = button.dataset.text;
  document.getElementById("ask-yes").textContent = button.dataset.yes;
  document.getElementById("ask-yes").className = button.classList.contains("danger") ? "danger" : "main";
  document.getElementById("ask-error").hidden = true;
  document.getElementById("ask-reason").value = "";
  document.getElementById("ask-reason").closest("p").hidden = wanted.act === "retrain";
  const versions = (button.dataset.versions || "").split(",").filter(Boolean);
  document.getElementById("ask-choice").hidden = !versions.length;
  document.getElementById("ask-version").replaceChildren(...versions.map((one) => new Option(`v${one}`, one)));
  dialog.showModal();
});
document.getElementById("ask-no").addEventListener("click", () => dialog.close());
document.getElementById("ask-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const yes = document.getElementById("ask-yes");
  yes.disabled = true;
  const body = {};
  const reason = document.getElementById("ask-reason").value.trim();
  if (wanted.act !== "retrain" && reason) body.reason = reason;
  const version = wanted.version || document.getElementById("ask-version").value;
  if (wanted.act === "rollback" && version) body.version = version;
  if (wanted.traffic) body.traffic = true;
  try {
    const { status, answer } = await post(`/api/${wanted.act}/${wanted.model}`, body);
    if (status >= 400) throw new Error(answer.detail || `the server answered ${status}`);
    dialog.close();
    const words = { retrain: "Training has started", approve: "Approved", reject: "Rejected", promote: "Promoted", abort: "Aborted", rollback: "Rolled back" };
    say(status === 202 && wanted.act !== "retrain" ? "Asked for; it is under way." : `${words[wanted.act]}.`);
    tag = null;
    refresh();
  } catch (error) {
    const shown = document.getElementById("ask-error");
    shown.textContent = error.message;
    shown.hidden = false;
  } finally {
    yes.disabled = false;
  }
});

export const post = async (path, body) => {
  const headers = { "content-type": "application/json", "x-csrf-token": root.dataset.csrf || "" };
  const answer = await fetch(root.dataset.base + path, { method: "POST", headers, body: JSON.stringify(body) });
  let content = {};
  try { content = await answer.json(); } catch { /* an answer without a body */ }
  return { status: answer.status, answer: content };
};

// --- out of Airflow's frame, which lets nothing open by itself ------------------------------------------------
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-out]");
  if (!link || event.metaKey || event.ctrlKey) return;
  event.preventDefault();
  let home = document;
  try { if (parent !== self && parent.document) home = parent.document; } catch { /* framed by another origin */ }
  const out = home.createElement("a");
  out.href = link.href;
  out.target = "_blank";
  out.rel = "noopener";
  home.body.append(out);
  out.click();
  out.remove();
});

// --- small things -------------------------------------------------------------------------------------------------
const find = () => {
  const field = document.getElementById("find");
  if (!field) return;
  const text = field.value.trim().toLowerCase();
  let shown = 0;
  for (const row of document.querySelectorAll(".fleet tbody tr")) {
    row.hidden = !row.dataset.name.includes(text);
    shown += !row.hidden;
  }
  document.getElementById("none-found")?.toggleAttribute("hidden", shown > 0);
};
document.addEventListener("input", (event) => { if (event.target.id === "find") find(); });

const off = new Set();
const applyChips = () => {
  for (const chip of document.querySelectorAll("[data-chip]")) chip.setAttribute("aria-pressed", String(!off.has(chip.dataset.chip)));
  for (const entry of document.querySelectorAll(".story [data-kind]")) entry.hidden = off.has(entry.dataset.kind);
};
document.addEventListener("click", (event) => {
  const chip = event.target.closest("[data-chip]");
  if (!chip) return;
  if (!off.delete(chip.dataset.chip)) off.add(chip.dataset.chip);
  applyChips();
});

const local = document.getElementById("at-local");
if (local) {
  const at = local.dataset.utc ? new Date(local.dataset.utc) : new Date();
  if (!Number.isNaN(at.valueOf())) local.value = new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
  local.form.addEventListener("submit", () => { document.getElementById("at-utc").value = new Date(local.value).toISOString(); });
}

showTimes();
schedule();
