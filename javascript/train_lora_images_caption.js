// The caption field of an image: it saves by itself, what is being typed is never replaced, and of two texts none is lost.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.imagesCaption = (() => {
    const page = window.trainLora;
    const SAVE_MS = 800; // after the last letter

    const unsaved = new Map(); // key -> {text, saved, theirs} of captions that the server has not taken
    const key = ({dataset, id}) => `${dataset} ${id}`;

    // What another page wrote, and the choice whose text stays. `theirs`: their text; null if there is no conflict.
    function conflict(theirs, keep, take) {
        const {view, line, button} = page.dom;
        const choice = (text, press) => button("train-lora-small", {text: () => text, job: ({name}) => name, press});
        return view("div", "train-lora-theirs", {needed: () => theirs() !== null, parts: [
            line("span", "", () => "On another page it was changed to:"),
            view("p", "", {text: () => theirs() || "—", attributes: () => ({dir: "auto"})}),
            view("div", "train-lora-row-buttons", {parts: [choice("Keep mine", keep), choice("Take theirs", take)]}),
        ]});
    }

    // `change(image, body)` asks the server.
    function make(change) {
        const node = document.createElement("textarea");
        Object.assign(node, {className: "train-lora-caption", rows: 3, spellcheck: false, dir: "auto"});
        let image = null;
        let saved = ""; // the text that the server has
        let theirs = null;
        let timer = null;
        let saving = false;

        async function save() {
            clearTimeout(timer);
            timer = null;
            if (saving || theirs !== null || node.value === saved) return;
            const text = node.value;
            saving = true;
            const answer = await change(image, {caption: text, was: saved});
            saving = false;
            if (answer.ok) saved = text;
            else if (answer.status === 409) theirs = answer.data.now;
            note();
            if (answer.ok && !timer) save(); // what was typed meanwhile
        }

        // Keeps what the server has not taken: another page of images may be shown before it does.
        function note() {
            if (node.value === saved) unsaved.delete(key(image));
            else unsaved.set(key(image), {text: node.value, saved, theirs});
            all.show(image);
        }

        function settle(text) {
            saved = theirs;
            theirs = null;
            node.value = text;
            note();
            node.focus();
            return save();
        }

        node.addEventListener("input", () => {
            clearTimeout(timer);
            timer = setTimeout(save, SAVE_MS);
        });
        node.addEventListener("blur", save);
        const all = page.dom.view("div", "", {
            parts: [{node, show() {}}, conflict(() => theirs, () => settle(node.value), () => settle(theirs))],
        });

        function renew() {
            const now = image.caption || "";
            if (theirs !== null) theirs = now;
            if (node.value !== saved || timer || saving) return; // typed, not saved yet
            saved = now;
            if (node.value !== now) node.value = now;
        }

        return {
            node: all.node,
            show(shown) {
                const kept = image === null && unsaved.get(key(shown));
                if (kept) ({text: node.value, saved, theirs} = kept);
                image = shown;
                page.dom.setAttribute(node, "aria-label", page.words.say("Caption of {name}", image));
                renew();
                all.show(image);
            },
        };
    }

    return {make};
})();
