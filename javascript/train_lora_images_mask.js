// The editor of an image's mask: a dialog over the page. What is painted is learned; the rest of the image is dark.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.imagesMask = (() => {
    const page = window.trainLora;
    const LONGEST = 1600; // pixels of the side of what is painted on; the mask is made in the image's own size
    const BIG = "This browser cannot make a mask of this size; paint it in another program.";
    const UNREADABLE = "The browser cannot read this mask.";

    let made = null; // the views of the dialog
    let open = null; // {image, path, picture, base, steps, erases, size, at, problems, busy, saves}

    const longest = () => Math.max(...open.image.size);
    const width = () => (open.size / 100) * longest();
    const changed = () => open.steps.length > 1 || open.steps[0] !== open.base;

    function show() {
        made.dialog.show(open);
        const [left, top] = open.at.map((at, side) => `${(100 * at) / open.image.size[side]}%`);
        Object.assign(made.ring.style, {left, top, width: `${(100 * width()) / open.image.size[0]}%`});
    }

    function tell(problems) {
        open.problems = problems.map(({text}) => text);
        show();
    }

    const scale = () => made.canvas.width / open.image.size[0];

    function redraw() {
        for (const step of open.steps) page.imagesStrokes.draw(made.canvas, step, scale());
        show();
    }

    function add(step) {
        open.steps.push(step);
        page.imagesStrokes.draw(made.canvas, step, scale());
        tell([]);
    }

    function undo() {
        if (open.steps.length > 1) open.steps.pop();
        redraw();
    }

    // Shows the mask at a path as a step.
    async function load(path, put) {
        const asked = open;
        asked.busy = true;
        show();
        const answer = await page.api.blob(path);
        const step = answer.ok ? await page.imagesStrokes.file(answer.data) : null;
        if (open !== asked) return;
        asked.busy = false;
        if (step) put(step);
        else tell(answer.ok ? [{text: UNREADABLE}] : answer.problems);
    }

    // Saves, or removes, the mask by `send`, and closes.
    async function finish(send, said) {
        if (open.busy) return;
        open.busy = open.saves = true;
        show();
        const answer = await send();
        open.busy = open.saves = false;
        if (!answer.ok) {
            tell(answer.problems);
            return;
        }
        close();
        await page.images.refresh();
        page.imagesPanel.say(said);
        page.report.formChanged();
    }

    const save = () => finish(async () => {
        const png = await page.imagesStrokes.png(open.image.size, open.steps);
        return png ? page.api.put(`${open.path}/mask`, png) : {ok: false, problems: [{text: BIG}]};
    }, "Mask saved");

    const remove = () => finish(() => page.api.send("DELETE", `${open.path}/mask`), "Mask removed");

    function close() {
        made.dialog.node.close(); // the browser gives the focus back
        open = null;
    }

    function cancel() {
        if (!open.saves && (!changed() || confirm(page.words.exact("Discard what was painted?")))) close();
    }

    function buttons() {
        const {button, view} = page.dom;
        const act = (text, press, more = {}) => button("train-lora-small", {text: () => text, again: true, press, ...more});
        const tool = (text, erases) => act(text, () => { open.erases = erases; show(); }, {
            attributes: (shown) => ({"aria-pressed": String(shown.erases === erases)}),
        });
        const size = page.imagesPanel.control("input", {type: "range", min: 0.5, max: 40, step: 0.5, "aria-label": "Brush size"},
            "input", (node) => { open.size = Number(node.value); show(); });
        size.show = (shown) => { size.node.value = shown.size; };
        const unfit = (shown) => shown.busy;
        const {fill, invert} = page.imagesStrokes;
        return view("div", "train-lora-row-buttons", {parts: [
            tool("Brush", false), tool("Eraser", true), page.dom.line("span", "", () => "Size"), size,
            act("Undo", undo, {unfit: (shown) => shown.steps.length <= 1}),
            act("Clear", () => add(fill(false))), act("Fill", () => add(fill(true))), act("Invert", () => add(invert())),
            act("From transparency", () => load(`${open.path}/mask?from=transparency`, add), {unfit}),
        ]});
    }

    function stage() {
        const canvas = document.createElement("canvas");
        const ring = document.createElement("div");
        ring.className = "train-lora-brush";
        const hint = (image) => page.words.say("Mask of {name}: arrow keys move the brush, with Shift they paint, Space paints a dot", image);
        for (const [name, value] of [["tabindex", "0"], ["role", "application"]]) canvas.setAttribute(name, value);
        const picture = page.dom.view("img", "", {attributes: ({image, picture: src}) => ({src, alt: image.name, draggable: "false"})});
        const still = (node, look = () => {}) => ({node, show: look});
        const view = page.dom.view("div", "train-lora-stage", {
            attributes: ({image: {size: [across, down]}}) => ({style: `aspect-ratio: ${across} / ${down}; --ratio: ${across / down}`}),
            parts: [picture, still(canvas, ({image}) => page.dom.setAttribute(canvas, "aria-label", hint(image))), still(ring)],
        });
        return {canvas, ring, view};
    }

    function build() {
        const {view, line, list, button} = page.dom;
        const {canvas, ring, view: stageView} = stage();
        const unfit = (shown) => shown.busy;
        const ends = view("div", "train-lora-row-buttons", {parts: [
            button("train-lora-small train-lora-main", {text: () => "Save", press: save, unfit}),
            button("train-lora-small", {text: () => "Remove the mask", press: remove, unfit, needed: ({image}) => image.has_mask}),
            button("train-lora-small", {text: () => "Cancel", press: cancel}),
        ]});
        const dialog = view("dialog", "train-lora-mask", {attributes: ({image}) => ({"aria-label": page.words.say("Mask of {name}", image)}), parts: [
            line("strong", "", ({image}) => page.words.say("Mask of {name}", image)),
            line("p", "train-lora-note", () => "Paint what is to be learned; what is dark is not."),
            buttons(), stageView,
            view("div", "", {attributes: () => ({role: "status"}), parts: [list("train-lora-problem", ({problems}) => problems)]}), ends,
        ]});
        page.imagesBrush.make(canvas, {
            now: () => open, width, add, show, extend: (stroke, from) => page.imagesStrokes.draw(canvas, stroke, scale(), from),
        });
        dialog.node.addEventListener("cancel", (event) => { // Escape
            event.preventDefault();
            cancel();
        });
        dialog.node.addEventListener("keydown", (event) => {
            if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
                event.preventDefault();
                undo();
            }
        });
        // not for the form, nor for the keys of the webui
        for (const kind of ["click", "input", "change", "keydown"]) dialog.node.addEventListener(kind, (event) => event.stopPropagation());
        page.dom.find("#train_lora_images").parentNode.append(dialog.node);
        return {dialog, canvas, ring};
    }

    function edit(image) {
        made = made || build();
        const base = page.imagesStrokes.fill(false);
        const [across, down] = image.size;
        open = {
            image, base, path: page.images.path(`/images/${image.id}`), steps: [base], erases: false, size: 8,
            at: [across / 2, down / 2], problems: [], busy: false, saves: false, picture: page.api.url(image.thumbnail),
        };
        const small = Math.min(1, LONGEST / longest());
        Object.assign(made.canvas, {width: Math.max(Math.round(across * small), 1), height: Math.max(Math.round(down * small), 1)});
        redraw();
        const asked = open;
        const whole = new Image();
        whole.addEventListener("load", () => {
            if (open !== asked) return;
            open.picture = whole.src;
            show();
        });
        whole.src = page.api.url(`${open.path}/view?of=${image.thumbnail.split("of=")[1]}`);
        made.dialog.node.showModal();
        made.canvas.focus({preventScroll: true});
        if (image.mask) load(image.mask, (step) => {
            asked.steps[0] = asked.base = step;
            redraw();
        });
    }

    return {edit};
})();
