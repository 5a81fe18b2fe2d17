// A brush on a canvas, for mouse, touch, pen and keys.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.imagesBrush = (() => {
    const page = window.trainLora;
    const MOVE = 0.25; // of the brush's width, for a press of an arrow key
    const KEYS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
    const ERASER = 32; // of `buttons`: a pen that is turned around

    // `work`: what is painted on; `now` gives {image, at, erases, busy} or null, `at` being where the brush is, in pixels of the
    // image; `width` that of the brush; `add` takes a stroke, `extend` a stroke with the point from which on it is new; `show`.
    function make(canvas, work) {
        let stroke = null; // while the pointer is down

        function inside({clientX, clientY}) {
            const box = canvas.getBoundingClientRect();
            const [width, height] = work.now().image.size;
            return [((clientX - box.left) / box.width) * width, ((clientY - box.top) / box.height) * height];
        }

        function down(event) {
            const erases = Boolean(event.buttons & ERASER);
            if (!event.isPrimary || work.now().busy || (event.button !== 0 && !erases)) return;
            event.preventDefault();
            canvas.focus({preventScroll: true});
            canvas.setPointerCapture(event.pointerId);
            work.now().at = inside(event);
            stroke = page.imagesStrokes.stroke(work.width(), erases || work.now().erases, work.now().at);
            work.add(stroke);
        }

        function extend(event) {
            const before = stroke.points.length - 1;
            const all = event.getCoalescedEvents?.() || [];
            for (const one of all.length ? all : [event]) stroke.points.push(inside(one));
            work.extend(stroke, before);
        }

        function move(event) {
            if (!work.now() || !event.isPrimary) return;
            work.now().at = inside(event);
            if (stroke) extend(event);
            work.show();
        }

        // The place of the brush after an arrow key, inside the image.
        function moved({image, at}, way) {
            return at.map((from, side) => Math.min(Math.max(from + way[side] * work.width() * MOVE, 0), image.size[side]));
        }

        function key(event) {
            const isDot = event.key === " ";
            if (!isDot && !KEYS[event.key]) return;
            event.preventDefault();
            const now = work.now();
            if (now.busy) return;
            const painted = page.imagesStrokes.stroke(work.width(), now.erases, now.at);
            if (!isDot) {
                now.at = moved(now, KEYS[event.key]);
                painted.points.push(now.at);
            }
            if (isDot || event.shiftKey) work.add(painted);
            work.show();
        }

        canvas.addEventListener("pointerdown", down);
        canvas.addEventListener("pointermove", move);
        for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => { stroke = null; });
        canvas.addEventListener("keydown", key);
    }

    return {make};
})();
