// What the page does by itself: two pictures beside or upon each other, and keys.
"use strict";

document.documentElement.classList.add("js");

// The upload is moved, scaled and turned so that its box comes to lie on the earlier picture's.
function lay(figure) {
  const edit = figure.dataset.edit && JSON.parse(figure.dataset.edit);
  const stage = figure.querySelector(".stage");
  const [earlier, later] = figure.querySelectorAll(".sheet");
  later.style.cssText = "";
  for (const sheet of [later, earlier]) {
    const image = sheet.querySelector("img");
    if (!image?.naturalWidth) continue;
    for (const each of [sheet, stage]) each.style.setProperty("--aspect", image.naturalWidth / image.naturalHeight);
  }
  if (!edit) return;
  place(earlier.querySelector(".box"), edit.match);
  place(later.querySelector(".box"), edit.upload);
  if (!later.querySelector("img") || !figure.classList.contains("laid")) return;
  const match = edit.match, box = edit.upload;
  const turned = Math.abs(Math.sin((edit.turn * Math.PI) / 180)) > 0.7;
  let width = (match.right - match.left) / (box.right - box.left);
  let height = (match.bottom - match.top) / (box.bottom - box.top);
  if (turned && stage.clientWidth) {
    const ratio = stage.clientHeight / stage.clientWidth;
    [width, height] = [((match.bottom - match.top) * ratio) / (box.right - box.left),
      (match.right - match.left) / ratio / (box.bottom - box.top)];
  }
  const x = (match.left + match.right) / 2, y = (match.top + match.bottom) / 2;
  const inX = (box.left + box.right) / 2, inY = (box.top + box.bottom) / 2;
  later.style.inset = "auto";
  later.style.width = `${width * 100}%`;
  later.style.height = `${height * 100}%`;
  later.style.left = `${(x - inX * width) * 100}%`;
  later.style.top = `${(y - inY * height) * 100}%`;
  later.style.transformOrigin = `${inX * 100}% ${inY * 100}%`;
  later.style.transform = `${edit.mirrored ? "scaleX(-1) " : ""}rotate(${-edit.turn}deg)`;
}

function place(box, where) {
  box.style.left = `${where.left * 100}%`;
  box.style.top = `${where.top * 100}%`;
  box.style.width = `${(where.right - where.left) * 100}%`;
  box.style.height = `${(where.bottom - where.top) * 100}%`;
}

function prepare(root) {
  for (const image of root.querySelectorAll(".sheet img, .thumbnail img")) {
    image.addEventListener("error", () => {
      const text = document.createElement("p");
      text.className = "missing";
      text.textContent = [image.alt, document.body.dataset.missing].filter(Boolean).join(": ");
      image.parentElement.querySelector(".box")?.remove();
      image.replaceWith(text);
    });
  }
  for (const box of root.querySelectorAll("[name=together]")) box.checked = !sessionStorage.getItem("alone");
  for (const figure of root.querySelectorAll("[data-pair]")) {
    for (const name of KEPT) if (sessionStorage.getItem(name)) turn(figure, name, true);
    for (const image of figure.querySelectorAll("img")) {
      image.addEventListener("load", () => lay(figure));
      if (image.dataset.file) {
        const chosen = document.querySelector(`input[type=file][name=${image.dataset.file}]`);
        if (chosen?.files[0]) image.src = URL.createObjectURL(chosen.files[0]);
      } else if (image.complete) {
        if (image.naturalWidth) lay(figure); else image.dispatchEvent(new Event("error"));
      }
    }
  }
}

document.addEventListener("input", (event) => {
  if (event.target.matches("[data-slider]")) {
    event.target.closest("[data-pair]").querySelector(".stage").style.setProperty("--cut", `${event.target.value}%`);
  }
});

// How pictures are shown is chosen for all of this session; but one picture is unblurred alone, unless all are.
const KEPT = ["grey", "laid", "large", "visible"];

function turn(figure, name, isOn) {
  const button = figure.querySelector(`button[data-toggle=${name}]`);
  if (!button) return;
  figure.classList.toggle(name, isOn);
  button.setAttribute("aria-pressed", String(isOn));
  if (name === "visible") turn(figure, "blurred", !isOn);
}

