// Makes one element like another with as few changes as possible, so that focus, scrolling and open parts stay.
// Children with an id are found again by it; what has `data-keep` belongs to a script and is left alone.

export const morph = (old, made) => {
  if (old.isEqualNode(made)) return;
  attributes(old, made);
  const known = new Map();
  for (const child of old.children) if (child.id) known.set(child.id, child);
  let at = old.firstChild;
  for (const next of [...made.childNodes]) {
    const kept = next.id ? known.get(next.id) : null;
    if (kept && kept.tagName === next.tagName) {
      if (kept !== at) old.insertBefore(kept, at); else at = at.nextSibling;
      if (!kept.hasAttribute("data-keep")) morph(kept, next);
    } else if (at && !next.id && !at.id && at.nodeType === next.nodeType && at.nodeName === next.nodeName) {
      const same = at;
      at = at.nextSibling;
      if (same.nodeType === Node.ELEMENT_NODE) { if (!same.hasAttribute("data-keep")) morph(same, next); }
      else if (same.nodeValue !== next.nodeValue) same.nodeValue = next.nodeValue;
    } else {
      old.insertBefore(document.importNode(next, true), at);
    }
  }
  while (at) { const gone = at; at = at.nextSibling; gone.remove(); }
};

const attributes = (old, made) => {
  for (const { name, value } of made.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes]) if (!made.hasAttribute(name)) old.removeAttribute(name);
};
