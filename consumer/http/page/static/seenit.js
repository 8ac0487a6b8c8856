// What the page does by itself: two pictures laid upon each other, keys, and files that are sent one by one.
"use strict";

document.documentElement.classList.add("js");

// The upload is moved, scaled and turned so that its box comes to lie on the earlier picture's.
function lay(figure) {
  const edit = figure.dataset.edit && JSON.parse(figure.dataset.edit);
  const stage = figure.querySelector(".stage");
  const [earlier, later] = figure.querySelectorAll(".sheet");
  const image = earlier.querySelector("img");
  if (image && image.naturalWidth) {
    const aspect = image.naturalWidth / image.naturalHeight;
    stage.style.setProperty("--aspect", aspect);
  }
  if (!edit) return;
  const upload = later.querySelector("img");
  const distance = figure.classList.contains("beside");
  place(earlier.querySelector(".box"), edit.match);
  place(later.querySelector(".box"), edit.upload);
  if (distance || !upload) return;
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
  for (const image of root.querySelectorAll("img[data-missing]")) {
    image.addEventListener("error", () => {
      const text = document.createElement("p");
      text.className = "missing";
      text.textContent = [image.alt, image.dataset.missing].filter(Boolean).join(": ");
      image.parentElement.querySelector(".box")?.remove();
      image.replaceWith(text);
    });
  }
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
const KEPT = ["grey", "beside", "visible"];

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
});

document.addEventListener("change", (event) => {
  event.target.closest("[data-submit-on-change]")?.submit();
});

document.addEventListener("keydown", (event) => {
  const within = event.target;
  if (event.repeat && event.key === "Enter" && within.closest(".decisions")) event.preventDefault(); // one press, one decision
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat && /^[a-z]$/i.test(event.key)) return;
  if (document.body.hasAttribute("data-busy")) return; // nobody decides what is not there yet
  if (within.matches("textarea, select, input:not([type=range])")) return;
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    const slider = document.querySelector("[data-slider]");
    if (!slider || within === slider) return; // the slider itself moves the same way
    if (event.key === "ArrowLeft") slider.stepDown(); else slider.stepUp();
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    event.preventDefault();
    return;
  }
  const target = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (target && !target.closest("fieldset:disabled")) {
    target.click();
    event.preventDefault();
  }
});

// Sends chosen files one by one, and shows how far it is.
document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-import]");
  if (!form) return;
  event.preventDefault();
  const files = [...form.querySelector("input[type=file]").files];
  const progress = form.querySelector("progress"), status = form.querySelector("[role=status]");
  const button = form.querySelector("button");
  const token = JSON.parse(document.body.getAttribute("hx-headers"))["X-Seenit-Token"];
  progress.hidden = false;
  progress.max = files.length;
  button.disabled = true;
  const problems = [];
  for (const [index, file] of files.entries()) {
    const body = new FormData();
    body.append("picture", file);
    const reply = await fetch(form.action, { method: "POST", body, headers: { "X-Seenit-Token": token } });
    if (!reply.ok) problems.push(`${file.name}: ${(await reply.json().catch(() => ({}))).detail ?? reply.status}`);
    progress.value = index + 1;
    status.textContent = form.dataset.sent.replace("{count}", index + 1 - problems.length) +
      problems.map((each) => " " + form.dataset.refused.replace("{detail}", each)).join("");
  }
  button.disabled = false;
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
let pressed; // the key of the button that a visitor has moved to, and pressed
document.addEventListener("htmx:beforeRequest", (event) => {
  if (!event.target.closest("#case")) return;
  pressed = document.activeElement.closest("#case [data-key]")?.dataset.key;
  document.body.setAttribute("data-busy", "");
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

// Whoever moves by Tab stays on the same button, others are led to what is next; and what was done is said aloud.
function goOn(part) {
  const same = pressed && part.querySelector(`[data-key="${pressed}"]:enabled, a[data-key="${pressed}"]`);
  (same || part.querySelector(".next")).focus({ preventScroll: true });
  document.getElementById("said").textContent = part.querySelector("[data-said]").dataset.said;
}
document.addEventListener("DOMContentLoaded", () => prepare(document));