document.addEventListener("click", (event) => {
  const name = event.target.closest("[data-toggle]")?.dataset.toggle;
  if (!name) return;
  const figure = event.target.closest("[data-pair]");
  const isOn = !figure.classList.contains(name);
  turn(figure, name, isOn);
  if (KEPT.includes(name)) sessionStorage.setItem(name, isOn ? "on" : "");
  lay(figure);
  if (figure.matches(".large") && ["laid", "large"].includes(name)) figure.querySelector(".stage").scrollIntoView({ block: "nearest" });
});

document.addEventListener("change", (event) => {
  event.target.closest("[data-submit-on-change]")?.submit();
  if (event.target.matches("[name=together]")) sessionStorage.setItem("alone", event.target.checked ? "" : "on");
  if (event.target.matches("#case select") && !isMoving) event.target.blur(); // a bank is chosen: keys decide again
  isMoving = false;
});

// Nobody decides what is not there yet, or has been for less than a moment: the second tap of two is no decision.
const MOMENT_MS = 400;
document.addEventListener("click", (event) => {
  const asks = event.target.closest("#case [type=submit], #case a");
  const isEarly = asks?.matches("[type=submit]") && document.body.hasAttribute("data-fresh");
  if (!isEarly && !(asks && document.body.hasAttribute("data-busy"))) return;
  event.preventDefault();
  event.stopPropagation();
}, true);

let isMoving = false; // through the banks of a closed list, where each key chooses one

document.addEventListener("keydown", (event) => {
  const within = event.target;
  if (within.matches("#case input:not([type=range], [type=checkbox]), #case select") && /^(Enter|Escape)$/.test(event.key)) {
    event.preventDefault(); // Enter in the note would press the first button, which is Same
    within.blur();
    return;
  }
  isMoving = within.matches("#case select") && event.key !== " " && !event.altKey;
  if (event.repeat && event.key === "Enter" && within.closest("#case")) event.preventDefault(); // one press, one decision
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat && /^[a-z]$/i.test(event.key)) return;
  if (document.body.hasAttribute("data-busy")) return;
  if (within.matches("textarea, select, input:not([type=range], [type=checkbox])")) return;
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    const slider = document.querySelector("[data-slider]");
    if (!slider || within === slider) return; // the slider itself moves the same way
    if (event.key === "ArrowLeft") slider.stepDown(); else slider.stepUp();
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    event.preventDefault();
    return;
  }
  const target = document.querySelector(`[aria-keyshortcuts="${CSS.escape(event.key.toLowerCase())}"]`);
  if (target && !target.closest("fieldset:disabled")) {
    if (target.name === "note") target.focus(); else target.click();
    event.preventDefault();
  }
});

// What a request was refused with is shown until the next one goes well.
function show(problem) {
  const place = document.getElementById("problem");
  place.hidden = !problem;
  place.textContent = problem;
}

document.addEventListener("htmx:responseError", (event) => {
  const { responseText, status } = event.detail.xhr;
  try { show(JSON.parse(responseText).detail); } catch { show(String(status)); }
});
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.target.closest("#case")) document.body.setAttribute("data-busy", "");
});
for (const name of ["htmx:afterSettle", "htmx:responseError", "htmx:sendError"]) {
  document.addEventListener(name, () => document.body.removeAttribute("data-busy"));
}
document.addEventListener("htmx:sendError", () => show(document.body.dataset.offline));
document.addEventListener("htmx:afterSwap", () => show(""));
document.addEventListener("htmx:afterSwap", (event) => {
  prepare(event.target);
  if (event.target.id === "case") goOn(event.target);
});

// Everybody is led to what is next, and what was done is said aloud.
let freshness;
function goOn(part) {
  const next = part.querySelector(".next");
  document.querySelector("h1").textContent = next.dataset.heading;
  document.getElementById("said").textContent = next.dataset.said;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
  document.body.setAttribute("data-fresh", "");
  clearTimeout(freshness);
  freshness = setTimeout(() => document.body.removeAttribute("data-fresh"), MOMENT_MS);
}
document.addEventListener("DOMContentLoaded", () => prepare(document));
