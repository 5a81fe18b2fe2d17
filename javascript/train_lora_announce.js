// For screen readers: how a run begins and ends, what it waits for, and each quarter of its steps.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.announce = (() => {
    const page = window.trainLora;
    let told = null; // the last announcement

    function sentence(job) {
        const words = `${job.name}: ${page.progress.WORDS[job.state]}`;
        if (!page.status.isActive(job.state)) return [`${words}.`, ...job.problems, job.phase].filter(Boolean).join(" ");
        const quarter = job.total ? Math.floor(4 * job.step / job.total) : 0;
        return quarter ? `${words}, ${25 * quarter} %` : words;
    }

    document.addEventListener("trainLoraStatus", ({detail: {job}}) => {
        if (!job || page.train.hides(job)) return;
        const text = sentence(job);
        if (told === null && !page.status.isActive(job.state)) told = text; // it ended before the page was opened
        if (text === told) return;
        told = text;
        page.dom.setText(page.dom.find("#train_lora_announced"), text);
    });

    onUiLoaded(() => page.dom.find("#train_lora_message").setAttribute("role", "status"));
})();
