// The switch between the two datasets of the Images room: images to learn from, and regularisation images.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.imagesKinds = (() => {
    const page = window.trainLora;
    const KINDS = {images: "Images", reg: "Regularisation"};
    const STEPS = {ArrowLeft: -1, ArrowRight: 1};
    const HELP = "Images of the class, such as other cats, so that the model does not forget it.";
    const WITHOUT = "Those without a caption are trained as '{name}'; rename the dataset to the class.";

    const isChosen = (kind) => page.images.kind() === kind;

    function tabs() {
        const made = page.dom.view("div", "train-lora-kinds", {
            attributes: () => ({role: "tablist", "aria-label": "Kind of images"}),
            items: () => Object.keys(KINDS), key: (kind) => kind,
            make: () => page.dom.button("train-lora-kind", {
                text: (kind) => KINDS[kind], again: true, press: page.images.turn,
                attributes: (kind) => ({
                    role: "tab", id: `train_lora_kind_${kind}`, "aria-selected": String(isChosen(kind)),
                    "aria-controls": "train_lora_kind_panel", tabindex: isChosen(kind) ? "0" : "-1",
                }),
            }),
        });
        made.node.addEventListener("keydown", (event) => {
            if (!STEPS[event.key]) return;
            event.preventDefault();
            const names = Object.keys(KINDS);
            const to = names[(names.indexOf(page.images.kind()) + STEPS[event.key] + names.length) % names.length];
            page.dom.find(`#train_lora_kind_${to}`).focus();
            page.images.turn(to);
        });
        return made;
    }

    // What the images without a caption are trained as.
    const without = () => {
        const name = page.imagesDatasets.current();
        return name ? page.words.say(WITHOUT, {name}) : "";
    };

    // The parts of the room: the switch, and what it shows.
    function build(parts) {
        const help = page.dom.line("p", "train-lora-note", () => `${page.words.say(HELP)} ${without()}`.trim(), () => isChosen("reg"));
        const panel = page.dom.view("div", "train-lora-dataset", {
            attributes: () => ({
                role: "tabpanel", id: "train_lora_kind_panel", "aria-labelledby": `train_lora_kind_${page.images.kind()}`,
            }),
            parts: [help, ...parts],
        });
        return [tabs(), panel];
    }

    return {build};
})();
