// The frame that training sees of an image: drawn over its thumbnail, and moved by dragging or by the arrow keys.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.imagesFrame = (() => {
    const page = window.trainLora;
    const STEP = 0.02; // of the image, for one press of an arrow key
    const KEYS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

    function place(node, [left, top, right, bottom]) {
        const percent = (share) => `${(100 * share).toFixed(3)}%`;
        Object.assign(node.style, {
            left: percent(left), top: percent(top), width: percent(right - left), height: percent(bottom - top),
        });
    }

    // Where the frame lies after a move, inside the room that it has: the part of the image that is used.
    function moved(image, [across, down]) {
        const [left, top, right, bottom] = image.frame;
        const [first, upper, last, lower] = image.part;
        const x = Math.min(Math.max(left + across, first), last - (right - left));
        const y = Math.min(Math.max(top + down, upper), lower - (bottom - top));
        return [x, y, x + right - left, y + bottom - top];
    }

    // As `cut` of the API: shares of the surplus from top and left.
    function cutOf(image, [left, top, right, bottom]) {
        const [first, upper, last, lower] = image.part;
        const share = (from, start, surplus) => (surplus > 1e-6 ? Math.min(Math.max((from - start) / surplus, 0), 1) : 0.5);
        return [share(top, upper, lower - upper - (bottom - top)), share(left, first, last - first - (right - left))];
    }

    // The view of an image's frame: `save` gets the image and its cut once it was moved, and returns a promise.
    function make(save) {
        const node = document.createElement("div");
        node.className = "train-lora-frame";
        let image = null;
        let from = null; // where a drag began, and the frame then
        let at = null; // the frame while it is moved, and until the server's answer
        let isMoved = false; // since the last save

        const now = () => ({...image, frame: at || image.frame});

        async function finish() {
            from = null;
            if (!isMoved) return;
            isMoved = false;
            const saved = at;
            await save(image, cutOf(image, saved));
            if (at !== saved) return;
            at = null;
            if (image.frame) place(node, image.frame);
        }

        function move(start, by) {
            at = moved(start, by);
            isMoved = true;
            place(node, at);
        }

        node.addEventListener("pointerdown", (event) => {
            if (!image?.frame || event.button !== 0) return;
            from = {x: event.clientX, y: event.clientY, start: now()};
            node.setPointerCapture(event.pointerId);
            event.preventDefault();
            node.focus({preventScroll: true});
        });
        node.addEventListener("pointermove", (event) => {
            if (!from) return;
            const around = node.parentNode.getBoundingClientRect();
            move(from.start, [(event.clientX - from.x) / around.width, (event.clientY - from.y) / around.height]);
        });
        node.addEventListener("pointerup", finish);
        node.addEventListener("pointercancel", finish);
        node.addEventListener("keydown", (event) => {
            const way = KEYS[event.key];
            if (!way || !image?.frame) return;
            event.preventDefault();
            move(now(), way.map((step) => step * STEP));
        });
        node.addEventListener("keyup", (event) => {
            if (KEYS[event.key]) finish();
        });
        return {
            node,
            show(item) {
                image = item;
                node.hidden = !item.frame;
                if (!item.frame || at) return;
                place(node, item.frame);
                const movable = item.frame.some((edge, side) => Math.abs(edge - item.part[side]) > 1e-4);
                page.dom.setAttribute(node, "tabindex", movable ? "0" : null);
                page.dom.setAttribute(node, "role", movable ? "group" : null);
                page.dom.setAttribute(node, "aria-label", movable ? page.words.say("Cut of {name}: move it with the arrow keys", item) : null);
            },
        };
    }

    return {make};
})();
