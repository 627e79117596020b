// Keys for those who want them. Every one of them presses a button or follows a link that is there.
"use strict";
(() => {
  const entries = [...document.querySelectorAll("[data-entry]")];
  const place = "review-entry";
  let at = -1;

  const show = (index) => {
    if (!entries.length) return;
    at = Math.max(0, Math.min(index, entries.length - 1));
    entries.forEach((entry, i) => entry.classList.toggle("here", i === at));
    const link = entries[at].querySelector("a");
    if (link) link.focus({ preventScroll: true });
    entries[at].scrollIntoView({ block: "nearest" });
  };

  const press = (key) => {
    const within = at >= 0 ? entries[at].querySelector(`[data-key="${key}"]`) : null;
    const found = within || document.querySelector(`[data-key="${key}"]:not([data-entry] *)`);
    if (!found) return false;
    if (at >= 0) sessionStorage.setItem(place, String(at));
    found.click();
    return true;
  };

  document.addEventListener("keydown", (event) => {
    const field = event.target.closest("input:not([type=checkbox]), select, textarea");
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (field) {
      if (event.key === "Escape") field.blur();
      return;
    }
    if (entries.length && (event.key === "j" || event.key === "k")) {
      show(at < 0 ? 0 : at + (event.key === "j" ? 1 : -1));
      event.preventDefault();
      return;
    }
    if (event.key === "Enter") return;
    if (["j", "k", "a", "q", "u", "g", "?", "Escape"].includes(event.key) && press(event.key)) {
      event.preventDefault();
    }
  });

  // After a ruling in the queue the one that moved up is the next to look at.
  const last = sessionStorage.getItem(place);
  sessionStorage.removeItem(place);
  if (last !== null && entries.length) show(Number(last));
})();
