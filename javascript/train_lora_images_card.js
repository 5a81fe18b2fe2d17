// One image: its thumbnail with the frame, what is true of it, and its caption.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.imagesCard = (() => {
    const page = window.trainLora;

    const change = (image, body) => page.images.change("PATCH", `/images/${image.id}`, body);

    // The largest that fits into a square.
    const shape = ([width, height]) => `aspect-ratio: ${width} / ${height}; width: ${Math.min(100 * width / height, 100)}%`;

    function picture() {
        const frame = page.imagesFrame.make((image, cut) => change(image, {cut}));
        const thumbnail = page.dom.view("img", "", {
            attributes: ({name, thumbnail: path}) => ({alt: name, src: path && page.api.url(path), loading: "lazy", draggable: "false"}),
        });
        const mask = page.dom.view("img", "train-lora-masked", { // black where it is not learned
            attributes: ({mask: path}) => ({alt: "", src: page.api.url(path), loading: "lazy", draggable: "false"}),
            needed: ({mask: path}) => path && page.imagesMasks.shown(),
        });
        const whole = page.dom.view("div", "train-lora-picture", {
            attributes: ({size}) => ({style: size ? shape(size) : null}), parts: [thumbnail, mask, frame],
        });
        return page.dom.view("div", "train-lora-mount", {parts: [whole]});
    }

    function make() {
        const {view, line, list, button} = page.dom;
        const head = view("div", "train-lora-image-head", {parts: [
            line("span", "train-lora-image-name", ({name}) => name),
            line("span", "train-lora-image-size", ({size}) => (size ? `${size[0]}×${size[1]}` : "")),
        ]});
        const job = ({name}) => name;
        const leaveOut = button("train-lora-small", {
            text: (image) => (image.left_out ? "Use" : "Leave out"), job, again: true,
            press: (image) => change(image, {left_out: !image.left_out}),
        });
        const whole = button("train-lora-small", {
            text: () => "Whole image", job, needed: ({crop}) => Boolean(crop),
            press: (image) => change(image, {crop: null, cut: null}),
        });
        const remove = button("train-lora-small", {
            text: () => "Remove", job, needed: ({removable}) => removable,
            press: (image) => page.images.change("DELETE", `/images/${image.id}`),
        });
        const mask = button("train-lora-small", {
            text: () => "Mask", job, needed: ({size, thumbnail}) => size && thumbnail && page.images.kind() === "images",
            press: (image) => page.imagesMask.edit(image),
        });
        const covers = line("span", "train-lora-tokens", ({covered}) => page.words.say("Mask: {percent} %", {percent: Math.round(100 * covered)}), ({has_mask: has}) => has);
        const tokens = view("span", "train-lora-tokens", {
            text: (image) => page.words.say("{tokens} of {limit} tokens", image),
            attributes: (image) => ({"data-over": image.tokens > image.limit || null}),
        });
        return view("article", "train-lora-image", {
            attributes: (image) => ({"data-left-out": image.left_out || null, "data-broken": image.problem ? true : null}),
            parts: [
                picture(), head, page.imagesCaption.make(change), view("div", "train-lora-image-head", {parts: [tokens, covers]}),
                view("div", "train-lora-row-buttons", {parts: [leaveOut, whole, mask, remove]}),
                list("train-lora-note", (image) => (image.problem ? [image.problem] : image.notices)),
            ],
        });
    }

    return {make};
})();
