// What makes the page of a run live: panels are replaced as the server sends them, and a canvas whose
// drawing is classified as it is drawn. The page is whole without it.
'use strict';

// ---- Panels ------------------------------------------------------------------------------------

const linkState = document.getElementById('link-state');
const shown = {}; // the last HTML of each panel

function say(text, bad) {
    linkState.textContent = text;
    linkState.classList.toggle('bad', bad);
}

const focusable = 'a[href], button, summary, input, [tabindex]';

// Keeps what the reader opened and where the focus is.
function replacePanel({ id, html }) {
    const old = document.getElementById(id);
    if (shown[id] === html) return;
    shown[id] = html;
    const template = document.createElement('template');
    template.innerHTML = html;
    const fresh = template.content.firstElementChild;
    if (!old || !fresh) return;
    const details = fresh.querySelectorAll('details');
    old.querySelectorAll('details').forEach((d, i) => { if (details[i]) details[i].open = d.open; });
    const focus = [...old.querySelectorAll(focusable)].indexOf(document.activeElement);
    old.replaceWith(fresh);
    if (focus >= 0) fresh.querySelectorAll(focusable)[focus]?.focus({ preventScroll: true });
}

// The browser itself tries again after a broken connection, but not after a refusal.
function follow() {
    const source = new EventSource('events');
    source.onopen = () => say('connected', false);
    source.addEventListener('panel', event => replacePanel(JSON.parse(event.data)));
    source.onerror = () => {
        say('no connection to bantam; trying again', true);
        if (source.readyState === EventSource.CLOSED) setTimeout(follow, 2000);
    };
}

// ---- Drawing -----------------------------------------------------------------------------------

const canvas = document.getElementById('draw-canvas');
const pen = canvas.getContext('2d', { willReadFrequently: true });
const side = canvas.width;
const mark = document.getElementById('draw-cursor'); // where the keyboard's pen is
const result = document.getElementById('draw-result');
const said = document.getElementById('draw-said');
const cursor = { x: side / 2, y: side / 2, down: false }; // of the keyboard
let last = null;    // where the pen was
let asking = false; // an answer is on its way
let changed = false;

function ink() {
    pen.strokeStyle = '#fff';
    pen.lineWidth = side / 13; // as broad as MNIST's pens
    pen.lineCap = pen.lineJoin = 'round';
}

function clearDrawing() {
    pen.fillStyle = '#000';
    pen.fillRect(0, 0, side, side);
    last = null;
    ask();
}

function line(from, to) {
    ink();
    pen.beginPath();
    pen.moveTo(from.x, from.y);
    pen.lineTo(to.x, to.y);
    pen.stroke();
    ask();
}

function greyBytes() {
    const { data } = pen.getImageData(0, 0, side, side);
    return Uint8Array.from({ length: side * side }, (_, i) => data[4 * i]);
}

function show(answer) {
    result.innerHTML = answer.html;
    said.textContent = answer.class === null ? answer.note ?? '' :
        `The network reads a ${answer.class}, with ${(100 * answer.probability).toFixed(1)} %.`;
}

// One question at a time; what is drawn meanwhile is asked next.
async function ask() {
    changed = true;
    if (asking) return;
    asking = true;
    while (changed) {
        changed = false;
        try {
            const reply = await fetch('classify', {
                method: 'POST', headers: { 'Content-Type': 'application/octet-stream' }, body: greyBytes() });
            if (reply.ok) show(await reply.json());
            else said.textContent = await reply.text();
        } catch {
            said.textContent = 'No answer from bantam.';
        }
    }
    asking = false;
}

// From the page's pixels to those of the canvas, inside its border.
function position(event) {
    const box = canvas.getBoundingClientRect();
    const scale = side / canvas.clientWidth;
    return { x: (event.clientX - box.left - canvas.clientLeft) * scale,
             y: (event.clientY - box.top - canvas.clientTop) * scale };
}

canvas.addEventListener('pointerdown', event => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    last = position(event);
    line(last, last);
});
canvas.addEventListener('pointermove', event => {
    if (!last || !canvas.hasPointerCapture(event.pointerId)) return;
    for (const part of event.getCoalescedEvents?.() ?? []) {
        const next = position(part);
        line(last, next);
        last = next;
    }
    const next = position(event);
    line(last, next);
    last = next;
});
canvas.addEventListener('pointerup', () => { last = null; });
canvas.addEventListener('pointercancel', () => { last = null; });

const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function showCursor() {
    const scale = canvas.clientWidth / side;
    mark.style.left = `${canvas.clientLeft + cursor.x * scale}px`;
    mark.style.top = `${canvas.clientTop + cursor.y * scale}px`;
    mark.classList.toggle('down', cursor.down);
}

function moveCursor([x, y]) {
    const inside = v => Math.min(side - 1, Math.max(0, v));
    const next = { x: inside(cursor.x + x * side / 28), y: inside(cursor.y + y * side / 28) };
    if (cursor.down) line(cursor, next);
    Object.assign(cursor, next);
    showCursor();
    said.textContent = cursor.down ? said.textContent :
        `Pen up, ${Math.round(100 * cursor.x / side)} % from the left, ${Math.round(100 * cursor.y / side)} % from the top.`;
}

function movePen() {
    cursor.down = !cursor.down;
    if (cursor.down) line(cursor, cursor);
    showCursor();
}

canvas.addEventListener('keydown', event => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (arrows[event.key]) moveCursor(arrows[event.key]);
    else if (event.key === ' ') { movePen(); }
    else if (event.key === 'Delete' || event.key === 'Backspace') clearDrawing();
    else return;
    event.preventDefault();
});
document.getElementById('draw-clear').addEventListener('click', clearDrawing);

showCursor();
clearDrawing();
follow();
