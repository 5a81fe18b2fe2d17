// The newest samples of a run: rows are prompts, columns are steps, the newest last.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.samples = (() => {
    const page = window.trainLora;
    const SAMPLE = "train-lora/sample";
    const SHOWN = 6; // columns

    function title() {
        const node = page.dom.element("th");
        return {
            node,
            show([step]) {
                page.dom.setText(node, step ? `Step ${step}` : "Before");
            },
        };
    }

    // `[step, path, text]`; no path if the prompt was added after the step.
    function picture() {
        const node = page.dom.element("td");
        const image = page.dom.element("img");
        return {
            node,
            show([, path, text]) {
                page.dom.arrange(node, path ? [image] : []);
                if (path) page.dom.setAttribute(image, "src", path);
                page.dom.setAttribute(image, "alt", text);
            },
        };
    }

    function row() {
        const node = page.dom.element("tr");
        const name = page.dom.element("th");
        const pictures = page.dom.keyed(([step]) => step, picture);
        return {
            node,
            show({job, prompt, place, steps}) {
                page.dom.setText(name, prompt);
                name.title = prompt;
                page.dom.arrange(node, [name, ...pictures(steps.map(([step, count]) => [
                    step, place < count ? `${SAMPLE}/${job.id}/${step}/${place}` : "", `${prompt}, step ${step}`,
                ]))]);
            },
        };
    }

    function table() {
        const node = page.dom.element("table", "train-lora-samples");
        const head = page.dom.element("tr");
        const corner = page.dom.element("th");
        const titles = page.dom.keyed(([step]) => step, title);
        const rows = page.dom.keyed(({place}) => place, row);
        return {
            node,
            show(job) {
                const steps = job.sampled.slice(-SHOWN);
                page.dom.arrange(head, [corner, ...titles(steps)]);
                page.dom.arrange(node, [head, ...rows(job.prompts.map((prompt, place) => ({job, prompt, place, steps})))]);
            },
        };
    }

    return {table};
})();
