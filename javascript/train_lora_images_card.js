// One image: its thumbnail with the frame, what is true of it, and its caption.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.imagesCard = (() => {
    const page = window.trainLora;
    const SAVE_MS = 800; // after the last letter

    // The caption field: it saves by itself, and what is being typed is never replaced.
    function captionField(idOf) {
        const node = page.dom.element("textarea", "train-lora-caption");
        node.rows = 3;
        node.spellcheck = false;
        node.dir = "auto";
        let saved = ""; // the text that the server has
        let timer = null;

        async function save() {
            clearTimeout(timer);
            timer = null;
            const text = node.value;
            if (text === saved) return;
            const answer = await page.images.change("PATCH", `/images/${idOf()}`, {caption: text, was: saved});
            if (answer.ok) saved = text;
            else if (answer.status === 409) saved = answer.data.now;
        }

        node.addEventListener("input", () => {
            clearTimeout(timer);
            timer = setTimeout(save, SAVE_MS);
        });
        node.addEventListener("blur", save);
        return {
            node,
            show({caption, name}) {
                page.dom.setAttribute(node, "aria-label", `Caption of ${name}`);
                if (node.value !== saved || timer) return; // typed, not saved yet
                saved = caption || "";
                if (node.value !== saved) node.value = saved;
            },
        };
    }

    function picture(frame) {
        const node = page.dom.element("div", "train-lora-picture");
        const image = page.dom.element("img");
        image.loading = "lazy";
        image.draggable = false;
        node.append(image, frame.node);
        return {
            node,
            show(item) {
                page.dom.setAttribute(image, "alt", item.name);
                page.dom.setAttribute(image, "src", item.thumbnail ? page.api.url(item.thumbnail) : null);
                if (item.size) node.style.aspectRatio = `${item.size[0]} / ${item.size[1]}`;
                frame.show(item);
            },
        };
    }

    function make() {
        const {element, setText, setAttribute} = page.dom;
        let item = null;
        const node = element("article", "train-lora-image");
        const change = (body) => page.images.change("PATCH", `/images/${item.id}`, body);
        const shown = picture(page.imagesFrame.make((cut) => change({cut})));
        const head = element("div", "train-lora-image-head");
        const name = element("span", "train-lora-image-name");
        const size = element("span", "train-lora-image-size");
        const leave = page.dom.button("train-lora-small", () => change({left_out: !item.left_out}), {again: true});
        const remove = page.dom.button("train-lora-small", () => page.images.change("DELETE", `/images/${item.id}`));
        const notices = page.dom.list("train-lora-note");
        const caption = captionField(() => item.id);
        const tokens = element("span", "train-lora-tokens");
        const buttons = element("div", "train-lora-row-buttons");
        buttons.append(leave.node, remove.node, tokens);
        head.append(name, size);
        node.append(shown.node, head, notices.node, caption.node, buttons);
        return {
            node,
            show(next) {
                item = next;
                shown.show(item);
                setText(name, item.name);
                setAttribute(name, "title", item.place);
                setText(size, item.size ? `${item.size[0]}×${item.size[1]}` : "");
                node.classList.toggle("train-lora-left-out", item.left_out);
                node.classList.toggle("train-lora-broken", Boolean(item.problem));
                notices.show(item.problem ? [item.problem] : item.notices);
                caption.show(item);
                setText(tokens, item.tokens === null ? "" : `${item.tokens} of ${item.limit} tokens`);
                tokens.classList.toggle("train-lora-over", item.tokens > item.limit);
                leave.show(item.left_out ? "Use" : "Leave out", item.name);
                remove.show("Remove", item.name);
                remove.node.hidden = !item.removable;
            },
        };
    }

    return {make};
})();
