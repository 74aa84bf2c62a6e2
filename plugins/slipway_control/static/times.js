// Times in the reader's own zone, with UTC in the title; ages and countdowns are kept right without asking the server.

const words = new Intl.RelativeTimeFormat("en", { style: "short", numeric: "always" });
const stamp = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const year = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

const lasted = (at) => {
  const seconds = Math.max(0, (Date.now() - at) / 1000);
  const [unit, size] = units.find(([, one]) => seconds >= one) || units[3];
  return new Intl.NumberFormat("en", { style: "unit", unit, unitDisplay: "long" }).format(Math.trunc(seconds / size));
};

const age = (at) => {
  const seconds = (at - Date.now()) / 1000;
  if (Math.abs(seconds) < 5) return "now";
  const [unit, size] = units.find(([, one]) => Math.abs(seconds) >= one);
  return words.format(Math.trunc(seconds / size), unit);
};

export const showTimes = () => {
  for (const element of document.querySelectorAll("time[datetime]")) {
    const at = new Date(element.dateTime);
    if (Number.isNaN(at.valueOf())) continue;
    const local = Date.now() - at > 300 * 86400000 ? `${year.format(at)}` : stamp.format(at);
    const text = element.dataset.style === "ago" ? age(at) : element.dataset.style === "age" ? lasted(at) : local;
    if (element.textContent !== text) element.textContent = text;
    const utc = `${at.toISOString().slice(0, 19).replace("T", " ")} UTC`;
    const title = element.dataset.style !== "time" ? `${stamp.format(at)} (${utc})` : utc;
    if (element.title !== title) element.title = title;
  }
  for (const element of document.querySelectorAll("[data-until]")) {
    const left = (new Date(element.dataset.until) - Date.now()) / 1000 + Number(element.dataset.seconds);
    element.textContent = left > 0 ? `${Math.ceil(left)} s of ${Number(element.dataset.seconds)} s left` : "watched long enough";
  }
};

setInterval(() => { if (!document.hidden) showTimes(); }, 1000);
