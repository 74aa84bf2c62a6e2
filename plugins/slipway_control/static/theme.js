// Follows Airflow's light or dark mode, which it keeps in this origin's storage; else the system's.
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    let chosen = null;
    try { chosen = localStorage.getItem("theme"); } catch { /* storage may be switched off */ }
    const mode = chosen === "light" || chosen === "dark" ? chosen : dark.matches ? "dark" : "light";
    if (root.dataset.theme !== mode) {
      root.dataset.theme = mode;
      dispatchEvent(new Event("slipway-theme"));
    }
  };
  apply();
  dark.addEventListener("change", apply);
  addEventListener("storage", apply);
})();
