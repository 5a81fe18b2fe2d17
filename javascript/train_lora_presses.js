// The buttons of a run answer a press at once, before the server does: with a word of what happens now. A button that has nothing
// to do says why. Stop, which discards what was learned, asks.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.presses = (() => {
    const page = window.trainLora;
    const WAIT_MS = 10000; // for the server's sign of a press
    const NOTHING = "Nothing runs now.";
    const STOPS = "The run is stopping.";
    const ASKED = "It is being done.";
    const DISCARD = "Stop {name} and discard what it has learned? LoRAs that it saved before are kept. Stop and keep saves it first.";
    // `meanwhile`: its word until the server has done it; `isDone` and `isOpen`: what the status says
    const isStopping = (job) => job.state === "stopping";
    const BUTTONS = {
        train_lora_stop: {meanwhile: "Stopping", isOpen: isStopping},
        train_lora_keep: {meanwhile: "Stopping", isOpen: isStopping},
        train_lora_pause: {meanwhile: "Pausing", isDone: (job) => job.state === "paused"},
        train_lora_go_on: {meanwhile: "Going on", isDone: (job) => job.state !== "paused"},
        train_lora_save_now: {meanwhile: "Saving", isOpen: (job) => asks(job, "save")},
        train_lora_sample_now: {meanwhile: "Sampling", isOpen: (job) => asks(job, "sample")},
    };
    const STOPPING = ["train_lora_stop", "train_lora_keep"];

    const pressed = new Map(); // id of a button -> {run, at, seen}: seen once by the server
    const names = new Map(); // id of a button -> what it is called
    let now = null; // the job that the status shows, while it is active

    const asks = ({asked}, what) => (asked || []).includes(what);

    // The text node of a button of gradio's, which holds it to the end.
    const textOf = (node) => [...node.childNodes].find((child) => child.nodeType === Node.TEXT_NODE && child.data.trim());

    function setLabel(node, text) {
        const found = textOf(node);
        if (found && found.data.trim() !== text) found.data = text;
    }

    // Whether a button's work goes on, as the server says, or as the press says until the server has seen it.
    function isPending(id) {
        const {isDone, isOpen} = BUTTONS[id];
        if (now && isOpen?.(now)) {
            if (pressed.has(id)) pressed.get(id).seen = true;
            return true;
        }
        const press = pressed.get(id);
        if (!press) return false;
        const isOver = !now || page.status.runOf(now) !== press.run || press.seen || isDone?.(now) || Date.now() - press.at > WAIT_MS;
        if (isOver) pressed.delete(id);
        return !isOver;
    }

    // Why a button does nothing now; "" if it does.
    function reason(id, pending) {
        if (!now) return NOTHING;
        if (STOPPING.includes(id) && STOPPING.some((other) => pending.has(other))) return STOPS;
        return pending.has(id) ? ASKED : "";
    }

    // What a button is called now. Of the two that stop, one that was pressed alone says so.
    function label(id, node, pending) {
        if (!names.has(id)) names.set(id, textOf(node)?.data.trim() || "");
        const other = STOPPING.includes(id) && STOPPING.find((one) => one !== id);
        const isMeant = pressed.has(id) || !pressed.has(other);
        return page.words.exact(pending.has(id) && isMeant ? BUTTONS[id].meanwhile : names.get(id));
    }

    function showOne(id, pending) {
        const node = page.dom.find(`#${id}`);
        if (!node) return;
        const [text, why] = [label(id, node, pending), reason(id, pending)];
        setLabel(node, text);
        page.dom.setAttribute(node, "aria-disabled", why ? "true" : null);
        page.dom.setAttribute(node, "title", why || null);
        page.dom.setAttribute(node, "aria-label", now ? `${text}: ${now.name}` : null);
    }

    function show() {
        const pending = new Set(Object.keys(BUTTONS).filter(isPending));
        for (const id of Object.keys(BUTTONS)) showOne(id, pending);
    }

    function drop(event) {
        event.preventDefault();
        event.stopPropagation();
    }

    // Before gradio's own listener.
    function clicked(event) {
        const id = Object.keys(BUTTONS).find((name) => event.target.closest(`#${name}`));
        if (!id) return;
        const node = page.dom.find(`#${id}`);
        if (node.getAttribute("aria-disabled") === "true") {
            page.dom.setText(page.dom.find("#train_lora_announced"), node.getAttribute("title") || "");
            drop(event);
        } else if (id === "train_lora_stop" && !confirm(page.words.say(DISCARD, {name: now.name}))) drop(event);
        else {
            pressed.set(id, {run: page.status.runOf(now), at: Date.now(), seen: false});
            show();
            page.status.pollSoon();
        }
    }

    document.addEventListener("trainLoraStatus", ({detail}) => {
        now = detail.job && page.status.isActive(detail.job.state) ? detail.job : null;
        show();
    });

    onUiLoaded(() => {
        for (const row of ["#train_lora_buttons", "#train_lora_more_buttons"]) page.dom.find(row)?.addEventListener("click", clicked, true);
        show();
    });

    return {};
})();
