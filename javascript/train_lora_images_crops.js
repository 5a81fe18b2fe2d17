// Crops of all or of the filtered images at once, with a count while the webui looks for what matters in each.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.imagesCrops = (() => {
    const page = window.trainLora;
    const MODES = {buckets: "Crop: as buckets", square: "Crop: square", focal: "Crop: focal point", face: "Crop: face"};
    const POLL_MS = 700;

    let mode = "buckets";
    let running = false;
    let told = "";
    let dataset = ""; // whose images are cropped

    const again = () => page.imagesPanel.show(page.images.data(), page.images.asked());
    const path = () => `datasets/${dataset}/crops`;

    async function count() {
        if (!running) return;
        const answer = await page.api.get(path());
        if (!running) return;
        if (answer.ok && answer.data.running) told = page.words.say("Cropped {done} of {total} images", answer.data);
        again();
        setTimeout(count, POLL_MS);
    }

    async function apply() {
        if (running) return;
        running = true;
        dataset = page.images.id();
        told = "Cropping";
        again();
        setTimeout(count, POLL_MS);
        const answer = await page.images.change("POST", "/crops", {mode, ...page.images.those()});
        running = false;
        told = "";
        if (answer.ok) {
            page.images.problems(answer.data.problems.map((problem) => ({text: problem})));
            page.imagesPanel.say(page.words.say("Images changed: {count}", answer.data));
        }
        again();
    }

    // The parts of the room's tools.
    function build() {
        const {button, line} = page.dom;
        const choice = page.imagesPanel.control("select", {"aria-label": "Crop"}, "change", (node) => {
            mode = node.value;
        });
        choice.node.append(...Object.entries(MODES).map(([value, text]) => new Option(text, value)));
        return [
            choice,
            button("train-lora-small", {text: () => "Apply", job: () => "crop", press: apply, again: true, needed: () => !running}),
            line("span", "train-lora-phase", () => told, () => running),
            button("train-lora-small", {text: () => "Stop", job: () => "crop", press: () => page.api.send("DELETE", path()), needed: () => running}),
        ];
    }

    return {build};
})();
