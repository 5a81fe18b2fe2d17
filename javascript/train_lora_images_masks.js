// How many images of a dataset have a mask, why training does not use them, and whether they are shown.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.imagesMasks = (() => {
    const page = window.trainLora;
    const SHARE = "Masks: {count} of {images} images, covering {percent} % on average.";
    let seen = true;

    function toggle() {
        seen = !seen;
        page.imagesPanel.show(page.images.data(), page.images.asked());
    }

    function build() {
        const {view, line, button} = page.dom;
        const share = ({masks: {count, covered}, counts}) => page.words.say(SHARE, {
            count, images: counts.all - counts.left_out, percent: Math.round(100 * covered),
        });
        return view("div", "train-lora-row-buttons", {
            needed: ({data}) => data.masks.count > 0 && page.images.kind() === "images",
            parts: [
                line("span", "train-lora-note", ({data}) => share(data)),
                button("train-lora-small", {
                    text: () => "Show masks", again: true, press: toggle, attributes: () => ({"aria-pressed": String(seen)}),
                }),
                view("strong", "", {text: ({data}) => data.masks.unused, attributes: () => ({role: "status"})}),
            ],
        });
    }

    return {build, shown: () => seen};
})();
