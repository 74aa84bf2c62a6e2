// Predicts while sliders move: one request at a time, the newest input last.
import { post } from "./cockpit.js";

const play = document.getElementById("play");
const fields = document.getElementById("fields");
const answer = document.getElementById("answer");
const feedback = document.getElementById("feedback");
const examples = JSON.parse(document.getElementById("examples")?.textContent || "[]");
let example = 0, busy = false, again = false, timer = null, last = null;

const row = () => Object.fromEntries([...fields.querySelectorAll("[data-kind]")].map((field) => {
  if (field.value === "" && field.dataset.kind !== "text") return [field.name, null];
  return [field.name, ["number", "integer"].includes(field.dataset.kind) ? Number(field.value) : field.value];
}));
const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};
const shown = (value) => (typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value));

const show = (found, milliseconds) => {
  const parts = [element("p", { class: "answer" }, shown(found.prediction))];
  const which = element("p", { class: "muted" }, "by ", element("b", {}, `v${found.model_version}`), ` in slot ${found.slot}, ${milliseconds.toFixed(0)} ms with the way through this page`);
  parts.push(which);
  if (found.probabilities) {
    const entries = Object.entries(found.probabilities).sort((one, two) => two[1] - one[1]).slice(0, 12);
    const lines = entries.map(([name, share]) => element("tr", name === String(found.prediction) ? { class: "best" } : {}, element("th", { scope: "row" }, name), element("td", {}, element("progress", { max: "1", value: String(share), "aria-label": `probability of ${name}` })), element("td", { class: "n" }, `${(share * 100).toFixed(1)} %`)));
    parts.push(element("table", { class: "probs" }, element("tbody", {}, ...lines)));
  }
  parts.push(element("p", { class: "small muted" }, "request ", element("a", { href: `${document.documentElement.dataset.base}/ledger?request_id=${found.request_id}` }, found.request_id)));
  answer.replaceChildren(...parts);
};
const refuse = (found) => {
  const lines = found.errors ? found.errors.map((one) => `${one.path}: ${one.message}`) : [found.detail || "the model did not answer"];
  answer.replaceChildren(element("p", { class: "error" }, lines.join("; ")));
};
const remember = (input, found) => {
  const list = document.getElementById("history");
  document.getElementById("no-history").hidden = true;
  const text = Object.entries(input).map(([name, value]) => `${name} ${value ?? "–"}`).join(", ");
  const back = element("button", { type: "button", class: "quiet", title: "put these values back" }, "again");
  back.addEventListener("click", () => { fill(input); predict(); });
  list.prepend(element("li", {}, element("b", {}, shown(found.prediction)), element("span", { class: "muted" }, `v${found.model_version}`), element("span", { class: "grow", title: text }, text), back));
  while (list.children.length > 20) list.lastChild.remove();
};

const predict = async () => {
  if (busy) { again = true; return; }
  busy = true;
  const input = row(), began = performance.now();
  try {
    const { status, answer: found } = await post(`/api/play/${play.dataset.model}/predict`, input);
    if (status === 200) {
      last = found;
      show(found, performance.now() - began);
      remember(input, found);
      document.getElementById("send-feedback").disabled = false;
      document.getElementById("feedback-said").textContent = "";
    } else refuse(found);
  } catch { refuse({ detail: "The cockpit does not answer." }); }
  busy = false;
  if (again) { again = false; predict(); }
};
const soon = () => { clearTimeout(timer); timer = setTimeout(predict, 150); };
const fill = (values) => {
  for (const field of fields.querySelectorAll("[data-kind]")) {
    if (!(field.name in values)) continue;
    field.value = values[field.name] ?? "";
    const slider = document.querySelector(`[data-for="${field.id}"]`);
    if (slider && field.value !== "") slider.value = field.value;
  }
};

if (play?.dataset.acts) {
  fields.addEventListener("input", (event) => {
    const target = event.target;
    if (target.dataset.for) document.getElementById(target.dataset.for).value = target.value;
    else { const slider = document.querySelector(`[data-for="${target.id}"]`); if (slider && target.value !== "") slider.value = target.value; }
    soon();
  });
  fields.addEventListener("submit", (event) => { event.preventDefault(); predict(); });
  document.getElementById("example").addEventListener("click", () => { example = (example + 1) % examples.length; fill(examples[example]); predict(); });
  feedback.addEventListener("submit", async (event) => {
    event.preventDefault();
    const field = document.getElementById("label"), said = document.getElementById("feedback-said");
    const label = field.tagName === "SELECT" ? field.value : Number(field.value);
    const { status, answer: found } = await post(`/api/play/${play.dataset.model}/feedback`, { request_id: last.request_id, label });
    said.textContent = status < 300 ? `Kept: ${label}.` : found.detail || `refused with ${status}`;
    if (status < 300) document.getElementById("send-feedback").disabled = true;
  });
}
